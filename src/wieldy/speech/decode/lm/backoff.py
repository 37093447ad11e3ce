"""N-gram models with back-off, as ARPA files hold them: read, write, and a row of all next words at once.

A model is a few sorted arrays, 16 bytes an n-gram. For any history h (h' without its oldest word),

    P(w | h) = p(h w) where the file has h w, else backoff(h) P(w | h')

so the row of h is the row of h' plus log backoff(h), overwritten where h has successors: no loop over words.

Notation: W words, N_n n-grams of order n. The key of an n-gram is the place of its first n - 1 words times W, plus its
last word.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from wieldy.cache import replacing
from wieldy.errors import InputError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -99.0  # what ARPA files write for log10 0
LN10 = math.log(10)
_KEPT_ROWS = 10_000  # rows that are remembered: 40 MB for a thousand words
_LEAST = 0.5  # probability that all words have together; where it is less, or twice as much, something is wrong
_COUNT = re.compile(r"ngram (\d+) ?= ?(\d+)")


@dataclass(frozen=True)
class Order:
    """The n-grams of one length, by key."""

    keys: NDArray[np.int64]  # [N_n], ascending
    log_p: NDArray[np.float32]  # natural logarithms
    backoff: NDArray[np.float32]  # natural logarithms; 0 for those of the highest order


class BackoffModel:
    """An n-gram model over `words`; `row` is what it is for."""

    def __init__(self, words: Sequence[str], orders: Sequence[Order]) -> None:
        self.words, self.orders = tuple(words), tuple(orders)
        self.number = {word: n for n, word in enumerate(self.words)}
        self.row = lru_cache(_KEPT_ROWS)(self._row)

    @property
    def order(self) -> int:
        return len(self.orders)

    def __len__(self) -> int:
        return sum(len(order.keys) for order in self.orders)

    @classmethod
    def read(cls, path: Path | str) -> BackoffModel:
        """An ARPA file, plain or .gz. Raises `InputError` with file and line where it is none."""
        path = Path(path)
        try:
            with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as f:
                return cls._parsed(path, f)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as an ARPA file: {error}") from error

    def write(self, path: Path | str) -> Path:
        """The ARPA file, packed where the name ends in .gz."""
        path = Path(path)
        with replacing(path) as temporary:
            opened = gzip.open if path.suffix == ".gz" else open
            with opened(temporary, "wt", encoding="utf-8", newline="\n") as file:
                for line in self._lines():
                    file.write(line + "\n")
        return path

    def history(self, words: Sequence[str]) -> tuple[int, ...]:
        """The numbers of the last words, at most order - 1; words that it does not know are <unk>."""
        last = words[len(words) - min(len(words), self.order - 1) :]
        unknown = self.number.get(UNKNOWN)
        found = [self.number.get(word, unknown) for word in last]
        known = max((place + 1 for place, number in enumerate(found) if number is None), default=0)
        return tuple(number for number in found[known:] if number is not None)

    def since_begin(self, history: tuple[int, ...]) -> tuple[int, ...]:
        """A history without what comes before its last <s>: searches fill theirs up with it."""
        begin = self.number.get(BEGIN)
        last = max((n for n, word in enumerate(history) if word == begin), default=0)
        return history[last:]

    def place(self, gram: Sequence[int]) -> int | None:
        """Where an n-gram is among those of its order, None where it is not."""
        found = 0
        for order, word in zip(self.orders, gram, strict=False):
            key = found * len(self.words) + word
            found = int(np.searchsorted(order.keys, key))
            if found == len(order.keys) or order.keys[found] != key:
                return None
        return found

    def _row(self, history: tuple[int, ...]) -> NDArray[np.float32]:
        """log P [W] of what follows `history`, at most order - 1 words. Not to be written to."""
        row = np.full(len(self.words), -np.inf, np.float32)
        row[self.orders[0].keys] = self.orders[0].log_p
        for length in range(1, len(history) + 1):
            context = self.place(history[len(history) - length :])
            if context is None:
                continue
            row += self.orders[length - 1].backoff[context]
            longer = self.orders[length]
            first, last = np.searchsorted(longer.keys, np.array([context, context + 1]) * len(self.words))
            row[longer.keys[first:last] - context * len(self.words)] = longer.log_p[first:last]
        row.setflags(write=False)
        return row

    # --- the file ----------------------------------------------------------------------------------------------------

    @classmethod
    def _parsed(cls, path: Path, file: TextIO) -> BackoffModel:
        lines = _Lines(path, file)
        counts = _counts(lines)
        words: list[str] = []
        number: dict[str, int] = {}
        orders: list[Order] = []
        for n, count in enumerate(counts, 1):
            lines.heading(f"\\{n}-grams:")
            grams, log_p, backoff = np.zeros((count, n), np.int64), np.zeros(count), np.zeros(count)
            for place in range(count):
                fields = next(lines)
                if n == 1 and len(fields) > 1:
                    number[fields[1]] = len(words)
                    words.append(fields[1])
                try:
                    log_p[place], *rest = float(fields[0]), *map(float, fields[n + 1 :])
                    grams[place] = [number[word] for word in fields[1 : n + 1]]
                    (backoff[place],) = rest or [0.0]
                except (KeyError, ValueError):
                    raise lines.error(f"no {n}-gram of known words between two numbers") from None
                if log_p[place] > 0:
                    raise lines.error(f"a logarithm of a probability is {fields[0]}")
            if len(set(words)) < len(words):
                raise lines.error("a word is there twice")
            orders.append(_ordered(grams, log_p, backoff, orders, len(words), lines))
        lines.heading("\\end\\")
        _check_logarithms(path, orders[0].log_p)
        return cls(words, orders)

    def _lines(self) -> Iterator[str]:
        yield "\\data\\"
        for n, order in enumerate(self.orders, 1):
            yield f"ngram {n}={len(order.keys)}"
        texts: list[str] = [""]
        for n, order in enumerate(self.orders, 1):
            yield ""
            yield f"\\{n}-grams:"
            context, last = np.divmod(order.keys, len(self.words))
            pairs = zip(context.tolist(), last.tolist(), strict=True)
            texts = [f"{texts[before]} {self.words[word]}" if n > 1 else self.words[word] for before, word in pairs]
            for text, p, backoff in zip(texts, order.log_p / LN10, order.backoff / LN10, strict=True):
                tail = f"\t{backoff:.7g}" if n < self.order else ""
                yield f"{max(p, NEVER):.7g}\t{text}{tail}"
        yield ""
        yield "\\end\\"


class _Lines:
    """The lines of an ARPA file that are not empty, in fields. They are separated by blanks and tabs alone."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file, self._number = path, file, 0
        self._ahead: list[str] = []

    def __next__(self) -> list[str]:
        fields, self._ahead = self.ahead(), []
        return fields

    def ahead(self) -> list[str]:
        """The next line, which remains the next."""
        while not self._ahead:
            line = self._file.readline()
            self._number += 1
            if not line:
                raise self.error("the file ends here, without \\end\\")
            self._ahead = [field for field in line.rstrip("\r\n").replace("\t", " ").split(" ") if field]
        return self._ahead

    def heading(self, text: str) -> None:
        if (found := " ".join(next(self))) != text:
            raise self.error(f"{found!r} where {text} should be")

    def error(self, what: str) -> InputError:
        return InputError(f"{self._path}:{self._number}: {what}", hint="this is no ARPA file, or a damaged one")


def _counts(lines: _Lines) -> list[int]:
    """Of each order, from the head of the file."""
    while next(lines) != ["\\data\\"]:
        pass  # comments may come before it
    counts: list[int] = []
    while (found := _COUNT.fullmatch(" ".join(lines.ahead()))) and int(found[1]) == len(counts) + 1:
        counts.append(int(found[2]))
        next(lines)
    if not counts:
        raise lines.error("no counts of n-grams")
    return counts


def _ordered(
    grams: NDArray[np.int64],
    log_p: NDArray[np.float64],
    backoff: NDArray[np.float64],
    shorter: Sequence[Order],
    words: int,
    lines: _Lines,
) -> Order:
    """The n-grams `grams` [N, n] with logarithms to base 10, by key."""
    places = np.zeros(len(grams), np.int64)
    for order, column in zip(shorter, grams.T, strict=False):
        keys = places * words + column
        places = np.searchsorted(order.keys, keys)
        known = order.keys[np.minimum(places, len(order.keys) - 1)] == keys
        if not known.all():
            raise lines.error("an n-gram begins with one that is not in the file")
    keys = places * words + grams[:, -1]
    by_key = keys.argsort(kind="stable")
    if (np.diff(keys[by_key]) == 0).any():
        raise lines.error("an n-gram is there twice")
    natural = (values[by_key] * LN10 for values in (log_p, backoff))
    return Order(keys[by_key], *(values.astype(np.float32) for values in natural))


def _check_logarithms(path: Path, log_p: NDArray[np.float32]) -> None:
    """Words whose probabilities add up to 1 as powers of e, and not of 10, are those of another kind of file."""
    mass, of_e = np.exp(log_p).sum(), np.exp(log_p / LN10).sum()
    if abs(of_e - 1) < abs(mass - 1) and not _LEAST < mass < 1 / _LEAST:
        raise InputError(
            f"{path}: the probabilities of its words add up to {mass:.3g}",
            hint="its logarithms are natural ones; ARPA files have logarithms to base 10",
        )
