"""Token n-grams against probabilities worked out by hand, and in a search against rescoring all sequences."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import SmallTransducer, encodings  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.decode.ngram import END, Ngram, NgramScorer  # noqa: E402
from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig  # noqa: E402

# Counted: 1 twice, 2 twice, the end twice; after 1: 2 and 2; after 2: an end twice; after the start: 1 and 1.
SENTENCES = [(1, 2), (1, 2)]


def test_probabilities_are_those_worked_out_by_hand() -> None:
    bigrams = Ngram(2, 4, SENTENCES)
    # One token of six counted: (2 + 3 / 4) / (6 + 3); never counted: (0 + 3 / 4) / 9.
    alone = {1: 11 / 36, 2: 11 / 36, END: 11 / 36, 3: 1 / 12}
    # After 1 came 2, twice: one kind of token. (2 + 11 / 36) / (2 + 1), others 11 / 36 / 3.
    after_1 = {2: 83 / 108, 1: 11 / 108, END: 11 / 108, 3: 1 / 36}
    for history, expected in (((), alone), ((1,), after_1), ((3,), alone)):
        found = np.exp(bigrams.log_p(history))
        assert found == pytest.approx([expected[token] for token in range(4)], rel=1e-6)
    start = np.exp(bigrams.log_p(bigrams.start()))
    assert start[1] == pytest.approx(83 / 108)
    by_hand = (83 / 108) ** 3  # 1 at the start, 2 after 1, the end after 2
    assert bigrams.perplexity([(1, 2)]) == pytest.approx(by_hand ** (-1 / 3), rel=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_every_distribution_sums_to_one(order: int) -> None:
    rng = np.random.default_rng(0)
    sentences = [rng.integers(1, 6, rng.integers(0, 7)).tolist() for _ in range(20)]
    ngram = Ngram(order, 6, sentences)
    for history in itertools.product(range(-1, 6), repeat=order - 1):
        assert np.exp(ngram.log_p(history)).sum() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("order", [1, 3])
def test_a_search_adds_what_the_model_says_of_the_whole_sequence(order: int) -> None:
    model = SmallTransducer(4)
    f, lens = encodings([3, 2])
    ngram = Ngram(order, 4, [(1, 2, 3), (3,), (2, 2)])
    scorer = NgramScorer(ngram, 0.7, 0.3)
    config = TransducerBeamConfig(beam=6, nbest=6)
    for hypotheses in TransducerBeam(model, config, scorer).decode(f, lens):
        for one in hypotheses:
            history, total = ngram.start(), 0.0
            for token in one.tokens:
                total += 0.7 * float(ngram.log_p(history)[token]) + 0.3
                history = ngram.after(history, token)
            total += 0.7 * float(ngram.log_p(history)[END])
            assert one.fused == one.parts["ngram"] == pytest.approx(total, abs=1e-5)
            assert one.score == pytest.approx(one.acoustic + total, abs=1e-5)


def test_a_heavy_model_decides_what_is_heard() -> None:
    f, lens = encodings([4])
    scorer = NgramScorer(Ngram(3, 5, [(4, 1)] * 50), 20.0)
    best = TransducerBeam(SmallTransducer(5), TransducerBeamConfig(beam=8), scorer).decode(f, lens)[0][0]
    assert best.tokens == (4, 1)
    assert math.isfinite(best.score)


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(InputError, match="there are no sentences to count tokens in"):
        Ngram(2, 4, [])
    with pytest.raises(InputError, match=r"sentence \[1, 0\]: tokens are 1 to 3"):
        Ngram(2, 4, [(1, 0)])
    with pytest.raises(UsageError, match="order is 0: it must be at least 1"):
        Ngram(0, 4, SENTENCES)
    with pytest.raises(UsageError, match=r"weight is -1: it must not be negative"):
        NgramScorer(Ngram(1, 4, SENTENCES), -1)
