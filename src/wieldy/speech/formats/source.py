"""A file that is being read, and the one way to say where in it something is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wieldy.errors import InputError


@dataclass(frozen=True)
class Source:
    """The text of a file and the name its errors carry. `stem` names the session in formats that hold no name."""

    path: str
    text: str

    @classmethod
    def open(cls, path: Path | str) -> Source:
        """Read a UTF-8 file (a byte order mark is dropped). Raises `InputError` where it is not that."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise InputError(
                f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8", hint="save the file as UTF-8 text"
            ) from error
        return cls(str(path), text)

    @property
    def stem(self) -> str:
        return Path(self.path).name.split(".")[0] or "transcript"

    def lines(self) -> Iterator[tuple[int, str]]:
        """Line numbers from 1 and lines without their end. Only CR and LF end a line, as in every other reader."""
        return enumerate(re.split(r"\r\n?|\n", self.text), start=1)

    def line_at(self, offset: int) -> int:
        """The number of the line that holds character `offset`."""
        return self.text.count("\n", 0, offset) + 1

    def error(self, line: int, message: str, *, hint: str = "") -> InputError:
        return InputError(f"{self.path}:{line}: {message}", hint=hint)
