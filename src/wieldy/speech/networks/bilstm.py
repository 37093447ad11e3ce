"""Bidirectional LSTMs, over whole utterances or, latency-controlled, chunk by chunk: what other encoders compare with.

Without chunks (BLSTM) nothing comes out before the end. With them (LC-BLSTM) the forward direction runs on from chunk
to chunk, while the backward one begins anew `right` frames after each; these frames are seen twice, once as a
look-ahead, which costs right / chunk more work.

Yu Zhang et al. 2015, Highway long short-term memory RNNs for distant speech recognition, arXiv 1510.08983.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import UsageError
from wieldy.speech.latency import AlgorithmicLatency
from wieldy.speech.networks.encoder import Encoder, State
from wieldy.speech.networks.lstm import FrameStack, LstmStack, LstmState


@dataclass(frozen=True, kw_only=True)
class BlstmConfig:
    kind: ClassVar[str] = "blstm"
    layers: int = 3  # >= 1
    hidden: int = 128  # memory cells of a layer in each direction, >= 1
    chunk: int = 0  # frames, after stacking, that are answered together, >= 1; 0: the whole utterance
    right: int = 0  # further frames that a chunk sees, >= 0
    stack: int = 1  # input frames joined to one, >= 1
    dropout: float = 0.0  # between layers, [0, 1)

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.stack) < 1:
            raise UsageError(
                f"layers {self.layers}, hidden {self.hidden}, stack {self.stack}", hint="all are at least 1"
            )
        if min(self.chunk, self.right) < 0 or (self.right and not self.chunk):
            raise UsageError(
                f"chunk {self.chunk}, right {self.right}",
                hint="none is negative, and only chunks see more to the right",
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}", hint="it lies in [0, 1)")


class BlstmEncoder(Encoder):
    def __init__(self, input_dim: int, config: BlstmConfig = BlstmConfig()) -> None:
        super().__init__()
        self.config, self.input_dim, self.subsampling = config, input_dim, config.stack
        self.output_dim = 2 * config.hidden
        self.stack = FrameStack(config.stack)
        sizes = [input_dim * config.stack] + [self.output_dim] * (config.layers - 1)
        self.onward = nn.ModuleList(LstmStack(size, config.hidden, 0, 1) for size in sizes)
        self.back = nn.ModuleList(LstmStack(size, config.hidden, 0, 1) for size in sizes)

    def latency(self) -> AlgorithmicLatency:
        chunk = self.config.chunk or float("inf")
        return AlgorithmicLatency.of_chunks(chunk, self.config.right, self.subsampling, 0, past=float("inf"))

    def _start(self, batch: int, device: torch.device) -> State:
        return {
            "stack": self._zeros(batch, 0, self.input_dim, device=device),
            "waiting": self._zeros(batch, 0, self.input_dim * self.config.stack, device=device),
            "first": 0,
            "onward": [layer.start(batch, device) for layer in self.onward],  # type: ignore[operator]
        }

    def _step(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:
        x, rest = self.stack(x, state["stack"], final)
        x = torch.cat([state["waiting"], x], dim=1) if state["waiting"].shape[1] else x
        ends, first, onward = self.output_lens(ends), state["first"], state["onward"]
        outputs = [x.new_zeros(x.shape[0], 0, self.output_dim)]
        chunk, right = self.config.chunk or x.shape[1], self.config.right
        while x.shape[1] and (final or (self.config.chunk and x.shape[1] >= chunk + right)):
            main = min(chunk, x.shape[1])
            seen = x[:, : main + right]
            y, onward = self._chunk(seen, main, (ends - first).clamp(0, seen.shape[1]), onward)
            outputs.append(y)
            x, first = x[:, main:], first + main
        return torch.cat(outputs, dim=1), {"stack": rest, "waiting": x, "first": first, "onward": onward}

    def _chunk(self, x: Tensor, main: int, lens: Tensor, onward: list[LstmState]) -> tuple[Tensor, list[LstmState]]:
        """Outputs of the first `main` frames of x [B, t, D], of which `lens` [B] belong to each utterance, and the
        states that the forward direction goes on from."""
        after = []
        nothing = self._start(x.shape[0], x.device)["onward"]
        for index, (forward, backward) in enumerate(zip(self.onward, self.back, strict=True)):
            x = functional.dropout(x, self.config.dropout, self.training and index > 0)
            forth, own = forward(x[:, :main], onward[index])
            beyond, _ = forward(x[:, main:], own)
            back, _ = backward(reversed_within(x, lens), nothing[index])
            x = torch.cat([torch.cat([forth, beyond], dim=1), reversed_within(back, lens)], dim=2)
            after.append(own)
        return x[:, :main], after


def reversed_within(x: Tensor, lens: Tensor) -> Tensor:
    """`x` [B, t, D] with the first `lens` [B] frames of each utterance in reverse order."""
    frame = torch.arange(x.shape[1], device=x.device)
    index = torch.where(frame < lens[:, None], lens[:, None] - 1 - frame, frame)
    return x.gather(1, index[:, :, None].expand_as(x))
