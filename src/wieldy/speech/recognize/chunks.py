"""Speech regions packed into chunks that fill a recogniser's window, with the way back to the original clock.

A Whisper-like engine pays for 30 s however little it is given, and invents words when it is given silence. So short
regions travel together and long silence is left out: the `TimeMap` of each chunk puts every word back where it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wieldy.errors import UsageError
from wieldy.speech.audio import Recording
from wieldy.speech.transcript import Span, TimeMap


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """How speech regions are packed. All times in milliseconds."""

    max_ms: int = 28_000  # longest chunk; Whisper's window is 30 s and needs some room at the end
    min_fill: float = 0.6  # a chunk may be closed early, at its longest pause, once it is this full, (0, 1]
    keep_silence_ms: int = 1_000  # pauses up to this long are kept as they are: they carry the punctuation
    margin_ms: int = 200  # kept on both sides of a longer silence, so that no word loses its edge

    def __post_init__(self) -> None:
        if self.max_ms <= 0 or self.keep_silence_ms < 0 or self.margin_ms < 0:
            raise UsageError(f"chunk times must not be negative: {self}")
        if not 0 < self.min_fill <= 1:
            raise UsageError(f"min_fill is {self.min_fill}", hint="choose a share in (0, 1]")


def pack(speech: Sequence[Span], duration_ms: int, config: ChunkConfig = ChunkConfig()) -> list[TimeMap]:
    """Chunks of at most `config.max_ms` that hold every speech region once, in order.

    `speech` is sorted and disjoint, no region is longer than `config.max_ms`; `duration_ms` is the recording's length.
    """
    chunks: list[TimeMap] = []
    waiting = list(speech)
    while waiting:
        fitting = _fitting(waiting, duration_ms, config)
        taken = fitting if fitting == len(waiting) else _best_cut(waiting, fitting, config)
        chunks.append(TimeMap(_pieces(waiting[:taken], duration_ms, config)))
        waiting = waiting[taken:]
    return chunks


def cut(recording: Recording, chunk: TimeMap, channel: int = 0) -> np.ndarray:
    """The chunk's samples, float32 [n] at 16 kHz, its pieces one after the other."""
    return np.concatenate([recording.read(piece.start_ms, piece.end_ms, channel=channel) for piece in chunk.pieces])


def _pieces(regions: Sequence[Span], duration_ms: int, config: ChunkConfig) -> tuple[Span, ...]:
    """Regions with their margins, joined where the silence between them is kept."""
    pieces: list[Span] = []
    for region in regions:
        start = max(0, region.start_ms - config.margin_ms)
        end = min(duration_ms, region.end_ms + config.margin_ms)
        if pieces and start - pieces[-1].end_ms <= config.keep_silence_ms - 2 * config.margin_ms:
            pieces[-1] = Span(pieces[-1].start_ms, max(end, pieces[-1].end_ms))
        else:
            pieces.append(Span(start, end))
    # Margins may push a region of maximal length over the limit: trim them, they hold no speech.
    if len(regions) == 1 and pieces[0].duration_ms > config.max_ms:
        return (regions[0],)
    return tuple(pieces)


def _fitting(regions: Sequence[Span], duration_ms: int, config: ChunkConfig) -> int:
    """How many of the first regions fit in one chunk; at least one."""
    count = 1
    while count < len(regions):
        pieces = _pieces(regions[: count + 1], duration_ms, config)
        if sum(piece.duration_ms for piece in pieces) > config.max_ms:
            break
        count += 1
    return count


def _best_cut(regions: Sequence[Span], fitting: int, config: ChunkConfig) -> int:
    """How many regions to take so that the chunk ends at its longest pause and is still full enough."""
    best, longest = fitting, -1
    total = 0
    for index, (region, following) in enumerate(itertools.pairwise(regions[: fitting + 1])):
        total += region.duration_ms
        full_enough = total >= config.min_fill * config.max_ms or index + 1 == fitting
        pause = following.start_ms - region.end_ms
        if full_enough and pause >= longest:
            best, longest = index + 1, pause
    return best
