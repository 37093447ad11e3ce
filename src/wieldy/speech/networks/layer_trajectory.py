"""Contextual layer-trajectory LSTM: an LSTM encoder that sees a few frames ahead, at a latency chosen layer by layer.

Time runs through one LSTM per layer, as in `lstm`; what these find is gathered, frame by frame, by a second LSTM that
runs through the layers instead of through time, and only this one looks ahead. Without latency to spend take `lstm`.

Jinyu Li et al. 2019, Improving layer trajectory LSTM with future context frames, ICASSP; as transducer encoder Jinyu Li
et al. 2020, arXiv 2007.15188. Of layer l = 1 .. L with tau_l frames of look-ahead, h and s outputs, c memory:

    h_t^l = LSTM_time^l(h_t^l-1, state_t-1)                 h^0 = x
    v_t^l = sum_d=0..tau_l G_d^l s_t+d^l-1                  s^0 = W x;  s beyond the end of the utterance is 0
    s_t^l, c_t^l = LSTM_depth^l(h_t^l, v_t^l, c_t^l-1)      c^0 = 0;  the encoder's output is s^L

The sum is over the depth outputs of the layer below, so that look-aheads of layers add up to sum_l tau_l.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import UsageError
from wieldy.speech.latency import AlgorithmicLatency
from wieldy.speech.networks.encoder import Encoder, State, zeroed
from wieldy.speech.networks.lstm import FrameStack, LstmStack


@dataclass(frozen=True, kw_only=True)
class LayerTrajectoryConfig:
    kind: ClassVar[str] = "layer-trajectory"
    look_ahead: tuple[int, ...] = (4, 4, 4)  # frames of each layer, after stacking, >= 0; one entry per layer
    hidden: int = 256  # memory cells of a time layer, >= 1
    projection: int = 128  # outputs of a time layer and size of the depth LSTM, below `hidden`; 0: `hidden`
    stack: int = 1  # input frames joined to one, >= 1
    layer_norm: bool = False  # in the time layers, as in `lstm`
    matrices: bool = False  # G_d is a matrix, not a factor for each dimension
    dropout: float = 0.0  # between time layers, [0, 1)

    def __post_init__(self) -> None:
        if not self.look_ahead or min(self.look_ahead) < 0:
            raise UsageError(f"look_ahead is {self.look_ahead}", hint="give the frames of each layer, none negative")
        if min(self.hidden, self.stack) < 1:
            raise UsageError(f"hidden {self.hidden}, stack {self.stack}", hint="both are at least 1")
        if not 0 <= self.projection < self.hidden:
            raise UsageError(f"projection is {self.projection}", hint=f"it lies in 0 .. {self.hidden - 1}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}", hint="it lies in [0, 1)")


class LayerTrajectoryEncoder(Encoder):
    def __init__(self, input_dim: int, config: LayerTrajectoryConfig = LayerTrajectoryConfig()) -> None:
        super().__init__()
        self.config, self.input_dim, self.subsampling = config, input_dim, config.stack
        self.stack = FrameStack(config.stack)
        self.output_dim = size = config.projection or config.hidden
        joined = input_dim * config.stack
        sizes = [joined] + [size] * (len(config.look_ahead) - 1)
        self.time = nn.ModuleList(
            LstmStack(entering, config.hidden, config.projection, 1, layer_norm=config.layer_norm) for entering in sizes
        )
        self.bottom = nn.Linear(joined, size, bias=False)
        self.depth = nn.ModuleList(DepthLayer(size, tau, config.matrices) for tau in config.look_ahead)

    def latency(self) -> AlgorithmicLatency:
        right = sum(self.config.look_ahead)
        return AlgorithmicLatency.of_chunks(1, right, self.subsampling, 0, past=float("inf"))

    def _start(self, batch: int, device: torch.device) -> State:
        none = self._zeros(batch, 0, self.output_dim, device=device)
        return {
            "stack": self._zeros(batch, 0, self.input_dim, device=device),
            "time": [layer.start(batch, device) for layer in self.time],  # type: ignore[operator]
            "waiting": [(none, none, none) for _ in self.depth],
            "first": [0 for _ in self.depth],
        }

    def _step(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:
        x, rest = self.stack(x, state["stack"], final)
        h, s = x, self.bottom(x)
        c, ends = torch.zeros_like(s), self.output_lens(ends)
        after: State = {"stack": rest, "time": [], "waiting": [], "first": []}
        for index, (time, depth) in enumerate(zip(self.time, self.depth, strict=True)):
            h = functional.dropout(h, self.config.dropout, self.training and index > 0)
            h, own = time(h, state["time"][index])
            waiting, first = state["waiting"][index], state["first"][index]
            above = [torch.cat(pair, dim=1) for pair in zip(waiting, (h, s, c), strict=True)]
            s, c = depth(above[0], zeroed(above[1], ends, first), above[2], final)
            after["time"].append(own)
            after["waiting"].append(tuple(part[:, s.shape[1] :] for part in above))
            after["first"].append(first + s.shape[1])
        return s, after


class DepthLayer(nn.Module):
    def __init__(self, size: int, look_ahead: int, matrices: bool) -> None:
        super().__init__()
        self.look_ahead = look_ahead
        self.context = nn.Conv1d(size, size, look_ahead + 1, groups=1 if matrices else size, bias=False)
        self.input = nn.Linear(size, 4 * size)
        self.recurrent = nn.Linear(size, 4 * size, bias=False)

    def forward(self, h: Tensor, s: Tensor, c: Tensor, final: bool) -> tuple[Tensor, Tensor]:
        """s and c [B, t', D] of those frames of h [B, T, D], and s and c of the layer below [B, t, D], whose future is
        there; all, if these are the final ones."""
        s = functional.pad(s, (0, 0, 0, self.look_ahead)) if final else s
        frames = max(0, s.shape[1] - self.look_ahead)
        if not frames:
            return s[:, :0], c[:, :0]
        v = self.context(s.transpose(1, 2)).transpose(1, 2)
        i, f, g, o = (self.input(h[:, :frames]) + self.recurrent(v)).chunk(4, dim=-1)
        c = f.sigmoid() * c[:, :frames] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
