"""Prediction networks of a transducer: from the labels so far to one vector, without looking at the sound.

The LSTM remembers the whole prefix and learns much language; the stateless one sees the last few labels, is smaller,
and lets a search share its work between hypotheses that end alike.

Alex Graves 2012, Sequence transduction with recurrent neural networks, arXiv 1211.3711; Mohammadreza Ghodsi et al.
2020, RNN-transducer with stateless prediction network. The blank, id 0, stands for "nothing yet" at the start.
Notation: B utterances, U labels, n hypotheses, P outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import UsageError
from wieldy.speech.networks.lstm import LstmStack

PredictorState = tuple[Tensor, ...]  # batch first


@dataclass(frozen=True, kw_only=True)
class LstmPredictorConfig:
    kind: ClassVar[str] = "lstm"
    embedding: int = 128  # size of a label's vector, >= 1
    layers: int = 1  # >= 1
    hidden: int = 128  # memory cells of a layer, >= 1
    projection: int = 0  # outputs of a layer, below `hidden`; 0: the cells themselves
    layer_norm: bool = False  # as in the encoder
    dropout: float = 0.0  # on the embedding and between layers, [0, 1)

    def __post_init__(self) -> None:
        if min(self.embedding, self.layers, self.hidden) < 1:
            raise UsageError(
                f"predictor embedding {self.embedding}, layers {self.layers}, hidden {self.hidden}",
                hint="all are at least 1",
            )
        if not 0 <= self.projection < self.hidden:
            raise UsageError(f"predictor projection is {self.projection}", hint=f"it lies in 0 .. {self.hidden - 1}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"predictor dropout is {self.dropout}", hint="it lies in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class StatelessPredictorConfig:
    kind: ClassVar[str] = "stateless"
    embedding: int = 128  # size of a label's vector and of the output, >= 1
    context: int = 2  # labels that are seen, >= 1; the paper finds 1 or 2 enough for word pieces
    dropout: float = 0.0  # on the embedding, [0, 1)

    def __post_init__(self) -> None:
        if min(self.embedding, self.context) < 1:
            raise UsageError(
                f"predictor embedding {self.embedding}, context {self.context}", hint="both are at least 1"
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"predictor dropout is {self.dropout}", hint="it lies in [0, 1)")


PredictorConfig = LstmPredictorConfig | StatelessPredictorConfig


class Predictor(nn.Module, ABC):
    output_dim: int

    def __init__(self, vocabulary: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.dropout = nn.Dropout(dropout)

    def forward(self, targets: Tensor) -> Tensor:
        """Outputs [B, U + 1, P] before and after each of the labels `targets` [B, U]."""
        y, _ = self._run(functional.pad(targets, (1, 0)), self._empty(len(targets), targets.device))
        return y

    def start(self, n: int, device: torch.device | str = "cpu") -> tuple[Tensor, PredictorState]:
        """Output [n, P] and state of `n` hypotheses without labels."""
        nothing = torch.zeros(n, dtype=torch.int64, device=device)
        return self.advance(nothing, self._empty(n, torch.device(device)))

    def advance(self, tokens: Tensor, state: PredictorState) -> tuple[Tensor, PredictorState]:
        """Output and state after one more label each, `tokens` [n]."""
        y, state = self._run(tokens[:, None], state)
        return y[:, 0], state

    @staticmethod
    def select(state: PredictorState, index: Tensor) -> PredictorState:
        """The states of the hypotheses `index`, repeated as often as they are named."""
        return tuple(part[index] for part in state)

    @abstractmethod
    def _empty(self, n: int, device: torch.device) -> PredictorState: ...

    @abstractmethod
    def _run(self, tokens: Tensor, state: Any) -> tuple[Tensor, PredictorState]: ...


class LstmPredictor(Predictor):
    def __init__(self, vocabulary: int, config: LstmPredictorConfig = LstmPredictorConfig()) -> None:
        super().__init__(vocabulary, config.embedding, config.dropout)
        self.lstm = LstmStack(
            config.embedding,
            config.hidden,
            config.projection,
            config.layers,
            layer_norm=config.layer_norm,
            dropout=config.dropout,
        )
        self.output_dim = self.lstm.output_dim

    def _empty(self, n: int, device: torch.device) -> PredictorState:
        return self.lstm.start(n, device)

    def _run(self, tokens: Tensor, state: Any) -> tuple[Tensor, PredictorState]:
        y, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        return y, state


class StatelessPredictor(Predictor):
    """relu of a sum of the last `context` labels' vectors, each weighted by how long ago it was."""

    def __init__(self, vocabulary: int, config: StatelessPredictorConfig = StatelessPredictorConfig()) -> None:
        super().__init__(vocabulary, config.embedding, config.dropout)
        self.output_dim, self.context = config.embedding, config.context
        self.mix = nn.Conv1d(config.embedding, config.embedding, config.context, groups=config.embedding)

    def _empty(self, n: int, device: torch.device) -> PredictorState:
        return (torch.zeros(n, self.context - 1, dtype=torch.int64, device=device),)

    def _run(self, tokens: Tensor, state: Any) -> tuple[Tensor, PredictorState]:
        seen = torch.cat([state[0], tokens], dim=1)
        vectors = self.dropout(self.embedding(seen)).transpose(1, 2)
        return self.mix(vectors).transpose(1, 2).relu(), (seen[:, seen.shape[1] - self.context + 1 :],)


def build_predictor(vocabulary: int, config: PredictorConfig) -> Predictor:
    if isinstance(config, LstmPredictorConfig):
        return LstmPredictor(vocabulary, config)
    return StatelessPredictor(vocabulary, config)
