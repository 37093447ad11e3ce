"""Ways to put a sentence together from runs of words in recordings, the cheapest first.

A cover is a row of pieces, each a run of the sentence's words that somebody said. With D the difference in level at a
join in dB,

    cost = sum over pieces of their own + sum over joins of (0.5 if the speakers differ) + 0.2 |D| / 6

so that long pieces of one voice win. Rui Zhao et al. 2021, On addressing practical challenges for RNN-Transducer,
arXiv 2105.00858, join matching segments; the costs and the search for the k cheapest are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

OTHER_SPEAKER, PER_6_DB = 0.5, 0.2

Source = TypeVar("Source")


@dataclass(frozen=True)
class Piece(Generic[Source]):
    """Words `begin` to before `end` of the sentence, with the cost of the piece alone, who speaks, and the level in dB
    of its first and last word. `source` is where its sound is."""

    begin: int
    end: int
    cost: float
    speaker: str
    first_db: float
    last_db: float
    source: Source


def join_cost(one: Piece[Source], other: Piece[Source]) -> float:
    return OTHER_SPEAKER * (one.speaker != other.speaker) + PER_6_DB * abs(one.last_db - other.first_db) / 6


def covers(pieces: Sequence[Piece[Source]], length: int, k: int) -> list[tuple[float, list[Piece[Source]]]]:
    """The `k` cheapest covers of `length` words with their costs; fewer, or none, where there are fewer.

    Dynamic programming from left to right that keeps the k cheapest ways to each piece, [pieces, k] in all.
    """
    if not pieces:
        return []
    begin, end = (np.array([getattr(piece, name) for piece in pieces]) for name in ("begin", "end"))
    own, first, last = (
        np.array([getattr(piece, name) for piece in pieces]) for name in ("cost", "first_db", "last_db")
    )
    names = {name: number for number, name in enumerate(dict.fromkeys(piece.speaker for piece in pieces))}
    speaker = np.array([names[piece.speaker] for piece in pieces])
    cost = np.full((len(pieces), k), np.inf)
    back = np.full((len(pieces), k), -1)  # the piece before times k plus the rank of the way to it
    for boundary in range(length):
        here = np.flatnonzero(begin == boundary)
        if not boundary:
            cost[here, 0] = own[here]
            continue
        before = np.flatnonzero(end == boundary)
        if not (here.size and before.size):
            continue
        joins = OTHER_SPEAKER * (speaker[before][:, None] != speaker[here]) + PER_6_DB / 6 * np.abs(
            last[before][:, None] - first[here]
        )
        ways = (cost[before][:, :, None] + joins[:, None, :]).reshape(-1, here.size)  # [before * k, here]
        best = np.argsort(ways, axis=0, kind="stable")[:k].T
        cost[here, : best.shape[1]] = own[here][:, None] + np.take_along_axis(ways.T, best, axis=1)
        back[here, : best.shape[1]] = before[best // k] * k + best % k
    final = np.flatnonzero(end == length)
    found = []
    for place in np.argsort(cost[final], axis=None, kind="stable")[:k].tolist():
        total = float(cost[final].flat[place])
        if np.isfinite(total):
            found.append((total, _traced(pieces, back, int(final[place // k]) * k + place % k)))
    return found


def _traced(pieces: Sequence[Piece[Source]], back: NDArray[np.int64], way: int) -> list[Piece[Source]]:
    k = back.shape[1]
    chain = []
    while way >= 0:
        chain.append(pieces[way // k])
        way = int(back[way // k, way % k])
    return chain[::-1]
