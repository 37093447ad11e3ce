"""The bootstrap against a loop that draws units one by one, and against scipy's."""

import math

import numpy as np
import pytest
import scipy.stats

from wieldy.errors import UsageError
from wieldy.metrics import stats

RNG = np.random.default_rng(7)
COUNTS = RNG.integers(1, 30, size=40)
ERRORS = RNG.binomial(COUNTS, 0.2)
BASELINE = np.minimum(ERRORS + RNG.integers(0, 2, size=40), COUNTS)


def naive_interval(numerator: np.ndarray, denominator: np.ndarray, resamples: int) -> tuple[float, float]:
    """Draw n units with replacement, once per resample, and take the ratio of their sums."""
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(numerator), size=len(numerator))
        rates.append(sum(numerator[i] for i in drawn) / sum(denominator[i] for i in drawn))
    return float(np.quantile(rates, 0.025)), float(np.quantile(rates, 0.975))


def test_interval_matches_the_naive_loop() -> None:
    width = 0.1
    assert stats.bootstrap(ERRORS, COUNTS) == pytest.approx(naive_interval(ERRORS, COUNTS, 3000), abs=0.03 * width)


def test_paired_interval_matches_the_naive_loop() -> None:
    found = stats.paired_bootstrap(ERRORS, BASELINE, COUNTS)
    assert found == pytest.approx(naive_interval(ERRORS - BASELINE, COUNTS, 3000), abs=0.003)


def test_intervals_match_scipy() -> None:
    def rate(errors: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(errors.sum(axis) / counts.sum(axis))

    for numerator, found in (
        (ERRORS, stats.bootstrap(ERRORS, COUNTS)),
        (ERRORS - BASELINE, stats.paired_bootstrap(ERRORS, BASELINE, COUNTS)),
    ):
        expected = scipy.stats.bootstrap(
            (numerator, COUNTS), rate, paired=True, method="percentile", n_resamples=10_000, rng=3
        ).confidence_interval
        assert found == pytest.approx((expected.low, expected.high), abs=0.003)


def test_pairing_takes_out_what_both_systems_share() -> None:
    low, high = stats.paired_bootstrap(ERRORS, BASELINE, COUNTS)
    alone_low, alone_high = stats.bootstrap(ERRORS, COUNTS)
    assert high - low < (alone_high - alone_low) / 2


def test_same_seed_same_interval_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stats.bootstrap(ERRORS, COUNTS, seed=5)
    monkeypatch.setattr(stats, "_CHUNK", 1000)
    assert stats.bootstrap(ERRORS, COUNTS, seed=5) == whole
    assert stats.bootstrap(ERRORS, COUNTS, seed=6) != whole


def test_units_without_reference_words_count_where_others_are_drawn() -> None:
    low, high = stats.bootstrap([1, 0, 2], [0, 10, 10])
    assert 0 <= low <= 3 / 20 <= high
    assert math.isfinite(high)


@pytest.mark.parametrize(
    ("errors", "counts", "message"),
    [
        ([1], [10], "over 1 unit"),
        ([1, 2], [10, 10, 10], "2 error counts for 3 units"),
        ([1, 2], [0, 0], "above zero"),
        ([1, 2], [10, -1], "above zero"),
    ],
)
def test_what_has_no_interval_is_refused(errors: list[int], counts: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stats.bootstrap(errors, counts)


def test_unpaired_units_and_odd_levels_are_refused() -> None:
    with pytest.raises(UsageError, match="2 units paired with 3"):
        stats.paired_bootstrap([1, 2], [1, 2, 3], [10, 10])
    with pytest.raises(UsageError, match="level is 95"):
        stats.bootstrap([1, 2], [10, 10], level=95)
