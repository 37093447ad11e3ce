from __future__ import annotations

from wieldy.speech.formats.source import Source


def write_html(transcript, audio=None, *, beside=None, embed_audio=None):
    return ""


def read_html(source: Source):
    return []
