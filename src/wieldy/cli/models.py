"""`wieldy models list|get|verify|where`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg, subcommand

from wieldy.cli.options import Names
from wieldy.cli.output import print_json, say, show
from wieldy.errors import UsageError


@dataclass(frozen=True)
class List:
    """All models and recordings wieldy knows by name: size, licence, and whether they are on this machine."""

    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from wieldy.report import Report
        from wieldy.weights.models import models_table

        table = models_table()
        if self.json:
            print_json([dict(zip(table.columns, row, strict=True)) for row in table.rows])
        else:
            show(Report("", tables=(table,)))
        return 0


@dataclass(frozen=True)
class Get:
    """Fetch models into the cache, checked against their registered hashes."""

    names: Names
    """Names from `wieldy models list`, faster-whisper names such as large-v3-turbo, or hub ids."""

    def run(self) -> int:
        from wieldy.weights import get

        _require(self.names, "get")
        for name in self.names:
            say(f"{name} is at {get(name)}")
        return 0


@dataclass(frozen=True)
class Verify:
    """Hash the files on this machine again and compare; without names, all that are here."""

    names: Names = ()
    """Names of models or recordings."""

    def run(self) -> int:
        from wieldy.report import Report
        from wieldy.weights.models import verify_table

        table, intact = verify_table(self.names)
        show(Report("", tables=(table,)))
        return 0 if intact else 1


@dataclass(frozen=True)
class Where:
    """Say where models lie and where they came from."""

    names: Names
    """Names of models or recordings."""

    def run(self) -> int:
        from wieldy.report import Report
        from wieldy.weights.models import where_table

        _require(self.names, "where")
        table, complete = where_table(self.names)
        show(Report("", tables=(table,)))
        return 0 if complete else 4


@dataclass(frozen=True)
class Models:
    """Models: what there is, fetch it, check it, find it."""

    action: Annotated[
        Annotated[List, subcommand("list")]
        | Annotated[Get, subcommand("get")]
        | Annotated[Verify, subcommand("verify")]
        | Annotated[Where, subcommand("where")],
        arg(name=""),
    ]

    def run(self) -> int:
        return self.action.run()


def _require(names: tuple[str, ...], verb: str) -> None:
    if not names:
        raise UsageError("no model named", hint=f"wieldy models {verb} NAME; `wieldy models list` shows the names")
