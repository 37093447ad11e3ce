"""100,000 words given to speakers by the best path; a day of talk."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from benchmarks.arms import Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, shut
from wieldy.cache import cache_root
from wieldy.claims.result import Condition
from wieldy.report import Metric
from wieldy.speech.transcript import Turn, Word

SUMMARY = "100,000 words to speakers by the best path: under 2 s"
BAR = 2.0
PACKAGES = ("numpy",)

WORDS = 100_000
SPEAKERS = 6
TURN_WORDS = (1, 40)
OFF_MS = 60  # standard deviation of a turn's edges: about what a diariser is off by
MIN_RIGHT = 0.999  # of the words; 0.9999 when this was written


def ours(_: Path) -> Observation:
    """`attribute` on words and turns made from a seed; the output is the share of words that got their speaker."""
    from wieldy.speech.attribute import attribute

    words, turns = generated()
    started = time.perf_counter()
    attributed = attribute([dataclasses.replace(word, speaker="unknown") for word in words], turns)
    seconds = time.perf_counter() - started
    right = sum(found.speaker == word.speaker for found, word in zip(attributed, words, strict=True))
    return Observation(seconds, right / len(words))


ARMS = {"ours": ours}


def run(runs: int) -> BenchmarkResult:
    """Gate on right speakers, then time."""
    nothing = cache_root()
    right = observe("attribution", "ours", nothing).output
    gates = (Condition("share of words that got their speaker", right, ">=", MIN_RIGHT),)
    bar = Condition(f"seconds for {WORDS:,} words", None, "<", BAR, "not measured yet")
    data = (f"{WORDS:,} generated words of {SPEAKERS} speakers, edges of turns off by {OFF_MS} ms",)
    if right < MIN_RIGHT:
        return shut("attribution", SUMMARY, bar, gates, data=data)
    times = take_turns("attribution", ["ours"], nothing, runs)["ours"]
    found = Metric("ours", tuple(observed.seconds for observed in times), "s")
    return BenchmarkResult(
        name="attribution",
        summary=SUMMARY,
        bar=Condition(bar.statement, found.median, "<", BAR),
        gates=gates,
        ours=found,
        data=data,
    )


def generated() -> tuple[list[Word], list[Turn]]:
    """Words of known speakers in turns, and the turns with their edges a little off."""
    import numpy as np

    rng = np.random.default_rng(0)
    words: list[Word] = []
    turns: list[Turn] = []
    clock = speaker = 0
    while len(words) < WORDS:
        speaker = (speaker + int(rng.integers(1, SPEAKERS))) % SPEAKERS
        begun = clock
        for _ in range(min(int(rng.integers(*TURN_WORDS, endpoint=True)), WORDS - len(words))):
            end = clock + int(rng.integers(120, 500))
            words.append(Word(clock, end, "word", speaker=f"S{speaker}"))
            clock = end + int(rng.integers(0, 80))
        start_ms, end_ms = (max(0, edge + int(rng.normal(0, OFF_MS))) for edge in (begun, clock))
        turns.append(Turn(start_ms, max(start_ms + 1, end_ms), f"S{speaker}"))
        clock += int(rng.integers(100, 800))
    return words, turns
