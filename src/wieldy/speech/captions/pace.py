"""Keeps captions up with the sound: an engine that falls behind is given longer steps, and shorter ones again later.

A Whisper-like engine pays about the same for every update, however little is new, so twice the step is half the work.
Where the longest step is not enough the captions are late, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass

from wieldy.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PaceConfig:
    """When the step changes. Load is seconds of work per second of sound."""

    window_s: float = 5.0  # sound over which the load is taken, s; the specification's figure
    high: float = 0.8  # above it the step grows: the rest is for whoever shares the machine, (0, 1]
    low: float = 0.4  # below it the step shrinks: half as much, or steps would go up and down, (0, high)
    factor: float = 1.5  # by which the step changes, > 1

    def __post_init__(self) -> None:
        if not self.window_s > 0:
            raise UsageError(f"window_s is {self.window_s}", hint="a number of seconds above 0")
        if not 0 < self.low < self.high <= 1:
            raise UsageError(f"low is {self.low} and high {self.high}", hint="0 < low < high <= 1")
        if not self.factor > 1:
            raise UsageError(f"factor is {self.factor}", hint="a number above 1")


class Pace:
    """The step of one session, between the least and the most of its engine."""

    def __init__(self, steps_ms: tuple[int, int], config: PaceConfig = PaceConfig()) -> None:
        self.least_ms, self.most_ms = steps_ms
        if not 0 < self.least_ms <= self.most_ms:
            raise UsageError(f"steps_ms is {steps_ms}", hint="the least and the most, in milliseconds")
        self.config = config
        self.step_ms = self.least_ms
        self._audio_s = self._work_s = 0.0
        self._degraded = False

    def note(self, audio_s: float, work_s: float) -> str | None:
        """Count work done for sound; gives a warning where captions begin to be late and the step cannot grow."""
        self._audio_s += audio_s
        self._work_s += work_s
        if self._audio_s < self.config.window_s:
            return None
        load = self._work_s / self._audio_s
        self._audio_s = self._work_s = 0.0
        if load > self.config.high:
            at_most = self.step_ms == self.most_ms
            self.step_ms = min(self.most_ms, round(self.step_ms * self.config.factor))
            if at_most and load > 1 and not self._degraded:
                self._degraded = True
                return f"degraded: {load:.1f} s of work for each second of sound, so captions come late"
        elif load < self.config.low:
            self.step_ms = max(self.least_ms, round(self.step_ms / self.config.factor))
            self._degraded = False
        return None
