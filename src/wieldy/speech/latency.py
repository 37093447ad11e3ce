"""How long a listener waits for a streaming recogniser: what the network must see before it can answer.

`AlgorithmicLatency` counts frames of sound, whatever the machine; the time the machine needs comes on top of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from wieldy.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AlgorithmicLatency:
    """Look-ahead and look-back of an encoder, in input frames; infinite where it needs the whole utterance.

    Input frame i speaks through output frame i // subsampling. Its look-ahead is the last input frame which that output
    depends on, minus i; its look-back is i minus the first one.
    """

    worst: float  # largest look-ahead of any frame, >= 0
    mean: float  # look-ahead averaged over frames, >= 0
    past: float  # largest look-back, >= 0

    def __post_init__(self) -> None:
        if not 0 <= self.mean <= self.worst or not self.past >= 0:
            raise UsageError(
                f"latency worst {self.worst}, mean {self.mean}, past {self.past}", hint="0 <= mean <= worst, 0 <= past"
            )

    @classmethod
    def of_chunks(cls, chunk: float, right: float, subsampling: int, front: int, past: float) -> AlgorithmicLatency:
        """Of an encoder that answers for `chunk` of its frames at a time and sees `right` more (both in output frames)
        through a front end that sees `front` input frames beyond those an output stands for. Without chunks: 1."""
        worst = (chunk + right) * subsampling - 1 + front
        return cls(
            worst=worst, mean=worst - (chunk * subsampling - 1) / 2 if worst < float("inf") else worst, past=past
        )

    def in_seconds(self, frame_s: float) -> AlgorithmicLatency:
        """The same in seconds, for input frames `frame_s` apart."""
        return AlgorithmicLatency(worst=self.worst * frame_s, mean=self.mean * frame_s, past=self.past * frame_s)
