"""Who said what and when: the one data model of the speech room.

Every stage reads and returns these types. Times are integer milliseconds on the clock of the original
recording (`start_ms`, `end_ms`); `start` and `end` give the same in seconds. Two things always hold and are
checked on construction: a word never ends before it starts, and every word has a speaker (`UNKNOWN` where the
evidence is too thin).
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from wieldy.errors import InputError
from wieldy.report import Report

UNKNOWN = "unknown"
SCHEMA_VERSION = 1

WordSource = Literal["asr", "aligned", "interpolated"]


def milliseconds(seconds: float) -> int:
    """Nearest millisecond to a time in seconds."""
    return round(seconds * 1000)


@dataclass(frozen=True)
class Span:
    """A stretch of time, `end_ms` exclusive."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms <= self.end_ms:
            raise InputError(f"{type(self).__name__} runs from {self.start_ms} ms to {self.end_ms} ms")

    @property
    def start(self) -> float:
        """Start in seconds."""
        return self.start_ms / 1000

    @property
    def end(self) -> float:
        """End in seconds."""
        return self.end_ms / 1000

    @property
    def duration_ms(self) -> int:
        return self.end_ms - self.start_ms

    def overlap_ms(self, other: Span) -> int:
        """Milliseconds that lie in both spans."""
        return max(0, min(self.end_ms, other.end_ms) - max(self.start_ms, other.start_ms))


@dataclass(frozen=True)
class Word(Span):
    """One spoken word as written, with where its time comes from.

    `confidence` and `speaker_confidence` are probabilities in [0, 1], or None where the engine gives none.
    `source` is "asr" (the recogniser's own time), "aligned" (forced alignment) or "interpolated" (between its
    neighbours). `stream` is the channel or separated stream the word was heard on.
    """

    text: str
    confidence: float | None = None
    speaker: str = UNKNOWN
    speaker_confidence: float | None = None
    source: WordSource = "asr"
    stream: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.text or self.text.isspace():
            raise InputError(f"a word at {self.start_ms} ms has no text")
        if not self.speaker:
            raise InputError(f"word {self.text!r} at {self.start_ms} ms has no speaker", hint=f"use {UNKNOWN!r}")


@dataclass(frozen=True)
class Turn(Span):
    """One speaker speaking. `overlap` is True where another speaker is active during part of the turn."""

    speaker: str
    confidence: float = 1.0
    overlap: bool = False
    stream: int = 0


@dataclass(frozen=True)
class Utterance(Span):
    """Consecutive words of one speaker: what a reader sees as one paragraph, a writer as one entry."""

    speaker: str
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class TimeMap:
    """Where each stretch of a cut-together signal came from, so that words return to the original clock.

    `starts_ms[i]` is where piece i begins in the cut signal, `pieces[i]` the span of the recording it was cut
    from. Pieces are in order and keep their length.
    """

    pieces: tuple[Span, ...]
    starts_ms: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.pieces:
            raise InputError("a time map needs at least one piece")
        ends = itertools.accumulate(piece.duration_ms for piece in self.pieces)
        object.__setattr__(self, "starts_ms", (0, *ends)[:-1])

    @property
    def duration_ms(self) -> int:
        return self.starts_ms[-1] + self.pieces[-1].duration_ms

    def original(self, span: Span) -> Span:
        """The span of the recording that `span` of the cut signal came from.

        A span across a cut is kept on the piece that holds most of it: a word is never stretched over silence
        that was removed from inside it.
        """
        first = max(0, bisect.bisect_right(self.starts_ms, span.start_ms) - 1)
        last = max(first, bisect.bisect_left(self.starts_ms, span.end_ms) - 1)

        def shared(index: int) -> int:
            start = self.starts_ms[index]
            return Span(start, start + self.pieces[index].duration_ms).overlap_ms(span)

        index = max(range(first, last + 1), key=shared)
        piece, offset = self.pieces[index], self.pieces[index].start_ms - self.starts_ms[index]

        def clamp(t: int) -> int:
            return min(max(t + offset, piece.start_ms), piece.end_ms)

        return Span(clamp(span.start_ms), clamp(span.end_ms))


@dataclass(frozen=True)
class Transcript:
    """An attributed transcript. `words` are sorted by time; `turns` may overlap between speakers.

    `name` is the session (usually the file's stem), `language` a code such as "en", `meta` what later readers
    need to know (models with hashes, options), `warnings` what the pipeline was not sure of.
    """

    name: str
    words: tuple[Word, ...] = ()
    turns: tuple[Turn, ...] = ()
    language: str = "en"
    duration_ms: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    report: Report | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for earlier, later in itertools.pairwise(self.words):
            if earlier.start_ms > later.start_ms:
                raise InputError(f"words out of order: {earlier.text!r} at {earlier.start_ms} ms before {later.text!r}")
        last_end: dict[str, int] = {}
        for turn in sorted(self.turns, key=lambda turn: turn.start_ms):
            if turn.start_ms < last_end.get(turn.speaker, 0):
                raise InputError(f"two turns of {turn.speaker} overlap at {turn.start_ms} ms")
            last_end[turn.speaker] = turn.end_ms

    @property
    def speakers(self) -> tuple[str, ...]:
        """Everyone who has a word or a turn, in order of appearance; `UNKNOWN` is nobody."""
        events: list[Turn | Word] = [*self.turns, *self.words]
        events.sort(key=lambda event: event.start_ms)
        return tuple(dict.fromkeys(event.speaker for event in events if event.speaker != UNKNOWN))

    def utterances(self, max_pause_ms: int = 2000) -> list[Utterance]:
        """Words grouped into paragraphs: a new one at each change of speaker and after a long pause."""
        groups: list[list[Word]] = []
        for word in self.words:
            same = groups and groups[-1][-1].speaker == word.speaker
            if same and word.start_ms - groups[-1][-1].end_ms <= max_pause_ms:
                groups[-1].append(word)
            else:
                groups.append([word])
        return [
            Utterance(group[0].start_ms, max(word.end_ms for word in group), group[0].speaker, tuple(group))
            for group in groups
        ]

    def renamed(self, names: Mapping[str, str]) -> Transcript:
        """The same transcript with speakers renamed; two old names may map to one new name (a merge)."""

        def rename(speaker: str) -> str:
            return names.get(speaker, speaker)

        words = tuple(dataclasses.replace(word, speaker=rename(word.speaker)) for word in self.words)
        turns = merge_turns(dataclasses.replace(turn, speaker=rename(turn.speaker)) for turn in self.turns)
        return dataclasses.replace(self, words=words, turns=turns)


def merge_turns(turns: Iterable[Turn], max_gap_ms: int = 0) -> tuple[Turn, ...]:
    """Turns sorted by start, with those of one speaker that touch (or lie within `max_gap_ms`) joined.

    The joined turn's confidence is the mean weighted by duration. `overlap` is computed anew.
    """
    merged: list[Turn] = []
    last: dict[str, int] = {}
    for turn in sorted(turns, key=lambda turn: (turn.start_ms, turn.end_ms)):
        index = last.get(turn.speaker)
        if index is not None and turn.start_ms <= merged[index].end_ms + max_gap_ms:
            old = merged[index]
            weight = old.duration_ms + turn.duration_ms
            mean = (old.confidence * old.duration_ms + turn.confidence * turn.duration_ms) / weight if weight else 0.0
            merged[index] = dataclasses.replace(old, end_ms=max(old.end_ms, turn.end_ms), confidence=mean)
        else:
            last[turn.speaker] = len(merged)
            merged.append(turn)
    return _mark_overlap(merged)


def _mark_overlap(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Set `overlap` on each turn (sorted by start) that shares time with a turn of another speaker."""
    overlapped = [False] * len(turns)
    active: list[int] = []
    for index, turn in enumerate(turns):
        active = [other for other in active if turns[other].end_ms > turn.start_ms]
        for other in active:
            if turns[other].speaker != turn.speaker and turn.duration_ms:
                overlapped[other] = overlapped[index] = True
        active.append(index)
    return tuple(dataclasses.replace(turn, overlap=flag) for turn, flag in zip(turns, overlapped, strict=True))


def exclusive_turns(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """One speaker at a time: where turns overlap, the more confident (then the earlier) one keeps the floor."""
    edges = sorted({edge for turn in turns for edge in (turn.start_ms, turn.end_ms)})
    ordered = sorted(turns, key=lambda turn: turn.start_ms)
    active: list[Turn] = []
    pieces: list[Turn] = []
    upcoming = 0
    for start, end in itertools.pairwise(edges):
        while upcoming < len(ordered) and ordered[upcoming].start_ms <= start:
            active.append(ordered[upcoming])
            upcoming += 1
        active = [turn for turn in active if turn.end_ms > start]
        if active:
            floor = max(active, key=lambda turn: (turn.confidence, -turn.start_ms))
            pieces.append(dataclasses.replace(floor, start_ms=start, end_ms=end))
    return merge_turns(pieces)
