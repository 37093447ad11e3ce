"""The default diariser: voices of short windows, clustered into speakers, then turns cut at a finer grid.

Takes one-channel speech of an unknown number of people and gives turns whose edges are right within a few tenths of a
second. Where each person has a channel, or an array of microphones is at hand, those say more about who speaks. Turns
of one microphone never overlap: on the calibration recordings, every rule for a second speaker tried on these voices
raised the error.

Clustering. With x_i the unit vectors of 1.6 s windows and w_i how many windows a unit stands for, K-means started from
Ward's tree minimises sum_i w_i |x_i - m_{k(i)}|^2 for each number of speakers K. Whether its clusters are different
people is judged by the products of their voices,

    s_kl = mean of x_i . x_j over pairs i in k, j in l that share no audio,
    s_kk = (sum over the P_k pairs within k + n_0 s_0) / (P_k + n_0),

which, unlike the distances of the means, do not depend on how much was said: two halves of what one person says are as
alike after an hour as after a minute. The few windows of a small cluster agree by chance; n_0 pairs of product s_0
stand against that. With c_kl = s_kl / sqrt(s_kk s_ll) the cosines of the voices, the number of speakers is the largest
K at which nobody's voice is like another one's or a mixture of two others',

    max over k, i, j != k; a, b >= 0 of cos(voice_k, a voice_i + b voice_j) <= kappa.

Mixtures are what windows in which two people speak look like, at once or one after the other. Most of those are left
out of the count beforehand: where there are `enough` windows, only the `kept` share of them enters it that is most
like the next window before or after that shares no audio with it.

Turns. With y_t the vectors of 0.8 s windows and c_k the unit mean of those that lie in cluster k, the best path through

    sum_t  beta cos(y_t, c_{k_t})  +  log p(k_t | k_{t-1}),        p = stay if k_t = k_{t-1}

gives each moment its speaker.

Known to fail: people who say only a few words, and voices that a telephone makes alike, are taken for one person;
overlapped speech may still be counted as a further one. Where the number of people is known, give it.

The constants enough, kept, kappa, n_0, beta and stay come from `scripts/calibrate_voices.py`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import hierarchy
from scipy.special import expit

from wieldy.errors import UsageError
from wieldy.speech.audio import Recording
from wieldy.speech.diarize import Diarization, SpeakerCount
from wieldy.speech.transcript import Span, Turn, merge_turns
from wieldy.speech.voices import WINDOW_MS, SpeakerEncoder, Windows, unit

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

MAX_UNITS = 3_000  # enter the clustering, whose memory grows with the square: 36 MB of distances
MAX_GUESS = 12  # speakers, where nobody says how many there are
# s_0, below the 0.7 to 0.9 of the calibration's speakers: a small cluster is doubted. 0.75 was tried too and was worse.
PRIOR_PRODUCT = 0.65
# From the angle (radians) to the nearest mixture to the log-odds that somebody else speaks: the slope of a logistic
# fit to the numbers of speakers at and above the true one, calibration recordings.
LOG_ODDS_PER_RADIAN = 30.0
UNSURE = 0.5  # confidence below which the number is more likely wrong than right; no calibration recording has less


@dataclass(frozen=True, kw_only=True)
class DVectorConfig:
    """How the default diariser works. Times in milliseconds; the last six are calibrated."""

    cluster_hop_ms: int = 800  # from one 1.6 s window to the next, for telling speakers apart, [100, 1600]
    turn_window_ms: int = 800  # heard at a time to place the edges of turns, [400, 1600]
    turn_hop_ms: int = 400  # from one of those to the next, [50, turn_window_ms]
    enough: int = 80  # windows from which on only the purest are counted, >= 1
    kept: float = 0.6  # share of windows, those most like a neighbour, that speakers are counted in then, (0, 1]
    max_likeness: float = 0.93  # kappa: cosine to a mixture of two others above which a voice is no other, (0, 1]
    prior_pairs: float = 24.0  # n_0: against the chance likeness of few windows, > 0; higher finds fewer people
    sharpness: float = 16.0  # beta: weight of a window's voice against staying with a speaker, > 0
    stay: float = 0.6  # probability of going on with the same speaker from one window to the next, [0.5, 1)
    threads: int | None = None  # cores the encoder may use, >= 1; None: all

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("cluster_hop_ms", 100 <= self.cluster_hop_ms <= WINDOW_MS, f"from 100 to {WINDOW_MS}"),
            ("turn_window_ms", 400 <= self.turn_window_ms <= WINDOW_MS, f"from 400 to {WINDOW_MS}"),
            ("turn_hop_ms", 50 <= self.turn_hop_ms <= self.turn_window_ms, "from 50 to turn_window_ms"),
            ("enough", self.enough >= 1, "at least 1"),
            ("kept", 0 < self.kept <= 1, "above 0, at most 1"),
            ("max_likeness", 0 < self.max_likeness <= 1, "above 0, at most 1"),
            ("prior_pairs", self.prior_pairs > 0, "above 0"),
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
        number, confidence = count_speakers(windows, count, config)
        units, weights = merge_alike(windows, MAX_UNITS)
        labels = partition(units, weights, ward(units), number)
        fine = self._encoder.embed_regions(
            recording, speech, window_ms=config.turn_window_ms, hop_ms=config.turn_hop_ms
        )
        turns, voices = cut_turns(speech, units, labels, fine, config)
        warnings: tuple[str, ...] = ()
        wanted = count.exactly or count.at_least
        if len(voices) < wanted:
            warnings = (f"{wanted} speakers were asked for and {len(voices)} can be told apart",)
        elif confidence < UNSURE:
            warnings = (f"the number of speakers, {len(voices)}, is a guess; give it if you know it",)
        return Diarization(turns, voices, confidence, warnings)


def merge_alike(windows: Windows, limit: int) -> tuple[Windows, Floats]:
    """At most `limit` units in place of the windows, and how many windows each stands for, float64 [units].

    Windows that follow each other are joined where they are most alike, so that a long recording keeps its changes of
    speaker. A unit's vector is the unit mean of its windows.
    """
    excess = len(windows) - limit
    if excess <= 0:
        return windows, np.ones(len(windows))
    likeness = np.einsum("nd,nd->n", windows.vectors[1:], windows.vectors[:-1])
    joined = np.zeros(len(windows) - 1, bool)
    joined[np.argsort(-likeness, kind="stable")[:excess]] = True
    firsts = np.flatnonzero(np.concatenate([[True], ~joined]))
    lasts = np.append(firsts[1:], len(windows)) - 1
    sums = np.add.reduceat(windows.vectors, firsts, dtype=np.float64)
    spans = np.stack([windows.spans_ms[firsts, 0], windows.spans_ms[lasts, 1]], axis=1)
    return Windows(spans, unit(sums).astype(np.float32)), (lasts - firsts + 1).astype(np.float64)


def count_speakers(windows: Windows, count: SpeakerCount, config: DVectorConfig) -> tuple[int, float]:
    """How many people speak, at most one per window, and how clearly that stood out, [0, 1].

    The confidence is the probability that all of them are different people times the probability that, were there one
    more, not all of them would be; 1.0 where the number was given.
    """
    total = len(windows)
    if count.exactly is not None:
        return min(count.exactly, total), 1.0
    lowest = min(count.at_least, total)
    highest = max(lowest, min(count.at_most or MAX_GUESS, total))
    if lowest == highest:
        return lowest, 1.0
    units, weights = merge_alike(purest(windows, config.kept) if total >= config.enough else windows, MAX_UNITS)
    tree = ward(units)
    one_more_differs = 0.0
    for number in range(max(lowest, min(highest, len(units))), lowest - 1, -1):
        labels = partition(units, weights, tree, number)
        likeness = likest(cosines_of_voices(units, weights, labels, config.prior_pairs))
        differ = probability_of_others(likeness, config.max_likeness)
        if likeness <= config.max_likeness:
            break
        one_more_differs = differ
    return number, differ * (1 - one_more_differs)


def purest(windows: Windows, share: float) -> Windows:
    """The `share` of the windows that is most like a neighbour: the next one before or after that shares no audio with
    it and begins within a window's length of it. Those without a neighbour stay."""
    if not len(windows):
        return windows
    starts, ends = windows.spans_ms.T
    following = np.searchsorted(starts, ends)
    (near,) = np.nonzero(starts[np.minimum(following, len(starts) - 1)] - ends < WINDOW_MS)
    near = near[following[near] < len(starts)]
    likeness = np.einsum("nd,nd->n", windows.vectors[near], windows.vectors[following[near]]).astype(np.float64)
    best = np.full(len(windows), -np.inf)
    np.maximum.at(best, near, likeness)
    np.maximum.at(best, following[near], likeness)
    pure = (best == -np.inf) | (best >= np.quantile(best[best > -np.inf], 1 - share) if len(near) else True)
    return Windows(windows.spans_ms[pure], windows.vectors[pure])


def ward(units: Windows) -> Floats:
    """Ward's tree, as scipy writes it; empty for a single unit."""
    return hierarchy.linkage(units.vectors.astype(np.float64), "ward") if len(units) > 1 else np.empty((0, 4))


def partition(units: Windows, weights: Floats, tree: Floats, number: int) -> Labels:
    """At most `number` clusters: K-means from a cut of the tree, labels int [units] from 0."""
    if not len(tree):
        return np.zeros(len(units), np.int64)
    start = hierarchy.fcluster(tree, number, "maxclust") - 1
    return kmeans(units.vectors.astype(np.float64), weights, start.astype(np.int64))[0]


def probability_of_others(likeness: float, max_likeness: float) -> float:
    """That a voice as like a mixture of others as this, a cosine, is somebody else's; 1/2 at `max_likeness`."""
    angle = np.arccos(np.clip(likeness, -1, 1)) - np.arccos(max_likeness)
    return float(expit(LOG_ODDS_PER_RADIAN * angle))


def cosines_of_voices(units: Windows, weights: Floats, labels: Labels, prior_pairs: float) -> Floats:
    """c_kl of the module's text, [clusters, clusters], from all pairs of units that share no audio."""
    clusters = int(labels.max()) + 1
    vectors = units.vectors.astype(np.float64)
    sums, mass = _sums(vectors, weights, labels)
    products: Floats = sums @ sums.T
    pairs: Floats = mass[:, None] * mass
    starts, ends = units.spans_ms.T
    i = np.arange(len(units))
    sharing = i
    step = 0
    while len(sharing):  # pairs (i, i + step) that share audio: the unit with itself, then neighbours
        here, there = labels[sharing], labels[sharing + step]
        both = weights[sharing] * weights[sharing + step]
        product = both * (vectors[sharing] * vectors[sharing + step]).sum(axis=1)
        for a, b in ((here, there), (there, here)) if step else ((here, there),):
            np.subtract.at(products, (a, b), product)
            np.subtract.at(pairs, (a, b), both)
        step += 1
        sharing = i[: len(i) - step][starts[step:] < ends[: len(i) - step]]
    products += np.eye(clusters) * prior_pairs * PRIOR_PRODUCT
    pairs += np.eye(clusters) * prior_pairs
    # Clusters all of whose windows share audio cannot be told apart.
    s = np.where(pairs > 0.5, products / np.maximum(pairs, 0.5), 1.0)
    length = np.sqrt(np.maximum(s.diagonal(), 1e-6))
    return np.asarray(np.clip(s / np.outer(length, length), -1, 1))


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


def likest(cosines: Floats) -> float:
    """The largest cosine between one of the voices and a mixture of two others; -1 for a single voice.

    From the cosines [n, n] of the voices. With g their entries, the mixture of i and j nearest to k has the weights
    a = (g_ki - g_ij g_kj) / (1 - g_ij^2) and b likewise, and the cosine sqrt(a g_ki + b g_kj); where a or b is
    negative, the nearer of the two alone.
    """
    if len(cosines) < 2:
        return -1.0
    g = cosines
    best = float(g[~np.eye(len(g), dtype=bool)].max())
    for i, j in itertools.combinations(range(len(g)), 2):
        a = g[i] - g[i, j] * g[j]
        b = g[j] - g[i, j] * g[i]
        inside = (a > 0) & (b > 0)
        inside[[i, j]] = False
        mixed = np.sqrt((a * g[i] + b * g[j])[inside] / max(1 - g[i, j] ** 2, 1e-12))
        best = max(best, float(mixed.max(initial=-1.0)))
    return min(best, 1.0)


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
    sums, mass = _sums(vectors, weights, labels)
    return np.asarray(sums / mass[:, None])


def _sums(vectors: Floats, weights: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """The weighted sum of each cluster's vectors [clusters, d] and its weight [clusters]."""
    mass = np.bincount(labels, weights).astype(np.float64)
    sums = np.zeros((len(mass), vectors.shape[1]))
    np.add.at(sums, labels, weights[:, None] * vectors)
    return sums, mass


def _nearest(sorted_points: Floats, points: Floats) -> Labels:
    """Index of the nearest of `sorted_points` [n] for each of `points` [m]."""
    right = np.searchsorted(sorted_points, points).clip(0, len(sorted_points) - 1)
    left = np.maximum(right - 1, 0)
    closer = np.abs(sorted_points[left] - points) <= np.abs(sorted_points[right] - points)
    return np.asarray(np.where(closer, left, right), np.int64)
