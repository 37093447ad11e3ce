"""Kneser-Ney against its definition, rows against back-off word by word, files against what was written."""

import gzip
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.errors import InputError, UsageError
from wieldy.speech.decode.lm.backoff import BEGIN, END, UNKNOWN, BackoffModel
from wieldy.speech.decode.lm.kneser_ney import KneserNeyConfig, train

SENTENCES = st.lists(st.lists(st.sampled_from("abcde"), max_size=6), min_size=1, max_size=12)


def corpus(seed=0, sentences=400, words=12):
    """Text with a power law, so that its counts of counts are those of a language."""
    rng = np.random.default_rng(seed)
    return [[f"w{min(words - 1, int(rng.zipf(1.4)) - 1)}" for _ in range(rng.integers(0, 9))] for _ in range(sentences)]


class Naive:
    """Interpolated modified Kneser-Ney as its definition reads, one probability at a time."""

    def __init__(self, sentences, order):
        self.order = order
        raw = [Counter() for _ in range(order + 1)]
        for sentence in sentences:
            padded = [BEGIN, *sentence, END]
            for n in range(1, order + 1):
                raw[n].update(tuple(padded[i : i + n]) for i in range(len(padded) - n + 1))
        self.counts = [Counter() for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, count in raw[n].items():
                follows = len({longer[0] for longer in raw[n + 1] if longer[1:] == gram}) if n < order else count
                self.counts[n][gram] = count if gram[0] == BEGIN else follows
        del self.counts[1][(BEGIN,)]
        self.words = {word for sentence in sentences for word in sentence} | {END, UNKNOWN}
        self.discounts = [self._discounts(counts) for counts in self.counts]
        self.of_context = [defaultdict(dict) for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, count in self.counts[n].items():
                self.of_context[n][gram[:-1]][gram[-1]] = count

    @staticmethod
    def _discounts(counts):
        t = Counter(counts.values())
        if all(t[k] for k in (1, 2, 3)):
            d = [k - (k + 1) * t[1] * t[k + 1] / ((t[1] + 2 * t[2]) * t[k]) for k in (1, 2, 3)]
            if min(d) >= 0:
                return [0, *d]
        return [0, 0.5, 1.0, 1.5]

    def p(self, word, history):
        n = len(history) + 1
        shorter = self.p(word, history[1:]) if history else 1 / len(self.words)
        counts = self.of_context[n][history]
        if not counts:
            return shorter
        d = self.discounts[n]
        taken = sum(d[min(count, 3)] for count in counts.values())
        own = counts.get(word, 0)
        return (own - d[min(own, 3)] + taken * shorter) / sum(counts.values())


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("text", [corpus(), [["a", "b"], ["a"], []]], ids=["language", "hardly any"])
def test_probabilities_are_those_of_the_definition(order, text):
    model, naive = train(text, KneserNeyConfig(order=order)), Naive(text, order)
    assert set(model.words) == naive.words | {BEGIN}
    histories = {()} | {
        tuple([BEGIN, *s][i : i + n]) for s in text[:30] for n in range(1, order) for i in range(len(s))
    }
    for history in histories:
        row = np.exp(model.row(tuple(model.number[word] for word in history)).astype(float))
        for word in naive.words:
            assert row[model.number[word]] == pytest.approx(naive.p(word, history), rel=1e-5), (word, history)


@settings(max_examples=40)
@given(SENTENCES, st.integers(1, 4), st.sampled_from([(1,), (1, 2), (1, 1, 3)]))
def test_whatever_follows_has_probability_one(sentences, order, min_counts):
    model = train(sentences, KneserNeyConfig(order=order, min_counts=min_counts))
    for sentence in sentences:
        for place in range(len(sentence) + 1):
            history = model.history([BEGIN, *sentence][: place + 1])
            assert np.exp(model.row(history).astype(float)).sum() == pytest.approx(1, abs=1e-5)


def test_rare_ngrams_are_left_out_and_their_contexts_stay():
    whole, smaller = train(corpus()), train(corpus(), KneserNeyConfig(min_counts=(1, 1, 2, 3)))
    assert len(smaller) < len(whole) / 2
    assert len(smaller.orders[0].keys) == len(whole.orders[0].keys)
    for n in range(1, 4):
        assert (smaller.orders[n].keys // len(smaller.words)).max() < len(smaller.orders[n - 1].keys)


def test_a_word_by_hand():
    # Continuations of bigrams: a after <s>; b after a; </s> after b and a. With the fallback discounts of little text,
    # P(b) = (1 - 0.5) / 4 + (0.5 + 0.5 + 1) / 4 / 4 words.
    model = train([["a", "b"], ["a"]], KneserNeyConfig(order=2))
    p_b = 0.5 / 4 + 2 / 4 / 4
    assert math.exp(model.row(())[model.number["b"]]) == pytest.approx(p_b)
    # After a came b and the end, once each.
    assert math.exp(model.row((model.number["a"],))[model.number["b"]]) == pytest.approx(0.5 / 2 + 1 / 2 * p_b)


def naive_backoff(path, history, word):
    """log10 P(word | history) as an ARPA file is read by a human."""
    grams = {}
    for line in path.read_text().splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            grams[tuple(fields[1].split())] = float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0
    factor = 0.0
    while (*history, word) not in grams:
        factor += grams.get(history, (0, 0.0))[1]
        history = history[1:]
    return factor + grams[(*history, word)][0]


def test_files_say_what_the_model_says(tmp_path):
    model = train(corpus(), KneserNeyConfig(min_counts=(1, 1, 2)))
    path = model.write(tmp_path / "a.arpa")
    again = BackoffModel.read(model.write(tmp_path / "b.arpa.gz"))
    assert gzip.decompress((tmp_path / "b.arpa.gz").read_bytes()) == path.read_bytes()
    assert again.words == model.words
    for words in (["w0"], [BEGIN, "w1"], ["w0", "w1", "w0"], ["w2", "w2", "w2"], ["w11", "w11", "w11"]):
        history = model.history(words)
        np.testing.assert_allclose(again.row(history), model.row(history), rtol=2e-5)
        for word in ("w0", "w5", END):
            expected = naive_backoff(path, tuple(words), word) * math.log(10)
            assert model.row(history)[model.number[word]] == pytest.approx(expected, rel=2e-5)


def test_kenlm_reads_the_same_from_our_files(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    model = train(corpus())
    other = kenlm.Model(str(model.write(tmp_path / "a.arpa")))
    for sentence in corpus(seed=1, sentences=30):
        history, total = model.history([BEGIN]), 0.0
        for word in [*sentence, END]:
            total += model.row(history)[model.number.get(word, model.number[UNKNOWN])]
            history = model.history([model.words[n] for n in history] + [word])
        assert other.score(" ".join(sentence)) * math.log(10) == pytest.approx(total, rel=1e-4)


def test_a_file_as_others_write_it(tmp_path):
    path = tmp_path / "a.arpa"
    path.write_text(
        "made by hand\n\n\\data\\\nngram 1=4\nngram 2 = 2\n\n\\1-grams:\n-0.6\t</s>\n-99\t<s>\t-0.3\n"
        "-0.7 one -0.2\n-0.3\ttwo words\n\n\\2-grams:\n-0.1\t<s> one\n-0.4\tone\ttwo\n\n\\end\\\n".replace(" words", "")
    )
    model = BackoffModel.read(path)
    number = model.number
    assert model.row((number["<s>"],))[number["one"]] == pytest.approx(-0.1 * math.log(10))
    assert model.row((number["<s>"],))[number["two"]] == pytest.approx((-0.3 - 0.3) * math.log(10))
    assert model.history(["one", "missing"]) == ()  # without <unk>, nothing is known after an unknown word


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("-0.7\tone\t-0.2", "-0.7\tone two\t-0.2\t1"), r"a\.arpa:8: no 1-gram of known words between two numbers"),
        (("-0.7\tone", "0.7\tone"), r"a\.arpa:8: a logarithm of a probability is 0\.7"),
        (("one\ttwo", "one\tsix"), r"a\.arpa:13: no 2-gram of known words"),
        (("\\end\\", ""), "the file ends here, without"),
        (("ngram 2=2", "ngram 2=3"), r"no 2-gram of known words"),
        (("\\data\\", "data"), "the file ends here"),
        (("\\2-grams:", "\\3-grams:"), r"'\\\\3-grams:' where \\2-grams: should be"),
        (("-0.4\tone\ttwo", "-0.4\t<s>\tone"), "an n-gram is there twice"),
        (("-0.3\ttwo", "-0.3\tone"), "a word is there twice"),
    ],
)
def test_what_is_no_arpa_file(tmp_path, change, message):
    text = (
        "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-0.6\t</s>\n-99\t<s>\t-0.3\n-0.7\tone\t-0.2\n-0.3\ttwo\n\n"
        "\\2-grams:\n-0.1\t<s> one\n-0.4\tone\ttwo\n\n\\end\\\n"
    )
    path = tmp_path / "a.arpa"
    path.write_text(text)
    BackoffModel.read(path)
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(InputError, match=message):
        BackoffModel.read(path)


def test_natural_logarithms_are_noticed(tmp_path):
    path = train(corpus(), KneserNeyConfig(order=1)).write(tmp_path / "a.arpa")
    head, body = path.read_text().split("\\1-grams:\n")
    lines = [line.split("\t") for line in body.splitlines()]
    natural = [f"{float(fields[0]) * math.log(10)}\t{fields[1]}" if len(fields) > 1 else fields[0] for fields in lines]
    path.write_text(head + "\\1-grams:\n" + "\n".join(natural))
    with pytest.raises(InputError, match="its logarithms are natural ones; ARPA files have logarithms to base 10"):
        BackoffModel.read(path)


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="there are no sentences"):
        train([])
    with pytest.raises(InputError, match="'a b' cannot be a word"):
        train([["a b"]])
    with pytest.raises(InputError, match="'</s>' cannot be a word"):
        train([["</s>"]])
    with pytest.raises(UsageError, match="order is 0"):
        KneserNeyConfig(order=0)
    with pytest.raises(UsageError, match=r"min_counts is \(1, 3, 2\)"):
        KneserNeyConfig(min_counts=(1, 3, 2))
    with pytest.raises(InputError, match="cannot be read as an ARPA file"):
        BackoffModel.read(tmp_path / "missing.arpa")
    (tmp_path / "a.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read as an ARPA file"):
        BackoffModel.read(tmp_path / "a.gz")
