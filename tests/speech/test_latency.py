"""How late words come: on hand-made answers with known times."""

import pytest
from lhotse.supervision import AlignmentItem

from wieldy.errors import UsageError
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.latency import EmissionLatency, EmittedWord, emission_latency, emitted_words
from wieldy.speech.tokens import Tokenizer

REFERENCE = [AlignmentItem("turn", 0.0, 0.3), AlignmentItem("it", 0.3, 0.15), AlignmentItem("on", 0.6, 0.3)]


def test_words_are_late_by_the_end_of_the_frame_that_brought_them():
    heard = [EmittedWord("turn", 11), EmittedWord("off", 20), EmittedWord("on", 27)]
    found = emission_latency([heard], [REFERENCE], frame_s=0.03)
    assert found.words == pytest.approx((12 * 0.03 - 0.3, 28 * 0.03 - 0.9))
    assert found.firsts == pytest.approx((0.06,))
    assert (found.mean_ms, found.first_ms) == pytest.approx((0.0, 60.0))
    assert found.quantile_ms(0.5) == pytest.approx(0.0)
    assert found.quantile_ms(0.9) == pytest.approx(48.0)


def test_lookahead_must_be_heard_first():
    heard = [EmittedWord("turn", 11)]
    late = emission_latency([heard], [REFERENCE], frame_s=0.03, lookahead=4)
    assert late.words == pytest.approx((0.06 + 4 * 0.03,))


def test_only_matched_words_count_and_first_words_only_where_the_first_is_right():
    heard = [EmittedWord("please", 3), EmittedWord("it", 15), EmittedWord("on", 40), EmittedWord("on", 41)]
    found = emission_latency([heard, []], [REFERENCE, REFERENCE], frame_s=0.03)
    assert len(found.words) == 2
    assert found.firsts == ()
    assert found.first_ms is None
    nothing = emission_latency([[]], [REFERENCE], frame_s=0.03)
    assert nothing == EmissionLatency()
    assert (nothing.mean_ms, nothing.quantile_ms(0.5)) == (None, None)
    assert found + found == EmissionLatency(found.words * 2)


def test_a_word_comes_with_its_last_piece():
    tokenizer = Tokenizer.train(["ab c", "c ab"], "char")
    tokens = tuple(tokenizer.encode("ab c"))
    answer = TokenHypothesis(tokens=tokens, score=0.0, acoustic=0.0, frames=tuple(range(0, 10, 2)))
    assert [tokenizer.pieces[token] for token in tokens] == ["▁", "a", "b", "▁", "c"]
    assert emitted_words(answer, tokenizer) == [("ab", 4), ("c", 8)]
    nothing = TokenHypothesis(tokens=(), score=0.0, acoustic=0.0)
    assert emitted_words(nothing, tokenizer) == []
    only_marks = TokenHypothesis(tokens=(tokens[0],), score=0.0, acoustic=0.0, frames=(1,))
    assert emitted_words(only_marks, tokenizer) == []
    torn = TokenHypothesis(tokens=tokens[1:], score=0.0, acoustic=0.0, frames=(0, 1, 2, 3))
    assert emitted_words(torn, tokenizer) == [("ab", 1), ("c", 3)]
    with pytest.raises(UsageError, match="5 tokens with 0 frames: take a search that has frames"):
        emitted_words(TokenHypothesis(tokens=tokens, score=0.0, acoustic=0.0), tokenizer)
