"""What every encoder has in common: whole utterances at once or pieces of a stream, with the same answer.

`forward` is one `step` that gets everything, so an encoder is written once. Streams keep what they need to go on in
a plain dictionary of tensors and numbers that can be stored and taken up again.

Notation: B utterances, T input frames, F input features, T' = ceil(T / subsampling) output frames, D output features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wieldy.errors import InputError, UsageError
from wieldy.speech.latency import AlgorithmicLatency

State = dict[str, Any]
RUNNING = 2**62  # the end of an utterance that has not ended, in frames


class Encoder(nn.Module, ABC):
    """x [B, T, F] to y [B, T', D]. Output frame t stands for input frames t * subsampling and the following."""

    input_dim: int
    output_dim: int
    subsampling: int

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, T', D], zero beyond their lengths, and these [B]. What lies beyond `lens` [B] is never read."""
        if x.dim() == 3 and (lens.shape != x.shape[:1] or bool((lens < 0).any()) or bool((lens > x.shape[1]).any())):
            raise InputError(f"lengths {lens.tolist()} for features of shape {tuple(x.shape)}")
        y, _ = self.step(x, self.init_state(x.shape[0], x.device), lens=lens, final=True)
        return y, self.output_lens(lens)

    def output_lens(self, lens: Tensor) -> Tensor:
        return torch.div(lens + self.subsampling - 1, self.subsampling, rounding_mode="floor")

    def init_state(self, batch: int, device: torch.device | str = "cpu", *, utterances: Sequence[str] = ()) -> State:
        """The state before the first frame of `batch` streams. With their names, `step` notices a mix-up."""
        return {
            "utterances": tuple(utterances),
            "seen": 0,
            "given": 0,
            "ended": False,
            "ends": torch.full((batch,), RUNNING, dtype=torch.int64, device=device),
            "inner": self._start(batch, torch.device(device)),
        }

    def step(
        self,
        x: Tensor,
        state: State,
        *,
        lens: Tensor | None = None,
        final: bool = False,
        utterances: Sequence[str] = (),
    ) -> tuple[Tensor, State]:
        """The outputs [B, t', D] that the next frames `x` [B, t, F] of the streams complete, and the state after them.

        All outputs of a stream, concatenated, are those of `forward`. `lens` [B] says how many of the t frames belong
        to each stream (all, when missing): a stream with fewer ends there, and its row is not read from then on. With
        `final` all end, and what was held back for want of future frames comes out.
        """
        if x.dim() != 3 or x.shape[2] != self.input_dim or x.shape[0] != len(state["ends"]):
            raise InputError(
                f"features of shape {tuple(x.shape)}", hint=f"they are [{len(state['ends'])}, frames, {self.input_dim}]"
            )
        if state["ended"]:
            raise UsageError("frames after the final ones", hint="begin a new stream with init_state")
        for n, (old, new) in enumerate(zip(state["utterances"], utterances, strict=False)):
            if old != new:
                raise InputError(f"row {n} goes on with {new!r}, but remembers {old!r}", hint="reset that row first")
        frames, ends = x.shape[1], state["ends"]
        if lens is not None:
            late = (ends < state["seen"]) & (lens > 0)
            if bool(late.any()):
                raise InputError(f"utterance {int(late.int().argmax())} goes on after its end")
            ends = torch.where(lens < frames, (state["seen"] + lens).clamp(max=ends), ends)
        if final:
            ends = ends.clamp(max=state["seen"] + frames)
        if lens is not None or bool((ends < RUNNING).any()):
            x = zeroed(x, ends, state["seen"])
        seen = state["seen"] + frames
        y, inner = self._step(x, state["inner"], ends, final)
        y = zeroed(y, self.output_lens(ends), state["given"])
        given = state["given"] + y.shape[1]
        after = {"seen": seen, "given": given, "ended": final, "ends": ends, "inner": inner}
        return y, {**after, "utterances": state["utterances"]}

    @abstractmethod
    def latency(self) -> AlgorithmicLatency:
        """How far outputs look ahead and back, in input frames."""

    @abstractmethod
    def _start(self, batch: int, device: torch.device) -> State: ...

    @abstractmethod
    def _step(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:
        """As `step`, for x that is zero beyond `ends` [B], in input frames, `RUNNING` where an utterance goes on. What
        is returned beyond the end does not matter."""

    def _zeros(self, *shape: int, device: torch.device) -> Tensor:
        return torch.zeros(*shape, device=device, dtype=next(self.parameters()).dtype)


def within(ends: Tensor, first: int, frames: int) -> Tensor:
    """Whether frames first .. first + frames - 1 lie before `ends` [B]: a mask [B, frames]."""
    return torch.arange(first, first + frames, device=ends.device) < ends[:, None]


def zeroed(x: Tensor, ends: Tensor, first: int) -> Tensor:
    """`x` [B, t, ...], whose first frame is number `first`, with zeros from `ends` [B] on, whatever was there."""
    mask = within(ends, first, x.shape[1])
    return x.masked_fill(~mask.view(*mask.shape, *[1] * (x.dim() - 2)), 0.0)
