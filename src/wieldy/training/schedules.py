"""Learning rates over the steps of a training run, as numbers and not as objects with state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from wieldy.errors import UsageError

Shape = Literal["invsqrt", "cosine", "hold-decay", "constant"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """With s the step from 1 to S and w = warmup S, the rate rises as s / w to `peak`, and then

    invsqrt      peak sqrt(w / s)   (Vaswani et al. 2017, Attention is all you need, arXiv 1706.03762)
    cosine       from peak to `final` peak along half a cosine
    hold-decay   peak for the first half of what is left, then exponentially down to `final` peak
    constant     peak
    """

    peak: float = 1e-3  # highest rate, > 0
    shape: Shape = "invsqrt"
    warmup: float = 0.08  # share of all steps in which the rate rises, [0, 1)
    final: float = 0.01  # of cosine and hold-decay: the last rate as a share of the peak, (0, 1]

    def __post_init__(self) -> None:
        if not self.peak > 0:
            raise UsageError(f"the learning rate is {self.peak}", hint="it must be above 0")
        if self.shape not in get_args(Shape):
            raise UsageError(f"schedule {self.shape!r}", hint=f"choose one of {', '.join(get_args(Shape))}")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup is {self.warmup}", hint="it is a share of all steps, from 0 to below 1")
        if not 0 < self.final <= 1:
            raise UsageError(f"final is {self.final}", hint="it is a share of the peak, above 0 and at most 1")

    def rate(self, step: int, steps: int) -> float:
        """The rate of step 1 <= `step` <= `steps`."""
        rising = max(1.0, self.warmup * steps)
        if step < rising:
            return self.peak * step / rising
        if self.shape == "invsqrt":
            return self.peak * math.sqrt(rising / step)
        done = (step - rising) / max(1.0, steps - rising)
        if self.shape == "cosine":
            return self.peak * (self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2)
        if self.shape == "hold-decay":
            return float(self.peak * self.final ** max(0.0, 2 * done - 1))
        return self.peak
