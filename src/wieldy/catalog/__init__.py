"""The one list of what wieldy can do: a small TOML file per system, read when it is first asked for.

Help texts, `wieldy list`, the table in the README and the pages of the documentation are made from it, so a system
is described in one place. To add one, put a file beside the others in `systems/`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from wieldy.errors import UsageError

Kind = Literal["transform", "trainer", "patch", "pipeline", "evaluation"]
Status = Literal["available", "planned"]

ROOMS: Mapping[str, str] = {
    "speech": "audio in, attributed written words out",
    "compress": "a smaller, faster model from a trained one",
    "generate": "images and video for less",
    "learn": "training for less, learning without forgetting, merging, mixture of experts",
    "trust": "protect data, explain attacks, measure values and reasoning",
}

_FOLDER = Path(__file__).with_name("systems")


class CatalogError(ValueError):
    """A file of the catalogue is wrong: a mistake in wieldy itself, not in what a user typed."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a system was published; `year` is that of the first public version."""

    title: str
    first_author: str
    year: int
    arxiv: str = ""
    venue: str = ""

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.venue, f"arXiv {self.arxiv}" if self.arxiv else "")))
        return f"{self.title}. {self.first_author} et al., {self.year}{f' ({where})' if where else ''}"


@dataclass(frozen=True, kw_only=True)
class System:
    """One system.

    `method` is its word on the command line, unique in its room. `entry` is the import path of its entry point
    ("package.module:function"; for a planned system the module it will live in). `claim` is the module of its
    claim, `docs` the hand-written page that a user should start with. Both are empty while it is planned.
    """

    slug: str
    name: str
    room: str
    kind: Kind
    method: str
    summary: str
    entry: str
    status: Status
    claim: str = ""
    docs: str = ""
    paper: Paper | None = None

    @property
    def available(self) -> bool:
        return self.status == "available"

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values; `paper` is a dictionary or None."""
        return dataclasses.asdict(self)


@functools.cache
def systems() -> tuple[System, ...]:
    """Every system, by room in the order of `ROOMS`, available ones first, pipelines before methods, then by slug."""
    return read(sorted(_FOLDER.glob("*.toml")))


def read(paths: Iterable[Path]) -> tuple[System, ...]:
    """The systems described by `paths`, checked one by one and against each other, in the order of `systems`.

    Raises `CatalogError` naming the file, the field and the value.
    """
    found: dict[str, System] = {}
    taken: dict[tuple[str, str], System] = {}
    for path in paths:
        system = _parse(path)
        for word in (system.slug, system.method):
            other = taken.setdefault((system.room, word), system)
            if other is not system:
                raise CatalogError(f"{path.name}: {word!r} in room {system.room!r} already names {other.slug}")
        found[system.slug] = system
    order = list(ROOMS)
    return tuple(
        sorted(found.values(), key=lambda s: (order.index(s.room), not s.available, s.kind != "pipeline", s.slug))
    )


def in_room(room: str) -> tuple[System, ...]:
    """The systems of one room; raises `UsageError` naming the rooms there are."""
    if room not in ROOMS:
        raise UsageError(f"no room {room!r}", hint=f"the rooms are {', '.join(ROOMS)}")
    return tuple(system for system in systems() if system.room == room)


def find(name: str, room: str | None = None) -> System:
    """The system with this slug or method, in `room` only where one is given.

    Raises `UsageError` with the nearest names for an unknown one, and with the slugs to choose from where several
    rooms use the same method word.
    """
    candidates = systems() if room is None else in_room(room)
    for system in candidates:
        if system.slug == name:
            return system
    matches = [system for system in candidates if system.method == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"{name!r} is the word of several systems", hint=f"say {' or '.join(m.slug for m in matches)}")
    words = [word for system in candidates for word in (system.slug, system.method)]
    near = list(dict.fromkeys(difflib.get_close_matches(name.lower(), words, n=3, cutoff=0.7)))
    listing = "wieldy list" if room is None else f"wieldy list --room {room}"
    raise UsageError(
        f"no system {name!r}" + (f" in room {room!r}" if room is not None else ""),
        hint=f"did you mean {' or '.join(near)}?" if near else f"`{listing}` shows those there are",
    )


def _parse(path: Path) -> System:
    with open(path, "rb") as file:
        try:
            data = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise CatalogError(f"{path.name}: {error}") from error
    paper = _fields(path, "paper.", Paper, data["paper"]) if isinstance(data.get("paper"), dict) else None
    system: System = _fields(path, "", System, {**data, "paper": paper} if paper else data)
    for name, value, allowed in (
        ("slug", system.slug, (path.stem,)),
        ("room", system.room, tuple(ROOMS)),
        ("kind", system.kind, get_args(Kind)),
        ("status", system.status, get_args(Status)),
    ):
        if value not in allowed:
            raise CatalogError(f"{path.name}: {name} is {value!r}, expected {' or '.join(map(repr, allowed))}")
    if system.available and not (system.claim and system.docs):
        raise CatalogError(f"{path.name}: an available system needs a claim and a docs page")
    return system


def _fields(path: Path, prefix: str, shape: type[Any], data: Mapping[str, Any]) -> Any:
    """`shape(**data)`, refusing keys it does not have, keys it lacks and values of another type."""
    fields = {field.name: field for field in dataclasses.fields(shape)}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            raise CatalogError(f"{path.name}: unknown key {prefix}{key}" + (f", meant {near[0]}?" if near else ""))
        if key == "paper":
            expected: type = Paper
        else:
            expected = int if key == "year" else str
        if not isinstance(value, expected) or value == "":
            raise CatalogError(f"{path.name}: {prefix}{key} is {value!r}, expected a {expected.__name__} with content")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in data:
            raise CatalogError(f"{path.name}: {prefix}{name} is missing")
    return shape(**data)
