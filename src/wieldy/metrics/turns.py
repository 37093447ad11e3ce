"""Diarisation errors: how much speaking time was missed, invented or given to the wrong person.

DER = (missed + false alarm + confusion) / reference speaking time, under the one-to-one match of speakers with the
most time in common. JER averages, over reference speakers, 1 minus the Jaccard index of the speaker's time and of
the time of whoever was matched. Both by pyannote.metrics (Bredin, Interspeech 2017).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from wieldy.errors import UsageError

if TYPE_CHECKING:
    from pyannote.core import Annotation

# Errors are kept per block of time, the unit of a bootstrap: longer than most turns, short enough to have several.
BLOCK_MS = 10_000


class SpeakerTurn(Protocol):
    """Anything with a start, an end (milliseconds) and a speaker."""

    @property
    def start_ms(self) -> int: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def speaker(self) -> str: ...


@dataclass(frozen=True)
class TimeErrors:
    """Errors in milliseconds against `speech_ms` of reference speaking time, in which overlap counts per speaker."""

    speech_ms: int = 0
    missed_ms: int = 0
    false_alarm_ms: int = 0
    confusion_ms: int = 0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 0:
                raise UsageError(f"TimeErrors.{name} is {value}, a duration cannot be negative")
        if self.missed_ms + self.confusion_ms > self.speech_ms:
            raise UsageError(
                f"{self.missed_ms} ms missed and {self.confusion_ms} ms confused in {self.speech_ms} ms of speech"
            )

    def __add__(self, other: TimeErrors) -> TimeErrors:
        return TimeErrors(
            self.speech_ms + other.speech_ms,
            self.missed_ms + other.missed_ms,
            self.false_alarm_ms + other.false_alarm_ms,
            self.confusion_ms + other.confusion_ms,
        )

    @property
    def errors_ms(self) -> int:
        return self.missed_ms + self.false_alarm_ms + self.confusion_ms

    @property
    def rate(self) -> float | None:
        """Diarisation error rate; None without reference speech."""
        return self.errors_ms / self.speech_ms if self.speech_ms else None


@dataclass(frozen=True)
class JaccardErrors:
    """Summed Jaccard error of `speakers` reference speakers, each in [0, 1]."""

    speakers: int = 0
    errors: float = 0.0

    def __post_init__(self) -> None:
        # A sum of floats: one part in 10^9 over is rounding.
        if not 0 <= self.errors <= self.speakers * (1 + 1e-9):
            raise UsageError(f"a Jaccard error of {self.errors} for {self.speakers} speakers")

    def __add__(self, other: JaccardErrors) -> JaccardErrors:
        return JaccardErrors(self.speakers + other.speakers, self.errors + other.errors)

    @property
    def rate(self) -> float | None:
        """Jaccard error rate; None without a reference speaker."""
        return self.errors / self.speakers if self.speakers else None


def turn_errors(
    reference: Sequence[SpeakerTurn],
    hypothesis: Sequence[SpeakerTurn],
    *,
    collar_s: float = 0.0,
    skip_overlap: bool = False,
) -> tuple[tuple[TimeErrors, ...], JaccardErrors]:
    """DER's parts for each block of `BLOCK_MS` (they add up to the recording's), and JER's.

    `collar_s` on each side of every reference boundary is left out; so is overlap in the reference if `skip_overlap`.
    """
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate
    from pyannote.metrics.errors.identification import IdentificationErrorAnalysis

    # pyannote's collar is the whole width around a boundary, ours what lies on each side.
    options: dict[str, Any] = {"collar": 2 * collar_s, "skip_overlap": skip_overlap}
    end_ms = max((turn.end_ms for turn in (*reference, *hypothesis)), default=0)
    recording = Timeline([Segment(0, end_ms / 1000)])
    # Speakers are marked with their side, so that equal names on both do not meet by accident.
    sides: tuple[Any, Any] = _annotation(reference, "reference"), _annotation(hypothesis, "hypothesis")

    metric: Any = DiarizationErrorRate(**options)
    ref, hyp, scored = metric.uemify(*sides, uem=recording, returns_uem=True, **options)
    mapped = hyp.rename_labels(mapping=metric.optimal_mapping(ref, hyp))
    blocks: dict[int, Counter[str]] = {}
    for segment, _, label in IdentificationErrorAnalysis().difference(ref, mapped, uem=scored).itertracks(True):
        start_ms, end_ms = round(segment.start * 1000), round(segment.end * 1000)
        while start_ms < end_ms:
            block = start_ms // BLOCK_MS
            until_ms = min(end_ms, (block + 1) * BLOCK_MS)
            blocks.setdefault(block, Counter())[label[0]] += until_ms - start_ms
            start_ms = until_ms
    jaccard_metric: Any = JaccardErrorRate
    jaccard = jaccard_metric(**options)(*sides, uem=recording, detailed=True)
    return (
        tuple(
            TimeErrors(
                speech_ms=spent["correct"] + spent["confusion"] + spent["missed detection"],
                missed_ms=spent["missed detection"],
                false_alarm_ms=spent["false alarm"],
                confusion_ms=spent["confusion"],
            )
            for _, spent in sorted(blocks.items())
        ),
        JaccardErrors(int(jaccard["speaker count"]), jaccard["speaker error"]),
    )


def _annotation(turns: Iterable[SpeakerTurn], side: str) -> Annotation:
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for index, turn in enumerate(turns):
        if turn.end_ms > turn.start_ms:
            annotation[Segment(turn.start_ms / 1000, turn.end_ms / 1000), index] = f"{side} {turn.speaker}"
    return annotation
