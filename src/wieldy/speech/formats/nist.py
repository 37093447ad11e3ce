"""The line formats of the NIST evaluations: RTTM (who spoke when), CTM (words in time), STM (utterances).

A line is fields between spaces, so names and words lose their spaces on the way out. Times are seconds with three
decimals. RTTM holds turns only, CTM words without speakers, STM utterances without word times. Format: Rich
Transcription 2009 evaluation plan, appendix A (RTTM), and the OpenASR20 evaluation plan (CTM, STM).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from wieldy.speech.formats.clock import parse_seconds, seconds
from wieldy.speech.formats.fields import assembled, interpolated, names, plain, token, turns_of, units
from wieldy.speech.formats.source import Source
from wieldy.speech.transcript import Span, Transcript, Turn, Word

# "<o,f0,male>": the optional column of an STM line that sorts utterances into subsets.
_STM_LABEL = re.compile(r"<[^\s<>]*,[^\s<>]*>")
_STM_SKIPPED = "ignore_time_segment_in_scoring"


def write_rttm(transcript: Transcript) -> str:
    """One SPEAKER line per turn, overlap kept. The channel is always 1: scorers compare one stream per file."""
    name, speakers = token(transcript.name), names(transcript, token, "_")
    return "".join(
        f"SPEAKER {name} 1 {seconds(turn.start_ms)} {seconds(turn.duration_ms)} "
        f"<NA> <NA> {speakers[turn.speaker]} <NA> <NA>\n"
        for turn in turns_of(transcript)
        if turn.duration_ms
    )


def read_rttm(source: Source) -> list[Transcript]:
    """The turns of each session; lines that are not SPEAKER lines (RTTM has nine more kinds) are passed over."""
    turns: dict[str, list[Turn]] = {}
    for number, line in _records(source):
        if line.split(maxsplit=1)[0] != "SPEAKER":
            continue
        fields = line.split()
        if not 8 <= len(fields) <= 10:
            raise source.error(number, f"an RTTM line has 9 or 10 fields, this one {len(fields)}")
        start, duration = (_time(source, number, field) for field in fields[3:5])
        turns.setdefault(fields[1], []).append(Turn(start, start + duration, fields[7]))
    return [assembled(name, (), found) for name, found in turns.items()]


def write_ctm(transcript: Transcript) -> str:
    """One line per word: session, channel from 1, start, duration, word, and its confidence where it has one."""
    name = token(transcript.name)
    lines = []
    for word in transcript.words:
        # Thousandths rounded half up, which is what JavaScript can repeat to the last digit.
        confidence = "" if word.confidence is None else f" {seconds(math.floor(word.confidence * 1000 + 0.5))}"
        lines += [
            f"{name} {word.stream + 1} {seconds(unit.start_ms)} {seconds(unit.duration_ms)} {unit.text}{confidence}\n"
            for unit in units(word)
        ]
    return "".join(lines)


def read_ctm(source: Source) -> list[Transcript]:
    """The words of each session. A CTM file has no speakers: every word is `UNKNOWN`'s, on its channel's stream."""
    words: dict[str, list[Word]] = {}
    for number, line in _records(source):
        fields = line.split()
        if not 5 <= len(fields) <= 6:
            raise source.error(number, f"a CTM line has 5 or 6 fields, this one {len(fields)}")
        start, duration = (_time(source, number, field) for field in fields[2:4])
        confidence = _confidence(source, number, fields[5]) if len(fields) == 6 else None
        stream = _stream(source, number, fields[1])
        words.setdefault(fields[0], []).append(Word(start, start + duration, fields[4], confidence, stream=stream))
    return [assembled(name, found, ()) for name, found in words.items()]


def write_stm(transcript: Transcript) -> str:
    """One line per utterance: session, channel from 1, speaker, start, end, words."""
    name, speakers = token(transcript.name), names(transcript, token, "_")
    return "".join(
        f"{name} {part.words[0].stream + 1} {speakers[part.speaker]} {seconds(part.start_ms)} {seconds(part.end_ms)} "
        f"{' '.join(plain(word.text) for word in part.words)}\n"
        for part in transcript.utterances()
    )


def read_stm(source: Source) -> list[Transcript]:
    """Utterances of each session; word times are interpolated. Stretches marked not to be scored are passed over."""
    found: dict[str, tuple[list[Word], list[Turn]]] = {}
    for number, line in _records(source):
        fields = line.split(maxsplit=5)
        if len(fields) < 5:
            raise source.error(number, f"an STM line has at least 5 fields, this one {len(fields)}")
        name, channel, speaker = fields[:3]
        start, end = (_time(source, number, field) for field in fields[3:5])
        if end < start:
            raise source.error(number, f"the utterance ends at {fields[4]} s, before it starts at {fields[3]} s")
        text = fields[5] if len(fields) == 6 else ""
        if (label := _STM_LABEL.match(text)) and (label.end() == len(text) or text[label.end()].isspace()):
            text = text[label.end() :]
        if text.strip().lower() == _STM_SKIPPED:
            continue
        stream = _stream(source, number, channel)
        words, turns = found.setdefault(name, ([], []))
        words += interpolated(text, Span(start, end), speaker, stream)
        turns.append(Turn(start, end, speaker, stream=stream))
    return [assembled(name, words, turns) for name, (words, turns) in found.items()]


def _records(source: Source) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in source.lines() if line.strip() and not line.lstrip().startswith(";"))


def _time(source: Source, number: int, text: str) -> int:
    try:
        return parse_seconds(text)
    except ValueError:
        raise source.error(number, f"{text!r} is not a time in seconds from 0 up") from None


def _confidence(source: Source, number: int, text: str) -> float | None:
    if text.upper() in ("NA", "<NA>"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise source.error(number, f"{text!r} is not a confidence between 0 and 1")
    return value


def _stream(source: Source, number: int, channel: str) -> int:
    """Channels are numbered from 1, or lettered from A."""
    if channel.isascii() and channel.isdigit() and len(channel) <= 4:
        return max(0, int(channel) - 1)
    if len(channel) == 1 and channel.isascii() and channel.isalpha():
        return ord(channel.upper()) - ord("A")
    raise source.error(number, f"{channel!r} is not a channel", hint="channels are numbers from 1 or letters from A")
