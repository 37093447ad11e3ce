"""Reading CTranslate2's `model.bin`: named tensors in one little-endian file.

Layout of version 6, as CTranslate2 itself writes it: u32 version; the specification's name; u32 its revision; u32
number of variables; for each its name, u8 rank, u32 sizes, u8 type, u32 bytes, data; then u32 number of aliases and
pairs of names. A string is a u16 length that counts a closing zero byte, then the bytes. CTranslate2 has a writer in
Python but no reader.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wieldy.errors import InputError

VERSION = 6
MAX_RANK = 4  # CTranslate2's own tensors have at most three axes
MAX_SPEC_NAME = 64
# In the order of the type numbers; numpy has no bfloat16, whose bits are handed out as they are.
TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_STORAGE = {"bfloat16": "uint16"}


class Variable(NamedTuple):
    """A tensor of the file. `values` are in `dtype`, except that bfloat16 comes as its bits in uint16."""

    dtype: str
    values: np.ndarray


@dataclass(frozen=True)
class Model:
    """The content of a `model.bin`. The arrays are read-only views of the mapped file."""

    spec: str
    revision: int
    variables: dict[str, Variable]
    aliases: dict[str, str]


def is_ctranslate2(path: Path | str) -> bool:
    """Whether the file begins as a `model.bin` does; says nothing about the rest."""
    try:
        with open(path, "rb") as file:
            start = file.read(6 + MAX_SPEC_NAME)
    except OSError:
        return False
    if len(start) < 6:
        return False
    version, length = struct.unpack_from("<IH", start)
    name = start[6 : 6 + length]
    return 1 <= version <= VERSION and 1 < length <= MAX_SPEC_NAME and name[-1:] == b"\0" and name[:-1].isalnum()


def read_model(path: Path | str) -> Model:
    """All tensors of a `model.bin`; `InputError` names the first thing that is not as it must be."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise InputError(f"cannot read {path}: {error}") from error
    reader = _Reader(path, content)
    version = reader.number("I", "the version")
    if version != VERSION:
        raise InputError(f"{path} has version {version}, not {VERSION}", hint="convert the model with CTranslate2 4")
    spec = reader.text("the specification's name")
    revision = reader.number("I", "the revision")
    variables: dict[str, Variable] = {}
    for _ in range(reader.number("I", "the number of variables")):
        name = reader.text("a variable's name")
        if name in variables:
            raise InputError(f"{path} has the variable {name} twice")
        variables[name] = reader.variable(name)
    aliases: dict[str, str] = {}
    for _ in range(reader.number("I", "the number of aliases")):
        alias, target = reader.text("an alias"), reader.text("the target of an alias")
        if alias in variables or alias in aliases or target not in variables:
            raise InputError(f"{path} has the alias {alias} of {target}, which cannot be")
        aliases[alias] = target
    if reader.at != len(content):
        raise InputError(f"{path} has {len(content) - reader.at} bytes after its end")
    return Model(spec, revision, variables, aliases)


class _Reader:
    """A position in the mapped file that never goes past its end."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content
        self.at = 0

    def skip(self, size: int, what: str) -> int:
        """Step over `size` bytes that hold `what` and return where they begin."""
        start, left = self.at, len(self.content) - self.at
        if size > left:
            raise InputError(f"{self.path} ends in the middle of {what}: {size} bytes wanted, {left} left")
        self.at += size
        return start

    def number(self, code: str, what: str) -> int:
        start = self.skip(struct.calcsize("<" + code), what)
        return int(struct.unpack_from("<" + code, self.content, start)[0])

    def text(self, what: str) -> str:
        length = self.number("H", what)
        start = self.skip(length, what)
        raw = self.content[start : self.at]
        try:
            if not raw.endswith(b"\0"):
                raise ValueError("it does not end in a zero byte")
            return raw[:-1].decode("utf-8")
        except ValueError as error:
            raise InputError(f"{self.path}: {what} at byte {start} is not text: {error}") from error

    def variable(self, name: str) -> Variable:
        rank = self.number("B", name)
        if rank > MAX_RANK:
            raise InputError(f"{self.path}: {name} has {rank} axes, at most {MAX_RANK} are possible")
        shape = tuple(self.number("I", name) for _ in range(rank))
        number = self.number("B", name)
        if number >= len(TYPES):
            raise InputError(f"{self.path}: {name} has the unknown type number {number}")
        dtype = TYPES[number]
        storage = np.dtype(_STORAGE.get(dtype, dtype)).newbyteorder("<")
        size = self.number("I", name)
        if size != math.prod(shape) * storage.itemsize:
            raise InputError(f"{self.path}: {name} has {size} bytes, which is not {shape} in {dtype}")
        start = self.skip(size, name)
        flat = np.frombuffer(self.content, storage, math.prod(shape), start)
        return Variable(dtype, flat.reshape(shape))
