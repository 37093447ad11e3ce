"""LSTM encoder that only looks back: the default encoder of a streaming transducer, cheap on a CPU.

Take `layer_trajectory` or `streaming_transformer` where some look-ahead may be spent for accuracy.

Haşim Sak et al. 2014, Long short-term memory based recurrent neural network architectures for large vocabulary speech
recognition, arXiv 1402.1128 (projection); Jinyu Li et al. 2019, Improving RNN transducer modeling for end-to-end speech
recognition, arXiv 1909.12415 (layer norm within the cell).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import UsageError
from wieldy.speech.latency import AlgorithmicLatency
from wieldy.speech.networks.encoder import Encoder, State

LstmState = tuple[Tensor, Tensor]  # hidden [B, layers, output], cell [B, layers, hidden]


@dataclass(frozen=True, kw_only=True)
class LstmConfig:
    """Defaults: a model for one CPU core. Published sizes: `TransducerConfig.preset("large", ...)`."""

    kind: ClassVar[str] = "lstm"
    layers: int = 3  # >= 1
    hidden: int = 256  # memory cells of a layer, >= 1
    # Outputs of a layer, below `hidden`; 0: the cells themselves, which trains more than twice as fast for equal
    # weights on a CPU (3 layers, 8 utterances of 200 frames: 0.23 s with 192 cells, 0.53 s with 256 to 128).
    projection: int = 128
    stack: int = 1  # input frames joined to one, >= 1
    layer_norm: bool = False  # norm the input of each gate: steadier in deep stacks, several times slower on a CPU
    dropout: float = 0.0  # between layers, [0, 1)

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.stack) < 1:
            raise UsageError(
                f"layers {self.layers}, hidden {self.hidden}, stack {self.stack}", hint="all are at least 1"
            )
        if not 0 <= self.projection < self.hidden:
            raise UsageError(f"projection is {self.projection}", hint=f"it lies in 0 .. {self.hidden - 1}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}", hint="it lies in [0, 1)")


class LstmEncoder(Encoder):
    """y_t = LSTM(x_1 .. x_t). An output waits for nothing but the frames that are stacked into it."""

    def __init__(self, input_dim: int, config: LstmConfig = LstmConfig()) -> None:
        super().__init__()
        self.input_dim, self.subsampling = input_dim, config.stack
        self.stack = FrameStack(config.stack)
        self.lstm = LstmStack(
            input_dim * config.stack,
            config.hidden,
            config.projection,
            config.layers,
            layer_norm=config.layer_norm,
            dropout=config.dropout,
        )
        self.output_dim = self.lstm.output_dim

    def latency(self) -> AlgorithmicLatency:
        return AlgorithmicLatency.of_chunks(1, 0, self.subsampling, 0, past=float("inf"))

    def _start(self, batch: int, device: torch.device) -> State:
        return {
            "stack": self._zeros(batch, 0, self.input_dim, device=device),
            "lstm": self.lstm.start(batch, device),
        }

    def _step(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:  # noqa: ARG002
        x, rest = self.stack(x, state["stack"], final)
        y, lstm = self.lstm(x, state["lstm"])
        return y, {"stack": rest, "lstm": lstm}


class FrameStack(nn.Module):
    """Joins every `factor` frames [B, t, F] to one [B, t', factor * F]; the last is filled up with zeros."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, rest: Tensor, final: bool) -> tuple[Tensor, Tensor]:
        """The joined frames, and those that are left over for the next call."""
        if self.factor == 1:
            return x, rest
        x = torch.cat([rest, x], dim=1)
        if final:
            x = functional.pad(x, (0, 0, 0, -x.shape[1] % self.factor))
        whole = x.shape[1] // self.factor
        joined, rest = x.tensor_split([whole * self.factor], dim=1)
        return joined.reshape(x.shape[0], whole, self.factor * x.shape[2]), rest


class LstmStack(nn.Module):
    """Layers of LSTM with projection, [B, T, input_dim] to [B, T, output_dim], from a state to the next.

    torch's own, or with `layer_norm` ours, where the input of each gate is normed.
    """

    def __init__(
        self,
        input_dim: int,
        hidden: int,
        projection: int,
        layers: int,
        *,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden, self.count, self.output_dim = hidden, layers, projection or hidden
        self.dropout = dropout
        self.plain: nn.LSTM | None = None
        self.normed = nn.ModuleList()
        if layer_norm:
            sizes = [input_dim] + [self.output_dim] * (layers - 1)
            self.normed.extend(NormedLstm(size, hidden, projection) for size in sizes)
        else:
            between = dropout if layers > 1 else 0.0  # torch warns of dropout that comes after nothing
            self.plain = nn.LSTM(input_dim, hidden, layers, batch_first=True, dropout=between, proj_size=projection)

    def start(self, batch: int, device: torch.device) -> LstmState:
        dtype = next(self.parameters()).dtype
        return (
            torch.zeros(batch, self.count, self.output_dim, device=device, dtype=dtype),
            torch.zeros(batch, self.count, self.hidden, device=device, dtype=dtype),
        )

    def forward(self, x: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        if x.shape[0] == 0 or x.shape[1] == 0:
            return x.new_zeros(*x.shape[:2], self.output_dim), state
        if self.plain is not None:
            before = (state[0].transpose(0, 1).contiguous(), state[1].transpose(0, 1).contiguous())
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
                y, (hidden, cell) = self.plain(x, before)
            return y, (hidden.transpose(0, 1), cell.transpose(0, 1))
        after: list[LstmState] = []
        for index, layer in enumerate(self.normed):
            if index:
                x = functional.dropout(x, self.dropout, self.training)
            x, own = layer(x, (state[0][:, index], state[1][:, index]))
            after.append(own)
        return x, (torch.stack([h for h, _ in after], dim=1), torch.stack([c for _, c in after], dim=1))


class NormedLstm(nn.Module):
    """One layer of LSTM, a norm on what enters each gate (of gates a in i, f, g, o):

    z_a = LayerNorm_a(W_a x_t + R_a h_t-1)        with scale and shift
    c_t = sigmoid(z_f) c_t-1 + sigmoid(z_i) tanh(z_g)
    h_t = P sigmoid(z_o) tanh(c_t)
    """

    def __init__(self, input_dim: int, hidden: int, projection: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input = nn.Linear(input_dim, 4 * hidden, bias=False)
        self.recurrent = nn.Linear(projection or hidden, 4 * hidden, bias=False)
        self.scale = nn.Parameter(torch.ones(4, hidden))
        self.shift = nn.Parameter(torch.zeros(4, hidden))
        self.projection = nn.Linear(hidden, projection, bias=False) if projection else nn.Identity()

    def forward(self, x: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        h, c = state
        outputs = []
        for entering in self.input(x).unbind(1):
            z = (entering + self.recurrent(h)).view(-1, 4, self.hidden)
            i, f, g, o = (functional.layer_norm(z, (self.hidden,)) * self.scale + self.shift).unbind(1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = self.projection(o.sigmoid() * c.tanh())
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h, c)
