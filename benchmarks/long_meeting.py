"""Three hours against ten minutes: memory must not grow with length, nor may a second of sound cost more time.

The whole pipeline runs once on each, files written included, each in a process of its own. Both recordings are longer
than what is held in memory, so both are read by seeking. The transcript itself has to grow and is subtracted.

    python -m benchmarks.long_meeting [--minutes 30] [--without-words]

tells the same of a shorter meeting, or of all stages but the recogniser, and decides nothing.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks import meeting
from benchmarks.arms import CORES, Observation, observe
from benchmarks.result import BenchmarkResult, shut
from wieldy import weights
from wieldy.cache import cache_root
from wieldy.claims.result import Condition
from wieldy.report import Metric

SUMMARY = "a meeting of 3 hours against one of 10 minutes: peak memory without the transcript, at most 1.15x"
BAR = 1.15
PACKAGES = ("ctranslate2", "faster-whisper", "numpy", "onnxruntime", "scipy")

MODEL = "whisper-tiny.en"
MINUTES = 180.0
TEMPOS = (1.0, 0.94, 1.06)  # of the meeting that is repeated, which makes other voices of the same people
MAX_SLOWER = 1.10  # seconds of work per second of sound
MAX_CLUSTERING_S = 60.0
PEOPLE, TURN_MS, SPREAD = 8, 5_000, 0.04  # of the made-up voices; SPREAD per axis makes cosines of about 0.7
MIN_WORD_SHARE = 0.9  # words per minute against the short one: nothing of a long recording is lost


def ours(audio: Path) -> Observation:
    """`Transcriber.run` with its defaults, and every format written."""
    from wieldy.speech.meeting import MeetingConfig, Transcriber
    from wieldy.speech.recognize.engines import RecognitionConfig

    started = time.perf_counter()
    recognition = RecognitionConfig(model=MODEL, threads=CORES)
    return _observed(Transcriber(MeetingConfig(recognition=recognition, offline=True)), audio, started)


def without_words(audio: Path) -> Observation:
    """The same with a recogniser that takes no time, so that the other stages are seen."""
    from wieldy.speech.meeting import MeetingConfig, Transcriber

    started = time.perf_counter()
    return _observed(Transcriber(MeetingConfig(offline=True), recognizer=_Metronome()), audio, started)


def clustering(_: Path) -> Observation:
    """Three hours of voices, made up, into speakers and turns; the output is the number of speakers found."""
    from wieldy.speech.audio import Recording
    from wieldy.speech.diarize.dvector import DVectorDiarizer
    from wieldy.speech.transcript import Span

    diarizer: Any = DVectorDiarizer()
    diarizer._encoder = _MadeUpVoices()  # encoding is counted in the whole pipeline
    speech = [Span(start, start + TURN_MS - 500) for start in range(0, int(MINUTES * 60_000), TURN_MS)]
    nothing = Recording.from_array(np.zeros(16_000, np.float32), 16_000)
    started = time.perf_counter()
    found = diarizer.diarize(nothing, speech)
    return Observation(time.perf_counter() - started, len(found.voices))


ARMS = {"ours": ours, "without words": without_words, "clustering": clustering}


def run(_runs: int) -> BenchmarkResult:
    """Once each, however many runs are asked for: three hours take most of an hour."""
    weights.locate(MODEL)
    return compare(MINUTES, "ours")


def compare(minutes: float, arm: str) -> BenchmarkResult:
    """`arm` on a meeting of so many minutes and on the short one. Only 3 hours of the whole pipeline decide."""
    short = observe("long_meeting", arm, meeting.recording())
    with tempfile.TemporaryDirectory(dir=cache_root()) as folder:
        long = observe("long_meeting", arm, repeated(meeting.recording(), minutes, Path(folder) / "long.flac"))
    clustered = observe("long_meeting", "clustering", cache_root())
    decides = minutes == MINUTES and arm == "ours"
    words = long.output["words"] / long.output["seconds"] * short.output["seconds"] / short.output["words"]
    gates = (
        Condition("words per minute, long over short", words, ">=", MIN_WORD_SHARE),
        Condition("words without a time or a speaker", float(long.output["incomplete"]), "<=", 0),
    )
    sizes = f"{long.output['seconds'] / 60:.1f} min against {short.output['seconds'] / 60:.1f} min"
    data = (f"{meeting.DATA}, and that repeated at {len(TEMPOS)} tempos: {sizes}",)
    what = "the whole pipeline" if arm == "ours" else "all stages but the recogniser"
    bar = Condition("peak memory without the transcript, long over short", None, "<=", BAR, "not measured yet")
    if any(gate.verdict != "holds" for gate in gates):
        return shut("long_meeting", SUMMARY, bar, gates, data=data)
    ratio = (long.peak - long.output["bytes"]) / (short.peak - short.output["bytes"])
    pace = [observed.seconds / observed.output["seconds"] for observed in (long, short)]
    beside = (
        *(_memory(name, observed) for name, observed in (("long", long), ("short", short))),
        *(
            Metric.of(f"transcript, {n}", o.output["bytes"] / 2**20, "MiB")
            for n, o in (("long", long), ("short", short))
        ),
        *(Metric.of(f"time, {name}", observed.seconds, "s") for name, observed in (("long", long), ("short", short))),
        *(Metric.of(f"{stage}, long over short per second of sound", factor) for stage, factor in _growth(long, short)),
        Metric.of("clustering, peak memory", clustered.peak / 2**20, "MiB"),
        Metric.of("clustering, speakers found", clustered.output),
    )
    further = (
        Condition("time per second of sound, long over short", pace[0] / pace[1], "<=", MAX_SLOWER),
        Condition(
            "seconds to cluster the voices of 3 hours, as 3,000 units, and cut the turns",
            clustered.seconds,
            "<",
            MAX_CLUSTERING_S,
        ),
    )
    if not decides:
        reason = f"{what}, {sizes}: {ratio:.3f}; only {MINUTES:g} min of the whole pipeline decide"
        return BenchmarkResult(
            name="long_meeting",
            summary=f"NOT the bar's run: {what}, {sizes}",
            bar=Condition(bar.statement, None, "<=", BAR, reason),
            gates=gates,
            beside=(*beside, *(Metric.of(condition.statement, condition.figure or 0.0) for condition in further)),
            data=data,
        )
    return BenchmarkResult(
        name="long_meeting",
        summary=SUMMARY,
        bar=Condition(bar.statement, ratio, "<=", BAR),
        further=further,
        gates=gates,
        ours=Metric.of("peak memory without the transcript, long over short", ratio),
        beside=beside,
        data=data,
        notes=(f"{what}, one run each",),
    )


def repeated(audio: Path, minutes: float, path: Path) -> Path:
    """`audio` again and again until it lasts `minutes`, each time at another of `TEMPOS`; written block by block."""
    import soundfile
    import soxr

    from wieldy.speech.audio import SAMPLE_RATE

    left = round(minutes * 60 * SAMPLE_RATE)
    tempos = itertools.cycle(TEMPOS)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as out:
        while left:
            stretch = soxr.ResampleStream(SAMPLE_RATE * next(tempos), SAMPLE_RATE, 1, "float32")
            with soundfile.SoundFile(audio) as source:
                for block in source.blocks(60 * SAMPLE_RATE, dtype="float32"):
                    piece = stretch.resample_chunk(block, last=source.tell() == source.frames)[:left]
                    out.write(piece)
                    left -= len(piece)
    return path


class _MadeUpVoices:
    """In place of the encoder: `PEOPLE` who take turns, each window's voice a little off its person's."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._people = self._rng.standard_normal((PEOPLE, 256))
        self._who = self._rng.integers(0, PEOPLE, 1 + int(MINUTES * 60_000) // TURN_MS)

    def embed_regions(self, _recording: Any, speech: Sequence[Any], *, window_ms: int = 1600, hop_ms: int) -> Any:
        from wieldy.speech.voices import Windows, unit, windows_over

        spans = np.array(list(windows_over(speech, window_ms, hop_ms)))
        vectors = unit(self._people)[self._who[spans[:, 0] // TURN_MS]]
        heard = unit(vectors + SPREAD * self._rng.standard_normal(vectors.shape))
        return Windows(spans, heard.astype(np.float32))


class _Metronome:
    """A recogniser that hears a word every 400 ms of whatever it is given, as fast as people talk."""

    name = model_id = "metronome"
    model_files: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        from wieldy.speech.recognize import Capabilities

        self.capabilities = Capabilities(word_times=True, token_scores=False, written_form=True, avoids_repeats=False)

    def transcribe(self, audio: Any, *, avoid_repeats: bool = False) -> Iterator[Any]:  # noqa: ARG002
        from wieldy.speech.recognize import SAMPLE_RATE, HeardWord, Hypothesis

        rng = np.random.default_rng(0)  # words at random: the loop guard does not believe others
        for samples in audio:
            starts = np.arange(0, len(samples) / SAMPLE_RATE - 0.4, 0.4).tolist()
            texts = ("".join(rng.choice(list("aeinorst"), 5)) for _ in starts)
            yield Hypothesis(
                tuple(HeardWord(text, start, start + 0.3, 0.9) for text, start in zip(texts, starts, strict=True))
            )


def _observed(transcriber: Any, audio: Path, started: float) -> Observation:
    from wieldy.speech import formats

    transcript = transcriber.run(audio)
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in formats.FORMATS.items():
            formats.write(transcript, Path(folder) / f"meeting{kind.suffix}", name)
    seconds = time.perf_counter() - started
    stages = {row[0]: float(row[1]) for table in transcript.report.tables for row in table.rows}
    found = {
        "words": len(transcript.words),
        "turns": len(transcript.turns),
        "speakers": len(transcript.speakers),
        "incomplete": sum(not (word.speaker and word.start_ms <= word.end_ms) for word in transcript.words),
        "seconds": transcript.duration_ms / 1000,
        "stages": stages,
        "bytes": _bytes_of(transcript),
    }
    return Observation(seconds, found)


def _bytes_of(transcript: Any) -> int:
    """What the words and turns take in memory, each value counted once."""
    seen: dict[int, int] = {}
    for event in (*transcript.words, *transcript.turns):
        for part in (event, vars(event), *vars(event).values()):
            seen[id(part)] = sys.getsizeof(part)
    return sum(seen.values()) + sys.getsizeof(transcript.words) + sys.getsizeof(transcript.turns)


def _memory(name: str, observed: Observation) -> Metric:
    return Metric.of(f"peak memory, {name}", observed.peak / 2**20, "MiB")


def _growth(long: Observation, short: Observation) -> Iterator[tuple[str, float]]:
    """Each stage's time per second of sound, long over short, where the short one takes long enough to tell."""
    for stage, seconds in short.output["stages"].items():
        if seconds >= 0.5:
            yield stage, long.output["stages"][stage] / long.output["seconds"] / (seconds / short.output["seconds"])


def main(arguments: Sequence[str]) -> int:
    """The command line of the run that decides nothing."""
    from rich.console import Console

    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_meeting", description=SUMMARY)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the long meeting")
    parser.add_argument("--without-words", action="store_true", help="all stages but the recogniser")
    options = parser.parse_args(arguments)
    Console().print(compare(options.minutes, "without words" if options.without_words else "ours"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
