"""A time for every word: what the recogniser knows is kept, what it does not know is interpolated and marked so.

Engines leave out times for whole results (Moonshine), or for words outside their alphabet (digits and currency with
character-level engines). Those are laid between their timed neighbours in proportion to their length in characters.
"""

from __future__ import annotations

from collections.abc import Sequence

from wieldy.speech.recognize import HeardWord
from wieldy.speech.transcript import Word, milliseconds


def complete_times(words: Sequence[HeardWord], duration_s: float, stream: int = 0) -> list[Word]:
    """Words with times in [0, duration_s], none missing, starts never going back.

    A word without a usable time (None, not finite, outside the audio or ending before it starts) gets a share of the
    gap between the nearest timed words and `source="interpolated"`.
    """
    duration_ms = milliseconds(duration_s)
    times = _monotone([_usable(word, duration_s) for word in words])
    completed: list[Word] = []
    index = 0
    while index < len(words):
        if times[index] is not None:
            start, end = times[index]  # type: ignore[misc]  # just checked
            completed.append(_word(words[index], start, end, "asr", stream))
            index += 1
            continue
        last = index
        while last < len(words) and times[last] is None:
            last += 1
        gap_start = completed[-1].end_ms if completed else 0
        following = times[last] if last < len(words) else None
        gap_end = max(gap_start, following[0] if following else duration_ms)
        characters = [len(word.text) for word in words[index:last]]
        total, done = sum(characters), 0
        for word, length in zip(words[index:last], characters, strict=True):
            start = gap_start + (gap_end - gap_start) * done // total
            done += length
            end = gap_start + (gap_end - gap_start) * done // total
            completed.append(_word(word, start, end, "interpolated", stream))
        index = last
    return completed


def _usable(word: HeardWord, duration_s: float) -> tuple[int, int] | None:
    """The word's own times in milliseconds, clipped to the audio, or None where they mean nothing."""
    if word.start is None or word.end is None:
        return None
    if not 0 <= word.start <= word.end or word.start >= duration_s:  # also false for NaN
        return None
    return milliseconds(word.start), milliseconds(min(word.end, duration_s))


def _monotone(times: list[tuple[int, int] | None]) -> list[tuple[int, int] | None]:
    """Drop times that go back before an earlier word's start: the order of the words is what was heard."""
    latest = 0
    kept: list[tuple[int, int] | None] = []
    for time in times:
        if time is not None and time[0] < latest:
            time = None
        if time is not None:
            latest = time[0]
        kept.append(time)
    return kept


def _word(word: HeardWord, start: int, end: int, source: str, stream: int) -> Word:
    return Word(start, end, word.text, word.confidence, source=source, stream=stream)  # type: ignore[arg-type]
