"""Whether a recogniser knows when it is wrong: figures on probabilities c_i of words of which right_i is known.

nce   (H(p) - H(right | c)) / H(p)     p: share of right words; H in nats per word. 1: certain and right, 0: no
      better than to say p every time, below 0: worse (Siu, Gish and Richardson 1997; NIST's measure)
auc   chance that a right word has the higher c of a right and a wrong one
ece   mean |share of right words - mean c| over equal intervals of c, by their words (Guo et al. 2017, arXiv
      1706.04599)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from wieldy.errors import UsageError

_SURE = 1e-6  # a probability of 0 that was wrong would cost infinitely much


def nce(confidence: ArrayLike, right: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Normalised cross-entropy; above 0 where confidence tells something."""
    c, is_right = _checked(confidence, right)
    c = c.clip(_SURE, 1 - _SURE)
    p = is_right.mean()
    base = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    return float(1 + np.where(is_right, np.log(c), np.log(1 - c)).mean() / base)


def auc(confidence: ArrayLike, right: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Area under the curve of right words accepted over wrong ones accepted; 0.5 by chance."""
    c, is_right = _checked(confidence, right)
    ranks = rankdata(c)
    count = int(is_right.sum())
    return float((ranks[is_right].sum() - count * (count + 1) / 2) / (count * (len(c) - count)))


def error_precision(confidence: ArrayLike, right: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Average precision of finding wrong words by low confidence: the area under precision over recall."""
    c, is_right = _checked(confidence, right)
    values, place = np.unique(c, return_inverse=True)
    wrong = np.bincount(place, ~is_right, len(values)).cumsum()  # at or below each value
    below = np.bincount(place, minlength=len(values)).cumsum()
    return float((np.diff(wrong, prepend=0) * wrong / below).sum() / wrong[-1])


def ece(confidence: ArrayLike, right: Sequence[bool] | NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error."""
    c, is_right = _checked(confidence, right, both=False)
    place = np.minimum((c * bins).astype(int), bins - 1)
    apart = np.bincount(place, is_right.astype(float) - c, bins)
    return float(np.abs(apart).sum() / len(c))


def false_accepts(confidence: ArrayLike, right: Sequence[bool] | NDArray[np.bool_], accepted: float) -> float:
    """The share of wrong words that is accepted with so large a share of the right ones, 0 to 1, or just more."""
    if not 0 < accepted <= 1:
        raise UsageError(f"a share of {accepted} is accepted", hint="it lies above 0, at most at 1")
    c, is_right = _checked(confidence, right)
    kept = np.sort(c[is_right])[::-1]
    threshold = kept[int(np.ceil(accepted * len(kept))) - 1]
    return float((c[~is_right] >= threshold).mean())


def _checked(
    confidence: ArrayLike, right: Sequence[bool] | NDArray[np.bool_], *, both: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    c, is_right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if c.ndim != 1 or c.shape != is_right.shape or not len(c):
        raise UsageError(f"{c.size} confidences for {is_right.size} words", hint="give one each, at least one")
    if not ((c >= 0) & (c <= 1)).all():
        raise UsageError("confidences are not all in [0, 1]")
    if both and is_right.all() | ~is_right.any():
        raise UsageError(f"all {len(c)} words are {'right' if is_right.all() else 'wrong'}", hint="there must be both")
    return c, is_right
