"""The catalogue as a user sees it: the tables of `wieldy list`, the card of `wieldy show`, and both as JSON.

Claim results are read as data, because the claims themselves lie in a layer above this one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

import wieldy
from wieldy.catalog import ROOMS, System, in_room, systems

RESULTS = Path(wieldy.__file__).parent / "claims" / "results"

_STYLES = {"available": "green", "planned": "dim"}


def last_result(slug: str) -> dict[str, Any] | None:
    """The last full run of a system's claim as it was stored, or None where there is none that can be read."""
    try:
        stored = json.loads((RESULTS / f"{slug}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) else None


def verdict(system: System) -> str:
    """The claim in a few words: "holds", "does not hold", "not run", or "-" for a planned system."""
    if not system.claim:
        return "-"
    primary = (last_result(system.slug) or {}).get("primary")
    return str(primary["verdict"]) if isinstance(primary, dict) and "verdict" in primary else "not run"


def listing(room: str | None = None) -> RenderableType:
    """One table per room (or of one room): slug, status and what the user gets."""
    tables: list[RenderableType] = []
    for name in ROOMS if room is None else (room,):
        members = in_room(name)
        table = Table(title=f"{name}: {ROOMS[name]}", title_justify="left", box=None)
        table.add_column("system", no_wrap=True)
        table.add_column("status", no_wrap=True)
        table.add_column("what you get")
        for system in members:
            table.add_row(system.slug, Text(system.status, _STYLES[system.status]), system.summary)
        tables += [table, Text()]
    return Group(*tables)


def listing_json(room: str | None = None) -> list[dict[str, Any]]:
    """What `listing` shows, with every field of the catalogue."""
    return [system.to_json() for system in (systems() if room is None else in_room(room))]


def card(system: System) -> RenderableType:
    """Everything the catalogue knows about one system, with the last result of its claim."""
    rows = [
        ("room", f"{system.room}: {ROOMS[system.room]}"),
        ("kind", system.kind),
        ("method", system.method),
        ("in Python", system.entry if system.available else f"{system.entry} (planned)"),
    ]
    if system.paper is not None:
        rows.append(("paper", str(system.paper)))
    if system.docs:
        rows.append(("read", f"docs/{system.docs}"))
    if system.claim:
        rows.append(("claim", verdict(system)))
        result = last_result(system.slug) or {}
        rows += [(key, str(result[key])) for key in ("statement", "date") if result.get(key)]
        rows.append(("run it", f"wieldy reproduce {system.slug}"))
    facts = Table.grid(padding=(0, 2))
    for name, value in rows:
        facts.add_row(Text(name, "dim"), Text(value))
    heading = Text.assemble((system.name, "bold"), f" ({system.slug}), ", (system.status, _STYLES[system.status]))
    return Group(heading, Text(system.summary), Text(), facts)


def card_json(system: System) -> dict[str, Any]:
    """What `card` shows; `claim_result` is the stored result as it is, or None."""
    return {**system.to_json(), "claim_result": last_result(system.slug)}
