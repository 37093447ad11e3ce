"""Live captions: sound in as it is made, words out as they become certain.

A `CaptionSession` takes samples and gives events: partial words, which may still change, and final words, which never
do. It is for what is happening now; a recording that is finished is better written down by `speech.meeting`, which
hears every sentence whole and says who speaks.

What recognises is anything with the shape of `StreamingEngine`. `engines.build` gives Whisper, which was not made for
streams, through `chunked.ChunkedEngine`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from wieldy import __version__
from wieldy.errors import InputError, UsageError
from wieldy.report import Metric, Report
from wieldy.speech.audio import SAMPLE_RATE, SAMPLES_PER_MS
from wieldy.speech.captions.pace import Pace, PaceConfig
from wieldy.speech.formats.clock import hours
from wieldy.speech.transcript import Transcript, Word

# What a session says -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Partial:
    """What seems to be said after the last final word. It replaces the partial words before it; it may be empty."""

    kind: ClassVar[str] = "partial"
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Final:
    """Words that will not change, at least one. They follow those of the final events before."""

    kind: ClassVar[str] = "final"
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Pause:
    """Nobody has spoken for a while, and all that was said until `at_ms` is final: a caption can be closed."""

    kind: ClassVar[str] = "pause"
    at_ms: int


@dataclass(frozen=True)
class Warned:
    """Something to know about the captions around `at_ms`; also in the transcript's warnings."""

    kind: ClassVar[str] = "warning"
    at_ms: int
    text: str


Event = Partial | Final | Pause | Warned


# What an engine is ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """What an engine made of the sound it was just given; times are on the clock of the stream.

    `committed` are words that are certain now, in order; `partial` all that seems to follow them, anew each time.
    `pause` is True where speech has ended: then `partial` is empty.
    """

    committed: tuple[Word, ...] = ()
    partial: tuple[Word, ...] = ()
    pause: bool = False
    warnings: tuple[str, ...] = ()


class StreamingEngine(Protocol):
    """The shape of an engine: one stream, from its first sample to its last, in memory that does not grow.

    `steps_ms` are the least and the most sound it can work through at a time: with a short step words come early,
    with a long one a second of sound costs less. An engine whose cost is the same at every step gives one twice.
    """

    name: str
    model_id: str
    model_files: Mapping[str, str]  # SHA-256 of each file of weights, by file name
    steps_ms: tuple[int, int]

    def push(self, samples: np.ndarray, step_ms: int) -> Heard:
        """Take the next samples, float32 [n] at `SAMPLE_RATE`, of any number.

        The engine does its costly work at most about once in `step_ms` of speech. Committed words start in order, also
        from one call to the next.
        """
        ...

    def flush(self) -> Heard:
        """Commit all that was said until now, as if a pause had come. The stream may go on afterwards."""
        ...


# The session ---------------------------------------------------------------------------------------------------------


class CaptionSession:
    """One stream of sound and its captions so far.

    `name` is the session's name in the transcript. Where the engine falls behind, `pace` has it work in longer steps;
    `adapt=False` leaves the steps as short as they can be, so that the same sound gives the same events on any
    machine: for recordings, which can wait. `clock` gives seconds.
    """

    def __init__(
        self,
        engine: StreamingEngine,
        pace: PaceConfig = PaceConfig(),
        *,
        name: str = "captions",
        adapt: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.engine = engine
        self.name = name
        self._pace = Pace(engine.steps_ms, pace)
        self._adapt = adapt
        self._clock = clock
        self._samples = 0
        self._seconds = 0.0
        self._words: list[Word] = []
        self._partial: tuple[Word, ...] = ()
        self._warnings: list[str] = []
        self._flushed = True  # nothing was pushed since
        self._finished = False

    @property
    def now_ms(self) -> int:
        """How much sound the session was given."""
        return self._samples // SAMPLES_PER_MS

    @property
    def load(self) -> float:
        """Seconds of work per second of sound so far: the real-time factor."""
        return self._seconds * SAMPLE_RATE / self._samples if self._samples else 0.0

    def push(self, samples: np.ndarray) -> list[Event]:
        """Take the next samples, float32 [n] in [-1, 1], mono at 16 kHz, of any number; give what is new.

        Samples that are not numbers count as silence. Raises `InputError` for other shapes and types.
        """
        self._check_open()
        if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype != np.float32:
            got = f"{samples.dtype} {list(samples.shape)}" if isinstance(samples, np.ndarray) else type(samples)
            raise InputError(f"{self.name}: samples are {got}", hint=f"push float32 [n], mono at {SAMPLE_RATE} Hz")
        usable = np.clip(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0), -1.0, 1.0)
        self._flushed = False
        started = self._clock()
        heard = self.engine.push(usable, self._pace.step_ms)
        seconds = self._clock() - started
        self._samples += len(samples)
        self._seconds += seconds
        events = self._told(heard)
        if self._adapt and (warning := self._pace.note(len(samples) / SAMPLE_RATE, seconds)):
            events.append(self._warned(warning))
        return events

    def flush(self) -> list[Event]:
        """Make all that was said until now final, as at the end of the stream; more may be pushed."""
        self._check_open()
        if self._flushed:
            return []
        self._flushed = True
        started = self._clock()
        heard = self.engine.flush()
        self._seconds += self._clock() - started
        return self._told(heard)

    def finish(self) -> Transcript:
        """End the session. The transcript's words are those of all final events, and those `flush` would have given."""
        self.flush()
        self._finished = True
        metrics = (
            Metric.of("audio", self.now_ms / 1000, "s"),
            Metric.of("time taken", self._seconds, "s"),
            Metric.of("real-time factor", self.load),
            Metric.of("words", len(self._words)),
        )
        details: dict[str, Any] = {
            "wieldy": __version__,
            "engine": self.engine.name,
            "model": self.engine.model_id,
            "model_files": dict(self.engine.model_files),
        }
        warnings = tuple(self._warnings)
        return Transcript(
            name=self.name,
            words=tuple(self._words),
            duration_ms=self.now_ms,
            meta=details,
            warnings=warnings,
            report=Report(self.name, metrics, notes=warnings, details=details),
        )

    def _told(self, heard: Heard) -> list[Event]:
        events: list[Event] = [self._warned(warning) for warning in heard.warnings]
        if heard.committed:
            self._words += heard.committed
            events.append(Final(heard.committed))
        if heard.partial != self._partial:
            self._partial = heard.partial
            events.append(Partial(heard.partial))
        if heard.pause:
            events.append(Pause(self.now_ms))
        return events

    def _warned(self, text: str) -> Warned:
        self._warnings.append(f"{hours(self.now_ms)} {text}")
        return Warned(self.now_ms, text)

    def _check_open(self) -> None:
        if self._finished:
            raise UsageError(f"{self.name}: the session is finished", hint="begin a new one")


def to_json(event: Event) -> dict[str, Any]:
    """An event as plain values: its kind, and words with their times in seconds."""
    if isinstance(event, Partial | Final):
        words = [
            {"text": word.text, "start": word.start, "end": word.end, "confidence": word.confidence}
            for word in event.words
        ]
        return {"event": event.kind, "words": words}
    return {"event": event.kind, **dataclasses.asdict(event)}
