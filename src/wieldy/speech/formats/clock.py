"""Milliseconds as the formats write them. Everything is integer arithmetic: a time read back is the time written."""

from __future__ import annotations

import re

_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,12})?|\.\d{1,12}", re.ASCII)
_STAMP = re.compile(r"(?:(\d{1,6}):)?([0-5]?\d):([0-5]?\d)[,.](\d{1,3})", re.ASCII)


def seconds(ms: int) -> str:
    """12345 as "12.345"."""
    return f"{ms // 1000}.{ms % 1000:03d}"


def stamp(ms: int, point: str) -> str:
    """3723004 as "01:02:03,004" (SRT: comma) or "01:02:03.004" (VTT: point)."""
    return f"{hours(ms)}{point}{ms % 1000:03d}"


def hours(ms: int) -> str:
    """3723004 as "01:02:03"."""
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}"


def parse_seconds(text: str) -> int:
    """ "12.345" as 12345, rounded to the nearest millisecond. Raises `ValueError` for what is no time from 0 up."""
    if not _SECONDS.fullmatch(text):
        raise ValueError(text)
    whole, _, fraction = text.partition(".")
    return int(whole or 0) * 1000 + round(int(fraction.ljust(12, "0") or 0) / 10**9)


def parse_stamp(text: str) -> int:
    """ "01:02:03,004" or "02:03.004" as 3723004. Raises `ValueError` for what is no such time."""
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError(text)
    hour, minute, second, fraction = match.groups()
    return ((int(hour or 0) * 60 + int(minute)) * 60 + int(second)) * 1000 + int(fraction.ljust(3, "0"))
