"""SRT and VTT: captions for video players. `captions.py` decides what a cue holds, this file how it is spelt."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterator

from wieldy.speech.formats.captions import MAX_LABEL, cues, split_label
from wieldy.speech.formats.clock import parse_stamp, stamp
from wieldy.speech.formats.fields import assembled, interpolated, names, plain
from wieldy.speech.formats.source import Source
from wieldy.speech.transcript import UNKNOWN, Span, Transcript, Turn, Word

_SRT_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_SRT_OPENING = re.compile(r"<(?=[A-Za-z/])")
_VTT_VOICE = re.compile(r"<v(?:\.[^\s>]*)?[ \t\n]+([^>]*)>")
_VTT_TAG = re.compile(r"<[^>]*>")


def write_srt(transcript: Transcript) -> str:
    """Cues one after the other; `Name: ` at the first cue of each speaker's turn.

    SRT has no escapes: an angle bracket that would begin a tag or end an arrow becomes the look-alike `‹` or `›`.
    """
    blocks = []
    for number, cue in enumerate(cues(transcript, names(transcript, shortened, " ")), start=1):
        text = _SRT_OPENING.sub("‹", "\n".join(cue.lines)).replace("-->", "--›")
        blocks.append(f"{number}\n{stamp(cue.start_ms, ',')} --> {stamp(cue.end_ms, ',')}\n{text}\n")
    return "\n".join(blocks)


def write_vtt(transcript: Transcript) -> str:
    """Cues that overlap where speech does, each with its speaker in a `<v Name>` tag."""
    voices = names(transcript, plain, " ")
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript, overlapping=True):
        voice = "" if cue.phrase.speaker == UNKNOWN else f"<v {_escaped(voices[cue.phrase.speaker])}>"
        text = _escaped("\n".join(cue.lines))
        blocks.append(f"{stamp(cue.start_ms, '.')} --> {stamp(cue.end_ms, '.')}\n{voice}{text}\n")
    return "\n".join(blocks)


def read_srt(source: Source) -> list[Transcript]:
    """Words with interpolated times. Labels count if the file's first cue has one, as in what `write_srt` writes."""
    words: list[Word] = []
    turns: list[Turn] = []
    speaker, labelled = UNKNOWN, None
    for number, block in _blocks(source):
        at = 0 if "-->" in block[0] else 1
        if at >= len(block):
            raise source.error(number, f"{block[0]!r} stands alone", hint="a cue has a number, a time line and text")
        span = _span(source, number + at, block[at])
        text = " ".join(_SRT_TAG.sub("", " ".join(block[at + 1 :])).split())
        label, rest = split_label(text)
        labelled = bool(label) if labelled is None else labelled
        if labelled and label:
            speaker, text = label, rest
        words += interpolated(text, span, speaker)
        turns.append(Turn(span.start_ms, span.end_ms, speaker))
    return [assembled(source.stem, words, turns)]


def read_vtt(source: Source) -> list[Transcript]:
    """Words with interpolated times; a cue of several `<v>` parts is shared among them by their length."""
    words: list[Word] = []
    turns: list[Turn] = []
    blocks = _blocks(source)
    number, head = next(blocks, (1, [""]))
    if number != 1 or not re.match(r"WEBVTT(?:\s|$)", head[0]):
        raise source.error(number, "the file does not begin with WEBVTT")
    for number, block in blocks:
        if re.match(r"(?:NOTE|STYLE|REGION)(?:\s|$)", block[0]) and "-->" not in block[0]:
            continue
        at = 0 if "-->" in block[0] else 1
        if at >= len(block):
            raise source.error(number, f"{block[0]!r} stands alone", hint="a cue has a time line and text")
        span = _span(source, number + at, block[at])
        pieces = _VTT_VOICE.split("\n".join(block[at + 1 :]))
        spoken = [(UNKNOWN, pieces[0]), *zip(map(_name, pieces[1::2]), pieces[2::2], strict=True)]
        parts = [(speaker, html.unescape(_VTT_TAG.sub("", text)).split()) for speaker, text in spoken]
        every = interpolated(" ".join(text for _, texts in parts for text in texts), span, UNKNOWN)
        for speaker, texts in parts:
            mine, every = every[: len(texts)], every[len(texts) :]
            words += [dataclasses.replace(word, speaker=speaker) for word in mine]
            if mine:
                turns.append(Turn(mine[0].start_ms, mine[-1].end_ms, speaker))
    return [assembled(source.stem, words, turns)]


def shortened(speaker: str) -> str:
    """A name short enough to share a line with words, and without the colon that ends it."""
    text = plain(speaker).replace(":", "-")
    # Two characters are kept for the number that tells apart names that are the same when cut.
    return text if len(text) <= MAX_LABEL - 3 else text[: MAX_LABEL - 4] + "…"


def _name(escaped: str) -> str:
    return plain(html.unescape(escaped))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _blocks(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Lines that stand together, with the number of the first."""
    block: list[str] = []
    number = 0
    for number, line in source.lines():
        if line.strip(" \t"):
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number - len(block) + 1, block


def _span(source: Source, number: int, line: str) -> Span:
    """The time line of a cue; what follows the times (where on the screen) is left alone."""
    start, arrow, rest = line.partition("-->")
    end = rest.split()[0] if rest.split() else ""
    try:
        if not arrow:
            raise ValueError(line)
        return Span(parse_stamp(start.strip()), parse_stamp(end))
    except ValueError:
        raise source.error(number, f"{line[:60]!r} is not `start --> end`") from None
