"""What is not believed, and what happens to it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.speech.recognize import HeardWord, Hypothesis
from wieldy.speech.recognize.loop_guard import LONGEST_LOOP, find_loop, guarded, suspicion


def heard(text: str) -> Hypothesis:
    return Hypothesis(tuple(HeardWord(word) for word in text.split()))


SENTENCE = "We meet on Tuesday at nine and Anna brings the figures for the third quarter."


@pytest.mark.parametrize(
    ("text", "seconds", "reason"),
    [
        (SENTENCE, 5.0, None),
        ("no no no", 2.0, None),
        ("No, no. no! no", 2.0, "'No,' repeated 4 times"),
        ("thank you very much " * 4, 9.0, "'thank you very much' repeated 4 times"),
        (SENTENCE, 1.0, "15 words in 1.0 s"),
        ("", 5.0, None),
    ],
)
def test_suspicion(text: str, seconds: float, reason: str | None) -> None:
    assert suspicion(heard(text), seconds) == reason


def test_text_that_compresses_too_well_is_suspected() -> None:
    """A loop of five words escapes the n-gram rule; zlib sees it."""
    assert suspicion(heard("one two three four five, " * 12), 60.0).startswith("compression ratio")
    assert suspicion(heard("O" + "h" * 300), 10.0).startswith("compression ratio"), "one word may be a loop"


@given(st.lists(st.sampled_from("ab"), max_size=14), st.integers(2, 4))
def test_find_loop_is_the_first_by_exhaustive_search(words: list[str], repeats: int) -> None:
    found = find_loop(words, repeats)
    loops = [
        (start, length)
        for start in range(len(words))
        for length in range(1, LONGEST_LOOP + 1)
        if len(words[start : start + length * repeats]) == length * repeats
        and words[start : start + length * repeats] == words[start : start + length] * repeats
    ]
    assert (found[:2] if found else None) == (loops[0] if loops else None)


def test_a_loop_is_decoded_again_without_repetition() -> None:
    result = guarded(heard("so so so so so"), 5.0, lambda: heard(SENTENCE))
    assert result.text == SENTENCE
    assert result.warnings == ("'so' repeated 5 times: decoded again without repetition",)


def test_what_is_believed_is_not_decoded_again() -> None:
    def decode_again() -> Hypothesis:
        raise RuntimeError("decoded again")

    assert guarded(heard(SENTENCE), 5.0, decode_again) == heard(SENTENCE)


def test_a_loop_that_stays_is_cut_to_one() -> None:
    result = guarded(heard("we go on and on and on and on and on home"), 5.0, lambda: heard("so so so so"))
    assert result.text == "we go on and on home"
    assert "repetitions removed" in result.warnings[0]


def test_text_too_fast_for_the_audio_is_dropped_and_said() -> None:
    result = guarded(dataclasses.replace(heard(SENTENCE), speaker_changes=(3,)), 0.5, None)
    assert result.words == ()
    assert result.speaker_changes == ()
    assert result.warnings == ("15 words in 0.5 s: 15 words dropped",)
