"""The likeliest way through a graph of states, one state a frame: what all forced alignment comes down to.

    a_t(s) = e_t(s) + max over predecessors r of s of a_{t-1}(r)

with e_t(s) the score of state s on frame t. All states of a frame are worked through at once. A. J. Viterbi 1967,
Error bounds for convolutional codes and an asymptotically optimum decoding algorithm. Notation: T frames, S states, P
the most predecessors that a state has, itself among them where it may last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Path = NDArray[np.int64]


def viterbi(
    scores: NDArray[np.floating], predecessors: NDArray[np.int64], first: Sequence[int], last: Sequence[int]
) -> tuple[Path, float]:
    """The states int64 [T] of the best path from one of `first` to one of `last`, and its score.

    `scores` [T, S] with T >= 1; `predecessors` [S, P], -1 where there are fewer. Of equally good ways the one through
    the predecessor named first is taken, and the state of `last` named first. The score is -inf where no path exists.
    """
    score, back = advanced(start(scores[0], first), scores[1:], predecessors)
    ends = np.asarray(last)
    state = int(ends[score[ends].argmax()]) if len(ends) else 0
    best = float(score[state]) if len(ends) else -np.inf
    return traced(back, predecessors, state), best


def start(scores: NDArray[np.floating], first: Sequence[int]) -> NDArray[np.float64]:
    """The scores [S] of the states on the first frame."""
    score = np.full(len(scores), -np.inf)
    score[list(first)] = scores[list(first)]
    return score


def advanced(
    score: NDArray[np.float64], scores: NDArray[np.floating], predecessors: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """The scores [S] of the states after frames `scores` [t, S] have followed, and for each of these frames and states
    the number of the predecessor it was reached from, [t, S]."""
    back = np.zeros(scores.shape, np.int8)
    padded = np.append(score, -np.inf)  # what predecessor -1 points to
    states = np.arange(scores.shape[1])
    for row, steps in zip(scores, back, strict=True):
        ways = padded[predecessors]
        steps[:] = chosen = ways.argmax(1)
        padded[:-1] = ways[states, chosen] + row
    return padded[:-1], back


def traced(back: NDArray[np.int8], predecessors: NDArray[np.int64], state: int) -> Path:
    """The states [t + 1] on the way to `state` after the last frame of `back` [t, S]."""
    path = np.empty(len(back) + 1, np.int64)
    path[-1] = state
    for t in range(len(back) - 1, -1, -1):
        state = int(predecessors[state, back[t, state]])
        path[t] = state
    return path
