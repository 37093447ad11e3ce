"""Words meet speakers: the fast path against enumeration, and the rules one by one."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.speech.attribute import AttributionConfig, attribute, best_path, emissions, transitions
from wieldy.speech.transcript import UNKNOWN, Turn, Word, merge_turns


def words_at(*times: tuple[int, int], text: str = "so") -> list[Word]:
    return [Word(start, end, text) for start, end in times]


def score_of(path: tuple[int, ...], emission: np.ndarray, stay: np.ndarray, change: np.ndarray) -> float:
    """The sum in the head of attribute.py, term by term."""
    total = sum(emission[t, k] for t, k in enumerate(path))
    for t in range(1, len(path)):
        total += stay[t] if path[t] == path[t - 1] else change[t]
    return total


finite = st.floats(-1, 1, allow_nan=False, width=32)


@given(st.data())
def test_best_path_is_the_best_of_all_paths(data: st.DataObject) -> None:
    steps, states = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    draw = [[data.draw(finite) for _ in range(states)] for _ in range(steps)]
    emission = np.array(draw, dtype=float)
    change = np.array([data.draw(st.sampled_from([0.0, -0.15])) for _ in range(steps)])
    stay = np.array([data.draw(st.sampled_from([0.0, 0.15])) for _ in range(steps)])
    best = max(score_of(path, emission, stay, change) for path in itertools.product(range(states), repeat=steps))
    found = tuple(int(k) for k in best_path(emission, stay, change))
    assert score_of(found, emission, stay, change) == pytest.approx(best, abs=1e-12)


spans = st.tuples(st.integers(0, 3000), st.integers(0, 800)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(
    st.lists(spans, min_size=1, max_size=8), st.lists(st.tuples(spans, st.sampled_from("AB")), min_size=1, max_size=6)
)
def test_emission_is_the_covered_share_of_the_widened_word(
    times: list[tuple[int, int]], drawn: list[tuple[tuple[int, int], str]]
) -> None:
    words = words_at(*sorted(times))
    turns = merge_turns(Turn(*span, speaker, confidence=0.5) for span, speaker in drawn)
    speakers = sorted({turn.speaker for turn in turns})
    config = AttributionConfig(near_ms=0)
    fast = emissions(words, turns, speakers, config)
    for word, row in zip(words, fast, strict=True):
        lo, hi = max(0, word.start_ms - config.reach_ms), word.end_ms + config.reach_ms
        for k, speaker in enumerate(speakers):
            shared = sum(
                turn.confidence * max(0, min(hi, turn.end_ms) - max(lo, turn.start_ms))
                for turn in turns
                if turn.speaker == speaker
            )
            assert row[k] == pytest.approx(shared / max(hi - lo, 1), abs=1e-9)


@given(st.lists(spans, max_size=12), st.lists(st.tuples(spans, st.sampled_from("ABC")), max_size=8))
def test_every_word_gets_a_speaker_and_keeps_everything_else(
    times: list[tuple[int, int]], drawn: list[tuple[tuple[int, int], str]]
) -> None:
    words = words_at(*sorted(times))
    turns = merge_turns(Turn(*span, speaker) for span, speaker in drawn)
    for method in ("viterbi", "max-overlap"):
        attributed = attribute(words, turns, AttributionConfig(method=method))
        assert [dataclasses.replace(w, speaker=UNKNOWN, speaker_confidence=None) for w in attributed] == words
        assert {w.speaker for w in attributed} <= {t.speaker for t in turns} | {UNKNOWN}


TURNS = (Turn(0, 2000, "A"), Turn(2000, 4000, "B"))


def test_a_sentence_is_not_torn_by_a_late_turn_edge() -> None:
    """The last word of A's sentence lies just past the edge of the turn: alone it is B's, in its sentence A's."""
    words = [
        *words_at((1000, 1400), (1450, 1880)),
        Word(1900, 2150, "over."),
        *words_at((2200, 2600), (2650, 3000)),
    ]
    assert [w.speaker for w in attribute(words, TURNS, AttributionConfig(method="max-overlap"))] == list("AABBB")
    assert [w.speaker for w in attribute(words, TURNS)] == list("AAABB")


def test_a_change_at_a_pause_is_free() -> None:
    words = words_at((1000, 1400), (2050, 2300))
    assert [w.speaker for w in attribute(words, TURNS)] == ["A", "B"]


def test_a_change_the_recogniser_marked_is_free() -> None:
    words = words_at((1700, 1950), (1960, 2110))
    assert [w.speaker for w in attribute(words, TURNS)] == ["A", "A"]
    assert [w.speaker for w in attribute(words, TURNS, changes={1})] == ["A", "B"]


def test_a_word_in_a_gap_goes_to_the_nearest_turn_and_far_from_all_to_nobody() -> None:
    words = words_at((4200, 4400), (6000, 6200))
    assert [w.speaker for w in attribute(words, TURNS)] == ["B", UNKNOWN]


def test_a_thin_run_inside_a_sentence_is_given_back_and_a_back_channel_is_kept() -> None:
    inner = (Turn(0, 4000, "A", confidence=0.3), Turn(1500, 1800, "B"))
    thin = words_at((1000, 1490), (1500, 1800), (1810, 2300))
    assert [w.speaker for w in attribute(thin, inner)] == ["A", "A", "A"]
    set_off = [Word(1000, 1490, "late."), Word(1500, 1800, "Yes."), Word(1810, 2300, "So")]
    assert [w.speaker for w in attribute(set_off, inner)] == ["A", "B", "A"]


def test_streams_do_not_mix() -> None:
    turns = (Turn(0, 1000, "left", stream=0), Turn(0, 1000, "right", stream=1))
    words = [Word(100, 300, "a", stream=0), Word(150, 350, "b", stream=1), Word(400, 500, "c", stream=0)]
    assert [w.speaker for w in attribute(words, turns)] == ["left", "right", "left"]


def test_no_turns_or_no_words() -> None:
    assert attribute([], TURNS) == ()
    (word,) = attribute(words_at((0, 100)), ())
    assert (word.speaker, word.speaker_confidence) == (UNKNOWN, None)


def test_transitions_know_pauses_and_sentence_ends() -> None:
    words = [Word(0, 100, "well."), Word(110, 200, "I"), Word(600, 700, "see")]
    stay, change = transitions(words, AttributionConfig())
    assert stay[1:].tolist() == [0.15, 0.0]
    assert change[1:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("options", [{"method": "nearest"}, {"reach_ms": -1}, {"change_cost": -0.1}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(UsageError):
        AttributionConfig(**options)
