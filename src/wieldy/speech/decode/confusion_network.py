"""An N-best list as a row of slots, each with the words that compete for it and how likely each is.

Use it to say how sure a recogniser is of a word, or to show alternatives: a word on which all hypotheses agree has a
posterior near 1. With one hypothesis there is nothing to compare, and every posterior is 1.

Lidia Mangu et al. 2000, Finding consensus in speech recognition, arXiv cs/0010012; posteriors and slots as features of
word confidence after Rui Zhao et al. 2021, On addressing practical challenges for RNN-Transducer, arXiv 2105.00858.
Hypothesis i has the posterior p_i = softmax(scale * score)_i. The first is the pivot: its words are the first slots.
Each further one is aligned to the slots so far at least cost, where

    word w in slot s: 1 - P(w | s)        no word in slot s: 1 - P(no word | s)        word w in a slot of its own: 1

and P(. | s) are the posteriors that were put into the slot, of those aligned so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wieldy.errors import InputError

Span = tuple[float, float]  # start and end of a word, in any unit


@dataclass(frozen=True)
class Slot:
    """`posteriors` of words, and of None for no word, likeliest first; they add up to 1. `pivot` is the index of the
    pivot's word, None where the pivot has none."""

    posteriors: Mapping[str | None, float]
    pivot: int | None

    @property
    def entropy(self) -> float:
        """In nats."""
        return -sum(p * math.log(p) for p in self.posteriors.values() if p > 0)

    @property
    def best(self) -> str | None:
        return next(iter(self.posteriors))


@dataclass(frozen=True)
class ConfusionNetwork:
    slots: tuple[Slot, ...]

    def of_pivot(self) -> tuple[Slot, ...]:
        """The slots of the pivot's words, one for each."""
        return tuple(slot for slot in self.slots if slot.pivot is not None)

    def consensus(self) -> tuple[str, ...]:
        """The likeliest words, which are not always those of one hypothesis."""
        return tuple(slot.best for slot in self.slots if slot.best is not None)


def confusion_network(
    hypotheses: Sequence[Sequence[str]],
    scores: Sequence[float],
    *,
    scale: float | None = None,
    times: Sequence[Sequence[Span]] | None = None,
) -> ConfusionNetwork:
    """From the words of each hypothesis, best first, and their scores in natural logarithms.

    `scale`, above 0, flattens the posteriors, because scores add up over words that are not independent; by default it
    is 1 / the mean number of words. With `times` of all words, a word only joins a slot where it overlaps the first
    word there. Raises `InputError`.
    """
    if not hypotheses or len(hypotheses) != len(scores):
        raise InputError(f"{len(hypotheses)} hypotheses with {len(scores)} scores", hint="give one each, at least 1")
    if not all(math.isfinite(score) for score in scores):
        raise InputError(f"scores {list(scores)} are not all finite")
    if times is not None and list(map(len, times)) != list(map(len, hypotheses)):
        raise InputError("not every word has a time", hint="give times for all words or for none")
    if scale is None:
        scale = 1 / max(1.0, sum(map(len, hypotheses)) / len(hypotheses))
    if not scale > 0:
        raise InputError(f"scale is {scale}", hint="it must be above 0")
    logs = scale * (np.asarray(scores, dtype=np.float64) - max(scores))
    posteriors = (np.exp(logs) / np.exp(logs).sum()).tolist()
    slots: list[_Slot] = []
    done = 0.0
    for i, (words, posterior) in enumerate(zip(hypotheses, posteriors, strict=True)):
        spans = times[i] if times is not None else [None] * len(words)
        aligned: list[_Slot] = []
        for slot, w in _alignment(slots, words, spans, done):
            if slot is None:
                slot = _Slot({None: done} if done else {}, None if i else w, spans[w] if w is not None else None)
            word = None if w is None else words[w]
            slot.mass[word] = slot.mass.get(word, 0.0) + posterior
            aligned.append(slot)
        slots, done = aligned, done + posterior
    return ConfusionNetwork(tuple(slot.finished() for slot in slots))


@dataclass
class _Slot:
    mass: dict[str | None, float]
    pivot: int | None
    span: Span | None

    def finished(self) -> Slot:
        total = sum(self.mass.values())
        ranked = sorted(self.mass.items(), key=lambda item: item[1], reverse=True)
        return Slot({word: mass / total for word, mass in ranked}, self.pivot)


def _alignment(
    slots: list[_Slot], words: Sequence[str], spans: Sequence[Span | None], done: float
) -> list[tuple[_Slot | None, int | None]]:
    """Pairs of slot and index of word at least cost; None for a new slot, and for no word."""
    cost = np.zeros((len(slots) + 1, len(words) + 1))
    cost[0] = np.arange(len(words) + 1)
    skip = [1 - slot.mass.get(None, 0.0) / done for slot in slots]
    match = [[_match(slot, word, span, done) for word, span in zip(words, spans, strict=True)] for slot in slots]
    for s in range(len(slots)):
        cost[s + 1, 0] = cost[s, 0] + skip[s]
        for w in range(len(words)):
            cost[s + 1, w + 1] = min(cost[s, w] + match[s][w], cost[s, w + 1] + skip[s], cost[s + 1, w] + 1)
    pairs: list[tuple[_Slot | None, int | None]] = []
    s, w = len(slots), len(words)
    while s or w:
        if s and w and cost[s, w] == cost[s - 1, w - 1] + match[s - 1][w - 1]:
            s, w = s - 1, w - 1
            pairs.append((slots[s], w))
        elif s and cost[s, w] == cost[s - 1, w] + skip[s - 1]:
            s -= 1
            pairs.append((slots[s], None))
        else:
            w -= 1
            pairs.append((None, w))
    return pairs[::-1]


def _match(slot: _Slot, word: str, span: Span | None, done: float) -> float:
    if span is not None and slot.span is not None and not (span[0] < slot.span[1] and slot.span[0] < span[1]):
        return math.inf
    return 1 - slot.mass.get(word, 0.0) / done
