"""What a name or a word becomes where the format has no room for some of its characters.

Line formats end a field at white space and a line at a control character; JSON and HTML do not mind. A name that
loses characters stays different from every other name. `page/exports.js` says the same in JavaScript.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence

from wieldy.speech.transcript import UNKNOWN, Span, Transcript, Turn, Word, merge_turns

# White space in any Unicode-aware reader, the characters some readers end a line at, and the other controls.
_BLANK = re.compile("[\\x00-\\x20\\x7f-\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+")
NOTHING_LEFT = "\ufffd"  # stands for a name or word made of nothing but such characters


def plain(text: str) -> str:
    """`text` on one line with single spaces."""
    return _BLANK.sub(" ", text).strip(" ") or NOTHING_LEFT


def token(text: str) -> str:
    """`text` without spaces (underscores instead) and not the start of a comment, which is `;;` in these formats."""
    return re.sub("^;", "_", plain(text).replace(" ", "_"))


def names(transcript: Transcript, shape: Callable[[str], str], joint: str) -> dict[str, str]:
    """Every speaker's name as `shape` makes it; a shape that is taken gets a number ("A_B", "A_B_2").

    Numbers go by first word or turn. `UNKNOWN` keeps its name, so that it is nobody when read back.
    """
    events: list[Word | Turn] = [*transcript.words, *transcript.turns]
    speakers = (event.speaker for event in sorted(events, key=lambda event: event.start_ms))
    shaped: dict[str, str] = {}
    taken: set[str] = set()
    for speaker in dict.fromkeys((UNKNOWN, *speakers)):
        wanted = candidate = shape(speaker)
        number = 2
        while candidate in taken:
            candidate = f"{wanted}{joint}{number}"
            number += 1
        taken.add(candidate)
        shaped[speaker] = candidate
    return shaped


def turns_of(transcript: Transcript) -> tuple[Turn, ...]:
    """The turns, or what the words say about them where there are none."""
    if transcript.turns:
        return transcript.turns
    spoken = transcript.utterances()
    return merge_turns(Turn(part.start_ms, part.end_ms, part.speaker) for part in spoken)


def units(word: Word) -> list[Word]:
    """A word without white space, or the pieces of one that has some; pieces share its time by their length."""
    text = plain(word.text)
    if text == word.text and " " not in text:
        return [word]
    parts = text.split(" ")
    if len(parts) == 1:
        return [dataclasses.replace(word, text=text)]
    return [
        dataclasses.replace(word, start_ms=start, end_ms=end, text=part, source="interpolated")
        for part, (start, end) in zip(parts, _shares(word, parts), strict=True)
    ]


def interpolated(text: str, span: Span, speaker: str, stream: int = 0) -> list[Word]:
    """The words of a stretch that has only a start and an end; they share its time by their length."""
    parts = text.split()
    return [
        Word(start, end, part, speaker=speaker, source="interpolated", stream=stream)
        for part, (start, end) in zip(parts, _shares(span, parts), strict=True)
    ]


def _shares(span: Span, parts: Sequence[str]) -> list[tuple[int, int]]:
    total = sum(map(len, parts))
    shares, before = [], 0
    for part in parts:
        start = span.start_ms + span.duration_ms * before // total
        before += len(part)
        shares.append((start, span.start_ms + span.duration_ms * before // total))
    return shares


def assembled(name: str, words: Iterable[Word], turns: Iterable[Turn], *, language: str = "en") -> Transcript:
    """A transcript of what a reader found, in whatever order: sorted, one speaker's overlapping turns joined."""
    ordered = tuple(sorted(words, key=lambda word: word.start_ms))
    # A gap of -1 ms joins what overlaps and leaves apart what only touches.
    joined = merge_turns(turns, max_gap_ms=-1)
    duration = max((event.end_ms for event in (*ordered, *joined)), default=0)
    return Transcript(name, ordered, joined, language=language, duration_ms=duration)
