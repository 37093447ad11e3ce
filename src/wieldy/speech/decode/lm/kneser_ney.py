"""Trains n-gram models on text, by interpolated modified Kneser-Ney smoothing: the best there is without a network.

For the language of a domain of which there are from some dozen to some million sentences. With KenLM at hand use that
for more; its ARPA files are read by `BackoffModel.read`, and ours by KenLM.

Stanley Chen and Joshua Goodman 1999, An empirical study of smoothing techniques for language modeling, as estimated by
Kenneth Heafield et al. 2013, Scalable modified Kneser-Ney language model estimation. With c the counts of the highest
order N and of what begins a sentence, elsewhere how many different words an n-gram follows (t_k n-grams have count k),

    D(k) = k - (k + 1) t_1 t_{k+1} / ((t_1 + 2 t_2) t_k),  k = 1, 2, 3 and more;  D(0) = 0
    P(w | h) = (c(h w) - D(c(h w))) / c(h .) + b(h) P(w | h'),    b(h) = sum_w D(c(h w)) / c(h .)
    P(w) = (c(w) - D(c(w))) / c(.) + b() / W

Notation: W words with <unk> and </s>, without <s>; h' is h without its oldest word.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wieldy.errors import InputError, UsageError
from wieldy.speech.decode.lm.backoff import BEGIN, END, NEVER, UNKNOWN, BackoffModel, Order

# Where counts of counts do not follow a power law, as in little or made-up text; KenLM's own.
_FALLBACK = 0.5, 1.0, 1.5
_NUMBERS = {UNKNOWN: 0, BEGIN: 1, END: 2}


@dataclass(frozen=True, kw_only=True)
class KneserNeyConfig:
    order: int = 4  # >= 1; ilme's default
    # Of each order, n-grams that come less often are left out; the last holds for higher orders too, >= 1, ascending.
    min_counts: tuple[int, ...] = (1,)
    vocabulary: tuple[str, ...] = ()  # words that are known whether they come or not; others are added as they come

    def __post_init__(self) -> None:
        if self.order < 1:
            raise UsageError(f"order is {self.order}", hint="it must be at least 1")
        if not self.min_counts or self.min_counts[0] != 1 or list(self.min_counts) != sorted(self.min_counts):
            raise UsageError(f"min_counts is {self.min_counts}", hint="it begins with 1, for words, and never falls")

    def least(self, n: int) -> int:
        return self.min_counts[min(n, len(self.min_counts)) - 1]


def train(sentences: Iterable[Sequence[str]], config: KneserNeyConfig = KneserNeyConfig()) -> BackoffModel:
    """An n-gram model of sentences, each a list of words or word pieces. Raises `InputError` without any word, or where
    a word has a blank in it or is one of <s>, </s>."""
    number = dict(_NUMBERS)
    for word in config.vocabulary:
        number.setdefault(word, len(number))
    stream: list[int] = []
    for sentence in sentences:
        stream.append(number[BEGIN])
        for word in sentence:
            if word in (BEGIN, END) or not word or word != "".join(word.split()):
                raise InputError(f"{word!r} cannot be a word of an n-gram model")
            stream.append(number.setdefault(word, len(number)))
        stream.append(number[END])
    if not stream:
        raise InputError("there are no sentences to train a language model on")
    return BackoffModel(list(number), _estimated(_counted(np.array(stream), config.order, len(number)), config))


@dataclass
class _Counts:
    """The different n-grams of one order, by key as in `backoff`."""

    context: NDArray[np.int64]  # of each the place of its first words among the n-grams of the order before
    word: NDArray[np.int64]  # its last one
    suffix: NDArray[np.int64]  # the place of all but its first word
    begins: NDArray[np.bool_]  # at the beginning of a sentence
    c: NDArray[np.int64]


def _counted(stream: NDArray[np.int64], order: int, words: int) -> list[_Counts]:
    """All n-grams up to `order` of sentences that lie one behind the other."""
    every, begin = np.arange(words), _NUMBERS[BEGIN]
    none = np.zeros(words, np.int64)
    found = [_Counts(none, every, none, every == begin, np.bincount(stream, minlength=words))]
    ends, place = np.arange(len(stream)), stream  # where n-grams that lie in one sentence end, and which they are
    for _ in range(1, order):
        longer = (stream[ends] != begin) & np.isin(ends - 1, ends, assume_unique=True)
        before = place[np.searchsorted(ends, ends[longer] - 1)]
        keys, first, again, count = np.unique(
            before * words + stream[ends[longer]], return_index=True, return_inverse=True, return_counts=True
        )
        context, word = np.divmod(keys, words)
        found.append(_Counts(context, word, place[longer][first], found[-1].begins[context], count))
        ends, place = ends[longer], again
    for shorter, longer_ones in itertools.pairwise(found):
        follows = np.bincount(longer_ones.suffix, minlength=len(shorter.c))
        shorter.c = np.where(shorter.begins, shorter.c, follows)
    found[0].c[begin] = 0  # nothing is followed by it
    return found


def _estimated(counts: Sequence[_Counts], config: KneserNeyConfig) -> list[Order]:
    words = len(counts[0].c)
    kept = [found.c >= config.least(n) for n, found in enumerate(counts, 1)]
    kept[0][:] = True
    for shorter, longer, found in zip(kept[-2::-1], kept[:0:-1], counts[:0:-1], strict=True):
        shorter[found.context[longer]] = shorter[found.suffix[longer]] = True
    p = [np.full(1, 1 / (words - 1))]  # of each n-gram, in the order of the counts; every word is as likely at first
    backoffs = []
    for found, stays in zip(counts, kept, strict=True):
        total = np.bincount(found.context, found.c, minlength=len(p[-1]))
        d = np.where(stays, _discounts(found.c)[np.minimum(found.c, 3)], found.c)
        left = np.bincount(found.context, d, minlength=len(p[-1]))
        b = np.divide(left, total, out=np.ones_like(total, dtype=float), where=total > 0)
        backoffs.append(b)
        own = np.divide(found.c - d, total[found.context])
        p.append(own + b[found.context] * p[-1][found.suffix])
    p[1][_NUMBERS[BEGIN]] = 10**NEVER
    orders = []
    place = np.zeros(1, np.int64)  # of the n-grams that are kept
    for n, (found, stays) in enumerate(zip(counts, kept, strict=True), 1):
        backoff = backoffs[n][stays] if n < len(counts) else np.ones(int(stays.sum()))
        keys = place[found.context[stays]] * words + found.word[stays]
        orders.append(Order(keys, *(np.log(values).astype(np.float32) for values in (p[n][stays], backoff))))
        place = stays.cumsum() - 1
    return orders


def _discounts(c: NDArray[np.int64]) -> NDArray[np.float64]:
    """D(0) to D(3), from the counts of one order."""
    t = np.bincount(np.minimum(c, 5), minlength=5)
    if t[1:4].all():
        k = np.arange(1, 4)
        d = k - (k + 1) * t[1] * t[k + 1] / ((t[1] + 2 * t[2]) * t[k])
        if (d >= 0).all():
            return np.array([0, *d])
    return np.array([0, *_FALLBACK])
