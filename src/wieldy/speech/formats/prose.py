"""A transcript to read: plain text, and Markdown for where text is set nicely. One paragraph an utterance."""

from __future__ import annotations

import re

from wieldy.speech.formats.clock import hours
from wieldy.speech.formats.fields import plain
from wieldy.speech.transcript import UNKNOWN, Transcript, Utterance

_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|~#]")


def write_txt(transcript: Transcript) -> str:
    """`[hh:mm:ss] Name: text`, one line an utterance; without names where nobody's is known."""
    return "".join(
        f"[{hours(part.start_ms)}] {f'{plain(name)}: ' if name else ''}{plain(part.text)}\n"
        for part, name in _named(transcript)
    )


def write_md(transcript: Transcript) -> str:
    """The same with a heading and the names in bold; characters that mean something in Markdown are escaped."""
    return f"# {_escaped(transcript.name)}\n" + "".join(
        f"\n[{hours(part.start_ms)}] {f'**{_escaped(name)}:** ' if name else ''}{_escaped(part.text)}\n"
        for part, name in _named(transcript)
    )


def _named(transcript: Transcript) -> list[tuple[Utterance, str]]:
    parts = transcript.utterances()
    anyone = any(part.speaker != UNKNOWN for part in parts)
    return [(part, part.speaker if anyone else "") for part in parts]


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", plain(text))
