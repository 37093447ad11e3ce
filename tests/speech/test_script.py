"""The sentences of simulated meetings."""

import itertools
import re

import numpy as np

from wieldy.speech import script


def test_sentences_are_plain_english_and_never_repeat():
    said = list(itertools.islice(script.sentences(np.random.default_rng(0)), 2000))
    assert len(set(said)) == 2000
    for sentence in said:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9 ',-]*[.?]", sentence), sentence
    vocabulary = {word for sentence in said for word in re.findall(r"[a-z]+", sentence.lower())}
    assert len(vocabulary) > 400


def test_the_seed_decides():
    first, again, other = (list(itertools.islice(script.sentences(np.random.default_rng(n)), 5)) for n in (1, 1, 2))
    assert first == again != other


def test_every_template_and_list_is_used():
    grammar = script._grammar()
    slots = re.compile(r"\{(\w+)\}")
    texts = grammar["templates"] + [entry for entries in grammar["lists"].values() for entry in entries]
    asked = {slot.lower() for text in texts for slot in slots.findall(text)}
    assert asked == set(grammar["lists"])


def test_no_word_fills_two_slots_of_a_sentence():
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = script._expand("{person}/{person}", {"person": ["A", "B"]}, rng).split("/")
        assert first != second
