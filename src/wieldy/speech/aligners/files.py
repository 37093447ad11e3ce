"""Alignments that other programs wrote: TextGrid (Praat, Montreal Forced Aligner) and CTM (Kaldi, NIST)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lhotse.cut import MonoCut
from lhotse.supervision import AlignmentItem

from wieldy.errors import InputError
from wieldy.speech import formats
from wieldy.speech.aligners import Alignment
from wieldy.speech.formats.source import Source

# A TextGrid in either of its layouts is a sequence of numbers and quoted strings, in which "" stands for a quote.
_VALUE = re.compile(r'"((?:[^"]|"")*)"|(?<![\w.\[])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w\]])')


def read_ctm(path: Path | str) -> dict[str, Alignment]:
    """The words of each recording in a CTM file, to the millisecond. Raises `InputError` with file and line."""
    return {
        name: Alignment(tuple(AlignmentItem(word.text, word.start, word.duration_ms / 1000) for word in found.words))
        for name, found in formats.read_sessions(path).items()
    }


def read_textgrid(path: Path | str, *, words: str = "words", phones: str = "phones") -> Alignment:
    """The intervals of the tiers called `words` and, if it is there, `phones`; intervals without text are silence.

    Raises `InputError` with file and line where it is no TextGrid or has no such tier.
    """
    source = Source.open(path)
    tiers = dict(_tiers(source))
    if words not in tiers:
        raise InputError(f"{path} has no tier {words!r}", hint="it has " + (", ".join(map(repr, tiers)) or "none"))
    return Alignment(tiers[words], tiers.get(phones, ()))


def times_in(path: Path | str) -> Callable[[MonoCut], Alignment]:
    """The times of each cut's recording in a CTM file, or in NAME.TextGrid of a folder, for `align_cuts`.

    NAME is that of the recording or of its file. Raises `InputError` where there is nothing to read.
    """
    path = Path(path)
    if path.is_dir():
        grids = {grid.stem: grid for grid in path.glob("*.TextGrid")}
        if not grids:
            raise InputError(f"{path} has no .TextGrid files")

    else:
        listed = read_ctm(path)

    def known(name: str) -> Alignment | None:
        if path.is_dir():
            return read_textgrid(grids[name]) if name in grids else None
        return listed.get(name)

    def times(cut: MonoCut) -> Alignment:
        names = [cut.recording_id, *(Path(source.source).stem for source in cut.recording.sources)]
        found = next((found for found in map(known, names) if found is not None), None)
        if found is None:
            raise InputError(f"{path} has no times of {names[0]}")
        return found.within(cut.start, cut.end)

    return times


def _tiers(source: Source) -> list[tuple[str, tuple[AlignmentItem, ...]]]:
    """Name and intervals of each interval tier; tiers of points are passed over."""
    values = _Values(source)
    if values.text() != "ooTextFile" or values.text() != "TextGrid":
        raise source.error(1, "this is no TextGrid")
    values.number(), values.number()
    tiers = []
    for _ in range(int(values.number())):
        kind, name = values.text(), values.text()
        values.number(), values.number()
        items = []
        for _ in range(int(values.number())):
            start = values.number()
            if kind != "IntervalTier":
                values.text()
                continue
            end, text = values.number(), values.text().strip()
            if text:
                items.append(AlignmentItem(text, start, round(end - start, 8)))
        if kind == "IntervalTier":
            tiers.append((name, tuple(items)))
    return tiers


class _Values:
    """The values of a file one after the other."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # The long layout numbers what it lists ("intervals [1]:") and says which tiers there are ("<exists>").
        self._matches = _VALUE.finditer(source.text)

    def text(self) -> str:
        return self._next(1).replace('""', '"')

    def number(self) -> float:
        return float(self._next(2))

    def _next(self, group: int) -> str:
        match = next(self._matches, None)
        if match is None:
            raise self._source.error(self._source.line_at(len(self._source.text)), "the TextGrid ends here")
        value = match.group(group)
        if value is None:
            wanted = "a quoted text" if group == 1 else "a number"
            raise self._source.error(
                self._source.line_at(match.start()), f"{match.group()} stands where {wanted} should"
            )
        return str(value)
