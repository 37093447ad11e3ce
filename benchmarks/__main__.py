"""`python -m benchmarks [NAME...] [--json] [--runs N] [--record]`.

Exit status 0 if every bar holds, 1 if one does not, 4 where something to measure with is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.arms import RUNS
from benchmarks.result import BenchmarkResult, record
from wieldy.claims.result import Provenance
from wieldy.errors import MissingError, UsageError, WieldyError


def names() -> tuple[str, ...]:
    """The benchmarks there are: the modules of this folder that have arms."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    return tuple(name for name in modules if hasattr(_module(name), "ARMS"))


def measure(name: str, runs: int) -> BenchmarkResult:
    """Run one benchmark. Raises `UsageError` naming those there are, `MissingError` where a peer is not there."""
    if name not in names():
        raise UsageError(f"there is no benchmark {name!r}", hint=f"there are {', '.join(names())}")
    module = _module(name)
    before = Provenance.here(module.PACKAGES)
    load, _, _ = os.getloadavg()
    result: BenchmarkResult = module.run(runs)
    after = Provenance.here(module.PACKAGES)
    unchanged = before.clean and after.clean and before.commit == after.commit
    return dataclasses.replace(
        result,
        notes=(*result.notes, f"the machine's load was {load:.1f} before the run"),
        provenance=dataclasses.replace(before, clean=unchanged),
    )


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed against named peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; all without a name")
    parser.add_argument("--list", action="store_true", help="what there is, and its bar")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"rounds of every arm, at least {RUNS}")
    parser.add_argument("--record", action="store_true", help="store the result in benchmarks/results/")
    options = parser.parse_args(arguments)
    if options.list:
        for name in names():
            print(f"{name}: {_module(name).SUMMARY}")
        return 0
    try:
        if options.runs < RUNS:
            raise UsageError(f"--runs {options.runs}", hint=f"a median needs at least {RUNS}")
        return max([_one(name, options) for name in options.names or names()])
    except WieldyError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_status


def _one(name: str, options: argparse.Namespace) -> int:
    try:
        result = measure(name, options.runs)
    except MissingError as error:
        print(f"{name}: {error}", file=sys.stderr)
        if options.json:
            unknown = {"ours": None, "peer": None, "ratio": None, "bar": _module(name).BAR, "holds": None}
            print(json.dumps({"name": name, **unknown}), flush=True)
        return error.exit_status
    if options.json:
        print(json.dumps(result.line), flush=True)
    else:
        from rich.console import Console

        Console().print(result)
    if not result.passed:
        print(f"{name}: {result.bar.reason}", file=sys.stderr)
    if options.record:
        print(f"wrote {record(result)}", file=sys.stderr)
    return 0 if result.holds else 1


def _module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
