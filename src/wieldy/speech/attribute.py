r"""Which speaker said each word: recognised words and diarised turns in, attributed words out.

Assigning each word to the turn it overlaps most flips speakers in mid-sentence wherever a turn's edge or a word's time
is a little off. Here the words are labelled together, by the best path through all of them:

    maximise  sum_t  e_t(k_t)  +  sum_t  c_t(k_{t-1}, k_t)

    e_t(k)    = (share of the word, widened by `reach_ms`, that lies in turns of speaker k) * turn confidence
    c_t(j, k) = + continuity   if j = k and the pause before word t is shorter than `pause_ms`
              = - change_cost  if j != k and nothing speaks for a change: no pause, no end of sentence, no change
                               marked by the recogniser

k_t ranges over the speakers and "unknown", which wins only where no turn is near. Words heard on one channel or
separated stream meet only the turns of that stream and form a path of their own. O(words x speakers).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wieldy.errors import UsageError
from wieldy.speech.transcript import UNKNOWN, Turn, Word, merge_turns

SENTENCE_END = (".", "?", "!", "…", "。", "？", "！")


@dataclass(frozen=True, kw_only=True)
class AttributionConfig:
    """How words are given to speakers. Times in milliseconds, scores in shares of a word (0 to 1)."""

    method: Literal["viterbi", "max-overlap"] = "viterbi"  # max-overlap judges each word alone: the comparison arm
    reach_ms: int = 50  # a word is widened by this on both sides: recognisers' times are not exact
    near_ms: int = 500  # a word in a gap goes to the nearest turn within this, else to nobody
    pause_ms: int = 250  # a pause this long makes a change of speaker plausible
    continuity: float = 0.15  # for staying with a speaker without a pause
    change_cost: float = 0.15  # for changing speaker where nothing speaks for it
    min_run_words: int = 2  # a run of words inside another speaker's sentence is believed if it has this many words
    min_run_ms: int = 600  # or lasts this long

    def __post_init__(self) -> None:
        if self.method not in ("viterbi", "max-overlap"):
            raise UsageError(f"attribution method {self.method!r}", hint="choose viterbi or max-overlap")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and value < 0:
                raise UsageError(f"{field.name} is {value}", hint="it must not be negative")


# Emission of "unknown" where a turn is near and where none is. The second exceeds `continuity`, so that a word far
# from every turn is not carried along; the first loses to any word that lies in or close to a turn.
_UNKNOWN_NEAR, _UNKNOWN_FAR = 0.0, 0.5
# What the nearest turn of a word in a gap is worth at distance 0; it falls to 0 at `near_ms`.
_NEAREST = 0.25


def attribute(
    words: Sequence[Word],
    turns: Sequence[Turn],
    config: AttributionConfig = AttributionConfig(),
    changes: Collection[int] = (),
) -> tuple[Word, ...]:
    """The words, sorted by start as given, each with `speaker` and `speaker_confidence` set.

    `changes` are indices of words at which the recogniser itself heard another voice begin. The confidence is the
    speaker's share of e_t over all speakers.
    """
    attributed: dict[int, Word] = {}
    for stream in {word.stream for word in words}:
        indices = [index for index, word in enumerate(words) if word.stream == stream]
        marked = {position for position, index in enumerate(indices) if index in changes}
        own_turns = [turn for turn in turns if turn.stream == stream]
        labelled = _attribute_stream([words[index] for index in indices], own_turns, config, marked)
        attributed.update(zip(indices, labelled, strict=True))
    return tuple(attributed[index] for index in range(len(words)))


def _attribute_stream(
    words: Sequence[Word], turns: Sequence[Turn], config: AttributionConfig, changes: Collection[int]
) -> list[Word]:
    speakers = list(dict.fromkeys(turn.speaker for turn in turns))
    if not speakers:
        return [dataclasses.replace(word, speaker=UNKNOWN, speaker_confidence=None) for word in words]
    emission = emissions(words, turns, speakers, config)
    if config.method == "max-overlap":
        path = emission.argmax(axis=1)
    else:
        stay, change = transitions(words, config, changes)
        path = _drop_thin_runs(best_path(emission, stay, change), words, change, config)
    mass = emission[:, :-1].sum(axis=1)
    return [
        dataclasses.replace(word, speaker=UNKNOWN, speaker_confidence=None)
        if k == len(speakers)
        else dataclasses.replace(
            word, speaker=speakers[k], speaker_confidence=float(scores[k] / total) if total > 0 else 0.0
        )
        for word, scores, k, total in zip(words, emission, path, mass, strict=True)
    ]


def emissions(
    words: Sequence[Word], turns: Sequence[Turn], speakers: Sequence[str], config: AttributionConfig
) -> np.ndarray:
    """e_t(k), float64 [words, speakers + 1]; the last column is "unknown"."""
    start = np.array([word.start_ms for word in words], dtype=float)
    end = np.array([word.end_ms for word in words], dtype=float)
    lo, hi = np.maximum(start - config.reach_ms, 0), end + config.reach_ms
    emission = np.zeros((len(words), len(speakers) + 1))
    distance = np.empty((len(words), len(speakers)))
    for k, speaker in enumerate(speakers):
        own = sorted((turn for turn in turns if turn.speaker == speaker), key=lambda turn: turn.start_ms)
        # Turns of one speaker are disjoint: their weighted coverage up to a time is piecewise linear in that time.
        edges = np.array([edge for turn in own for edge in (turn.start_ms, turn.end_ms)], dtype=float)
        covered = np.cumsum([gain for turn in own for gain in (0.0, turn.confidence * turn.duration_ms)])
        emission[:, k] = (np.interp(hi, edges, covered) - np.interp(lo, edges, covered)) / np.maximum(hi - lo, 1)
        distance[:, k] = _distance(start, end, edges[::2], edges[1::2])
    nearest = distance.argmin(axis=1)
    closest = distance.min(axis=1)
    (in_gap,) = np.nonzero((closest > 0) & (closest <= config.near_ms))
    closeness = _NEAREST * (1 - closest[in_gap] / (config.near_ms + 1))
    emission[in_gap, nearest[in_gap]] = np.maximum(emission[in_gap, nearest[in_gap]], closeness)
    emission[:, -1] = np.where(closest > config.near_ms, _UNKNOWN_FAR, _UNKNOWN_NEAR)
    return emission


def transitions(
    words: Sequence[Word], config: AttributionConfig, changes: Collection[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """What staying and changing score before each word, float64 [words] both; entry 0 is unused."""
    marked = set(changes)
    stay, change = np.zeros(len(words)), np.zeros(len(words))
    for t, (previous, word) in enumerate(itertools.pairwise(words), start=1):
        pause = word.start_ms - previous.end_ms >= config.pause_ms
        plausible = pause or previous.text.endswith(SENTENCE_END) or t in marked
        stay[t] = 0.0 if pause or t in marked else config.continuity
        change[t] = 0.0 if plausible else -config.change_cost
    return stay, change


def best_path(emission: np.ndarray, stay: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Viterbi with two-valued transitions: int [words], the labelling that maximises the sum in the module's head.

    A change costs the same whichever speakers it is between, so the best predecessor is either the state itself or
    the best state of all: O(words x states) instead of O(words x states^2).
    """
    steps, states = emission.shape
    came_from = np.empty((steps, states), dtype=np.int32)
    score = emission[0].copy()
    everyone = np.arange(states)
    for t in range(1, steps):
        leader = int(score.argmax())
        by_staying = score + stay[t]
        by_changing = score[leader] + change[t]
        stays = by_staying >= by_changing
        stays[leader] = True  # changing from a state to itself is staying
        came_from[t] = np.where(stays, everyone, leader)
        score = np.where(stays, by_staying, by_changing) + emission[t]
    path = np.empty(steps, dtype=np.int64)
    path[-1] = int(score.argmax())
    for t in range(steps - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path


def _drop_thin_runs(
    path: np.ndarray, words: Sequence[Word], change: np.ndarray, config: AttributionConfig
) -> np.ndarray:
    """Give runs too thin to believe back to the speaker around them.

    A run of another voice inside one speaker's words is kept if it has `min_run_words` words, lasts `min_run_ms`, or
    is set off at both ends by a pause or the end of a sentence (a back-channel).
    """
    edges = [0, *(int(t) + 1 for t in np.flatnonzero(np.diff(path))), len(path)]
    runs = list(itertools.pairwise(edges))
    path = path.copy()
    for (before, _), (first, stop), _ in zip(runs, runs[1:], runs[2:], strict=False):
        around = path[before]
        if path[stop] != around or path[first] == around:
            continue
        lasts = words[stop - 1].end_ms - words[first].start_ms
        set_off = change[first] == 0.0 and change[stop] == 0.0
        if stop - first < config.min_run_words and lasts < config.min_run_ms and not set_off:
            path[first:stop] = around
    return path


def _distance(start: np.ndarray, end: np.ndarray, turn_start: np.ndarray, turn_end: np.ndarray) -> np.ndarray:
    """Milliseconds from each word to the nearest of sorted, disjoint turns; 0 where they touch."""
    following = np.searchsorted(turn_start, start, side="right")
    before = np.where(following > 0, start - turn_end[np.maximum(following - 1, 0)], np.inf)
    after = np.where(following < len(turn_start), turn_start[np.minimum(following, len(turn_start) - 1)] - end, np.inf)
    return np.maximum(np.minimum(before, after), 0)


GHOST_MS = 2000  # a speaker with less speech than this in all is taken for an error of the clustering


def drop_ghosts(
    words: Sequence[Word],
    turns: Sequence[Turn],
    config: AttributionConfig = AttributionConfig(),
    changes: Collection[int] = (),
) -> tuple[tuple[Word, ...], tuple[Turn, ...], int]:
    """Words and turns without speakers who have under `GHOST_MS` of speech or no word, and how many those were.

    Their words are attributed again among the others, who take them only with evidence. The speaker with the most
    speech is never a ghost: a short recording of one person has one speaker.
    """
    talk_ms = Counter[str]()
    for turn in turns:
        talk_ms[turn.speaker] += turn.duration_ms
    heard = Counter(word.speaker for word in words)
    if not talk_ms:
        return tuple(words), tuple(turns), 0
    longest = talk_ms.most_common(1)[0][0]
    ghosts = {k for k, total in talk_ms.items() if k != longest and (total < GHOST_MS or not heard[k])}
    if not ghosts:
        return tuple(words), tuple(turns), 0
    kept = merge_turns(turn for turn in turns if turn.speaker not in ghosts)
    return attribute(words, kept, config, changes), kept, len(ghosts)


def name_speakers(words: Sequence[Word], turns: Sequence[Turn]) -> dict[str, str]:
    """ "Speaker 1", "Speaker 2", ... by first word, then by first turn for those without words."""
    order = [word.speaker for word in words] + [turn.speaker for turn in sorted(turns, key=lambda t: t.start_ms)]
    speakers = dict.fromkeys(speaker for speaker in order if speaker != UNKNOWN)
    return {speaker: f"Speaker {number}" for number, speaker in enumerate(speakers, start=1)}
