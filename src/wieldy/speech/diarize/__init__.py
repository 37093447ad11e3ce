"""Who spoke when: audio and its speech regions in, turns out.

A diariser is anything with this module's `Diarizer` shape. `dvector.py` is the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from wieldy.errors import UsageError
from wieldy.speech.audio import Recording
from wieldy.speech.transcript import Span, Turn


@dataclass(frozen=True)
class SpeakerCount:
    """How many people speak: exactly `exactly`, or between `at_least` and `at_most` (None: no bound)."""

    exactly: int | None = None
    at_least: int = 1
    at_most: int | None = None

    def __post_init__(self) -> None:
        for option, value in (
            ("speakers", self.exactly),
            ("min-speakers", self.at_least),
            ("max-speakers", self.at_most),
        ):
            if value is not None and value < 1:
                raise UsageError(f"--{option} is {value}", hint="a recording has at least one speaker")
        if self.at_most is not None and self.at_most < self.at_least:
            raise UsageError(f"--max-speakers {self.at_most} is below --min-speakers {self.at_least}")


@dataclass(frozen=True)
class Diarization:
    """Turns sorted by start (they overlap where people do), one unit-length voice per speaker, and notes.

    `voices[speaker]` is the embedding [dim] that a later enrolment compares with; `count_confidence` in [0, 1] says
    how clearly the number of speakers stood out, 1.0 where it was given.
    """

    turns: tuple[Turn, ...]
    voices: Mapping[str, np.ndarray] = field(default_factory=dict)
    count_confidence: float = 1.0
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        voices = {speaker: [float(value) for value in voice] for speaker, voice in self.voices.items()}
        turns = [asdict(turn) for turn in self.turns]
        return {
            "turns": turns,
            "voices": voices,
            "count_confidence": self.count_confidence,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Diarization:
        """The inverse of `to_json`."""
        return cls(
            tuple(Turn(**turn) for turn in data["turns"]),
            {speaker: np.array(voice, dtype=np.float32) for speaker, voice in data["voices"].items()},
            data["count_confidence"],
            tuple(data["warnings"]),
        )


@runtime_checkable
class Diarizer(Protocol):
    """The shape every diariser has."""

    name: str

    def diarize(
        self, recording: Recording, speech: Sequence[Span], count: SpeakerCount = SpeakerCount()
    ) -> Diarization:
        """Attribute the `speech` regions of a one-channel recording to speakers named S1, S2, ... by appearance."""
        ...
