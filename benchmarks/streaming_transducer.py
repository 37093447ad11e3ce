"""An hour of live captions by a transducer: whether the work per second of sound is small, and stays what it was.

The example meeting is pushed over and over in pieces of 100 ms. That the words are right is looked at beforehand, on
digits said by a synthetic voice; what is said in the meeting the small recogniser does not know, and need not.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.arms import CHECKOUT, CORES, Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, shut
from wieldy.claims.result import Condition
from wieldy.metrics.text import word_errors
from wieldy.report import Metric
from wieldy.speech.audio import SAMPLE_RATE, Recording

if TYPE_CHECKING:
    from wieldy.speech.captions import StreamingEngine

SUMMARY = "live captions by digits-commands for an hour: work per second of sound below 0.1 s, and no growth"
BAR = 0.1
GROWTH = 1.1  # work of the last tenth over the first: the same sound, so more is what time has added
MAX_WER = 0.1
PACKAGES = ("numpy", "soxr", "torch")
DATA = "the example meeting over and over for an hour"

BLOCK = SAMPLE_RATE // 10
STEP_MS = 160  # as in captions
SECONDS = 3600
DIGITS = "seven three nine zero one eight four two six five three three"


def captions(audio: Path) -> Observation:
    """An hour of sound through the engine."""
    engine = _engine()
    recording = Recording.open(audio)
    once = recording.read(0, recording.duration_ms)
    blocks = len(once) // BLOCK
    work = []
    for index in range(SECONDS * SAMPLE_RATE // BLOCK):
        first = index % blocks * BLOCK
        started = time.perf_counter()
        engine.push(once[first : first + BLOCK], STEP_MS)
        work.append(time.perf_counter() - started)
    tenth = len(work) // 10
    return Observation(sum(work), {"early": sum(work[:tenth]), "late": sum(work[-tenth:])})


def words(audio: Path) -> Observation:
    """What the engine hears in the digits of the gate."""
    del audio
    from wieldy.speech.captions import CaptionSession
    from wieldy.speech.synthesize import say

    speech = say(DIGITS, "heart")
    session = CaptionSession(_engine(), adapt=False)
    started = time.perf_counter()
    session.push(Recording.from_array(speech.samples, speech.sample_rate).read(0, 60_000))
    heard = [word.text for word in session.finish().words]
    return Observation(time.perf_counter() - started, {"words": heard})


ARMS = {"ours": captions, "words": words}


def run(runs: int) -> BenchmarkResult:
    """Gate on words, then an hour of sound."""
    meeting = CHECKOUT / "examples" / "meeting.flac"
    said = DIGITS.split()
    rate = word_errors(said, observe("streaming_transducer", "words", meeting).output["words"]).rate or 0.0
    gates = (Condition(f"WER on {len(said)} digits of a synthetic voice", rate, "<=", MAX_WER),)
    bar = Condition("real-time factor", None, "<=", BAR, "not measured yet")
    if gates[0].verdict != "holds":
        return shut("streaming_transducer", SUMMARY, bar, gates, data=(DATA,))
    observed = take_turns("streaming_transducer", ["ours"], meeting, runs)["ours"]
    factor = Metric("ours", tuple(o.seconds / SECONDS for o in observed))
    growth = Metric("last tenth over the first", tuple(o.output["late"] / o.output["early"] for o in observed))
    return BenchmarkResult(
        name="streaming_transducer",
        summary=SUMMARY,
        bar=Condition(bar.statement, factor.median, "<=", BAR),
        gates=gates,
        further=(Condition("work of the last tenth over the first", growth.median, "<=", GROWTH),),
        ours=factor,
        beside=(growth, Metric("peak memory", tuple(o.peak / 2**20 for o in observed), "MiB")),
        data=(DATA,),
    )


def _engine() -> StreamingEngine:
    import torch  # in the process of the arm alone

    from wieldy.speech.captions.engines import CaptionConfig, build
    from wieldy.speech.recognize.engines import RecognitionConfig

    torch.set_num_threads(CORES)
    return build(CaptionConfig(recognition=RecognitionConfig(model="digits-commands"), offline=True))
