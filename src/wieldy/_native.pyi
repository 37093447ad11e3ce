"""The compiled part of wieldy (`native/`). Absent where the install found no C++ compiler."""

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]

def cpu_features() -> list[str]: ...
def cpu_caches() -> list[tuple[int, str, int]]: ...
def cpu_levels() -> list[str]: ...
def cpu_level() -> str: ...
def force_cpu_level(level: str) -> None: ...
def unforce_cpu_level() -> None: ...
def transducer_lattices(
    blank: _Floats,
    label: _Floats,
    frames: _Integers,
    symbols: _Integers,
    modified: bool,
    threads: int,
    log_z: _Floats,
    log_z_backward: _Floats,
    occupied_blank: _Floats,
    occupied_label: _Floats,
) -> None: ...
def transducer_emissions(
    logits: NDArray[np.float32],
    rows: _Integers,
    labels: _Integers,
    blank: int,
    threads: int,
    lse: _Floats,
    blank_out: _Floats,
    label_out: _Floats,
) -> None: ...
def transducer_gradient(
    logits: NDArray[np.float32],
    rows: _Integers,
    labels: _Integers,
    blank: int,
    threads: int,
    lse: _Floats,
    occupied_blank: _Floats,
    occupied_label: _Floats,
    out: NDArray[np.float32],
) -> None: ...
