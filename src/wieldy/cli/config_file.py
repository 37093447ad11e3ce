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
    return _changed(kind(), data, str(path))


def _changed(base: C, data: Mapping[str, Any], where: str) -> C:
    """`base`, a dataclass, with the values that `data` has for its fields, at any depth."""
    hints = typing.get_type_hints(type(base))
    fields = {field.name for field in dataclasses.fields(base)}  # type: ignore[arg-type]  # a dataclass by contract
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(fields))}"
            raise UsageError(f"{where}: there is no option {key!r}", hint=meant)
        values[key] = _value(hints[key], getattr(base, key), value, f"{where}: {key}")
    return dataclasses.replace(base, **values)  # type: ignore[type-var]


def _value(hint: Any, default: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(default):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} is {value!r}", hint="it must be a table of options")
        return _changed(default, value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        value = tuple(value)
    allowed = _plain_types(hint)
    if Path in allowed and isinstance(value, str):
        return Path(value)
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
