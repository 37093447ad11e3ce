"""The invariants of the data model, and the operations on turns against brute force over milliseconds."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import InputError
from wieldy.speech.transcript import (
    UNKNOWN,
    Span,
    TimeMap,
    Transcript,
    Turn,
    Word,
    exclusive_turns,
    merge_turns,
    milliseconds,
)

spans = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))
turns = st.lists(
    st.tuples(spans, st.sampled_from("AB"), st.sampled_from([0.5, 1.0])).map(
        lambda drawn: Turn(*drawn[0], drawn[1], confidence=drawn[2])
    ),
    max_size=8,
)


def active(some: list[Turn] | tuple[Turn, ...], at: int) -> set[str]:
    return {turn.speaker for turn in some if turn.start_ms <= at < turn.end_ms}


@given(turns)
def test_merging_keeps_who_is_active_and_ends_contact(drawn: list[Turn]) -> None:
    merged = merge_turns(drawn)
    for at in range(60):
        assert active(merged, at) == active(drawn, at)
    for turn in merged:
        others = [active(merged, at) - {turn.speaker} for at in range(turn.start_ms, turn.end_ms)]
        assert turn.overlap == any(others)
        assert not any(
            other is not turn and other.speaker == turn.speaker and other.start_ms <= turn.end_ms <= other.end_ms
            for other in merged
        )


@given(turns)
def test_exclusive_turns_give_each_moment_to_its_most_confident_speaker(drawn: list[Turn]) -> None:
    drawn = list(merge_turns(drawn))
    alone = exclusive_turns(drawn)
    for at in range(60):
        there = [turn for turn in drawn if turn.start_ms <= at < turn.end_ms]
        now = active(alone, at)
        assert len(now) == min(1, len(there))
        if there:
            best = max(turn.confidence for turn in there)
            assert now <= {turn.speaker for turn in there if turn.confidence == best}
    assert not any(turn.overlap for turn in alone)


def test_a_gap_can_be_bridged() -> None:
    (turn,) = merge_turns([Turn(0, 100, "A"), Turn(150, 300, "A")], max_gap_ms=50)
    assert (turn.start_ms, turn.end_ms) == (0, 300)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Span(5, 4),
        lambda: Span(-1, 4),
        lambda: Word(0, 5, " "),
        lambda: Word(0, 5, "a", speaker=""),
        lambda: Transcript("t", (Word(9, 10, "b"), Word(1, 2, "a"))),
        lambda: Transcript("t", turns=(Turn(0, 10, "A"), Turn(5, 12, "A"))),
        lambda: TimeMap(()),
    ],
)
def test_what_cannot_be_is_refused(make) -> None:
    with pytest.raises(InputError):
        make()


@given(st.lists(spans, min_size=1, max_size=5))
def test_a_time_map_is_the_inverse_of_cutting(lengths: list[tuple[int, int]]) -> None:
    pieces, clock = [], 0
    for gap, end in lengths:
        pieces.append(Span(clock + gap, clock + end))
        clock += end
    time_map = TimeMap(tuple(pieces))
    original = [at for piece in pieces for at in range(piece.start_ms, piece.end_ms)]
    assert time_map.duration_ms == len(original)
    for cut, at in enumerate(original):
        assert time_map.original(Span(cut, cut + 1)) == Span(at, at + 1)


WORDS = (
    Word(0, 400, "Hello.", speaker="S2"),
    Word(500, 900, "Hi", speaker="S1"),
    Word(950, 1200, "there.", speaker="S1"),
    Word(5000, 5300, "Well?", speaker="S1"),
    Word(6000, 6200, "hm", speaker=UNKNOWN),
)


def test_utterances_end_with_the_speaker_and_at_long_pauses() -> None:
    texts = [(u.speaker, u.text, u.start_ms, u.end_ms) for u in Transcript("t", WORDS).utterances()]
    assert texts == [
        ("S2", "Hello.", 0, 400),
        ("S1", "Hi there.", 500, 1200),
        ("S1", "Well?", 5000, 5300),
        (UNKNOWN, "hm", 6000, 6200),
    ]


def test_speakers_are_in_order_of_appearance_and_unknown_is_nobody() -> None:
    assert Transcript("t", WORDS).speakers == ("S2", "S1")


def test_renaming_two_speakers_to_one_merges_their_turns() -> None:
    transcript = Transcript("t", WORDS, (Turn(0, 500, "S2"), Turn(400, 1200, "S1")))
    merged = transcript.renamed({"S1": "Anna", "S2": "Anna"})
    assert merged.speakers == ("Anna",)
    assert [(t.start_ms, t.end_ms, t.overlap) for t in merged.turns] == [(0, 1200, False)]
    assert [dataclasses.replace(w, speaker="x").text for w in merged.words] == [w.text for w in WORDS]


def test_milliseconds_round_to_the_nearest() -> None:
    assert [milliseconds(s) for s in (0.0004, 0.0006, 1.2344)] == [0, 1, 1234]
