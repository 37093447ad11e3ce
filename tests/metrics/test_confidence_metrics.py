"""Figures on confidence against their definitions written out, and where they are known."""

import numpy as np
import pytest

from wieldy.errors import UsageError
from wieldy.metrics.confidence import auc, ece, error_precision, false_accepts, nce


@pytest.fixture(params=range(4))
def words(request):
    rng = np.random.default_rng(request.param)
    right = rng.random(80) < 0.7
    # Some values are shared.
    return np.round(np.clip(0.3 + 0.4 * right + rng.normal(0, 0.25, 80), 0, 1), 1 + request.param), right


def test_a_constant_at_the_base_rate_tells_nothing():
    right = [True] * 3 + [False]
    assert nce([0.75] * 4, right) == pytest.approx(0)
    assert nce([0.9] * 4, right) < 0
    assert nce([1.0, 1.0, 1.0, 0.0], right) == pytest.approx(1, abs=1e-4)
    assert auc([0.75] * 4, right) == 0.5
    assert ece([0.75] * 4, right) == pytest.approx(0)


def test_auc_is_the_chance_of_the_right_order(words):
    c, right = words
    pairs = [(a > b) + 0.5 * (a == b) for a in c[right] for b in c[~right]]
    assert auc(c, right) == pytest.approx(np.mean(pairs))


def test_average_precision_of_errors(words):
    c, right = words
    total = 0.0
    for threshold in sorted(set(c)):
        found = c <= threshold
        total += (~right[c == threshold]).sum() * (~right[found]).mean()
    assert error_precision(c, right) == pytest.approx(total / (~right).sum())


def test_calibration_error_is_the_mean_gap_of_the_bins(words):
    c, right = words
    total = 0.0
    for k in range(15):
        inside = (c >= k / 15) & ((c < (k + 1) / 15) | (k == 14))
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - c[inside].mean())
    assert ece(c, right) == pytest.approx(total / len(c))


def test_wrong_words_are_accepted_with_the_right_ones(words):
    c, right = words
    for share in (0.5, 0.9, 1.0):
        thresholds = [t for t in c if (c[right] >= t).mean() >= share]
        assert false_accepts(c, right, share) == (c[~right] >= max(thresholds)).mean()


@pytest.mark.parametrize(
    ("confidence", "right", "message"),
    [
        ([0.5], [True, False], "1 confidences for 2 words"),
        ([], [], "0 confidences for 0 words"),
        ([0.5, 1.5], [True, False], r"confidences are not all in \[0, 1\]"),
        ([0.5, 0.5], [True, True], "all 2 words are right: there must be both"),
    ],
)
def test_what_cannot_be_measured_is_refused(confidence, right, message):
    with pytest.raises(UsageError, match=message):
        auc(confidence, right)
    with pytest.raises(UsageError, match="a share of 0 is accepted"):
        false_accepts([0.1, 0.2], [True, False], 0)
