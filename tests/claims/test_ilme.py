"""Parts of the claim on internal language models, on a language of which hardly anything is learnt."""

import math

import pytest
import torch

from wieldy.claims import ilme
from wieldy.claims.confusable_speech import ConfusableSpeech
from wieldy.metrics.text import WordErrors

SMOKE = ilme.SIZES["smoke"]


@pytest.mark.parametrize("kind", ilme.KINDS)
def test_every_method_has_an_answer_to_every_recording(kind):
    found = ilme.outcome(SMOKE, kind, 5)
    assert set(found.target) == {ilme.NONE, *ilme.METHODS}
    assert set(found.source) == {ilme.NONE, "shallow", "ilme"}
    for errors in (*found.target.values(), *found.source.values()):
        assert len(errors) == SMOKE.test
        assert all(own.words >= 4 for own in errors)
    assert all(1 < value < 200 for value in found.perplexity.values())
    assert found.weights["shallow"][1] == 0


@pytest.mark.parametrize("kind", ilme.KINDS)
def test_perplexity_is_that_of_each_label_after_those_before_it(kind):
    speech = ConfusableSpeech(seed=1)
    torch.manual_seed(0)
    model = (ilme._transducer if kind == "transducer" else ilme._encoder_decoder)(speech, SMOKE).eval()
    sentences = speech.sentences("source", 2, seed=0)
    total, count = 0.0, 0
    with torch.inference_mode():
        for sentence in sentences:
            labels = speech.labels(sentence)
            for place, label in enumerate(labels):
                if kind == "transducer":
                    g = model.predict(torch.tensor([labels[:place]], dtype=torch.int64).view(1, place))[0, -1:]
                    log_p = model.join_internal(g)[0, 1:].log_softmax(0)[label - 1]
                else:
                    log_p, state = model.internal_step(torch.tensor([0]), model.start_internal(1))
                    for before in labels[:place]:
                        log_p, state = model.internal_step(torch.tensor([before]), state)
                    log_p = log_p[0, label]
                total, count = total + float(log_p), count + 1
    search = ilme._Search(speech, model, SMOKE)
    assert search.perplexity(sentences) == pytest.approx(math.exp(-total / count), rel=1e-4)


def made(ilme_errors, shallow_errors=10, old=10):
    def of(errors):
        return (WordErrors(words=50, substitutions=errors),) * 40

    target = {method: of(shallow_errors) for method in (ilme.NONE, *ilme.METHODS)} | {"ilme": of(ilme_errors)}
    source = {ilme.NONE: of(10), "shallow": of(10), "ilme": of(old)}
    weights = dict.fromkeys(ilme.METHODS, (0.3, 0.1))
    return [ilme.Outcome(kind, target, source, {"source": 5.0, "target": 9.0}, weights) for kind in ilme.KINDS]


@pytest.mark.parametrize(
    ("outcomes", "holds"),
    [(made(9), True), (made(10), False), (made(11), False)],
)
def test_the_verdict_follows_from_the_errors(outcomes, holds):
    result = ilme._result("full", 0, ilme.SIZES["full"], outcomes)
    assert (result.primary.verdict == "holds") == holds
    old, decoder, *perplexities = result.secondary
    assert old.figure == 1.0
    assert (decoder.verdict == "holds") == holds
    assert [condition.figure for condition in perplexities] == [5 / 9, 5 / 9]
    assert ilme._result("full", 0, ilme.SIZES["full"], made(9, old=11)).secondary[0].verdict == "does not hold"
