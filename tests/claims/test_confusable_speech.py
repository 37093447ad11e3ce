"""The made-up speech is what it says it is."""

import itertools

import numpy as np
import torch

from wieldy.claims.confusable_speech import DOMAINS, SILENCE, ConfusableSpeech, SpeechConfig
from wieldy.speech.decode.lm.kneser_ney import KneserNeyConfig, train


def test_sounds_come_in_pairs_that_are_alike():
    speech = ConfusableSpeech(SpeechConfig(distance=1.25))
    means = speech._means[1:]
    apart = np.linalg.norm(means[:, None] - means, axis=2)
    np.testing.assert_allclose(apart[::2, 1::2].diagonal(), 1.25)
    others = apart[::2, ::2][~np.eye(20, dtype=bool)]
    assert others.min() > 4  # standard deviations


def test_words_are_spelt_and_read_again():
    speech = ConfusableSpeech()
    assert len(set(speech.lexicon)) == len(speech.lexicon) == 120
    for sentence in speech.sentences("source", 50, seed=0):
        assert 4 <= len(sentence) <= 10
        labels = speech.labels(sentence)
        assert len(speech.written(labels)) == len(sentence)
        assert speech.errors(sentence, labels).errors == 0
        assert speech.errors(sentence, labels[:-1]).errors == 1
    assert speech.written([21, 1, 22]) == ["a", "ab"]  # what begins with a label that should not


def test_what_is_said_can_be_found_in_the_frames():
    speech = ConfusableSpeech()
    sentences = speech.sentences("target", 20, seed=1)
    said = speech.spoken(sentences, np.random.default_rng(0))
    assert len(said.to("cpu")) == 20
    for n, sentence in enumerate(sentences):
        frames = said.frames[n, : said.feature_lens[n]]
        assert not said.features[n, said.feature_lens[n] :].any()
        heard = [label for label, _ in itertools.groupby(frames.tolist()) if label != SILENCE]
        labels = speech.labels(sentence)
        # Two equal labels without silence between them look like a long one.
        assert [label for label, _ in itertools.groupby(heard)] == [label for label, _ in itertools.groupby(labels)]
        assert said.targets[n, : said.target_lens[n]].tolist() == labels
        means = torch.from_numpy(speech._means[frames.numpy()]).float()
        assert (said.features[n, : len(frames)] - means).std() < 1.2


def test_domains_have_a_language_of_their_own():
    speech = ConfusableSpeech()
    texts = {domain: speech.sentences(domain, 3000, seed=2) for domain in DOMAINS}
    models = {
        domain: train([[str(word) for word in sentence] for sentence in own[:2500]], KneserNeyConfig(order=2))
        for domain, own in texts.items()
    }

    def perplexity(model, sentences):
        found = []
        for sentence in sentences:
            history = model.history(["<s>"])
            for word in map(str, sentence):
                found.append(model.row(history)[model.number[word]])
                history = model.history([word])
        return float(np.exp(-np.mean(found)))

    for domain, other in (DOMAINS, DOMAINS[::-1]):
        own = perplexity(models[domain], texts[domain][2500:])
        assert own < 20
        assert perplexity(models[domain], texts[other][2500:]) > 3 * own


def test_the_same_seed_says_the_same():
    one, same, other = (ConfusableSpeech(seed=seed) for seed in (0, 0, 1))
    sentences = one.sentences("source", 12, seed=0)
    assert sentences == same.sentences("source", 12, seed=0) != other.sentences("source", 12, seed=0)
    first, again = (own.stream(sentences, 5, seed=3).epoch(2) for own in (one, same))
    assert [len(batch) for batch in first] == [5, 5, 2]
    for batch, copy in zip(first, again, strict=True):
        torch.testing.assert_close(batch.features, copy.features)
    assert not torch.equal(first[0].features, one.stream(sentences, 5, seed=3).epoch(3)[0].features)
