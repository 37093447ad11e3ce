"""As the equations say it, node by node. The reference that `fast` is tested against, and what serves without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wieldy.kernels.transducer_lattice import Emissions, Floats, Integers, Lattices


def lattices(blank: Floats, label: Floats, frames: Integers, symbols: Integers, *, modified: bool = False) -> Lattices:
    """Forward-backward. `blank`, `label` float64 [nodes] packed; `frames` (>= 1), `symbols` (>= 0) int64
    [utterances]. The label arcs at u = U lead nowhere and are not read."""
    found = Lattices(np.empty(len(frames)), np.empty(len(frames)), np.zeros(len(blank)), np.zeros(len(blank)))
    first = 0
    ahead = int(modified)
    for n, (T, U) in enumerate(zip(frames.tolist(), symbols.tolist(), strict=True)):  # noqa: N806
        nodes = slice(first, first + T * (U + 1))
        first = nodes.stop
        e, l = blank[nodes].reshape(T, U + 1), label[nodes].reshape(T, U + 1)  # noqa: E741, the paper's letters
        # A row t = T is added, in which every path ends at u = U.
        a, b = np.full((T + 1, U + 1), -np.inf), np.full((T + 1, U + 1), -np.inf)
        a[0, 0], b[T, U] = 0.0, 0.0
        for t in range(T + 1):
            for u in range(U + 1):
                if t > 0:
                    a[t, u] = np.logaddexp(a[t, u], a[t - 1, u] + e[t - 1, u])
                if u > 0 and ahead <= t < T + ahead:
                    a[t, u] = np.logaddexp(a[t, u], a[t - ahead, u - 1] + l[t - ahead, u - 1])
        for t in reversed(range(T)):
            for u in reversed(range(U + 1)):
                b[t, u] = b[t + 1, u] + e[t, u]
                if u < U:
                    b[t, u] = np.logaddexp(b[t, u], b[t + ahead, u + 1] + l[t, u])
        found.log_z[n], found.log_z_backward[n] = a[T, U], b[0, 0]
        if a[T, U] > -np.inf:
            found.blank[nodes] = np.exp(a[:T] + e + b[1:] - a[T, U]).ravel()
            label_arcs = np.zeros((T, U + 1))
            label_arcs[:, :U] = np.exp(a[:T, :U] + l[:, :U] + b[ahead : T + ahead, 1:] - a[T, U])
            found.label[nodes] = label_arcs.ravel()
    return found


def emissions(logits: NDArray[np.float32], rows: Integers, labels: Integers, blank: int) -> Emissions:
    """From the logits [n, vocabulary] of the nodes, found in `rows` [nodes]; `labels` is -1 where there is no arc."""
    x = logits[rows].astype(np.float64)
    highest = x.max(axis=1, initial=-np.inf)
    lse = highest + np.log(np.exp(x - highest[:, None]).sum(axis=1))
    label = np.where(labels < 0, -np.inf, x[np.arange(len(rows)), labels] - lse)
    return Emissions(lse, x[:, blank] - lse, label)


def gradient(
    logits: NDArray[np.float32],
    rows: Integers,
    labels: Integers,
    blank: int,
    lse: Floats,
    occupied_blank: Floats,
    occupied_label: Floats,
    out: NDArray[np.float32],
) -> None:
    """`out[rows]` becomes the derivative of -log Z by the logits, where the arcs are taken with the probabilities
    given:  gamma P(k) - [k = blank] occupied_blank - [k = label] occupied_label,  gamma their sum."""
    gamma = occupied_blank + occupied_label
    d = gamma[:, None] * np.exp(logits[rows].astype(np.float64) - lse[:, None])
    nodes = np.arange(len(rows))
    d[nodes, blank] -= occupied_blank
    d[nodes[labels >= 0], labels[labels >= 0]] -= occupied_label[labels >= 0]
    out[rows] = d
