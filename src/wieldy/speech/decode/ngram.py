"""A small language model over tokens, counted from sentences, and its place in a search.

For hearing a domain's phrases without training anything: shallow fusion. Where the text is more than some ten thousand
sentences take a model of a toolkit for them; where the recogniser may be changed, `wieldy.speech.adapt` does more.

Interpolation after Ian Witten and Timothy Bell 1991, The zero-frequency problem. Of the history h (the last n - 1
tokens, h' without the oldest), with c its counts and t(h) how many different tokens followed it,

    P(y | h) = (c(h y) + t(h) P(y | h')) / (c(h) + t(h)),    P(y | no history) interpolated with 1 / V

An end of sentence is counted like a token. Scores of a search: weight log P(y | h) + bonus. Notation: n hypotheses, V
vocabulary with blank, whose place in a distribution the end of the sentence takes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wieldy.errors import InputError, UsageError

END = 0  # where the blank would be
_START = -1
_KEPT_ROWS = 10_000  # distributions that are remembered: 40 MB at a vocabulary of 1000


class Ngram:
    """P(token | tokens before), for tokens 1 to V - 1 and the end."""

    def __init__(self, order: int, vocabulary: int, sentences: Iterable[Sequence[int]]) -> None:
        """Counts of `sentences`, token ids without blanks. Raises `InputError` without any."""
        if order < 1:
            raise UsageError(f"order is {order}", hint="it must be at least 1")
        self.order, self.vocabulary = order, vocabulary
        self._following: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for sentence in sentences:
            if not all(0 < token < vocabulary for token in sentence):
                raise InputError(f"sentence {list(sentence)}", hint=f"tokens are 1 to {vocabulary - 1}")
            padded = [_START] * (order - 1) + [*sentence, END]
            for place in range(order - 1, len(padded)):
                for length in range(order):
                    self._following[tuple(padded[place - length : place])][padded[place]] += 1
        if not self._following:
            raise InputError("there are no sentences to count tokens in")
        self.log_p = lru_cache(_KEPT_ROWS)(self._log_p)

    def start(self) -> tuple[int, ...]:
        """The history before the first token."""
        return (_START,) * (self.order - 1)

    def after(self, history: Sequence[int], token: int) -> tuple[int, ...]:
        return (*history, token)[len(history) + 2 - self.order :]

    def perplexity(self, sentences: Iterable[Sequence[int]]) -> float:
        """exp of the mean negative log-probability of tokens and ends."""
        found = []
        for sentence in sentences:
            history = self.start()
            for token in (*sentence, END):
                found.append(self.log_p(history)[token])
                history = self.after(history, token)
        return float(np.exp(-np.mean(found)))

    def _log_p(self, history: tuple[int, ...]) -> NDArray[np.float32]:
        """log P [V] after `history`, at most order - 1 tokens."""
        return np.log(self._p(history)).astype(np.float32)

    def _p(self, history: tuple[int, ...]) -> NDArray[np.float64]:
        shorter = self._p(history[1:]) if history else np.full(self.vocabulary, 1 / self.vocabulary)
        following = self._following.get(history)
        if following is None:
            return shorter
        p = len(following) * shorter
        p[list(following)] += list(following.values())
        return np.asarray(p / (following.total() + len(following)))


class NgramScorer:
    """A `PrefixScorer` for shallow fusion. State: histories [n, order - 1]."""

    names = ("ngram",)

    def __init__(self, ngram: Ngram, weight: float, bonus: float = 0.0) -> None:
        """`weight` >= 0 of the model's log-probabilities; `bonus`, in nats, is added for every token, because a model
        of language makes long answers less likely."""
        if not weight >= 0:
            raise UsageError(f"weight is {weight}", hint="it must not be negative")
        self.ngram, self.weight, self.bonus = ngram, weight, bonus

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, Tensor]:
        device = None if g is None else g.device
        state = torch.tensor(self.ngram.start(), dtype=torch.int64, device=device).expand(n, -1)
        return self._scores(state), state

    def advance(self, tokens: Tensor, state: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        state = torch.cat([state, tokens[:, None]], dim=1)[:, 1:]
        return self._scores(state), state

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]

    def end(self, state: Tensor) -> Tensor:
        return (self._scores(state) - self.bonus)[:, :, END]

    def _scores(self, state: Tensor) -> Tensor:
        """[n, 1, V]."""
        rows = [self.ngram.log_p(tuple(history)) for history in state.tolist()]
        log_p = torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, self.ngram.vocabulary)
        return self.weight * log_p.to(state.device)[:, None] + self.bonus
