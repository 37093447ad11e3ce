"""Which words were said where in the recordings one has: an index of every run of words, on disk and without sound.

For putting new sentences together from old recordings (`splice`). The table has one row per word in order of time and
a sentinel behind each cut; a suffix array over it finds the places of a run of any length by binary search, where a
table of n-grams would need a row for each length. Runs of phones, for words that were never said, are indexed likewise
where the cuts have phone times.

Suffix arrays: Manber and Myers 1993, Suffix arrays: a new method for on-line string searches. Notation: N rows; a run
of m symbols at row i is the rows i .. i + m - 1.
"""

from __future__ import annotations

import functools
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse.cut import Cut, CutSet
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.cache import replacing, write_text
from wieldy.errors import InputError
from wieldy.metrics.text import basic
from wieldy.speech.corpus import SAMPLE_RATE, aligned, read_manifest, samples_of
from wieldy.speech.lexicon import SILENCE, phone_of
from wieldy.weights.folders import read_json

# Times in seconds from the start of the cut; the level in dB re full scale.
ROW = np.dtype([("symbol", "<u4"), ("cut", "<u4"), ("start", "<f4"), ("end", "<f4"), ("level", "<f4")])
_SENTINEL = 0  # the symbol between runs; words and phones are counted from 1
_TOLERANCE_S = 0.01  # times in manifests are rounded
_PAUSE_S = 0.03  # between phones: a run across it would have a pause within a word
_QUIETEST_DB = -100.0  # what digital silence counts as
_FORMAT = "wieldy-segments-1"
_ABOUT, _CUTS = "store.json", "cuts.jsonl.gz"

Item = tuple[str, int, float, float, float]  # symbol, number of the cut, start and end, level


@dataclass(frozen=True)
class SegmentTable:
    """Rows of `ROW` [N], a sentinel behind each run, and their suffix array uint32 [N]."""

    symbols: tuple[str, ...]  # symbol s is symbols[s - 1]
    rows: NDArray[np.void]
    order: NDArray[np.uint32]

    @classmethod
    def of(cls, runs: Sequence[Sequence[Item]]) -> SegmentTable:
        symbols = tuple(sorted({item[0] for run in runs for item in run}))
        number = {symbol: index for index, symbol in enumerate(symbols, 1)}
        listed: list[tuple[int, int, float, float, float]] = []
        for run in runs:
            listed += [(number[symbol], cut, start, end, level) for symbol, cut, start, end, level in run]
            listed.append((_SENTINEL, 0, 0.0, 0.0, 0.0))
        rows = np.array(listed, ROW)
        return cls(symbols, rows, _suffix_array(rows["symbol"]))

    def matches(self, wanted: Sequence[str]) -> Iterator[NDArray[np.uint32]]:
        """The rows at which `wanted[:1]`, `wanted[:2]` and so on begin, as long as there are any."""
        symbols, low, high = self.rows["symbol"], 0, len(self.order)
        for depth, symbol in enumerate(wanted):
            key = self._number.get(symbol)
            if key is None:
                return

            # What was matched so far has at least its sentinel at this depth.
            def at(place: int, depth: int = depth) -> int:
                return int(symbols[int(self.order[place]) + depth])

            inside = range(low, high)
            low, high = low + bisect_left(inside, key, key=at), low + bisect_right(inside, key, key=at)
            if low == high:
                return
            yield self.order[low:high]

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.order.nbytes

    def occurrences(self, longest: int) -> int:
        """How many runs of 1 to `longest` symbols there are."""
        ends = np.flatnonzero(self.rows["symbol"] == _SENTINEL)
        lengths = np.diff(ends, prepend=-1) - 1
        return sum(int(np.maximum(lengths - shorter, 0).sum()) for shorter in range(longest))

    def save(self, folder: Path, name: str) -> None:
        for part, array in (("rows", self.rows), ("order", self.order)):
            with replacing(folder / f"{name}-{part}.npy") as path:
                np.save(path, array)

    @classmethod
    def load(cls, folder: Path, name: str, symbols: Sequence[str]) -> SegmentTable:
        """What `save` wrote, read from disk as it is needed."""
        arrays = []
        for part, dtype in (("rows", ROW), ("order", np.dtype("<u4"))):
            path = folder / f"{name}-{part}.npy"
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise InputError(f"{path} cannot be read: {error}", hint="build the store again") from error
            if array.dtype != dtype or array.ndim != 1:
                raise InputError(f"{path} holds {array.dtype} {array.shape}, not a list of {dtype}")
            arrays.append(array)
        rows, order = arrays
        if len(rows) != len(order) or (len(order) and int(order.max()) >= len(rows)):
            raise InputError(f"{folder}: the files of {name} are not of one store", hint="build the store again")
        return cls(tuple(symbols), rows, order)

    @functools.cached_property
    def _number(self) -> dict[str, int]:
        return {symbol: index for index, symbol in enumerate(self.symbols, 1)}


@dataclass(frozen=True)
class SegmentStore:
    """Words, and phones where they are known, of `cuts`, with the speaker and the signal-to-noise ratio of each cut."""

    cuts: tuple[Cut, ...]
    speakers: tuple[str, ...]
    snr_db: NDArray[np.float32]  # [cuts]
    words: SegmentTable
    phones: SegmentTable | None

    def save(self, folder: Path | str) -> None:
        """Write the tables and a manifest of the cuts; the sound stays where it is."""
        folder = Path(folder)
        for cut in self.cuts:
            if any(source.type == "memory" for source in cut.recording.sources):
                raise InputError(f"the sound of {cut.id} is in memory only", hint="write it to a file first")
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"words": self.words, "phones": self.phones}
        for name, table in tables.items():
            if table is not None:
                table.save(folder, name)
        with replacing(folder / _CUTS) as path:
            CutSet.from_cuts(self.cuts).to_file(path)
        about = {
            "format": _FORMAT,
            "speakers": self.speakers,
            "snr_db": [round(float(snr), 2) for snr in self.snr_db],
            "symbols": {name: table.symbols for name, table in tables.items() if table is not None},
        }
        write_text(folder / _ABOUT, json.dumps(about) + "\n")

    @classmethod
    def load(cls, folder: Path | str) -> SegmentStore:
        """What `save` wrote. Raises `InputError` where it is something else."""
        folder = Path(folder)
        about = read_json(folder / _ABOUT)
        if about.get("format") != _FORMAT:
            raise InputError(f"{folder / _ABOUT} has the format {about.get('format')!r}, not {_FORMAT!r}")
        cuts = tuple(read_manifest(folder / _CUTS))
        symbols = about.get("symbols", {})
        if len(about.get("speakers", ())) != len(cuts) or "words" not in symbols:
            raise InputError(f"{folder}: the files are not of one store", hint="build the store again")
        words, phones = (
            SegmentTable.load(folder, name, symbols[name]) if name in symbols else None for name in ("words", "phones")
        )
        assert words is not None
        return cls(cuts, tuple(about["speakers"]), np.asarray(about["snr_db"], np.float32), words, phones)


def build_store(cuts: CutSet) -> SegmentStore:
    """Index all words of cuts of single recordings that have word times; their sound is read once, for levels.

    Raises `InputError` naming a cut without word times, or with a time outside of its sound.
    """
    listed = tuple(cuts)
    if not listed:
        raise InputError("there are no recordings to take words from")
    every = all(part.alignment and "phone" in part.alignment for cut in listed for part in cut.supervisions)
    words: list[list[Item]] = []
    phones: list[list[Item]] = []
    snr = []
    for number, cut in enumerate(listed):
        samples = samples_of(cut, SAMPLE_RATE)
        said = _words(cut)
        _check(cut, said)
        words.append([_item(basic(word.symbol), number, word, samples) for word in said])
        snr.append(float(np.mean([item[4] for item in words[-1]] or [_QUIETEST_DB])) - _background_db(samples))
        if every:
            phones += _runs([_item(phone_of(p.symbol), number, p, samples) for p in aligned(cut, "phone")])
    speakers = tuple(cut.supervisions[0].speaker or "" if cut.supervisions else "" for cut in listed)
    return SegmentStore(
        listed,
        speakers,
        np.asarray(snr, np.float32),
        SegmentTable.of(words),
        SegmentTable.of(phones) if every else None,
    )


def _words(cut: Cut) -> list[AlignmentItem]:
    try:
        return [word for word in aligned(cut) if basic(word.symbol) and word.symbol[0] not in "<["]
    except InputError as error:
        raise InputError(
            f"{cut.id} has no word times",
            hint='its supervisions need alignment["word"], a list of lhotse\'s AlignmentItem: see '
            "wieldy.speech.aligners.with_alignment",
        ) from error


def _check(cut: Cut, words: Sequence[AlignmentItem]) -> None:
    for word in words:
        if not -_TOLERANCE_S <= word.start <= word.end <= cut.duration + _TOLERANCE_S:
            raise InputError(
                f"{cut.id}: {word.symbol!r} from {word.start:g} to {word.end:g} s is outside of its {cut.duration:g} s"
            )


def _item(symbol: str, cut: int, item: AlignmentItem, samples: NDArray[np.float32]) -> Item:
    begin, end = (max(0, round(second * SAMPLE_RATE)) for second in (item.start, item.end))
    return symbol, cut, float(item.start), float(item.end), decibels(samples[begin:end])


def _runs(phones: Sequence[Item]) -> Iterator[list[Item]]:
    """Phones without a pause between them."""
    run: list[Item] = []
    for phone in phones:
        if run and (phone[0] == SILENCE or phone[2] - run[-1][3] > _PAUSE_S):
            yield run
            run = []
        if phone[0] != SILENCE:
            run.append(phone)
    if run:
        yield run


def decibels(samples: NDArray[np.float32]) -> float:
    """The level of samples re full scale."""
    power = float(np.square(samples, dtype=np.float64).mean()) if samples.size else 0.0
    return max(_QUIETEST_DB, 10 * float(np.log10(max(power, 1e-30))))


def _background_db(samples: NDArray[np.float32]) -> float:
    """The level of the quietest tenth of the 20 ms frames."""
    hop = SAMPLE_RATE // 50
    frames = samples[: samples.size // hop * hop].reshape(-1, hop)
    levels = sorted(map(decibels, frames))
    return levels[len(levels) // 10] if levels else _QUIETEST_DB


def _suffix_array(symbols: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The rows in the order of what begins there, compared up to the next sentinel, by doubling the length compared."""
    if not len(symbols):
        return np.zeros(0, np.uint32)
    ranks = symbols.astype(np.int64)
    ends = np.flatnonzero(symbols == _SENTINEL)
    left = ends[np.searchsorted(ends, np.arange(len(symbols)))] - np.arange(len(symbols))  # symbols to the sentinel
    length = 1
    while length <= left.max():
        later = np.minimum(np.arange(len(symbols)) + length, len(symbols) - 1)
        beyond = np.where(length <= left, ranks[later], 0)
        _, ranks = np.unique(ranks * (int(ranks.max()) + 1) + beyond, return_inverse=True)
        ranks = ranks + 1
        length *= 2
    return np.argsort(ranks, kind="stable").astype(np.uint32)
