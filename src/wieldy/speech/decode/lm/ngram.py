"""N-gram models of word pieces in a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wieldy.errors import InputError
from wieldy.speech.decode.lm import backoff
from wieldy.speech.decode.lm.backoff import BackoffModel

SPECIAL = (backoff.BEGIN, backoff.END, backoff.UNKNOWN)
_NAMED = 5  # of the words of a list that a message names


class NgramLM:
    """A `TokenLM` of an n-gram model whose words are the recogniser's tokens. State: histories [n, order - 1]."""

    def __init__(self, model: BackoffModel, pieces: Sequence[str], end: int = 0) -> None:
        """`pieces` are the recogniser's tokens, of which number `end` is no token but stands for the end.

        Tokens that the model does not know are its <unk>. Raises `InputError` where the model has words that are no
        tokens, so that it belongs to another recogniser, or no <unk> where it needs one.
        """
        self.vocab, self.end = len(pieces), end
        known = {piece for n, piece in enumerate(pieces) if n != end}
        strange = [word for word in model.words if word not in known and word not in SPECIAL]
        if strange:
            raise InputError(
                f"word {model.number[strange[0]]} of the language model, {strange[0]!r}, is no token of the recogniser",
                hint="train it on the recogniser's tokens; models of words go into WordScorer",
            )
        unknown = model.number.get(backoff.UNKNOWN)
        numbers = [model.number.get(piece, unknown) for piece in pieces]
        numbers[end] = model.number.get(backoff.END)
        if None in numbers:
            missing = [pieces[n] for n, number in enumerate(numbers) if number is None and n != end] or [backoff.END]
            raise InputError(
                f"the language model does not know {', '.join(map(repr, missing[:_NAMED]))}, and has no <unk>",
                hint="train it with vocabulary=tokenizer.pieces[1:]",
            )
        self.model = model
        self._numbers = np.array(numbers, np.int64)
        row = self._row(self._begin())
        if not np.isfinite(row).all():
            token = pieces[int(np.isfinite(row).argmin())]
            raise InputError(f"the language model gives {token!r} no probability at the beginning of a sentence")

    def start(self, n: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        state = torch.tensor(self._begin(), dtype=torch.int64, device=device).expand(n, -1)
        return self._rows(state), state

    def advance(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        last = torch.from_numpy(self._numbers[tokens.cpu().numpy()]).to(state)
        state = torch.cat([state, last[:, None]], dim=1)[:, 1:]
        return self._rows(state), state

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]

    def _begin(self) -> tuple[int, ...]:
        """The history before the first token: as often <s> as there is room, of which a model knows one."""
        return (self.model.number[backoff.BEGIN],) * (self.model.order - 1)

    def _row(self, history: tuple[int, ...]) -> np.ndarray:
        return self.model.row(self.model.since_begin(history))[self._numbers]

    def _rows(self, state: Tensor) -> Tensor:
        rows = [self._row(tuple(history)) for history in state.tolist()]
        return torch.from_numpy(np.stack(rows) if rows else np.zeros((0, self.vocab), np.float32)).to(state.device)
