"""Slots and posteriors of N-best lists: by hand, and what must hold for every list."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import InputError
from wieldy.metrics.text import word_errors
from wieldy.speech.decode.confusion_network import confusion_network


def shares(network):
    return [dict(slot.posteriors) for slot in network.slots]


def test_posteriors_by_hand():
    third = math.log(1 / 3)
    network = confusion_network([["a", "b", "c"], ["a", "x", "c", "d"], ["b", "c"]], [third] * 3, scale=1.0)
    expected = [
        {"a": 2 / 3, None: 1 / 3},
        {"b": 2 / 3, "x": 1 / 3},
        {"c": 1.0},
        {None: 2 / 3, "d": 1 / 3},
    ]
    assert shares(network) == [pytest.approx(slot) for slot in expected]
    assert [slot.pivot for slot in network.slots] == [0, 1, 2, None]
    assert [slot.best for slot in network.of_pivot()] == ["a", "b", "c"]
    assert network.consensus() == ("a", "b", "c")
    assert network.slots[2].entropy == pytest.approx(0.0)
    assert network.slots[0].entropy == pytest.approx(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))


def test_the_scale_flattens_and_is_one_over_the_mean_length():
    lists = [["a", "b"], ["a", "c", "d", "e"]]
    scores = [-1.0, -4.0]
    by_hand = 1 / (1 + math.exp(-3.0 / 3))
    for network in (confusion_network(lists, scores), confusion_network(lists, scores, scale=1 / 3)):
        assert network.of_pivot()[1].posteriors["b"] == pytest.approx(by_hand)
    sharp = confusion_network(lists, scores, scale=10.0)
    assert sharp.of_pivot()[1].posteriors["b"] > 0.999


def test_times_keep_words_apart_that_do_not_overlap():
    lists, scores = [["a", "b"], ["c", "b"]], [0.0, 0.0]
    times = [[(0, 1), (1, 2)], [(5, 6), (1.2, 2)]]
    assert shares(confusion_network(lists, scores)) == [{"a": 0.5, "c": 0.5}, {"b": 1.0}]
    apart = confusion_network(lists, scores, times=times)
    assert {"a": 0.5, None: 0.5} in shares(apart)
    assert {None: 0.5, "c": 0.5} in shares(apart)


words = st.lists(st.sampled_from("abc"), max_size=6)


@given(st.lists(st.tuples(words, st.floats(-20, 0)), min_size=1, max_size=6))
def test_every_slot_adds_up_to_one_and_every_hypothesis_can_be_read_off(nbest):
    lists, scores = zip(*nbest, strict=True)
    network = confusion_network(lists, scores)
    for slot in network.slots:
        assert sum(slot.posteriors.values()) == pytest.approx(1.0)
        assert list(slot.posteriors.values()) == sorted(slot.posteriors.values(), reverse=True)
        assert 0 <= slot.entropy <= math.log(len(slot.posteriors)) + 1e-9
        assert set(slot.posteriors) != {None}
    assert [slot.pivot for slot in network.of_pivot()] == list(range(len(lists[0])))
    for hypothesis in lists:
        left = list(hypothesis)
        reached = {0}
        for slot in network.slots:  # every way of taking a word or none from each slot
            reached = {p for p in reached if None in slot.posteriors} | {
                p + 1 for p in reached if p < len(left) and left[p] in slot.posteriors
            }
        assert len(left) in reached


@given(words, words)
def test_two_hypotheses_are_aligned_as_levenshtein_does(first, second):
    network = confusion_network([first, second], [0.0, 0.0])
    apart = sum(len(slot.posteriors) > 1 for slot in network.slots)
    assert apart == word_errors(first, second).errors


def test_one_hypothesis_is_certain_and_none_is_an_error():
    assert shares(confusion_network([["a", "b"]], [-50.0])) == [{"a": 1.0}, {"b": 1.0}]
    assert confusion_network([[]], [-1.0]).slots == ()
    for arguments, message in (
        (([], []), "0 hypotheses with 0 scores: give one each, at least 1"),
        (([["a"]], [0.0, 1.0]), "1 hypotheses with 2 scores: give one each, at least 1"),
        (([["a"]], [math.nan]), r"scores \[nan\] are not all finite"),
    ):
        with pytest.raises(InputError, match=message):
            confusion_network(*arguments)
    for scale in (-1.0, 0.0):
        with pytest.raises(InputError, match=rf"scale is {scale}: it must be above 0"):
            confusion_network([["a"]], [0.0], scale=scale)
    with pytest.raises(InputError, match="not every word has a time: give times for all words or for none"):
        confusion_network([["a"]], [0.0], times=[[]])
