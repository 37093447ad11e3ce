"""What a row of words may sound like, as a graph of phones for `viterbi`: silence between words, pronunciations.

    (sil) word 1 (sil) word 2 (sil) ..      word = its pronunciations side by side, phone after phone

Silence may be left out, each phone lasts a frame or more. A word whose pronunciation is not known is one state that any
phone may be, so that the words beside it still find their places.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wieldy.speech.decode.viterbi import viterbi

Variants = Sequence[Sequence[int]]  # pronunciations of a word as numbers of phones; none where it is not known


@dataclass(frozen=True)
class PhoneGraph:
    """`labels` [S], the phone of each state, `unknown` for any; `words` [S], the number of its word, -1 for silence;
    `predecessors` [S, P] as in `viterbi`; `first` and `last` states of a path; the `fewest` frames there can be."""

    labels: NDArray[np.int64]
    words: NDArray[np.int64]
    predecessors: NDArray[np.int64]
    first: tuple[int, ...]
    last: tuple[int, ...]
    fewest: int

    @classmethod
    def of(cls, words: Sequence[Variants], *, silence: int, unknown: int) -> PhoneGraph:
        labels: list[int] = []
        owner: list[int] = []
        before: list[list[int]] = []

        def state(label: int, word: int, entered_from: Sequence[int]) -> int:
            labels.append(label)
            owner.append(word)
            before.append([len(labels) - 1, *entered_from])
            return len(labels) - 1

        pause = state(silence, -1, ())
        first = [pause]
        ends: list[int] = []
        for number, variants in enumerate(words):
            entries, ends = [*ends, pause], []
            for phones in variants or [[unknown]]:
                here = state(phones[0], number, entries)
                if not number:
                    first.append(here)
                for phone in phones[1:]:
                    here = state(phone, number, [here])
                ends.append(here)
            pause = state(silence, -1, ends)
        predecessors = np.full((len(labels), max(map(len, before))), -1)
        for row, own in zip(predecessors, before, strict=True):
            row[: len(own)] = own
        fewest = max(1, sum(min(map(len, variants), default=1) for variants in words))
        return cls(np.array(labels), np.array(owner), predecessors, tuple(first), (*ends, pause), fewest)

    def path(self, scores: NDArray[np.floating]) -> tuple[NDArray[np.int64], float]:
        """The likeliest state of each frame, by the scores [T, phones] of phones on frames, T >= `fewest`."""
        return viterbi(scores[:, self.labels], self.predecessors, self.first, self.last)

    def spans(self, path: NDArray[np.int64]) -> NDArray[np.int64]:
        """First frame of each word and the one after its last, [words, 2], on a path through all of them."""
        at = np.flatnonzero(self.words[path] >= 0)
        _, first, count = np.unique(self.words[path][at], return_index=True, return_counts=True)
        return np.stack([at[first], at[first + count - 1] + 1], axis=1)

    def phones(self, path: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
        """Phone, word, first frame and the one after the last of each state on the path that is no silence."""
        changes = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
        return [
            (int(self.labels[path[begin]]), int(self.words[path[begin]]), begin, end)
            for begin, end in itertools.pairwise(changes.tolist())
            if self.words[path[begin]] >= 0
        ]
