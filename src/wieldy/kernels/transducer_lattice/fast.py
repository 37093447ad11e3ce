"""The same functions in C++, over utterances or rows in parallel; `naive` where the extension is not there."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wieldy.kernels.transducer_lattice import Emissions, Floats, Integers, Lattices, naive

try:
    from wieldy import _native
except ImportError:
    native: Any = None
else:
    native = _native


def lattices(
    blank: Floats,
    label: Floats,
    frames: Integers,
    symbols: Integers,
    *,
    modified: bool = False,
    threads: int | None = None,
) -> Lattices:
    """See `naive.lattices`."""
    if native is None:
        return naive.lattices(blank, label, frames, symbols, modified=modified)
    count = len(frames)
    found = Lattices(np.empty(count), np.empty(count), np.empty(len(blank)), np.empty(len(blank)))
    native.transducer_lattices(
        np.ascontiguousarray(blank),
        np.ascontiguousarray(label),
        np.ascontiguousarray(frames),
        np.ascontiguousarray(symbols),
        modified,
        _threads(threads),
        found.log_z,
        found.log_z_backward,
        found.blank,
        found.label,
    )
    return found


def emissions(
    logits: NDArray[np.float32], rows: Integers, labels: Integers, blank: int, *, threads: int | None = None
) -> Emissions:
    """See `naive.emissions`. `logits` is contiguous."""
    if native is None:
        return naive.emissions(logits, rows, labels, blank)
    found = Emissions(np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows)))
    native.transducer_emissions(logits, rows, labels, blank, _threads(threads), found.lse, found.blank, found.label)
    return found


def gradient(
    logits: NDArray[np.float32],
    rows: Integers,
    labels: Integers,
    blank: int,
    lse: Floats,
    occupied_blank: Floats,
    occupied_label: Floats,
    out: NDArray[np.float32],
    *,
    threads: int | None = None,
) -> None:
    """See `naive.gradient`. `logits` and `out` are contiguous and may be one array."""
    if native is None:
        naive.gradient(logits, rows, labels, blank, lse, occupied_blank, occupied_label, out)
        return
    native.transducer_gradient(logits, rows, labels, blank, _threads(threads), lse, occupied_blank, occupied_label, out)


def _threads(threads: int | None) -> int:
    return threads or os.cpu_count() or 1
