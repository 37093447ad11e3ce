"""Words of one's own, in Whisper's own search and in that of a trained transducer."""

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from tests.speech.adapt import tones
from wieldy.errors import InputError, UsageError
from wieldy.speech.decode.lm.fusion import Together
from wieldy.speech.decode.lm.generate import FusionLogitsProcessor
from wieldy.speech.decode.lm.kneser_ney import KneserNeyConfig, train
from wieldy.speech.decode.lm.words import ArpaWords, PhraseScorer, WordScorer
from wieldy.speech.recognize.engines import RecognitionConfig, build
from wieldy.speech.recognize.vocabulary import VocabularyConfig

PROMPT, END = 2, 9


class Letters:
    """Ten tokens: words of the letters a to d, of which A to D begin one; 8 and 9 are no text."""

    alphabet = "ABCDabcd"

    def __len__(self):
        return 10

    def begins_word(self, token):
        return token < 4

    def encode(self, text):
        return [self.alphabet.index(letter) for word in text.split() for letter in word[0].upper() + word[1:]]

    def decode(self, ids):
        return "".join(f" {self.alphabet[n].lower()}" if n < 4 else self.alphabet[n] for n in ids).strip()


def scorers():
    model = train([["ab", "c"], ["c", "da"], ["ab"]], KneserNeyConfig(order=2))
    return Together([PhraseScorer(["ab c", "da"], Letters(), 2.0), WordScorer(ArpaWords(model), Letters(), 0.5)])


def test_generate_adds_to_a_beam_what_its_scorer_says():
    """Beams that change places, split and die, against each prefix scored from its beginning."""
    rng = np.random.default_rng(0)
    processor = FusionLogitsProcessor(scorers(), END)
    for _ in range(2):  # one answer after the other
        prefixes = [(1, 7)]
        for _ in range(6):
            ids = torch.tensor(prefixes)
            logits = torch.tensor(rng.normal(size=(len(ids), 10)), dtype=torch.float32)
            logits[:, 8] = -torch.inf
            found = processor(ids, logits)
            for row, prefix, given in zip(found, prefixes, logits.log_softmax(1), strict=True):
                own = scorers()
                scores, state = own.start(1)
                for token in prefix[PROMPT:]:
                    scores, state = own.advance(torch.tensor([token]), state)
                expected = given + scores[0].sum(0)
                expected[END] = given[END] + own.end(state).sum()
                torch.testing.assert_close(row, expected)
            parents = rng.integers(0, len(prefixes), 3)
            prefixes = [(*prefixes[parent], int(rng.integers(0, 8))) for parent in parents]
    with pytest.raises(UsageError, match="a search that does not grow token by token"):
        processor(torch.zeros(1, 20, dtype=torch.int64), torch.zeros(1, 10))


@pytest.fixture(scope="module")
def said():
    """A name that Whisper hears otherwise: "The Prometheus Dashboard shows graphon alerts." """
    import soxr

    from wieldy.speech import synthesize

    speech = synthesize.say("the prometheus dashboard shows grafana alerts", synthesize.voice_named("heart"))
    return soxr.resample(speech.samples, speech.sample_rate, 16_000)


@pytest.mark.slow
def test_whisper_hears_a_name_it_is_told(said):
    texts = []
    for words in ((), ("Grafana", "Ada Lovelace")):
        config = RecognitionConfig(engine="transformers", vocabulary=VocabularyConfig(words=words), beam_size=2)
        (hypothesis,) = build(config).transcribe([said])
        texts.append(hypothesis.text)
        assert all(0 <= word.start <= word.end <= len(said) / 16_000 for word in hypothesis.words)
    assert "Grafana" not in texts[0]
    assert "Grafana" in texts[1]
    assert "Ada" not in texts[1]


def test_a_trained_transducer_is_told_words_too(tmp_path):
    tones.recognizer(steps=1).save(tmp_path / "model")
    config = RecognitionConfig(model=str(tmp_path / "model"), vocabulary=VocabularyConfig(words=tones.DOMAIN[:1]))
    recognizer = build(config)
    assert recognizer.beam.fusion.names == ("phrases",)
    assert recognizer.changed(language="de").beam.fusion.names == ("phrases",)
    with pytest.raises(InputError, match="'Ä'"):
        build(RecognitionConfig(model=str(tmp_path / "model"), vocabulary=VocabularyConfig(words=("Ä",))))


def test_a_language_model_of_words(tmp_path):
    path = train([["take", "ibuprofen"], ["two", "tablets"]]).write(tmp_path / "orders.arpa")
    scorer = VocabularyConfig(lm=path, words=("ab",)).scorer(Letters())
    assert scorer.names == ("phrases", "words")
    with pytest.raises(InputError, match=r"missing\.arpa cannot be read as an ARPA file"):
        VocabularyConfig(lm=tmp_path / "missing.arpa").scorer(Letters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bonus": -1.0}, "bonus is -1"),
        ({"lm_weight": float("nan")}, "lm_weight is nan"),
        ({"words": ("a", " ")}, "a word of --words is empty: separate them by one comma"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        VocabularyConfig(**options)
