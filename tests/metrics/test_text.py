"""Normalisers against examples and against the original of the whisper normaliser; errors against naive Levenshtein."""

import functools
import json
import random
from collections.abc import Sequence
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.metrics.text import WordErrors, align, normalizer, word_errors

WORDS = st.lists(st.sampled_from("abc"), max_size=7)


def levenshtein(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """The definition, as a recursion."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if not (i and j):
            return i + j
        substituted = distance(i - 1, j - 1) + (reference[i - 1] != hypothesis[j - 1])
        return min(substituted, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(reference), len(hypothesis))


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("Hello, World!", "hello world"),
        ("I didn't know -- it’s 'quoted'…", "i didn't know it's quoted"),
        ("wi-fi and_so", "wi fi and so"),
        ("$1,000,000 or 3.5 % at 10:30.", "1000000 or 3.5 at 10 30"),
        ("1,2,3", "1 2 3"),
        ("Straße, ÉCOLE, नमस्ते।", "straße école नमस्ते"),
        ("  \n ?! ", ""),
    ],
)
def test_basic(text: str, normalized: str) -> None:
    assert normalizer("basic")(text) == normalized


@given(st.text())
def test_basic_leaves_normalized_text_alone(text: str) -> None:
    basic = normalizer("basic")
    assert basic(basic(text)) == basic(text)


def test_none_only_evens_out_spaces() -> None:
    assert normalizer("none")(" It's  $5,\n OK? ") == "It's $5, OK?"


def test_whisper_writes_numbers_and_expands_contractions() -> None:
    whisper = normalizer("whisper")
    assert whisper("Uh, I won't pay twenty-one dollars for the colour.") == "i will not pay $21 for the color"


def test_whisper_is_the_original() -> None:
    original = pytest.importorskip("transformers.models.whisper.english_normalizer")
    spelling = json.loads(resources.files("whisper_normalization").joinpath("english.json").read_text())
    expected, ours = original.EnglishTextNormalizer(spelling), normalizer("whisper")
    text = (
        "one two twenty-one hundred thousand and a half point oh double dollars cents $5 % percent 1960s 3.5 £2.99 "
        "won't it's gonna y'all Dr. Mr. (laughs) [noise] uhm mhm colour centre o'clock they'd been who's got . , ?"
    )
    pieces = text.split()
    draw = random.Random(0)
    for _ in range(300):
        drawn = " ".join(draw.choices(pieces, k=draw.randint(1, 8)))
        assert ours(drawn) == expected(drawn).strip(), drawn


def test_an_unknown_normalizer_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown normaliser 'chime': choose from basic, whisper, none"):
        normalizer("chime")


@given(WORDS, WORDS)
def test_errors_are_the_levenshtein_distance(reference: list[str], hypothesis: list[str]) -> None:
    found = word_errors(reference, hypothesis)
    assert found.errors == levenshtein(tuple(reference), tuple(hypothesis))
    assert found.words == len(reference)
    assert found.words - found.deletions + found.insertions == len(hypothesis)


@given(WORDS, WORDS)
def test_an_alignment_visits_every_word_once_in_order(reference: list[str], hypothesis: list[str]) -> None:
    pairs = align(reference, hypothesis)
    assert [ref for ref, _ in pairs if ref is not None] == list(range(len(reference)))
    assert [hyp for _, hyp in pairs if hyp is not None] == list(range(len(hypothesis)))


def test_counts_add_up_and_rates_are_derived() -> None:
    total = WordErrors(10, 1, 2, 3) + WordErrors(30, 4, 0, 0)
    assert total == WordErrors(40, 5, 2, 3)
    assert total.errors == 10
    assert total.rate == 0.25
    assert WordErrors(insertions=3).rate is None


@pytest.mark.parametrize("counts", [(1, 0, 1, 1), (-1, 0, 0, 0), (5, -1, 0, 0)])
def test_inconsistent_counts_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match=r"reference words|cannot be negative"):
        WordErrors(*counts)
