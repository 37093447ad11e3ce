"""The usual way to an attributed transcript, as people put it together from parts: the peer in `speech-pipeline`.

faster-whisper hears the whole recording with its own defaults, voice activity filter and word times; the same speaker
encoder as ours hears windows of 1.6 s every 0.8 s; agglomerative clustering cut at a distance tells the speakers apart;
each word goes to the turn it overlaps most, or to the nearest where it overlaps none. Linkage and distance come from
the same recordings, and as many trials, as the constants of our own diariser: `scripts/calibrate_voices.py`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from wieldy.speech.audio import Recording
from wieldy.speech.diarize import SpeakerCount
from wieldy.speech.recognize import begins_word
from wieldy.speech.transcript import Span, Transcript, Turn, Word, merge_turns
from wieldy.speech.vad import detect_speech
from wieldy.speech.voices import SpeakerEncoder, Windows

Linkage = Literal["average", "complete", "single", "ward"]
LINKAGES: tuple[Linkage, ...] = get_args(Linkage)


@dataclass(frozen=True)
class Clustering:
    """How the windows are clustered. Where nobody says how many speakers there are, the tree of `linkage` is cut at
    `threshold`, a cosine distance, for "ward" its Euclidean one; where somebody does, that of `linkage_where_told` is
    cut into so many."""

    linkage: Linkage
    threshold: float
    linkage_where_told: Linkage = "average"

    @classmethod
    def calibrated(cls) -> Clustering:
        report = json.loads((files("wieldy.speech.diarize") / "dvector_calibration.json").read_text(encoding="utf-8"))
        return cls(**report["glue"])


class Glue:
    """The parts, loaded: `model` is the folder of a CTranslate2 Whisper."""

    def __init__(self, model: Path, clustering: Clustering, *, threads: int = 2) -> None:
        from faster_whisper import WhisperModel

        self._whisper = WhisperModel(
            str(model), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True
        )
        self._encoder = SpeakerEncoder(threads=threads)
        self._clustering = clustering

    def words(self, recording: Recording) -> tuple[Word, ...]:
        segments, _ = self._whisper.transcribe(
            recording.read(0, recording.duration_ms), vad_filter=True, word_timestamps=True
        )
        words: list[Word] = []
        for heard in (word for segment in segments for word in segment.words or ()):
            start_ms, end_ms = round(1000 * heard.start), round(1000 * max(heard.start, heard.end))
            if words and not begins_word(heard.word):  # "$1" and ",000" are one word
                words[-1] = replace(words[-1], text=words[-1].text + heard.word.strip(), end_ms=end_ms)
            elif heard.word.strip():
                words.append(Word(start_ms, end_ms, heard.word.strip()))
        return tuple(sorted(words, key=lambda word: word.start_ms))

    def turns(self, recording: Recording, count: SpeakerCount = SpeakerCount()) -> tuple[Turn, ...]:
        speech = detect_speech(recording)
        windows = self._encoder.embed_regions(recording, speech)
        return turns_of_windows(speech, windows, cluster(windows, self._clustering, count))


def cluster(windows: Windows, clustering: Clustering, count: SpeakerCount = SpeakerCount()) -> NDArray[np.int64]:
    """A speaker for each window, int [n] from 0. The number of speakers is given or follows from the threshold."""
    if len(windows) < 2:
        return np.zeros(len(windows), np.int64)
    linkage = clustering.linkage if count.exactly is None else clustering.linkage_where_told
    metric = "euclidean" if linkage == "ward" else "cosine"
    tree = hierarchy.linkage(windows.vectors.astype(np.float64), linkage, metric)
    if count.exactly is None:
        return np.asarray(hierarchy.fcluster(tree, clustering.threshold, "distance") - 1, np.int64)
    return np.asarray(hierarchy.fcluster(tree, count.exactly, "maxclust") - 1, np.int64)


def turns_of_windows(speech: Sequence[Span], windows: Windows, labels: NDArray[np.int64]) -> tuple[Turn, ...]:
    """Each region is cut half-way between the centres of its windows."""
    turns = []
    for region in speech:
        inside = np.flatnonzero((windows.spans_ms[:, 0] >= region.start_ms) & (windows.spans_ms[:, 1] <= region.end_ms))
        middles = (windows.centres_ms[inside][1:] + windows.centres_ms[inside][:-1]) / 2
        edges = [region.start_ms, *middles.round().astype(int).tolist(), region.end_ms]
        turns += [
            Turn(start, end, f"S{labels[window] + 1}")
            for (start, end), window in zip(itertools.pairwise(edges), inside.tolist(), strict=False)
        ]
    return merge_turns(turns)


def attributed(name: str, words: Sequence[Word], turns: Sequence[Turn]) -> Transcript:
    """Each word with the speaker of the turn that it overlaps most, or else of the nearest."""

    def overlap(word: Word, turn: Turn) -> int:  # below 0: the distance
        return min(word.end_ms, turn.end_ms) - max(word.start_ms, turn.start_ms)

    if turns:
        words = [replace(word, speaker=max(turns, key=lambda turn: overlap(word, turn)).speaker) for word in words]
    return Transcript(name=name, words=tuple(words), turns=tuple(turns))
