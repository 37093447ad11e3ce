"""Live captions: whether an engine keeps up with the sound, how soon it says something, and for how long it can.

A real telephone conversation and the example meeting, one after the other, twice, are pushed in pieces of 100 ms as a
microphone would. What the captions cost is measured; when they appear is computed as if live: a piece is there when it
has been spoken, is worked through when those before it are, and its events are there when it has been.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from benchmarks.arms import CHECKOUT, CORES, Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, shut
from wieldy import weights
from wieldy.cache import cache_root
from wieldy.claims.result import Condition
from wieldy.metrics.text import normalizer, word_errors
from wieldy.report import Metric
from wieldy.speech import formats
from wieldy.speech.audio import SAMPLE_RATE, Recording
from wieldy.speech.transcript import Word

if TYPE_CHECKING:
    from wieldy.speech.captions import StreamingEngine

SUMMARY = "live captions by Whisper tiny.en: work per second of sound below 0.8 s, first partial words within 2 s"
BAR = 0.8
FIRST_S = 2.0
GROWTH = 1.1  # work of the second playing over the first; the same sound, so more is what time has added
MAX_WER_LOSS = 0.05  # captions cannot wait for what comes next
PACKAGES = ("ctranslate2", "faster-whisper", "numpy", "onnxruntime")
DATA = "a real telephone conversation of 30 s and the example meeting of 58 s, one after the other, twice"

PLAYINGS = 2
BLOCK_S = 0.1
SILENCE_S = 2.0  # after each recording
NEW_SPEECH_MS = 1000  # of silence before a word make it the beginning of speech
NEAR_MS = 300  # a word that starts no earlier than this before the speech belongs to it


def captions(audio: Path) -> Observation:
    """The default engine, at its shortest step: nothing is made easier for it when it falls behind."""
    from wieldy.speech.captions.engines import CaptionConfig, build
    from wieldy.speech.recognize.engines import RecognitionConfig

    recognition = RecognitionConfig(beam_size=CaptionConfig().recognition.beam_size, threads=CORES)
    return streamed(build(CaptionConfig(recognition=recognition, offline=True)), audio)


def streamed(engine: StreamingEngine, audio: Path) -> Observation:
    """Everything `engine` says about `audio`, and when, as if it were live. The seconds are its work."""
    from wieldy.speech.captions import CaptionSession, Final, Partial

    recording = Recording.open(audio)
    session = CaptionSession(engine, adapt=False)
    work, shown, free = [], [], 0.0
    for index, block in enumerate(recording.blocks(BLOCK_S)):
        started = time.perf_counter()
        events = session.push(block[0])
        work.append(time.perf_counter() - started)
        free = max(free, (index + 1) * BLOCK_S) + work[-1]
        shown += [
            [event.kind, free, [[word.text, word.start, word.end] for word in event.words]]
            for event in events
            if isinstance(event, Partial | Final)
        ]
    transcript = session.finish()
    half = len(work) // PLAYINGS
    return Observation(
        sum(work),
        {
            "audio_s": recording.duration_ms / 1000,
            "early": sum(work[:half]),
            "late": sum(work[-half:]),
            "events": shown,
            "words": [word.text for word in transcript.words],
        },
    )


def transcript(audio: Path) -> Observation:
    """The same model on the whole recording, for the gate."""
    started = time.perf_counter()
    from wieldy.speech.meeting import MeetingConfig, transcribe

    words = transcribe(audio, MeetingConfig(offline=True)).words
    return Observation(time.perf_counter() - started, {"words": [word.text for word in words]})


ARMS = {"ours": captions, "transcript": transcript}


def run(runs: int) -> BenchmarkResult:
    """Gate on words, then time."""
    weights.locate("whisper-tiny.en")
    audio, said = playings()
    wer = {arm: _wer(said, observe("streaming", arm, audio).output["words"]) for arm in ARMS}
    loss = wer["ours"] - wer["transcript"]
    gates = (Condition("WER of the captions minus WER of the transcript", loss, "<=", MAX_WER_LOSS),)
    bar = Condition("real-time factor", None, "<", BAR, "not measured yet")
    details: dict[str, Any] = {
        "data": (DATA,),
        "notes": tuple(f"WER of {arm}: {rate:.4f}, n = {len(said)}, normaliser basic" for arm, rate in wer.items()),
    }
    if gates[0].verdict != "holds":
        return shut("streaming", SUMMARY, bar, gates, **details)
    observed = take_turns("streaming", ["ours"], audio, runs)["ours"]
    factor = Metric("ours", tuple(o.seconds / o.output["audio_s"] for o in observed))
    growth = Metric("second playing over the first", tuple(o.output["late"] / o.output["early"] for o in observed))
    first = Metric("first partial", tuple(max(first_shown(o.output["events"], said)) for o in observed), "s")
    final = Metric("final, mean", tuple(final_after(o.output["events"]) for o in observed), "s")
    return BenchmarkResult(
        name="streaming",
        summary=SUMMARY,
        bar=Condition(bar.statement, factor.median, "<", BAR),
        gates=gates,
        further=(
            Condition("first words after speech begins, the slowest of all, s", first.median, "<", FIRST_S),
            Condition("work of the second playing over the first", growth.median, "<=", GROWTH),
        ),
        ours=factor,
        beside=(first, final, growth, Metric("peak memory", tuple(o.peak / 2**20 for o in observed), "MiB")),
        **details,
    )


def playings() -> tuple[Path, tuple[Word, ...]]:
    """The sound of `DATA` as a file, and the words that are said in it."""
    conversation = weights.locate("conversation")
    sources = (
        (conversation / "sample.wav", conversation / "sample.stm"),
        (CHECKOUT / "examples" / "meeting.flac", CHECKOUT / "examples" / "meeting.seglst.json"),
    )
    samples: list[np.ndarray] = []
    words: list[Word] = []
    at_ms = 0
    for sound, reference in sources * PLAYINGS:
        recording = Recording.open(sound)
        words += (Word(word.start_ms + at_ms, word.end_ms + at_ms, word.text) for word in formats.read(reference).words)
        samples += [recording.read(0, recording.duration_ms), np.zeros(int(SILENCE_S * SAMPLE_RATE), np.float32)]
        at_ms += recording.duration_ms + int(SILENCE_S * 1000)
    path = cache_root() / "benchmarks" / "streaming.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate(samples), SAMPLE_RATE)
    return path, tuple(words)


def first_shown(events: Sequence[Any], said: Sequence[Word]) -> list[float]:
    """Seconds from each beginning of speech to the first words of it that are shown."""
    begins, end_ms = [], -NEW_SPEECH_MS
    for word in sorted(said, key=lambda word: word.start_ms):
        if word.start_ms - end_ms >= NEW_SPEECH_MS:
            begins.append(word.start)
        end_ms = max(end_ms, word.end_ms)
    return [
        min(shown for _, shown, words in events if any(start >= begin - NEAR_MS / 1000 for _, start, _ in words))
        - begin
        for begin in begins
    ]


def final_after(events: Sequence[Any]) -> float:
    """Mean seconds from the end of a word to its being final."""
    return float(np.mean([shown - end for kind, shown, words in events if kind == "final" for _, _, end in words]))


def _wer(said: Sequence[Word], heard: Sequence[str]) -> float:
    basic = normalizer("basic")
    reference = basic(" ".join(word.text for word in said)).split()
    return word_errors(reference, basic(" ".join(heard)).split()).rate or 0.0
