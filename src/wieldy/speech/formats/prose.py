"""A transcript to read: plain text, and Markdown for where text is set nicely. One paragraph an utterance."""

from __future__ import annotations

import re

from wieldy.speech.formats.clock import hours
from wieldy.speech.formats.fields import plain
from wieldy.speech.transcript import Transcript

_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|~#]")


def write_txt(transcript: Transcript) -> str:
    """`[hh:mm:ss] Name: text`, one line an utterance."""
    return "".join(
        f"[{hours(part.start_ms)}] {plain(part.speaker)}: {plain(part.text)}\n" for part in transcript.utterances()
    )


def write_md(transcript: Transcript) -> str:
    """The same with a heading and the names in bold; characters that mean something in Markdown are escaped."""
    return f"# {_escaped(transcript.name)}\n" + "".join(
        f"\n[{hours(part.start_ms)}] **{_escaped(part.speaker)}:** {_escaped(part.text)}\n"
        for part in transcript.utterances()
    )


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", plain(text))
