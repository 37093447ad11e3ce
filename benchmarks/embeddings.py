"""Speaker embeddings of every window of a meeting, in times real time."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import meeting
from benchmarks.arms import Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, shut
from wieldy.claims.result import Condition
from wieldy.report import Metric

SUMMARY = "speaker embeddings of 1.5 s windows every 0.75 s: at least 80 times real time"
BAR = 80.0
PACKAGES = ("numpy", "onnxruntime")
WINDOW_MS, HOP_MS = 1500, 750
MIN_MARGIN = 0.05  # mean cosine of windows of one voice over that of two voices


def ours(audio: Path) -> Observation:
    """`SpeakerEncoder.embed` on all windows at once; the output is how much closer one voice is to itself."""
    import numpy as np

    from wieldy.speech.audio import Recording
    from wieldy.speech.voices import SpeakerEncoder

    recording = Recording.open(audio)
    starts = range(0, recording.duration_ms - WINDOW_MS, HOP_MS)
    windows = [recording.read(start, start + WINDOW_MS) for start in starts]
    encoder = SpeakerEncoder()
    encoder.embed(windows[:2])
    started = time.perf_counter()
    embeddings = encoder.embed(windows)
    seconds = time.perf_counter() - started

    turns = meeting.truth(audio).turns
    speakers = []
    for start in starts:
        inside = {t.speaker for t in turns if t.start_ms <= start and start + WINDOW_MS <= t.end_ms and not t.overlap}
        speakers.append(inside.pop() if len(inside) == 1 else None)
    known = [index for index, speaker in enumerate(speakers) if speaker]
    names = np.array([speakers[index] for index in known])
    cosine = embeddings[known] @ embeddings[known].T
    same = names[:, None] == names[None, :]
    apart = ~np.eye(len(known), dtype=bool)
    return Observation(seconds, float(cosine[same & apart].mean() - cosine[~same].mean()))


ARMS = {"ours": ours}


def run(runs: int) -> BenchmarkResult:
    """Gate on telling voices apart, then time."""
    audio = meeting.recording()
    margin = observe("embeddings", "ours", audio).output
    gates = (Condition("cosine of one voice with itself minus with another", margin, ">=", MIN_MARGIN),)
    bar = Condition("times real time", None, ">=", BAR, "not measured yet")
    if gates[0].verdict != "holds":
        return shut("embeddings", SUMMARY, bar, gates, data=(meeting.DATA,))
    audio_s = meeting.truth(audio).duration_ms / 1000
    times = take_turns("embeddings", ["ours"], audio, runs)["ours"]
    speed = Metric("ours", tuple(audio_s / observed.seconds for observed in times), "x real time")
    return BenchmarkResult(
        name="embeddings",
        summary=SUMMARY,
        bar=Condition(bar.statement, speed.median, ">=", BAR),
        gates=gates,
        ours=speed,
        data=(meeting.DATA,),
    )
