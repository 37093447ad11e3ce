"""How long a listener waits for a streaming encoder on this machine: what it must hear first, and what it computes.

What training makes of it, how late words come, is `latency.EmissionLatency`.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import torch

from wieldy.devices import cpu
from wieldy.errors import UsageError
from wieldy.report import Metric, Report
from wieldy.speech.networks.encoder import Encoder
from wieldy.speech.networks.streaming_config import StreamingConfig

MOST_WARM_UP = 50  # steps before time is taken, at most: enough to fill what a usual encoder remembers


@dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """Sound at the worst and at the average place waits so long for its answer; infinite where all must be heard."""

    worst_ms: float  # from a sound to the last one that its answer depends on, at the worst place in a chunk
    mean_ms: float  # the same, averaged over all places
    left_s: float  # how far back an answer depends on what was heard
    chunk_ms: float  # of sound that is answered at a time
    compute_ms: tuple[float, ...] = ()  # that each of some steps took here; empty: not measured

    @property
    def perceived_ms(self) -> float | None:
        """The worst wait with the median of the computing; None where that was not measured."""
        return self.worst_ms + statistics.median(self.compute_ms) if self.compute_ms else None

    @property
    def keeps_up(self) -> bool | None:
        """Whether a step takes less time than its sound; None where that was not measured."""
        return statistics.median(self.compute_ms) < self.chunk_ms if self.compute_ms else None

    @property
    def report(self) -> Report:
        figures = {
            "waits at worst": self.worst_ms,
            "waits on average": self.mean_ms,
            "answered at a time": self.chunk_ms,
        }
        metrics = [Metric.of(name, value, "ms") for name, value in figures.items()]
        metrics.append(Metric.of("depends on the last", self.left_s, "s"))
        notes = []
        if self.perceived_ms is not None:
            metrics.append(Metric("computing of a step", self.compute_ms, "ms"))
            metrics.append(Metric.of("waits at worst, with computing", self.perceived_ms, "ms"))
            if not self.keeps_up:
                notes.append("this machine is slower than the sound: answers come later and later")
        return Report("latency", tuple(metrics), notes=tuple(notes), details={"processor": cpu.describe().name})


def latency_report(
    encoder: Encoder | StreamingConfig, frame_shift_ms: float, *, window_ms: float | None = None, steps: int = 20
) -> LatencyReport:
    """Of an encoder for input frames `frame_shift_ms` apart, each made of `window_ms` of sound: one shift, when
    missing; 45 for `LogMelConfig()`, whose frames are 30 ms apart. Time is taken of `steps` steps on normal noise, once
    the encoder remembers as much as it can; none is taken of a configuration.

        worst = look-ahead x shift + window        mean = average look-ahead x shift + window - shift / 2
    """
    window = frame_shift_ms if window_ms is None else window_ms
    if not 0 < frame_shift_ms <= window:
        raise UsageError(
            f"frames of {window:g} ms, {frame_shift_ms:g} ms apart", hint="frames are as long as their shift, or longer"
        )
    if steps < 1:
        raise UsageError(f"steps is {steps}", hint="it is at least 1")
    ahead = encoder.latency()
    streams = math.isfinite(ahead.worst)
    # Of a chunk of n frames the first waits n - 1 frames longer than the last.
    chunk = round(2 * (ahead.worst - ahead.mean)) + 1 if streams else 0
    return LatencyReport(
        worst_ms=ahead.worst * frame_shift_ms + window,
        mean_ms=ahead.mean * frame_shift_ms + window - frame_shift_ms / 2,
        left_s=ahead.past * frame_shift_ms / 1000,
        chunk_ms=chunk * frame_shift_ms if streams else math.inf,
        compute_ms=_computing(encoder, chunk, steps) if streams and isinstance(encoder, Encoder) else (),
    )


def _computing(encoder: Encoder, chunk: int, steps: int) -> tuple[float, ...]:
    """Milliseconds of each of `steps` steps of `chunk` input frames."""
    like = next(encoder.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, chunk, encoder.input_dim, generator=generator).to(like)
    past = encoder.latency().past
    state, training = encoder.init_state(1, like.device), encoder.training
    encoder.eval()
    seconds = []
    try:
        with torch.inference_mode():
            for _ in range(min(MOST_WARM_UP, math.ceil(past / chunk) if math.isfinite(past) else MOST_WARM_UP)):
                _, state = encoder.step(x, state)
            for _ in range(steps):
                began = time.perf_counter()
                _, state = encoder.step(x, state)
                seconds.append(time.perf_counter() - began)
    finally:
        encoder.train(training)
    return tuple(1000 * s for s in seconds)
