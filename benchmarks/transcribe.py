"""The whole pipeline, speakers included, against the recogniser it uses, run alone the usual way.

Ours reads, finds speech, recognises, diarises and attributes. The peer is faster-whisper's own `transcribe` with
voice activity detection and word times: words only, no speakers. Same model, precision, beam and cores; both times
include imports and loading the models. faster-whisper's batched pipeline is shown beside them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import meeting
from benchmarks.arms import CORES, Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, shut
from wieldy import weights
from wieldy.claims.result import Condition
from wieldy.metrics.text import normalizer, word_errors
from wieldy.report import Metric
from wieldy.speech.transcript import UNKNOWN, Transcript

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.transcribe import Segment

SUMMARY = "wieldy transcribe, speakers included, against faster-whisper's transcribe alone: wall time, at most 1.0x"
BAR = 1.0
GOAL = 0.7
PACKAGES = ("ctranslate2", "faster-whisper", "numpy", "onnxruntime")

MODEL = "whisper-tiny.en"
BEAM_SIZE = 5
BATCH_SIZE = 8  # as in faster-whisper's documentation
MAX_WER_LOSS = 0.005  # half a point


def ours(audio: Path) -> Observation:
    """`wieldy.speech.meeting.transcribe` with its defaults."""
    started = time.perf_counter()
    from wieldy.speech.meeting import MeetingConfig, transcribe
    from wieldy.speech.recognize.engines import RecognitionConfig

    recognition = RecognitionConfig(model=MODEL, beam_size=BEAM_SIZE, threads=CORES)
    transcript = transcribe(audio, MeetingConfig(recognition=recognition, offline=True))
    return Observation(
        time.perf_counter() - started, [[word.text, word.start, word.end, word.speaker] for word in transcript.words]
    )


def faster_whisper(audio: Path) -> Observation:
    """`WhisperModel.transcribe`, one segment after the other with all cores."""
    started = time.perf_counter()
    segments, _ = _model().transcribe(str(audio), beam_size=BEAM_SIZE, word_timestamps=True, vad_filter=True)
    return _observed(segments, started)


def faster_whisper_batched(audio: Path) -> Observation:
    """`BatchedInferencePipeline.transcribe`, several segments in one pass of the model."""
    started = time.perf_counter()
    from faster_whisper import BatchedInferencePipeline

    segments, _ = BatchedInferencePipeline(_model()).transcribe(
        str(audio), beam_size=BEAM_SIZE, word_timestamps=True, batch_size=BATCH_SIZE
    )
    return _observed(segments, started)


ARMS = {"ours": ours, "faster-whisper": faster_whisper, "faster-whisper batched": faster_whisper_batched}


def run(runs: int) -> BenchmarkResult:
    """Gate on words, times and speakers, then `runs` rounds of all three."""
    weights.locate(MODEL)
    audio = meeting.recording()
    words = {arm: observe("transcribe", arm, audio).output for arm in ARMS}
    reference = meeting.truth(audio)
    wer = {arm: _wer(reference, heard) for arm, heard in words.items()}
    attributed = [start <= end and speaker for _, start, end, speaker in words["ours"]]
    unknown = sum(speaker == UNKNOWN for *_, speaker in words["ours"])
    gates = (
        Condition(
            "WER of ours minus WER of faster-whisper, at most half a point",
            wer["ours"] - wer["faster-whisper"],
            "<=",
            MAX_WER_LOSS,
        ),
        Condition("share of our words with times and a speaker", sum(map(bool, attributed)) / len(attributed), ">=", 1),
    )
    details: dict[str, Any] = {
        "data": (meeting.DATA,),
        "notes": (
            *(f"WER of {arm}: {rate:.4f}, n = {len(reference.words)}, normaliser basic" for arm, rate in wer.items()),
            f"{unknown} of {len(attributed)} of our words are of an unknown speaker",
            f"the goal is {GOAL}",
        ),
    }
    bar = Condition("wall time of ours over faster-whisper's", None, "<=", BAR, "not measured yet")
    if not all(gate.verdict == "holds" for gate in gates):
        return shut("transcribe", SUMMARY, bar, gates, **details)
    observed = take_turns("transcribe", list(ARMS), audio, runs)
    times = {arm: Metric(arm, tuple(o.seconds for o in each), "s") for arm, each in observed.items()}
    ratio = times["ours"].median / times["faster-whisper"].median
    return BenchmarkResult(
        name="transcribe",
        summary=SUMMARY,
        bar=Condition(bar.statement, ratio, "<=", BAR),
        gates=gates,
        ours=times["ours"],
        peer=times["faster-whisper"],
        beside=(
            times["faster-whisper batched"],
            Metric.of(
                "ours over faster-whisper batched", times["ours"].median / times["faster-whisper batched"].median
            ),
            *(Metric(f"processor time of {arm}", tuple(o.cpu_seconds for o in observed[arm]), "s") for arm in ARMS),
            *(Metric(f"peak memory of {arm}", tuple(o.peak / 2**20 for o in observed[arm]), "MiB") for arm in ARMS),
        ),
        **details,
    )


def _model() -> WhisperModel:
    from faster_whisper import WhisperModel

    return WhisperModel(str(weights.locate(MODEL, offline=True)), device="cpu", compute_type="int8", cpu_threads=CORES)


def _observed(segments: Iterable[Segment], started: float) -> Observation:
    words = [[word.word.strip(), float(word.start), float(word.end), ""] for s in segments for word in s.words or ()]
    return Observation(time.perf_counter() - started, words)


def _wer(reference: Transcript, heard: Iterable[list[Any]]) -> float:
    basic = normalizer("basic")
    said = basic(" ".join(word.text for word in reference.words)).split()
    return word_errors(said, basic(" ".join(text for text, *_ in heard)).split()).rate or 0.0
