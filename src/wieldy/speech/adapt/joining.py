"""Pieces of recordings as one: where exactly they are cut, how loud they are, and how one goes over into the next.

Features are computed of the joined sound, so that no frame straddles a join unheard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.speech.adapt.segments import decibels

_REACH_S = 0.03  # of silence beside a piece that comes along, at most
_SEARCH_S = 0.02  # to either side, in which the quietest place is cut at
_WINDOW_S = 0.004  # over which quietness is measured: a period of the lowest voices is 10 ms, a plosive's gap more
_MOST_GAIN_DB = 12.0
_BACKGROUND_S = 0.08  # of the quietest stretch of a recording that fills pauses

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A run of words in a recording: its `samples` [n], the words with their times in it, and where the words before
    and after them end and begin, in seconds; None where there are none. `opens` and `closes` say that these are the
    first and last words of the recording, `whole_start` and `whole_end` that all before and after them is kept. Of a
    clip `within_word` the next one goes on with the word that is its last: both have it in `words`."""

    samples: Samples
    rate: int
    words: tuple[AlignmentItem, ...]
    before_s: float | None = None
    after_s: float | None = None
    opens: bool = False
    closes: bool = False
    whole_start: bool = False
    whole_end: bool = False
    within_word: bool = False

    @property
    def level_db(self) -> float:
        begin, end = (round(second * self.rate) for second in (self.words[0].start, self.words[-1].end))
        return decibels(self.samples[begin:end])

    def bounds(self) -> tuple[int, int]:
        """First sample and the one after the last of what is taken."""
        length = len(self.samples)
        begin, end = (round(second * self.rate) for second in (self.words[0].start, self.words[-1].end))
        reach, search = round(_REACH_S * self.rate), round(_SEARCH_S * self.rate)
        # Silence is shared with the neighbour half and half.
        before = 0 if self.before_s is None else round((self.before_s + self.words[0].start) / 2 * self.rate)
        after = length if self.after_s is None else round((self.words[-1].end + self.after_s) / 2 * self.rate)
        first, last = max(begin - reach, min(before, begin)), min(end + reach, max(after, end))
        inside = (end - begin) // 4  # of the words at least half is kept
        first = 0 if self.whole_start else self._quietest(first - search, min(first + search, begin + inside))
        last = length if self.whole_end else self._quietest(max(last - search, end - inside), last + search)
        return first, max(first, last)

    def _quietest(self, low: int, high: int) -> int:
        """The place from `low` to before `high` around which there is least sound."""
        window = max(1, round(_WINDOW_S * self.rate))
        low, high = max(0, low), min(len(self.samples), high)
        if high <= low:
            return min(low, len(self.samples))
        first = max(0, low - window)
        powers = np.square(self.samples[first : high + window], dtype=np.float64)
        return low + int(np.convolve(powers, np.ones(window), "same")[low - first : high - first].argmin())

    def background(self, length: int, rng: np.random.Generator) -> Samples:
        """So many samples of the quietest stretch of the recording, from a place drawn there."""
        window = min(len(self.samples), max(length, round(_BACKGROUND_S * self.rate)))
        energy = np.cumsum(np.pad(np.square(self.samples, dtype=np.float64), (1, 0)))
        place = int((energy[window:] - energy[:-window]).argmin()) if window else 0
        place += int(rng.integers(window - length + 1))
        return self.samples[place : place + length]


def joined(
    clips: Sequence[Clip], rng: np.random.Generator, *, crossfade_s: float, pause_s: float
) -> tuple[Samples, list[AlignmentItem]]:
    """The sound of the clips in a row, all of one level, and the words in it with their times."""
    levels = [clip.level_db for clip in clips]
    durations = [clip.words[-1].end - clip.words[0].start for clip in clips]
    mean = float(np.average(levels, weights=np.maximum(durations, 1e-3)))
    rate = clips[0].rate
    fade = round(crossfade_s * rate)
    whole = np.zeros(0, np.float32)
    words: list[AlignmentItem] = []
    for number, (clip, level) in enumerate(zip(clips, levels, strict=True)):
        gain = np.float32(10 ** (np.clip(mean - level, -_MOST_GAIN_DB, _MOST_GAIN_DB) / 20)) if len(clips) > 1 else None
        first, last = clip.bounds()
        part = clip.samples[first:last] if gain is None else clip.samples[first:last] * gain
        whole, offset = _appended(whole, part, fade if number else 0)
        begin = offset - first
        free = max(offset, round(words[-1].end * rate)) if words else offset
        placed = [_placed(word, begin, free, len(whole), rate) for word in clip.words]
        if number and clips[number - 1].within_word:
            begun = words.pop()
            placed = [AlignmentItem(begun.symbol, begun.start, round(placed[0].end - begun.start, 5))]
        words += placed
        if number + 1 < len(clips) and not clip.within_word:
            pause = int(rng.integers(round(pause_s * rate) + 1))
            if pause > 2 * fade:
                whole, _ = _appended(whole, clip.background(pause, rng) * (gain or np.float32(1)), fade)
    return whole, words


def _appended(whole: Samples, part: Samples, fade: int) -> tuple[Samples, int]:
    """`part` behind `whole`, one going over into the other in `fade` samples; also where it begins."""
    fade = min(fade, len(whole), len(part))
    if not fade:
        return np.concatenate([whole, part]), len(whole)
    rising = np.float32(0.5) - np.float32(0.5) * np.cos(np.pi * (np.arange(fade, dtype=np.float32) + 0.5) / fade)
    over = whole[-fade:] * (1 - rising) + part[:fade] * rising
    return np.concatenate([whole[:-fade], over, part[fade:]]), len(whole) - fade


def _placed(word: AlignmentItem, begin: int, first: int, last: int, rate: int) -> AlignmentItem:
    """A word of a recording whose sample 0 would be at `begin`, as far as it lies in samples `first` to `last`."""
    start, end = (min(max(begin + round(second * rate), first), last) / rate for second in (word.start, word.end))
    return AlignmentItem(word.symbol, round(start, 5), round(max(0.0, end - start), 5))
