"""The default diariser: voices of short windows, clustered into speakers, then turns cut at a finer grid.

Takes one-channel speech of an unknown number of people and gives turns whose edges are right within a few tenths of a
second. Where each person has a channel, or an array of microphones is at hand, those say more about who speaks. Turns
of one microphone never overlap: on the calibration recordings, every rule for a second speaker tried on these voices
raised the error.

Clustering. With x_i the unit vectors of 1.6 s windows, w_i how many windows a unit stands for, and N their number,
K-means started from Ward's tree minimises for each K

    SSE(K) = sum_i w_i |x_i - m_{k(i)}|^2

and the number of speakers is the K with the smallest Bayesian information criterion (Schwarz 1978, spherical Gaussians
of one variance; lambda stands for that variance times the effective number of parameters of a speaker)

    J(K) = SSE(K) + lambda K log N    subject to    max over k, i, j != k; a, b >= 0 of cos(m_k, a m_i + b m_j) <= kappa

The constraint refuses a "speaker" whose voice is another one's, or a mixture of two others': that is what windows in
which two people speak look like.

Turns. With y_t the vectors of 0.8 s windows and c_k the unit mean of those that lie in cluster k, the best path through

    sum_t  beta cos(y_t, c_{k_t})  +  log p(k_t | k_{t-1}),        p = stay if k_t = k_{t-1}

gives each moment its speaker.

Known to fail: SSE grows with N and its cost only with log N, so recordings of more than about two minutes are split
into too many speakers, with a confidence near 1; the calibration has none so long. Overlapped speech is often counted
as a further person. Where the number of people is known, give it.

The constants lambda, kappa, beta and stay come from `scripts/calibrate_voices.py`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from wieldy.errors import UsageError
from wieldy.speech.audio import Recording
from wieldy.speech.diarize import Diarization, SpeakerCount
from wieldy.speech.transcript import Span, Turn, merge_turns
from wieldy.speech.voices import WINDOW_MS, SpeakerEncoder, Windows, unit

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

MAX_UNITS = 3_000  # enter the clustering, whose memory grows with the square: 36 MB of distances
MAX_GUESS = 12  # speakers, where nobody says how many there are


@dataclass(frozen=True, kw_only=True)
class DVectorConfig:
    """How the default diariser works. Times in milliseconds; the last four are calibrated."""

    cluster_hop_ms: int = 800  # from one 1.6 s window to the next, for telling speakers apart, [100, 1600]
    turn_window_ms: int = 800  # heard at a time to place the edges of turns, [400, 1600]
    turn_hop_ms: int = 400  # from one of those to the next, [50, turn_window_ms]
    speaker_cost: float = 0.38  # lambda: what another speaker must gain, > 0; higher finds fewer people
    max_likeness: float = 0.96  # kappa: cosine to a mixture of two others above which a voice is no other, (0, 1]
    sharpness: float = 16.0  # beta: weight of a window's voice against staying with a speaker, > 0
    stay: float = 0.6  # probability of going on with the same speaker from one window to the next, [0.5, 1)
    threads: int | None = None  # cores the encoder may use, >= 1; None: all

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("cluster_hop_ms", 100 <= self.cluster_hop_ms <= WINDOW_MS, f"from 100 to {WINDOW_MS}"),
            ("turn_window_ms", 400 <= self.turn_window_ms <= WINDOW_MS, f"from 400 to {WINDOW_MS}"),
            ("turn_hop_ms", 50 <= self.turn_hop_ms <= self.turn_window_ms, "from 50 to turn_window_ms"),
            ("speaker_cost", self.speaker_cost > 0, "above 0"),
            ("max_likeness", 0 < self.max_likeness <= 1, "above 0, at most 1"),
            ("sharpness", self.sharpness > 0, "above 0"),
            ("stay", 0.5 <= self.stay < 1, "at least 0.5 and below 1"),
            ("threads", self.threads is None or self.threads >= 1, "at least 1"),
        ):
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be {rule}")


class DVectorDiarizer:
    """`Diarizer` by d-vectors."""

    name = "dvector"

    def __init__(self, config: DVectorConfig = DVectorConfig()) -> None:
        self.config = config
        self._encoder = SpeakerEncoder(threads=config.threads or os.cpu_count() or 1)

    def diarize(
        self, recording: Recording, speech: Sequence[Span], count: SpeakerCount = SpeakerCount()
    ) -> Diarization:
        """See `Diarizer`. A speaker asked for whom nobody's voice fits gets no turn, and a warning says so."""
        config = self.config
        windows = self._encoder.embed_regions(recording, speech, hop_ms=config.cluster_hop_ms)
        if not len(windows):
            return Diarization(())
        units, weights = merge_alike(windows, MAX_UNITS)
        labels, confidence = find_speakers(units.vectors.astype(np.float64), weights, count, config)
        fine = self._encoder.embed_regions(
            recording, speech, window_ms=config.turn_window_ms, hop_ms=config.turn_hop_ms
        )
        turns, voices = cut_turns(speech, units, labels, fine, config)
        warnings: tuple[str, ...] = ()
        wanted = count.exactly or count.at_least
        if len(voices) < wanted:
            warnings = (f"{wanted} speakers were asked for and {len(voices)} can be told apart",)
        return Diarization(turns, voices, confidence, warnings)


def merge_alike(windows: Windows, limit: int) -> tuple[Windows, Floats]:
    """At most `limit` units in place of the windows, and how many windows each stands for, float64 [units].

    Windows that follow each other are joined where they are most alike, so that a long recording keeps its changes of
    speaker. A unit's vector is the unit mean of its windows.
    """
    excess = len(windows) - limit
    if excess <= 0:
        return windows, np.ones(len(windows))
    likeness = (windows.vectors[1:] * windows.vectors[:-1]).sum(axis=1)
    joined = np.zeros(len(windows) - 1, bool)
    joined[np.argsort(-likeness, kind="stable")[:excess]] = True
    firsts = np.flatnonzero(np.concatenate([[True], ~joined]))
    lasts = np.append(firsts[1:], len(windows)) - 1
    sums = np.add.reduceat(windows.vectors.astype(np.float64), firsts)
    spans = np.stack([windows.spans_ms[firsts, 0], windows.spans_ms[lasts, 1]], axis=1)
    return Windows(spans, unit(sums).astype(np.float32)), (lasts - firsts + 1).astype(np.float64)


def find_speakers(vectors: Floats, weights: Floats, count: SpeakerCount, config: DVectorConfig) -> tuple[Labels, float]:
    """A speaker for each unit, int [n] from 0, and how clearly their number stood out, [0, 1].

    The confidence is 1 - exp(-gap / lambda), gap the difference of J between the best and the second-best number; 1.0
    where the number was given.
    """
    total = len(vectors)
    if count.exactly is not None:
        lowest = highest = min(count.exactly, total)
    else:
        lowest = min(count.at_least, total)
        highest = max(lowest, min(count.at_most or MAX_GUESS, total))
    tree = hierarchy.linkage(vectors, "ward") if total > 1 else None
    found: list[tuple[float, Labels]] = []
    for speakers in range(lowest, highest + 1):
        start = hierarchy.fcluster(tree, speakers, "maxclust") - 1 if tree is not None else np.zeros(1, np.int64)
        labels, means = kmeans(vectors, weights, start.astype(np.int64))
        sse = float((weights * ((vectors - means[labels]) ** 2).sum(axis=1)).sum())
        score = sse + config.speaker_cost * speakers * np.log(max(weights.sum(), 2.0))
        if speakers > lowest and likest(means) > config.max_likeness:
            score = np.inf
        found.append((score, labels))
    ranked = sorted(range(len(found)), key=lambda index: found[index][0])
    confidence = 1.0
    if len(ranked) > 1:
        gap = found[ranked[1]][0] - found[ranked[0]][0]
        confidence = float(1 - np.exp(-gap / config.speaker_cost))
    return found[ranked[0]][1], confidence


def kmeans(vectors: Floats, weights: Floats, labels: Labels, rounds: int = 10) -> tuple[Labels, Floats]:
    """Lloyd's algorithm from given labels: labels int [n] from 0, no number unused, and means [clusters, d]."""
    labels = np.unique(labels, return_inverse=True)[1]
    means = _means(vectors, weights, labels)
    for _ in range(rounds):
        # |x - m|^2 without the |x|^2 that all clusters share
        distance = (means**2).sum(axis=1) - 2 * vectors @ means.T
        moved = np.unique(distance.argmin(axis=1), return_inverse=True)[1]
        if np.array_equal(moved, labels):
            break
        labels, means = moved, _means(vectors, weights, moved)
    return labels, means


def likest(means: Floats) -> float:
    """The largest cosine between one of the means [clusters, d] and a mixture of two others; -1 for a single one.

    For unit means u and cosines g, the mixture of i and j nearest to k has the weights a = (g_ki - g_ij g_kj) / (1 -
    g_ij^2) and b likewise, and the cosine sqrt(a g_ki + b g_kj); where a or b is negative, the nearer of the two alone.
    """
    if len(means) < 2:
        return -1.0
    g = unit(means) @ unit(means).T
    best = float(g[~np.eye(len(g), dtype=bool)].max())
    for i, j in itertools.combinations(range(len(g)), 2):
        a = g[i] - g[i, j] * g[j]
        b = g[j] - g[i, j] * g[i]
        inside = (a > 0) & (b > 0)
        inside[[i, j]] = False
        mixed = np.sqrt((a * g[i] + b * g[j])[inside] / max(1 - g[i, j] ** 2, 1e-12))
        best = max(best, float(mixed.max(initial=-1.0)))
    return best


def cut_turns(
    speech: Sequence[Span], units: Windows, labels: Labels, fine: Windows, config: DVectorConfig
) -> tuple[tuple[Turn, ...], dict[str, NDArray[np.float32]]]:
    """Turns over the speech regions from the finer windows, and each speaker's voice as their unit mean.

    A turn's confidence is the mean probability of its speaker, from the same scores as the path.
    """
    if not len(fine):
        return (), {}
    own = labels[_nearest(units.centres_ms, fine.centres_ms)]
    speakers = np.unique(own)
    voices = np.stack([unit(fine.vectors[own == k].mean(axis=0)) for k in speakers])
    scores = config.sharpness * (fine.vectors @ voices.T).astype(np.float64)
    path = best_path(scores, config.stay)
    chosen = np.exp(scores - scores.max(axis=1, keepdims=True))
    chosen /= chosen.sum(axis=1, keepdims=True)
    names: dict[int, str] = {}
    turns = []
    for region in speech:
        inside = np.flatnonzero((fine.centres_ms >= region.start_ms) & (fine.centres_ms <= region.end_ms))
        if not len(inside):  # nothing of this region could be heard: the nearest voice has it
            inside = _nearest(fine.centres_ms, np.array([(region.start_ms + region.end_ms) / 2]))
        centres = fine.centres_ms[inside]
        middles = ((centres[1:] + centres[:-1]) / 2).round().astype(int).tolist()
        edges = [region.start_ms, *middles, region.end_ms]
        for (start, end), window in zip(itertools.pairwise(edges), inside.tolist(), strict=True):
            name = names.setdefault(int(path[window]), f"S{len(names) + 1}")
            turns.append(Turn(start, end, name, confidence=float(chosen[window, path[window]])))
    return merge_turns(turns), {name: voices[k].astype(np.float32) for k, name in names.items()}


def best_path(scores: Floats, stay: float) -> Labels:
    """Viterbi over scores [steps, speakers]: int [steps]. `stay` is at least 0.5, the rest is shared by the others."""
    steps, speakers = scores.shape
    if speakers == 1:
        return np.zeros(steps, np.int64)
    cost = np.log(stay) - np.log((1 - stay) / (speakers - 1))  # of a change against staying
    came_from = np.empty((steps, speakers), np.int64)
    total = scores[0].copy()
    for t in range(1, steps):
        leader = int(total.argmax())
        changes = total[leader] - cost > total
        came_from[t] = np.where(changes, leader, np.arange(speakers))
        total = np.where(changes, total[leader] - cost, total) + scores[t]
    path = np.empty(steps, np.int64)
    path[-1] = total.argmax()
    for t in range(steps - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path


def _means(vectors: Floats, weights: Floats, labels: Labels) -> Floats:
    mass = np.bincount(labels, weights)
    sums = np.zeros((len(mass), vectors.shape[1]))
    np.add.at(sums, labels, weights[:, None] * vectors)
    return np.asarray(sums / mass[:, None])


def _nearest(sorted_points: Floats, points: Floats) -> Labels:
    """Index of the nearest of `sorted_points` [n] for each of `points` [m]."""
    right = np.searchsorted(sorted_points, points).clip(0, len(sorted_points) - 1)
    left = np.maximum(right - 1, 0)
    closer = np.abs(sorted_points[left] - points) <= np.abs(sorted_points[right] - points)
    return np.asarray(np.where(closer, left, right), np.int64)
