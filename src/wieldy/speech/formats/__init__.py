"""Transcripts to files and back: SegLST, RTTM, CTM, STM, SRT, VTT, JSON, text, Markdown and the HTML page.

`write(transcript, path)` and `read(path)` are the way in; the format follows from the suffix. A file is written
whole or not at all, and an existing one is replaced only when asked. Each format keeps what it has room for; JSON,
and the HTML page with it, keep everything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from wieldy.cache import write_text
from wieldy.errors import InputError, UsageError
from wieldy.speech.formats.document import read_json, write_json
from wieldy.speech.formats.nist import read_ctm, read_rttm, read_stm, write_ctm, write_rttm, write_stm
from wieldy.speech.formats.page import read_html, write_html
from wieldy.speech.formats.prose import write_md, write_txt
from wieldy.speech.formats.seglst import read_seglst, write_seglst
from wieldy.speech.formats.source import Source
from wieldy.speech.formats.subtitles import read_srt, read_vtt, write_srt, write_vtt
from wieldy.speech.transcript import Transcript

_SURROGATE = re.compile("[\ud800-\udfff]")


class Format(NamedTuple):
    """A file's suffix, what writes its text, and what reads the sessions of one, if anything does."""

    suffix: str
    writer: Callable[[Transcript], str]
    reader: Callable[[Source], list[Transcript]] | None


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "json": Format(".json", write_json, read_json),
        "seglst": Format(".seglst.json", write_seglst, read_seglst),
        "rttm": Format(".rttm", write_rttm, read_rttm),
        "ctm": Format(".ctm", write_ctm, read_ctm),
        "stm": Format(".stm", write_stm, read_stm),
        "srt": Format(".srt", write_srt, read_srt),
        "vtt": Format(".vtt", write_vtt, read_vtt),
        "txt": Format(".txt", write_txt, None),
        "md": Format(".md", write_md, None),
        "html": Format(".html", write_html, read_html),
    }
)


def named(name: str) -> Format:
    """The format called `name`; raises `UsageError` with the nearest that there is."""
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f"did you mean {near[0]}?" if near else "there are " + ", ".join(FORMATS)
    raise UsageError(f"no format is called {name!r}", hint=hint)


def refuse_existing(path: Path | str, *, overwrite: bool = False) -> None:
    """Raise `UsageError` if `path` is there and may not be replaced. Ask this before the work, not after it."""
    if not overwrite and Path(path).exists():
        raise UsageError(f"{path} is already there", hint="--overwrite replaces it, --out chooses another folder")


def write(
    transcript: Transcript,
    path: Path | str,
    format: str | None = None,  # noqa: A002
    *,
    overwrite: bool = False,
    audio: Path | str | None = None,
    embed_audio: bool | None = None,
) -> Path:
    """Write `transcript` to `path` as `format`, by default the one its suffix means, whole or not at all.

    `audio` is the recording, for the one format that plays it (HTML): inside the page with `embed_audio`, as a link
    without, and by its size if that is None. Raises `UsageError` where `path` exists, `OutputError` where it cannot
    be written; whatever was there is then untouched.
    """
    chosen = named(format or _by_suffix(Path(path)))
    refuse_existing(path, overwrite=overwrite)
    if chosen.writer is write_html:
        text = write_html(transcript, audio, beside=Path(path), embed_audio=embed_audio)
    else:
        text = chosen.writer(transcript)
    # A file name that is not UTF-8 reaches us with lone surrogates in it, which no text file can hold.
    return write_text(path, _SURROGATE.sub("\ufffd", text))


def read(path: Path | str, *, session: str | None = None) -> Transcript:
    """The transcript in `path`, of `session` where there are several.

    The format is told by the suffix, or else by the content. Raises `InputError` with file and line.
    """
    sessions = read_sessions(path)
    if session is not None:
        if session not in sessions:
            raise InputError(f"{path} has no session {session!r}", hint="it has " + (", ".join(sessions) or "none"))
        return sessions[session]
    if len(sessions) > 1:
        listed = ", ".join(list(sessions)[:5]) + (", ..." if len(sessions) > 5 else "")
        raise InputError(f"{path} holds {len(sessions)} sessions ({listed})", hint="say which one")
    return next(iter(sessions.values()), Transcript(Source(str(path), "").stem))


def read_sessions(path: Path | str) -> dict[str, Transcript]:
    """Every transcript in `path` by session name, in the file's order. SegLST, RTTM, CTM and STM may hold several."""
    source = Source.open(path)
    name = _by_content(source)
    reader = FORMATS[name].reader if name else None
    if reader is None:
        suffixes = ", ".join(known.suffix for known in FORMATS.values() if known.reader)
        raise InputError(f"{path} is no transcript that can be read", hint=f"readable are {suffixes}")
    return {transcript.name: transcript for transcript in reader(source)}


def _by_suffix(path: Path) -> str:
    matching = [name for name, known in FORMATS.items() if path.name.lower().endswith(known.suffix)]
    if not matching:
        suffixes = ", ".join(known.suffix for known in FORMATS.values())
        raise UsageError(f"{path.name} has no suffix of a known format", hint=f"there are {suffixes}")
    return max(matching, key=lambda name: len(FORMATS[name].suffix))


def _by_content(source: Source) -> str | None:
    """The format's name: a suffix that is ours decides, except that both kinds of JSON may end in `.json`."""
    text = source.text.lstrip()
    suffix = Path(source.path).suffix.lower()
    if suffix in (".json", ".seglst"):
        return "seglst" if text.startswith("[") else "json"
    for name, known in FORMATS.items():
        if suffix == known.suffix:
            return name
    return next((name for name, pattern in _SIGNS.items() if pattern.match(text)), None)


_SIGNS = {
    "json": re.compile(r"\{"),
    "seglst": re.compile(r"\["),
    "html": re.compile(r"<!doctype html", re.IGNORECASE),
    "vtt": re.compile(r"WEBVTT\b"),
    "srt": re.compile(r"\d+\s*\n\s*\d+:\d\d:\d\d[,.]\d+\s*-->"),
    "rttm": re.compile(r"(?:;.*\n\s*)*SPEAKER\s"),
    "stm": re.compile(r"(?:;.*\n\s*)*\S+\s+\S+\s+\S+\s+\d+(?:\.\d+)?\s+\d+(?:\.\d+)?\s"),
    "ctm": re.compile(r"(?:;.*\n\s*)*\S+\s+\S+\s+\d+(?:\.\d+)?\s+\d+(?:\.\d+)?\s+\S"),
}
