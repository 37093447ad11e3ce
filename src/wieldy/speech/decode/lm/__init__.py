"""Language models for searches: how likely is each next token, by the tokens before it.

`TokenLM` is what a search can use while it runs, over the recogniser's own tokens: n-grams of your text (`kneser_ney`,
`arpa`), causal models of transformers (`causal`). A `SequenceLM` scores whole answers afterwards (`rescore`). All speak
natural logarithms. What is added to a recogniser's scores, and how much of it, is `fusion`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from wieldy.speech.decode import State

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TokenLM(Protocol):
    """A distribution over V tokens, of which `end` stands for the end of the sentence.

    A transducer's blank is no token of a language: there `end` takes its place, 0.
    """

    @property
    def vocab(self) -> int: ...

    @property
    def end(self) -> int: ...

    def start(self, n: int, device: torch.device | None = None) -> tuple[Tensor, State]:
        """Log-probabilities [n, V] of the first token and the state before it."""
        ...

    def advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The same after one more token each, `tokens` [n]."""
        ...

    def select(self, state: State, index: Tensor) -> State:
        """The states of `index` [m], repeated as often as they are named."""
        ...


class SequenceLM(Protocol):
    """Scores texts, whatever its own tokens are."""

    def log_p(self, texts: Sequence[str]) -> list[float]:
        """Log-probability of each text, the end included."""
        ...
