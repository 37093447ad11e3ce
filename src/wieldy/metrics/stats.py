"""How far a rate could have fallen otherwise: bootstrap intervals over sessions or utterances.

A corpus rate is a ratio of sums, so a resample draws whole units (sessions, utterances) and takes numerator and
denominator of a unit together (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", ICASSP 2004). To compare two systems on the same units, draw the units once and take the difference:
most of the spread is the units' difficulty, which both systems share, and it cancels.

Notation: n units, E_i errors and N_i reference words of unit i, b the resample, w_bi how often b drew unit i:
rate_b = sum_i w_bi E_i / sum_i w_bi N_i. Intervals are percentiles of rate_b.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from wieldy.errors import UsageError

RESAMPLES = 10_000  # Bisani and Ney use 10^3 to 10^4; at 10^4 an end of the interval moves by about 1 % of its width
_CHUNK = 1 << 22  # weights drawn at a time: 32 MB


def bootstrap(
    errors: Sequence[float],
    counts: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> tuple[float, float]:
    """The interval of sum(errors) / sum(counts), one entry per unit.

    Raises `UsageError` for fewer than two units, or where nothing was counted.
    """
    return _percentiles(errors, counts, seed, resamples, level)


def paired_bootstrap(
    errors: Sequence[float],
    baseline_errors: Sequence[float],
    counts: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> tuple[float, float]:
    """The interval of (sum(errors) - sum(baseline_errors)) / sum(counts), both systems on the same drawn units.

    Negative throughout: better than the baseline. Raises `UsageError` as `bootstrap` does.
    """
    if len(errors) != len(baseline_errors):
        raise UsageError(f"{len(errors)} units paired with {len(baseline_errors)}")
    difference = np.asarray(errors, float) - np.asarray(baseline_errors, float)
    return _percentiles(difference, counts, seed, resamples, level)


def _percentiles(
    numerators: Sequence[float] | np.ndarray, denominators: Sequence[float], seed: int, resamples: int, level: float
) -> tuple[float, float]:
    numerator, denominator = np.asarray(numerators, float), np.asarray(denominators, float)
    if numerator.shape != denominator.shape:
        raise UsageError(f"{numerator.size} error counts for {denominator.size} units")
    if numerator.size < 2:
        raise UsageError(f"a bootstrap over {numerator.size} unit(s) says nothing", hint="give at least two")
    if not denominator.sum() > 0 or (denominator < 0).any():
        raise UsageError("a rate needs reference counts above zero")
    if not 0 < level < 1:
        raise UsageError(f"level is {level}", hint="choose between 0 and 1, such as 0.95")
    rates = []
    for weights in _weights(numerator.size, resamples, seed):
        counted = weights @ denominator
        rates.append((weights @ numerator)[counted > 0] / counted[counted > 0])
    low, high = np.quantile(np.concatenate(rates), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weights(units: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each resample draws each unit: integer arrays [resamples of this chunk, units]."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // units)
    for done in range(0, resamples, rows):
        yield rng.multinomial(units, np.full(units, 1 / units), size=min(rows, resamples - done))
