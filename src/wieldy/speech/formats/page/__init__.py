"""The transcript as one HTML page that needs nothing else: no network, no server, at most the recording beside it.

`page.html` is the frame, `page.css` and `page.js` its looks and its life, `exports.js` the other writers once more
for the browser. The page carries the JSON of `document.py`, so it can be read back, and the text itself as plain
paragraphs, so it can be read where scripts do not run (a mail preview, a search index, a printer).

Whatever people said is data: it is escaped where it stands, and a content security policy lets only the page's own
style and script run and nothing be fetched but the recording.
"""

from __future__ import annotations

import base64
import hashlib
import html
import mimetypes
import os
import re
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from wieldy.errors import InputError
from wieldy.speech.formats.document import read_json, write_json
from wieldy.speech.formats.fields import plain
from wieldy.speech.formats.source import Source
from wieldy.speech.transcript import UNKNOWN, Transcript, Utterance

EMBED_BELOW = 20_000_000  # bytes; in the page a recording takes a third more
VOICE_COLOURS = 8  # in page.css
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
# What browsers play, by suffix: the system's own table knows some of these under names they do not take.
_MEDIA_TYPES = {
    ".aac": "audio/aac",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".webm": "video/webm",
}


def write_html(
    transcript: Transcript,
    audio: Path | str | None = None,
    *,
    beside: Path | str = "page.html",
    embed_audio: bool | None = None,
) -> str:
    """The page's text. `audio` is put into it if `embed_audio`, or if that is None and it is under 20 MB; otherwise
    it is linked by its path from `beside`, where the page will lie. Without `audio` the page asks for it.

    Raises `InputError` if `audio` is to be embedded and cannot be read.
    """
    style = _part("page.css")
    script = _part("exports.js") + _part("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "media-src 'self' file: data: blob:; base-uri 'none'; form-action 'none'"
    )
    link = "" if audio is None else f' src="{html.escape(_address(Path(audio), Path(beside), embed_audio))}"'
    parts = {
        "policy": policy,
        "title": html.escape(plain(transcript.name)),
        "language": html.escape(transcript.language),
        "style": style,
        "script": script,
        "audio": link,
        "paragraphs": "\n".join(_paragraphs(transcript)),
        "data": write_json(transcript),
    }
    # All slots at once: what is put in may itself say {{style}}.
    return _SLOT.sub(lambda slot: parts[slot[1]], _part("page.html"))


def read_html(source: Source) -> list[Transcript]:
    """The transcript in a page of ours, or in a copy that the page itself made. Errors name the line of the page."""
    match = _DATA.search(source.text)
    if match is None:
        raise source.error(1, "this page has no transcript in it")
    # Empty lines in front keep the line numbers of the page.
    return read_json(Source(source.path, "\n" * source.text.count("\n", 0, match.start(1)) + match[1]))


def _paragraphs(transcript: Transcript) -> list[str]:
    """The text for where scripts do not run, in the page's own mark-up."""
    voices = {speaker: f"v{index % VOICE_COLOURS}" for index, speaker in enumerate(transcript.speakers)}
    voices[UNKNOWN] = "v-none"
    lines, before = [], None
    for part in transcript.utterances():
        kind = f"said {voices[part.speaker]}{' same' if part.speaker == before else ''}"
        lines.append(_paragraph(part, kind))
        before = part.speaker
    return lines


def _paragraph(part: Utterance, kind: str) -> str:
    hours, seconds = divmod(part.start_ms // 1000, 3600)
    time = f"{hours}:{seconds // 60:02d}:{seconds % 60:02d}" if hours else f"{seconds // 60}:{seconds % 60:02d}"
    who = f'<span class="who"><span dir="auto">{html.escape(plain(part.speaker))}</span></span>'
    header = f'<header>{who}<span class="when">{time}</span></header>'
    return f'<article class="{kind}">{header}<p dir="auto">{html.escape(plain(part.text))}</p></article>'


def _address(audio: Path, page: Path, embed: bool | None) -> str:
    try:
        if embed is None:
            embed = audio.stat().st_size < EMBED_BELOW
        if not embed:
            return quote(Path(os.path.relpath(audio, page.parent)).as_posix())
        kind = _MEDIA_TYPES.get(audio.suffix.lower()) or mimetypes.guess_type(audio.name)[0]
        content = base64.b64encode(audio.read_bytes()).decode("ascii")
    except OSError as error:
        raise InputError(f"cannot read {audio}: {error.strerror or error}") from error
    return f"data:{kind or 'application/octet-stream'};base64,{content}"


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
