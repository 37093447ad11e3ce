"""What language models add in a search, against sums over the tokens and words of finished answers."""

import math

import numpy as np
import pytest
import torch

from tests.speech.decode.models import SmallTransducer, encodings
from wieldy.errors import InputError, UsageError
from wieldy.metrics.text import WordErrors
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.decode.aed_beam import AedBeam, AedBeamConfig
from wieldy.speech.decode.lm.backoff import BEGIN, END, UNKNOWN
from wieldy.speech.decode.lm.fusion import (
    DecoderLM,
    FusionConfig,
    InternalScorer,
    LMScorer,
    Together,
    fusion,
    internal_log_p,
)
from wieldy.speech.decode.lm.kneser_ney import KneserNeyConfig, train
from wieldy.speech.decode.lm.ngram import NgramLM
from wieldy.speech.decode.lm.tune import tune
from wieldy.speech.decode.lm.words import ArpaWords, PhraseScorer, WordScorer
from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig
from wieldy.speech.networks.aed import Aed, AedConfig
from wieldy.speech.networks.streaming_config import StreamingConfig
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
    both = Together([LMScorer(lm, 0.6, bonus=0.5, end=True), InternalScorer(view, 0.3)])
    f, lens = encodings([6, 9], seed=1)
    for nbest in TransducerBeam(view, TransducerBeamConfig(beam=4, nbest=4), both).decode(f, lens):
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


def test_methods_differ_in_what_they_subtract():
    view = SmallTransducer(6, seed=4)
    pieces = ["", *"abcde"]
    target, source = (
        NgramLM(train(sentences, KneserNeyConfig(order=2, vocabulary=tuple("abcde"))), pieces)
        for sentences in ([["a", "b"], ["b", "c"]], [["d", "e"], ["e"]])
    )
    tokens, g = (1, 2, 5), view.start(1)[0]
    lm = walked(LMScorer(target, 0.4), tokens)[0]
    subtracted = {
        "shallow": 0.0,
        "density-ratio": walked(LMScorer(source, 0.2), tokens)[0],
        "lodr": walked(LMScorer(source, 0.2), tokens)[0],
        "ilme": -walked(InternalScorer(view, 0.2), tokens, g)[0],
    }
    for method, other in subtracted.items():
        config = FusionConfig(method=method, lm_weight=0.4, ilm_weight=0.2)
        assert walked(fusion(view, target, config, source), tokens, g)[0] == pytest.approx(lm - other, abs=1e-5)
    with pytest.raises(UsageError, match="method lodr without a language model of what the recogniser was trained on"):
        fusion(view, target, FusionConfig(method="lodr"))
    with pytest.raises(UsageError, match="the source's language model has 3 tokens, the recogniser 6"):
        fusion(view, target, FusionConfig(method="lodr"), NgramLM(train([["a", "b"]]), ["", "a", "b"]))


def test_an_encoder_decoder_is_its_own_language_model():
    torch.manual_seed(0)
    encoder = StreamingConfig(layers=1, size=8, heads=2, feed_forward=16)
    aed = (
        Aed(AedConfig(vocabulary=6, input_dim=4, encoder=encoder, layers=1, size=8, heads=2))
        .eval()
        .requires_grad_(False)
    )
    lm = DecoderLM(aed)
    log_p, state = lm.start(1)
    torch.testing.assert_close(log_p, aed.internal_step(torch.tensor([0]), aed.start_internal(1))[0])
    config = FusionConfig(lm_weight=0.4, ilm_weight=0.2, lm_end=True)
    pieces = ["", *"abcde"]
    target = NgramLM(train([["a", "b"], ["b", "c"]], KneserNeyConfig(order=2, vocabulary=tuple("abcde"))), pieces)
    memory, lens = aed.encode(torch.randn(1, 12, 4), torch.tensor([12]))
    scorer = fusion(aed, target, config)
    (nbest,) = AedBeam(aed, AedBeamConfig(beam=3, nbest=3, max_tokens=5), scorer).decode(memory, lens)
    for hypothesis in nbest:
        tokens = [*hypothesis.tokens, aed.eos]
        own, state = 0.0, lm.start(1)
        for token in tokens:
            own += float(state[0][0, token])
            state = lm.advance(torch.tensor([token]), state[1])
        assert hypothesis.parts["ilm"] == pytest.approx(-0.2 * own, abs=1e-4)
        expected = sum(walked(LMScorer(target, 0.4, end=True), tokens[:-1]))
        assert hypothesis.parts["lm"] == pytest.approx(expected, abs=1e-4)


def test_weights_are_found_where_they_are():
    """Answers whose parts are such that one pair of weights tells right from wrong."""
    rng = np.random.default_rng(0)
    right = WordErrors(words=5)
    wrong = WordErrors(words=5, substitutions=2)
    made = []
    for _ in range(60):
        lm, ilm = rng.normal(0, 5, (2, 8))
        noise = rng.normal(0, 0.1, 8)
        quality = rng.normal(0, 1, 8)
        made.append((quality - 0.35 * lm + 0.15 * ilm + noise, lm, ilm, int(np.argmax(quality))))
    calls = []

    def decode(config):
        calls.append((config.lm_weight, config.ilm_weight))
        found = []
        for acoustic, lm, ilm, _ in made:
            nbest = [
                TokenHypothesis(
                    tokens=(n,),
                    score=a + config.lm_weight * p - config.ilm_weight * q,
                    acoustic=a,
                    parts={"lm": config.lm_weight * p, "ilm": -config.ilm_weight * q},
                )
                for n, (a, p, q) in enumerate(zip(acoustic, lm, ilm, strict=True))
            ]
            found.append(sorted(nbest, key=lambda h: -h.score))
        return [*found, []]  # and an empty recording

    def errors(number, tokens):
        return right if tokens[0] == made[number][3] else wrong

    tuning = tune(decode, errors, FusionConfig(lm_weight=0.2, ilm_weight=0.1))
    assert (tuning.config.lm_weight, tuning.config.ilm_weight) == (0.35, 0.15)
    assert calls[0] == (0.2, 0.1)
    assert len(calls) == 4
    for cell, rate in tuning.searched.items():
        assert tuning.ranked[cell] == rate  # these answers do not change with the search
    assert tuning.report.metric("word error rate").median == min(tuning.ranked.values())
    with pytest.raises(UsageError, match="tuning from a weight of 0"):
        tune(decode, errors, FusionConfig(lm_weight=0.2, ilm_weight=0))
