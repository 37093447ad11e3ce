"""Forward-backward over transducer lattices, and the softmax rows around it.

Lattices of a batch lie one after the other ("packed"): utterance n has T_n (U_n + 1) nodes, node (t, u) at
t (U_n + 1) + u. With e and l the log-probabilities of the blank and label arcs (Graves 2012, arXiv 1211.3711):

    a(0, 0) = 0,    a(t, u) = log(exp(a(t-1, u) + e(t-1, u)) + exp(a(t, u-1) + l(t, u-1)))
    b(T-1, U) = e(T-1, U),    b(t, u) = log(exp(b(t+1, u) + e(t, u)) + exp(b(t, u+1) + l(t, u)))
    log Z = a(T-1, U) + e(T-1, U) = b(0, 0)

and a path takes the blank arc of (t, u) with probability exp(a(t, u) + e(t, u) + b(t+1, u) - log Z), the label arc
likewise. In the *modified* lattice a label advances t too: at most one symbol per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Lattices:
    """What forward-backward finds. `log_z` and `log_z_backward` float64 [utterances], equal but for rounding; `blank`
    and `label` float64 [nodes]: the probabilities that a path takes the arcs. No path: log Z is -inf, all others 0."""

    log_z: Floats
    log_z_backward: Floats
    blank: Floats
    label: Floats


@dataclass(frozen=True)
class Emissions:
    """Of each node's logits: log-sum-exp, and the log-probabilities of its two arcs, float64 [nodes] each."""

    lse: Floats
    blank: Floats
    label: Floats
