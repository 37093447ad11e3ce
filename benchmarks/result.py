"""What a benchmark found: figures of both sides, the gate they had to pass, and the bar."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wieldy.cache import write_text
from wieldy.claims.result import Condition, Provenance
from wieldy.errors import OutputError, UsageError
from wieldy.report import Metric, Report, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """One run of a benchmark.

    `ours` and `peer` hold one observation per run in the same unit; `peer` is None where the bar is absolute. `bar`
    decides: its figure is the ratio of the medians, or the median of `ours` for an absolute bar. `gates` are about
    correctness: unless all hold there are no figures. `further` bars must hold as well. `beside` is printed for
    comparison and has no bar.
    """

    name: str
    summary: str
    bar: Condition
    gates: tuple[Condition, ...]
    further: tuple[Condition, ...] = ()
    ours: Metric | None = None
    peer: Metric | None = None
    beside: tuple[Metric, ...] = ()
    data: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if not self.passed and (self.ours or self.peer or self.beside or self.bar.figure is not None):
            raise UsageError(f"{self.name}: a speed figure behind a gate that is shut")
        if self.passed and (self.ours is None) != (self.bar.figure is None):
            raise UsageError(f"{self.name}: figures without a bar, or a bar without figures")

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(gate.verdict == "holds" for gate in self.gates)

    @property
    def ratio(self) -> float | None:
        """Median of ours over median of the peer's."""
        return self.ours.median / self.peer.median if self.ours and self.peer else None

    @property
    def holds(self) -> bool:
        return self.passed and all(bar.verdict == "holds" for bar in (self.bar, *self.further))

    @property
    def line(self) -> dict[str, Any]:
        """The result in six values, for programs."""
        return {
            "name": self.name,
            "ours": self.ours and self.ours.median,
            "peer": self.peer and self.peer.median,
            "ratio": self.ratio,
            "bar": self.bar.threshold,
            "holds": self.holds,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, the derived values included."""
        data: dict[str, Any] = json.loads(json.dumps(self.line | {"details": dataclasses.asdict(self)}))
        return data

    def __rich__(self) -> RenderableType:
        conditions = (("gate", gate) for gate in self.gates), (("bar", bar) for bar in (self.bar, *self.further))
        report = Report(
            title=f"{self.name}: {self.summary}",
            metrics=tuple(metric for metric in (self.ours, self.peer, *self.beside) if metric),
            tables=(
                Table(
                    "Conditions",
                    ("", "condition", "figure", "verdict"),
                    tuple((kind, c.statement, str(c), c.verdict) for group in conditions for kind, c in group),
                ),
            ),
            notes=(*self.data, *self.notes),
        )
        return report.__rich__()


def record(result: BenchmarkResult, folder: Path = RESULTS) -> Path:
    """Store `<name>.json`. Refuses what the commit cannot reproduce."""
    if result.provenance is None or not result.provenance.clean:
        raise OutputError(f"{result.name}: the code that ran is not what is committed", hint="commit first")
    text = json.dumps(result.to_json(), indent=2, ensure_ascii=False)
    return write_text(folder / f"{result.name}.json", text + "\n")


def shut(name: str, summary: str, bar: Condition, gates: Sequence[Condition], **more: Any) -> BenchmarkResult:
    """The result behind a gate that is shut: it names the gates and has no figure."""
    failed = "; ".join(gate.statement for gate in gates if gate.verdict != "holds")
    unmeasured = dataclasses.replace(bar, figure=None, reason=f"not measured, the output is wrong: {failed}")
    return BenchmarkResult(name=name, summary=summary, bar=unmeasured, gates=tuple(gates), **more)
