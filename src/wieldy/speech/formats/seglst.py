"""SegLST, the segment list of meeteval: a JSON list with one entry per utterance.

Beside the five keys every tool knows, an entry has `word_times`: a `[start, end]` in seconds for each word of
`words` between spaces. Without them a reader interpolates.
"""

from __future__ import annotations

import json
from typing import Any

from wieldy.speech.formats.fields import assembled, interpolated, turns_of, units
from wieldy.speech.formats.located import elements
from wieldy.speech.formats.source import Source
from wieldy.speech.transcript import UNKNOWN, Span, Transcript, Turn, Word, milliseconds

_text = json.JSONEncoder(ensure_ascii=False).encode


def write_seglst(transcript: Transcript) -> str:
    """One entry a line. A transcript of turns without words gets an entry without words per turn."""
    name = _text(transcript.name)
    entries = [
        _entry(name, part.speaker, part, [u for word in part.words for u in units(word)])
        for part in transcript.utterances()
    ]
    if not transcript.words:
        entries = [_entry(name, turn.speaker, turn, []) for turn in turns_of(transcript)]
    return "[\n" + ",\n".join(entries) + "\n]\n" if entries else "[]\n"


def _entry(name: str, speaker: str, span: Span, words: list[Word]) -> str:
    times = ", ".join(f"[{_seconds(word.start_ms)}, {_seconds(word.end_ms)}]" for word in words)
    return (
        f'{{"session_id": {name}, "speaker": {_text(speaker)}, '
        f'"start_time": {_seconds(span.start_ms)}, "end_time": {_seconds(span.end_ms)}, '
        f'"words": {_text(" ".join(word.text for word in words))}, "word_times": [{times}]}}'
    )


def _seconds(ms: int) -> str:
    """The shortest JSON number, as JavaScript writes it too: 1, 1.5, 1.025."""
    return str(ms // 1000 if ms % 1000 == 0 else ms / 1000)


def read_seglst(source: Source) -> list[Transcript]:
    """The sessions of a SegLST file. Keys other than those above are left alone: many tools add their own."""
    found: dict[str, tuple[list[Word], list[Turn]]] = {}
    for line, entry in elements(source):
        if not isinstance(entry, dict):
            raise source.error(line, f"a SegLST entry is an object, not {json.dumps(entry)[:40]}")
        for key in ("session_id", "speaker", "start_time", "end_time", "words"):
            if key not in entry:
                raise source.error(line, f"the entry has no {key!r}")
        span = _span(source, line, entry["start_time"], entry["end_time"])
        speaker = str(entry["speaker"]) or UNKNOWN
        words, turns = found.setdefault(str(entry["session_id"]), ([], []))
        words += _words(source, line, entry, span, speaker)
        turns.append(Turn(span.start_ms, span.end_ms, speaker))
    return [assembled(name, words, turns) for name, (words, turns) in found.items()]


def _words(source: Source, line: int, entry: dict[str, Any], span: Span, speaker: str) -> list[Word]:
    if not isinstance(entry["words"], str):
        raise source.error(line, f"words are {json.dumps(entry['words'])[:40]}", hint="they must be one string")
    if (times := entry.get("word_times")) is None:
        return interpolated(entry["words"], span, speaker)
    texts = entry["words"].split()
    if not isinstance(times, list) or len(times) != len(texts):
        count = len(times) if isinstance(times, list) else "no"
        raise source.error(line, f"{len(texts)} words have {count} word_times")
    spans = []
    for time in times:
        if not isinstance(time, list) or len(time) != 2:
            raise source.error(line, f"{json.dumps(time)[:40]} is not a [start, end] in seconds")
        spans.append(_span(source, line, *time))
    return [Word(at.start_ms, at.end_ms, text, speaker=speaker) for text, at in zip(texts, spans, strict=True)]


def _span(source: Source, line: int, start: Any, end: Any) -> Span:
    """Seconds as numbers, or as strings of numbers, which CHiME's files have."""
    edges = []
    for value in (start, end):
        try:
            seconds = -1.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            seconds = -1.0
        if not 0 <= seconds < 1e9:
            raise source.error(line, f"{json.dumps(value)[:40]} is not a time in seconds from 0 up")
        edges.append(milliseconds(seconds))
    if edges[1] < edges[0]:
        raise source.error(line, f"a stretch ends at {end} s, before it starts at {start} s")
    return Span(edges[0], edges[1])
