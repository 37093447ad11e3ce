"""What language models add in a search, against sums over the tokens and words of finished answers."""

import math

import numpy as np
import pytest
import torch

from tests.speech.decode.models import SmallTransducer, encodings
from wieldy.errors import InputError, UsageError
from wieldy.speech.decode.lm.backoff import BEGIN, END, UNKNOWN
from wieldy.speech.decode.lm.fusion import FusionConfig, InternalScorer, LMScorer, Together, internal_log_p
from wieldy.speech.decode.lm.kneser_ney import KneserNeyConfig, train
from wieldy.speech.decode.lm.ngram import NgramLM
from wieldy.speech.decode.lm.words import ArpaWords, PhraseScorer, WordScorer
from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig
from wieldy.speech.tokens import Tokenizer

TEXTS = ["turn on the light", "turn off the light", "the light is on", "new york is far", "the new lamp", "turn it on"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, "bpe", 40)


@pytest.fixture(scope="module")
def word_model():
    return train([text.split() for text in TEXTS], KneserNeyConfig(order=3))


def piece_model(tokenizer, order=3):
    sentences = [[tokenizer.pieces[token] for token in tokenizer.encode(text)] for text in TEXTS]
    return train(sentences, KneserNeyConfig(order=order, vocabulary=tokenizer.pieces[1:]))


def walked(scorer, tokens, g=None):
    """The sum of what a scorer adds on the way, and for the end."""
    scores, state = scorer.start(1, g)
    total = 0.0
    for token in tokens:
        total += float(scores[0, :, token].sum())
        scores, state = scorer.advance(torch.tensor([token]), scorer.select(state, torch.tensor([0])), g)
    return total, float(scorer.end(state).sum())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ngrams_of_pieces_score_what_the_model_says(tokenizer, order):
    model = piece_model(tokenizer, order)
    lm = NgramLM(model, tokenizer.pieces)
    for text in (*TEXTS, "lamp lamp", ""):
        tokens = tokenizer.encode(text)
        total, end = walked(LMScorer(lm, 0.5, bonus=0.25, end=True), tokens)
        words = [tokenizer.pieces[token] for token in tokens]
        log_p = [
            model.row(model.history([BEGIN, *words][: n + 1]))[model.number[word]]
            for n, word in enumerate([*words, END])
        ]
        assert total == pytest.approx(0.5 * sum(log_p[:-1]) + 0.25 * len(tokens), abs=1e-5)
        assert end == pytest.approx(0.5 * log_p[-1], abs=1e-5)
        assert walked(LMScorer(lm, 0.5), tokens)[1] == 0


def test_a_model_of_other_tokens_is_refused(tokenizer, word_model):
    with pytest.raises(InputError, match=r"word 3 of the language model, 'turn', is no token of the recogniser"):
        NgramLM(word_model, tokenizer.pieces)
    model = train([[tokenizer.pieces[1]]], KneserNeyConfig(order=1))
    model.number.pop(UNKNOWN)
    with pytest.raises(InputError, match=r"does not know '.*, and has no <unk>"):
        NgramLM(model, tokenizer.pieces)


def test_words_are_scored_once_they_are_over(tokenizer, word_model):
    scorer = WordScorer(ArpaWords(word_model), tokenizer, 0.7)
    for text in (*TEXTS, "light lamp it", ""):
        log_p = [
            word_model.row(word_model.history([BEGIN, *text.split()][: n + 1]))[word_model.number[word]]
            for n, word in enumerate([*text.split(), END])
        ]
        assert sum(walked(scorer, tokenizer.encode(text))) == pytest.approx(0.7 * sum(log_p), abs=1e-5)
    # What is no word of the model is <unk> there.
    tokens = tokenizer.encode("light") + tokenizer.encode("it") + tokenizer.encode("lamp")[1:]
    text = tokenizer.decode(tokens).split()
    unknown = word_model.number[UNKNOWN]
    expected = word_model.row(word_model.history([BEGIN, text[0]]))[word_model.number.get(text[1], unknown)]
    _, history = ArpaWords(word_model).after(word_model.history([BEGIN]), text[0])
    assert ArpaWords(word_model).after(history, text[1])[0] == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("text", "helped"),
    [
        ("new york", "new york"),
        ("turn on new york is", "new york"),
        ("new lamp", "new"),  # a phrase of its own
        ("the light is", "the light"),
        ("the lamp", ""),
        ("the the light", "the light"),
        ("lamp", ""),
        ("", ""),
    ],
)
def test_phrases_keep_what_they_are_given_only_when_whole(tokenizer, text, helped):
    scorer = PhraseScorer(["new york", "new", "the light"], tokenizer, 2.0)
    assert sum(walked(scorer, tokenizer.encode(text))) == pytest.approx(2.0 * len(tokenizer.encode(helped)))


def test_a_word_that_goes_on_is_another_word():
    tokenizer = Tokenizer.train(["a b ab"], "char")
    scorer = PhraseScorer(["a"], tokenizer, 2.0)
    assert sum(walked(scorer, tokenizer.encode("ab"))) == 0
    assert sum(walked(scorer, tokenizer.encode("a"))) == 2.0 * len(tokenizer.encode("a"))


def test_a_transducer_s_own_language_model_leaves_the_blank_out():
    view = SmallTransducer(5, seed=2)
    g = torch.randn(3, view.size, generator=torch.Generator().manual_seed(0)).double()
    logits = view.output(torch.tanh(g))[:, 1:]
    log_p = internal_log_p(view, g)
    torch.testing.assert_close(log_p[:, 1:].double(), logits.log_softmax(1), rtol=1e-5, atol=1e-6)
    assert (log_p[:, 0] == 0).all()


def test_parts_of_a_search_add_up():
    view = SmallTransducer(6, seed=4, spread=3.0)
    sentences = [["a", "b"], ["b", "c", "a"], ["e", "d"]]
    pieces = ["", *"abcde"]
    lm = NgramLM(train(sentences, KneserNeyConfig(order=2, vocabulary=tuple("abcde"))), pieces)
    fusion = Together([LMScorer(lm, 0.6, bonus=0.5, end=True), InternalScorer(view, 0.3)])
    f, lens = encodings([6, 9], seed=1)
    for nbest in TransducerBeam(view, TransducerBeamConfig(beam=4, nbest=4), fusion).decode(f, lens):
        for hypothesis in nbest:
            g = view.predict(hypothesis.tokens)
            log_p = internal_log_p(view, g)
            internal = sum(float(log_p[u, token]) for u, token in enumerate(hypothesis.tokens))
            assert hypothesis.parts["ilm"] == pytest.approx(-0.3 * internal, abs=1e-5)
            assert hypothesis.parts["lm"] == pytest.approx(
                sum(walked(LMScorer(lm, 0.6, bonus=0.5, end=True), hypothesis.tokens)), abs=1e-5
            )
            assert hypothesis.score == pytest.approx(hypothesis.acoustic + sum(hypothesis.parts.values()))
    with pytest.raises(UsageError, match="two scorers have parts of one name: lm, lm"):
        Together([LMScorer(lm, 0.6), LMScorer(lm, 0.1)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "deep"}, "fusion method 'deep': choose shallow"),
        ({"lm_weight": -0.1}, "lm_weight is -0.1"),
        ({"lm_weight": 0.2, "ilm_weight": math.nan}, "ilm_weight is nan"),
        ({"lm_weight": 0.2, "ilm_weight": 0.4}, "more is subtracted than added"),
    ],
)
def test_weights_that_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        FusionConfig(**options)
    with pytest.warns(UserWarning, match="is above lm_weight"):
        FusionConfig(lm_weight=0.2, ilm_weight=0.3)
    FusionConfig(method="shallow", lm_weight=0.1, ilm_weight=9)


def test_phrases_that_are_refused(tokenizer):
    with pytest.raises(InputError, match="'' is no phrase"):
        PhraseScorer([""], tokenizer)
    with pytest.raises(InputError, match="ß"):
        PhraseScorer(["straße"], tokenizer)
    with pytest.raises(UsageError, match="bonus is -1"):
        PhraseScorer(["new"], tokenizer, -1)
    assert np.isfinite(walked(PhraseScorer([], tokenizer), tokenizer.encode("new york"))).all()


def test_kenlm_scores_words_as_their_file_does(tokenizer, word_model, tmp_path):
    pytest.importorskip("kenlm")
    from wieldy.speech.decode.lm.words import KenLMWords

    other = KenLMWords(word_model.write(tmp_path / "a.arpa"))
    for text in (*TEXTS, "light turn it", ""):
        models = ArpaWords(word_model), other
        scores = [sum(walked(WordScorer(model, tokenizer, 1.0), tokenizer.encode(text))) for model in models]
        assert scores[1] == pytest.approx(scores[0], rel=1e-4)
    (tmp_path / "b.arpa").write_text("nothing")
    with pytest.raises(InputError, match=r"b\.arpa cannot be read by kenlm"):
        KenLMWords(tmp_path / "b.arpa")
