"""JSON values together with the line they start on, which `json` alone forgets and an error message needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from wieldy.speech.formats.source import Source

_BLANK = re.compile(r"[ \t\r\n]*")


class Located(NamedTuple):
    """A decoded JSON value and its line."""

    line: int
    value: Any


def elements(source: Source) -> Iterator[Located]:
    """The elements of a file that is one JSON list. Raises `InputError` where it is anything else."""
    place = _Place(source)
    yield from place.elements()
    place.end()


def members(source: Source, *lists: str) -> dict[str, Located]:
    """The members of a file that is one JSON object; those named in `lists` are lists of `Located` elements.

    Raises `InputError` where the file is anything else or says a key twice.
    """
    place = _Place(source)
    found: dict[str, Located] = {}
    for line, key in place.object_keys():
        if key in found:
            raise source.error(line, f"{key!r} is here a second time")
        found[key] = Located(line, list(place.elements()) if key in lists else place.value())
    place.end()
    return found


class _Place:
    """A place in a JSON text. Containers are stepped through, the values inside them `json` decodes."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = 0
        self._line, self._counted = 1, 0

    def line(self) -> int:
        """The line of this place; lines are counted once, however often it is asked."""
        self._line += self.source.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def elements(self) -> Iterator[Located]:
        self._expect("[")
        if self._step("]"):
            return
        while True:
            yield Located(self.line(), self.value())
            if self._step("]"):
                return
            self._expect(",")

    def object_keys(self) -> Iterator[Located]:
        """The keys of an object; the caller takes the value after each."""
        self._expect("{")
        if self._step("}"):
            return
        while True:
            line, key = self.line(), self.value()
            if not isinstance(key, str):
                raise self.source.error(line, "this is not JSON: a key is not a string")
            self._expect(":")
            yield Located(line, key)
            if self._step("}"):
                return
            self._expect(",")

    def value(self) -> Any:
        try:
            value, self.at = _decoder.raw_decode(self.source.text, self.at)
        except json.JSONDecodeError as error:
            raise self.source.error(error.lineno, f"this is not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise self.source.error(self.line(), f"this is not JSON: {error}") from error
        return value

    def end(self) -> None:
        self._step("")
        if self.at < len(self.source.text):
            raise self.source.error(self.line(), "this is not JSON: more text follows its end")

    def _step(self, symbol: str) -> bool:
        """Go past `symbol` and the blanks on both sides of it, if it comes next."""
        self._pass_blanks()
        found = self.source.text.startswith(symbol, self.at)
        if found:
            self.at += len(symbol)
            self._pass_blanks()
        return found

    def _expect(self, symbol: str) -> None:
        if not self._step(symbol):
            raise self.source.error(self.line(), f"this is not JSON of this kind: {symbol!r} is missing here")

    def _pass_blanks(self) -> None:
        match = _BLANK.match(self.source.text, self.at)
        self.at = match.end() if match else self.at


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


_decoder = json.JSONDecoder(parse_constant=_refuse)
