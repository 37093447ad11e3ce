"""Reading weights that others made without running anything of theirs.

A pickle can run code when it is read, so wieldy reads safetensors and looks at the content, not the name, to tell them
apart. `torch.load(..., weights_only=True)` remains for the one registered pickle that our own script converts.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from wieldy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch

_ZIP = b"PK\x03\x04"
_PICKLE = 0x80  # the PROTO opcode, followed by the protocol number
_PROTOCOLS = range(2, 6)


def is_pickle(path: Path | str) -> bool:
    """Whether a file is a pickle or a torch archive of one, by its content."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start == _ZIP and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    # The third byte of a pickle is an opcode, none of which is 0; in safetensors it belongs to the header's length.
    return len(start) == 4 and start[0] == _PICKLE and start[1] in _PROTOCOLS and start[2] != 0


def check_safetensors(path: Path | str) -> None:
    """Raise `InputError` unless the file is a valid safetensors file.

    The safetensors library checks the header's length, that every tensor's offsets fit its type and shape, and that
    together they cover the file without gap or overlap.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if is_pickle(path):
        raise InputError(
            f"{path} is a pickle, which can run code when it is read",
            hint="convert it to safetensors where you trust it",
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a valid safetensors file: {error}") from error


@overload
def load_safetensors(path: Path | str, framework: Literal["numpy"]) -> dict[str, np.ndarray]: ...
@overload
def load_safetensors(path: Path | str, framework: Literal["torch"] = ...) -> dict[str, torch.Tensor]: ...


def load_safetensors(
    path: Path | str, framework: Literal["numpy", "torch"] = "torch"
) -> dict[str, np.ndarray] | dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name; `InputError` when it is a pickle or has been tampered with."""
    check_safetensors(path)
    if framework == "numpy":
        from safetensors.numpy import load_file as load_arrays

        return load_arrays(path)
    from safetensors.torch import load_file as load_tensors

    return load_tensors(path)
