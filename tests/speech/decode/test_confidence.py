"""Word confidence: features by hand, a classifier that learns what it can, its calibration, and its folder."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.speech.adapt import tones  # noqa: E402
from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.corpus import samples_of  # noqa: E402
from wieldy.speech.decode import TokenFeatures, TokenHypothesis, learn_confidence  # noqa: E402
from wieldy.speech.decode.confidence import (  # noqa: E402
    ALONE,
    DECODING,
    NETWORK,
    decoding_features,
    internal_log_probs,
    network_features,
    utterance_confidence,
)
from wieldy.speech.decode.learn_confidence import (  # noqa: E402
    ConfidenceConfig,
    judged,
    quality,
    recalibrate,
    train_confidence,
)
from wieldy.speech.decode.transducer_beam import TransducerBeamConfig  # noqa: E402
from wieldy.speech.decode.word_times import Said  # noqa: E402
from wieldy.speech.recognize.transducer import TransducerRecognizer  # noqa: E402


def hypothesis(*log_probs):
    features = TokenFeatures.of_log_probs(log_probs)
    features = dataclasses.replace(features, gap=np.full(len(log_probs), np.inf, np.float32))
    return TokenHypothesis(tokens=(3, 4, 5), frames=(1, 4, 5), score=-1.0, acoustic=-1.0, features=features)


SAID = Said(("ab", "c"), (0, 2), (3, 4, 5), (1, 4, 5))


def test_features_of_a_word_are_mean_least_and_last_of_its_tokens():
    found = decoding_features(hypothesis(-1.0, -3.0, -0.5), SAID, np.array([-2.0, -2.5, -4.0]), [(0.4, 0.2), None])
    by_name = dict(zip(DECODING, found.T, strict=True))
    assert by_name["log_prob, mean"].tolist() == [-2.0, -0.5]
    assert by_name["log_prob, least"].tolist() == [-3.0, -0.5]
    assert by_name["log_prob, last"].tolist() == [-3.0, -0.5]
    assert by_name["gap, least"].tolist() == [20.0, 20.0]
    assert by_name["frames_since, mean"].tolist() == [2.0, 1.0]
    assert by_name["internal, least"].tolist() == [-2.5, -4.0]
    assert by_name["without_internal, last"].tolist() == [-0.5, 3.5]
    assert by_name["tokens"].tolist() == [2, 1]
    assert by_name["seconds"].tolist() == [0.4, 0.0]
    assert by_name["log of seconds over expected"].tolist() == pytest.approx([np.log(2), 0])
    with pytest.raises(UsageError, match="a hypothesis without features: TokenFeatures"):
        decoding_features(dataclasses.replace(hypothesis(-1.0, -3.0, -0.5), features=None), SAID)


def test_competitors_of_a_word():
    other = Said(("ab",), (0,), (3, 4), (1, 4))
    later = Said(("ab", "d"), (0, 2), (3, 4, 6), (1, 4, 9))  # d where c is not
    found = network_features([SAID, other, later], np.log([0.5, 0.25, 0.25]), scale=1.0)
    first, second = (dict(zip(NETWORK, row, strict=True)) for row in found)
    assert first == {**first, "posterior": pytest.approx(1), "competitors": 0, "alone": 0}
    assert second == {
        **second,
        "posterior": pytest.approx(0.5),
        "posterior of no word": pytest.approx(0.25),
        "competitors": 1,
        "entropy": pytest.approx(1.5 * np.log(2)),
    }
    assert second["posterior by time"] == pytest.approx(0.5)
    np.testing.assert_array_equal(network_features([SAID], [0.0]), [ALONE, ALONE])


def test_an_utterance_is_right_when_all_words_are():
    assert utterance_confidence([0.5, 0.5]) == 0.25
    assert utterance_confidence([]) == 1


# --- a recogniser of tones -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recognizer():
    """One that errs: it never heard a c beside an a."""
    return tones.recognizer(steps=80).changed(beam=TransducerBeamConfig(beam=4))


@pytest.fixture(scope="module")
def cuts():
    return tones.spoken(tones.SOURCE[::2] + tones.DOMAIN[::2], "dev")


CONFIG = ConfidenceConfig(steps=60, nbest=4)


@pytest.fixture(scope="module")
def confident(recognizer, cuts):
    return train_confidence(recognizer, cuts, config=CONFIG)


@pytest.fixture(scope="module")
def seen(confident, cuts):
    return judged(confident.value, cuts)


def test_the_internal_language_model_is_that_of_prefixes(recognizer):
    network, tokens = recognizer.network, recognizer.tokenizer.encode("ab c")
    found = internal_log_probs(network, tokens)
    with torch.inference_mode():
        g, state = network.start(1)
        for token, log_p in zip(tokens, found, strict=True):
            logits = network.join_internal(g)
            logits[:, 0] = -torch.inf
            assert log_p == pytest.approx(float(logits.log_softmax(1)[0, token]), abs=1e-5)
            g, state = network.advance(torch.tensor([token]), state)


def test_a_classifier_knows_errors_it_has_seen_the_like_of(recognizer, confident, seen):
    value, report = confident
    assert 0.1 < seen.right.mean() < 0.95
    learnt = {
        metric.name.split(": ")[1]: metric.median for metric in quality("", value.confidence(seen.features), seen.right)
    }
    assert learnt["AUC"] > 0.8
    assert learnt["NCE"] > 0.1
    assert report.metric("word error rate").count == sum(len(said) for said, _ in seen.errors)
    assert value.beam.config.nbest == 4
    assert recognizer.confidence is None


def test_words_heard_have_the_confidence(recognizer, confident, cuts):
    value, _ = confident
    for cut in list(cuts)[:4]:
        samples = samples_of(cut, tones.RATE)
        plain, marked = recognizer.heard(samples, tones.RATE), value.heard(samples, tones.RATE)
        assert [(w.text, w.start, w.end) for w in plain.words] == [(w.text, w.start, w.end) for w in marked.words]
        assert all(0 <= word.confidence <= 1 for word in marked.words)
        assert [w.confidence for w in plain.words] != [w.confidence for w in marked.words]


def test_it_is_kept_in_the_folder_without_code(confident, cuts, tmp_path):
    value, _ = confident
    value.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".model"}
    loaded = TransducerRecognizer.load(tmp_path, beam=TransducerBeamConfig(beam=4))
    samples = samples_of(cuts[0], tones.RATE)
    assert loaded.heard(samples, tones.RATE).words == value.heard(samples, tones.RATE).words
    about = tmp_path / "confidence.json"
    text = about.read_text()
    about.write_text(text.replace("entropy", "enthalpy"))
    with pytest.raises(InputError, match=r"confidence\.json has other features than this version: train it again"):
        TransducerRecognizer.load(tmp_path)
    about.write_text(text.replace("decode+cn", "decode"))
    with pytest.raises(InputError, match=r"has other features"):
        TransducerRecognizer.load(tmp_path)


@pytest.mark.parametrize("calibration", ["temperature", "isotonic"])
def test_calibration_changes_probabilities_and_not_their_order(confident, cuts, seen, calibration, monkeypatch):
    value, _ = confident
    # Far too sure of everything.
    layers = tuple(
        (10 * w, 10 * b) if n == len(value.confidence.layers) - 1 else (w, b)
        for n, (w, b) in enumerate(value.confidence.layers)
    )
    sure = value.changed(confidence=dataclasses.replace(value.confidence, layers=layers))
    monkeypatch.setattr(learn_confidence, "judged", lambda *_: seen)
    again = recalibrate(sure, cuts, calibration)
    before, after = sure.confidence(seen.features), again.confidence(seen.features)
    order = np.argsort(sure.confidence.raw(seen.features))
    assert (np.diff(after[order]) >= -1e-9).all()
    cost = [-np.where(seen.right, np.log(c.clip(1e-6)), np.log((1 - c).clip(1e-6))).mean() for c in (before, after)]
    assert cost[1] < cost[0]
    if calibration == "temperature":
        np.testing.assert_allclose(after, value.confidence(seen.features), atol=0.15)
    else:
        assert after.mean() == pytest.approx(seen.right.mean(), abs=0.02)


def test_one_hypothesis_alone_is_neutral_and_flagged(recognizer, cuts):
    greedy = recognizer.changed(beam=TransducerBeamConfig(beam=1))
    value, report = train_confidence(greedy, cuts, config=CONFIG)
    assert "the beam has one hypothesis: nothing competes with any word" in report.notes
    assert (judged(value, cuts.subset(first=3)).features[:, -len(NETWORK) :] == ALONE).all()


def test_recordings_that_are_too_easy_or_too_few_are_told(recognizer, cuts, monkeypatch):
    def easy(recognizer, cuts, kind, scale):
        features = np.random.default_rng(0).normal(size=(200, len(DECODING)))
        right = np.arange(200) > 0
        return learn_confidence.Judged(features, right, np.linspace(0, 1, 200), ((["a"] * 200, ["b"] + ["a"] * 199),))

    monkeypatch.setattr(learn_confidence, "judged", easy)
    _, report = train_confidence(recognizer, cuts, config=ConfidenceConfig(features="decode", steps=1))
    assert "only 0.5 % of the words are wrong: if it was trained on these recordings" in report.notes[0]
    monkeypatch.undo()
    with pytest.raises(InputError, match="1 recordings to learn confidence from"):
        train_confidence(recognizer, tones.spoken(["ab"]), config=CONFIG)
    with pytest.raises(
        InputError, match=r"words are heard, .* of them right: give recordings with right and wrong words"
    ):
        train_confidence(tones.recognizer(steps=0), tones.spoken(["ab", "ba", "b"]), config=CONFIG)
    with pytest.raises(UsageError, match="tones has no confidence: train_confidence gives it one"):
        recalibrate(recognizer, cuts)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": "all"}, r"features 'all': choose decode, decode\+cn"),
        ({"calibration": "platt"}, "calibration 'platt': choose temperature, isotonic"),
        ({"nbest": 0}, "nbest is 0: it must be at least 1"),
        ({"hidden": (0,)}, "they must be above 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        ConfidenceConfig(**fields)


def test_a_classifier_whose_parts_do_not_fit_is_refused(confident):
    own = confident.value.confidence
    with pytest.raises(InputError, match="a classifier of"):
        dataclasses.replace(own, mean=own.mean[:3])
    with pytest.raises(InputError, match="weights of shape"):
        dataclasses.replace(own, kind="decode")
