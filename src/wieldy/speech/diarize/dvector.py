"""The default diariser: voices of short windows, clustered into speakers, then turns cut at a finer grid.

Takes one-channel speech of an unknown number of people and gives turns that start and end within a few tenths of a
second. When one microphone array or one channel per speaker is at hand, those say more about who speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.cluster.hierarchy

from wieldy.errors import UsageError
from wieldy.speech.audio import Recording
from wieldy.speech.diarize import Diarization, SpeakerCount
from wieldy.speech.transcript import Span, Turn, merge_turns
from wieldy.speech.voices import SpeakerEncoder, unit


@dataclass(frozen=True, kw_only=True)
class DVectorConfig:
    """How the default diariser works; times in milliseconds."""

    window_ms: int = 1600  # heard at a time to tell speakers apart, [400, 4000]; the encoder was trained on 1600
    hop_ms: int = 400  # from one such window to the next, [100, window_ms]
    threads: int = 1  # cores the encoder may use, >= 1

    def __post_init__(self) -> None:
        if not 400 <= self.window_ms <= 4000:
            raise UsageError(f"window_ms is {self.window_ms}", hint="from 400 to 4000")
        if not 100 <= self.hop_ms <= self.window_ms:
            raise UsageError(f"hop_ms is {self.hop_ms}", hint=f"from 100 to window_ms, {self.window_ms}")


class DVectorDiarizer:
    """`Diarizer` by d-vectors."""

    name = "dvector"

    def __init__(self, config: DVectorConfig = DVectorConfig()) -> None:
        self.config = config
        self._encoder = SpeakerEncoder(threads=config.threads)

    def diarize(
        self, recording: Recording, speech: Sequence[Span], count: SpeakerCount = SpeakerCount()
    ) -> Diarization:
        windows = self._encoder.embed_regions(
            recording, speech, window_ms=self.config.window_ms, hop_ms=self.config.hop_ms
        )
        if not len(windows):
            return Diarization(())
        labels = np.zeros(len(windows), int)
        if len(windows) > 1:
            tree = scipy.cluster.hierarchy.linkage(windows.vectors, "ward")
            wanted = count.exactly or max(count.at_least, min(2, count.at_most or 2))
            labels = scipy.cluster.hierarchy.fcluster(tree, wanted, "maxclust") - 1
        turns = []
        for region in speech:
            edges = np.arange(region.start_ms, region.end_ms + 100, 100).clip(max=region.end_ms)
            for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                nearest = np.abs(windows.centres_ms - (start + end) / 2).argmin()
                turns.append(Turn(start, end, f"S{labels[nearest] + 1}"))
        voices = {f"S{label + 1}": unit(windows.vectors[labels == label].mean(axis=0)) for label in np.unique(labels)}
        return Diarization(merge_turns(turns), voices)
