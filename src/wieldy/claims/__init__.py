"""Every system's scaled-down experiment against its baseline: `wieldy reproduce SLUG`, or `reproduce(slug)`.

A claim is a module of this package named after its system, which the catalogue points to. It has

    PACKAGES: what to state the versions of
    run(scale, seed) -> ClaimResult

with a statement in one sentence, one primary condition that decides, and figures for every arm. It can fail, and then
the result says so. `smoke` (at most 5 s) shows that every part executes, `full` (at most 20 min on 2 cores) decides,
`extended` (at most 2 h) adds what takes longer. `python -m wieldy.claims` runs them at full scale, one at a time, and
stores what they found in `results/`.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wieldy import catalog
from wieldy.errors import OutputError, UsageError

if TYPE_CHECKING:
    from wieldy.claims.result import ClaimResult, Scale

RESULTS = Path(__file__).parent / "results"


def slugs() -> tuple[str, ...]:
    """The systems whose claims can be run."""
    return tuple(system.slug for system in catalog.systems() if system.claim)


def reproduce(name: str, *, scale: Scale = "smoke", seed: int = 0) -> ClaimResult:
    """Run the claim of the system with this slug or method.

    Raises `UsageError` for a system that is only planned, and `MissingError` where the claim needs something that is
    not installed.
    """
    from wieldy.claims.result import Provenance

    system = catalog.find(name)
    if not system.claim:
        raise UsageError(f"{system.slug} is planned and has no claim yet", hint=f"there are {', '.join(slugs())}")
    claim: Any = importlib.import_module(system.claim)
    before = Provenance.here(claim.PACKAGES)
    started = time.perf_counter()
    result: ClaimResult = claim.run(scale, seed)
    seconds = time.perf_counter() - started
    after = Provenance.here(claim.PACKAGES)
    # The tree may have been edited while the claim ran.
    unchanged = before.clean and after.clean and before.commit == after.commit
    return dataclasses.replace(result, seconds=seconds, provenance=dataclasses.replace(before, clean=unchanged))


def record(result: ClaimResult, folder: Path = RESULTS) -> Path:
    """Store a full result as the system's last one, `<slug>.json`. Refuses any that the commit cannot reproduce."""
    from wieldy.claims.result import write_json

    if result.scale != "full":
        raise UsageError(f"{result.slug}: a {result.scale} run decides nothing", hint="record a run of scale full")
    if result.provenance is None or not result.provenance.clean:
        raise OutputError(
            f"{result.slug}: the code that ran is not what is committed", hint="commit first, then run the claim again"
        )
    return write_json(result, folder)
