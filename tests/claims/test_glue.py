"""The peer of the claim `speech-pipeline`: its parts against naive references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.claims.glue import LINKAGES, Clustering, attributed, cluster, turns_of_windows
from wieldy.speech.diarize import SpeakerCount
from wieldy.speech.transcript import UNKNOWN, Span, Turn, Word
from wieldy.speech.voices import Windows, unit


def windows_of(vectors: np.ndarray, hop_ms: int = 800) -> Windows:
    starts = np.arange(len(vectors)) * hop_ms
    return Windows(np.stack([starts, starts + 1600], axis=1), unit(vectors).astype(np.float32))


def test_the_calibrated_clustering_is_one_that_there_is() -> None:
    found = Clustering.calibrated()
    assert found.linkage in LINKAGES
    assert found.linkage_where_told in LINKAGES
    assert found.threshold > 0


@pytest.mark.parametrize("linkage", LINKAGES)
def test_two_voices_are_told_apart(linkage: str) -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 20)
    windows = windows_of(np.eye(8)[truth] + rng.normal(0, 0.05, (40, 8)))
    for count in (SpeakerCount(), SpeakerCount(exactly=2)):
        labels = cluster(windows, Clustering(linkage, 0.5 if linkage != "ward" else 2.0, linkage), count)
        assert len(set(zip(labels.tolist(), truth.tolist(), strict=True))) == 2 == len(set(labels.tolist()))
    assert len(set(cluster(windows, Clustering(linkage, 1.0, linkage), SpeakerCount(exactly=5)).tolist())) == 5


@pytest.mark.parametrize("count", [0, 1])
def test_little_speech_has_one_speaker(count: int) -> None:
    labels = cluster(windows_of(np.ones((count, 4))), Clustering("average", 0.3), SpeakerCount(exactly=3))
    assert labels.tolist() == [0] * count


def test_turns_change_half_way_between_windows_and_fill_the_speech() -> None:
    windows = Windows(np.array([[0, 1600], [800, 2400], [1600, 3200], [5000, 5400]]), np.eye(4, dtype=np.float32))
    turns = turns_of_windows([Span(0, 3200), Span(5000, 5400)], windows, np.array([0, 0, 1, 0]))
    assert [(turn.start_ms, turn.end_ms, turn.speaker) for turn in turns] == [
        (0, 2000, "S1"),
        (2000, 3200, "S2"),
        (5000, 5400, "S1"),
    ]


@settings(max_examples=50)
@given(st.integers(0, 8), st.integers(0, 5), st.integers(0, 99))
def test_a_word_goes_to_the_turn_it_overlaps_most_or_else_to_the_nearest(words: int, turns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.integers(0, 50, words)).tolist()
    said = [Word(start, start + int(rng.integers(1, 20)), "a") for start in starts]
    edges = np.sort(rng.choice(60, 2 * turns, replace=False)).tolist()
    spoken = [Turn(*edge, f"S{index}") for index, edge in enumerate(zip(edges[::2], edges[1::2], strict=True))]
    found = attributed("m", said, spoken)
    for word in found.words:
        if not spoken:
            assert word.speaker == UNKNOWN
            continue
        shared = {
            turn.speaker: len(set(range(word.start_ms, word.end_ms)) & set(range(turn.start_ms, turn.end_ms)))
            for turn in spoken
        }
        gap = {turn.speaker: max(turn.start_ms - word.end_ms, word.start_ms - turn.end_ms, 0) for turn in spoken}
        if max(shared.values()):
            assert shared[word.speaker] == max(shared.values())
        else:
            assert gap[word.speaker] == min(gap.values())
