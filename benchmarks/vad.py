"""Finding speech, in times real time, beside the detector of faster-whisper (the same network)."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import meeting
from benchmarks.arms import Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, shut
from wieldy.claims.result import Condition
from wieldy.metrics.turns import TimeErrors, turn_errors
from wieldy.report import Metric
from wieldy.speech.transcript import Turn, merge_turns

SUMMARY = "finding speech in a meeting: at least 200 times real time"
BAR = 200.0
PACKAGES = ("faster-whisper", "numpy", "onnxruntime")
MAX_MISSED = 0.03  # of the speech; within a turn people pause, which is no speech


def ours(audio: Path) -> Observation:
    """`detect_speech` on an opened recording."""
    from wieldy.speech.audio import Recording
    from wieldy.speech.vad import detect_speech

    recording = Recording.open(audio)
    detect_speech(Recording.from_array(recording.read(0, 2000), 16_000))  # loads the network
    started = time.perf_counter()
    spans = detect_speech(recording)
    return Observation(time.perf_counter() - started, [[span.start_ms, span.end_ms] for span in spans])


def faster_whisper(audio: Path) -> Observation:
    """`get_speech_timestamps` on decoded samples, with faster-whisper's defaults."""
    from faster_whisper.audio import decode_audio
    from faster_whisper.vad import get_speech_timestamps

    samples = decode_audio(str(audio))
    get_speech_timestamps(samples[:32_000])
    started = time.perf_counter()
    spans = get_speech_timestamps(samples)
    return Observation(time.perf_counter() - started, [[span["start"] // 16, span["end"] // 16] for span in spans])


ARMS = {"ours": ours, "faster-whisper": faster_whisper}


def run(runs: int) -> BenchmarkResult:
    """Gate on missed speech, then time both."""
    audio = meeting.recording()
    reference = meeting.truth(audio)
    found = observe("vad", "ours", audio).output
    speech = merge_turns(Turn(turn.start_ms, turn.end_ms, "anyone") for turn in reference.turns)
    blocks, _ = turn_errors(speech, [Turn(start, end, "anyone") for start, end in found])
    errors = sum(blocks, TimeErrors())
    gates = (Condition("share of speech that is missed", errors.missed_ms / errors.speech_ms, "<=", MAX_MISSED),)
    bar = Condition("times real time", None, ">=", BAR, "not measured yet")
    invented = f"share of the speech found that nobody spoke: {errors.false_alarm_ms / errors.speech_ms:.3f}"
    if gates[0].verdict != "holds":
        return shut("vad", SUMMARY, bar, gates, data=(meeting.DATA,), notes=(invented,))
    observed = take_turns("vad", list(ARMS), audio, runs)
    audio_s = reference.duration_ms / 1000
    speeds = {
        arm: Metric(arm, tuple(audio_s / o.seconds for o in each), "x real time") for arm, each in observed.items()
    }
    return BenchmarkResult(
        name="vad",
        summary=SUMMARY,
        bar=Condition(bar.statement, speeds["ours"].median, ">=", BAR),
        gates=gates,
        ours=speeds["ours"],
        beside=(speeds["faster-whisper"],),
        data=(meeting.DATA,),
        notes=(invented,),
    )
