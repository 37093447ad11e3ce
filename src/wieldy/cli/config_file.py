"""Options from a TOML file: one table per stage, keys as in that stage's config class.

[attribution]
reach_ms = 80
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from wieldy.errors import InputError, UsageError

C = TypeVar("C")


def load_config(kind: type[C], path: Path | None) -> C:
    """A `kind` (frozen dataclass of values and further dataclasses) with what the file sets; None: the defaults."""
    if path is None:
        return kind()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="check the path given to --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    return _build(kind, data, str(path))


def _build(kind: type[C], data: Mapping[str, Any], where: str) -> C:
    hints = typing.get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass by contract
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(fields))}"
            raise UsageError(f"{where}: there is no option {key!r}", hint=meant)
        values[key] = _value(hints[key], value, f"{where}: {key}")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} is {value!r}", hint="it must be a table of options")
        return _build(hint, value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        value = tuple(value)
    allowed = _plain_types(hint)
    number = float in allowed and isinstance(value, int) and not isinstance(value, bool)
    if not number and not any(type(value) is kind for kind in allowed):
        names = " or ".join(sorted(kind.__name__ for kind in allowed))
        raise UsageError(f"{where} is {value!r}", hint=f"it must be of type {names}")
    return float(value) if number and int not in allowed else value


def _plain_types(hint: Any) -> set[type]:
    """The Python types a hint of values, literals, tuples and unions of those admits."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    if origin is tuple:
        return {tuple}
    if origin is not None:  # a union
        return set().union(*(_plain_types(part) for part in typing.get_args(hint)))
    return {hint}
