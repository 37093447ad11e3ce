"""What a claim found, in a form that cannot contradict itself: verdicts are derived from figures and thresholds."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import wieldy
from wieldy.cache import write_text
from wieldy.devices import cpu
from wieldy.errors import UsageError
from wieldy.report import Metric, Report, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

Scale = Literal["smoke", "full", "extended"]
Verdict = Literal["holds", "does not hold", "not run"]
Relation = Literal["<", "<=", ">", ">="]

_COMPARE: Mapping[Relation, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EXIT_STATUS: Mapping[Verdict, int] = {"holds": 0, "does not hold": 1, "not run": 4}


@dataclass(frozen=True)
class Condition:
    """`figure relation threshold`, said in words by `statement`. A condition without a figure was not run, and
    `reason` says why."""

    statement: str
    figure: float | None
    relation: Relation
    threshold: float
    reason: str = ""

    def __post_init__(self) -> None:
        if self.relation not in _COMPARE:
            raise UsageError(f"a condition compares by {self.relation!r}", hint=f"use one of {', '.join(_COMPARE)}")
        if self.figure is None and not self.reason:
            raise UsageError(f"{self.statement!r} was not run and does not say why")
        if not all(math.isfinite(value) for value in (self.figure or 0.0, self.threshold)):
            raise UsageError(f"{self.statement!r} compares {self.figure} with {self.threshold}")

    @property
    def verdict(self) -> Verdict:
        if self.figure is None:
            return "not run"
        return "holds" if _COMPARE[self.relation](self.figure, self.threshold) else "does not hold"

    def __str__(self) -> str:
        if self.figure is None:
            return self.reason
        return f"{self.figure:.4g} {self.relation} {self.threshold:.4g}"


@dataclass(frozen=True)
class Arm:
    """One of the things compared, with everything measured about it."""

    name: str
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Provenance:
    """When, on what and with which code. `commit` is empty where the code does not lie in its repository; `clean`
    is False where it differs from the commit."""

    date: str
    commit: str
    clean: bool
    cpu: str
    versions: Mapping[str, str]

    @classmethod
    def here(cls, packages: Sequence[str] = ()) -> Provenance:
        """This moment, this machine and these installed `packages`."""
        commit, clean = _checkout(Path(wieldy.__file__).parent)
        processor = cpu.describe()
        return cls(
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            commit=commit,
            clean=clean,
            cpu=f"{processor.name}, {processor.cores} cores",
            versions={
                "wieldy": wieldy.__version__,
                "python": platform.python_version(),
                **{package: metadata.version(package) for package in packages},
            },
        )


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """One run of a claim.

    `primary` alone decides whether the claim holds. `baseline` names one of the `arms`. `samples` says how much of
    what was measured ({"meetings": 24}), `data` what it was measured on. `provenance` and `seconds` are filled in by
    `reproduce`.
    """

    slug: str
    statement: str
    scale: Scale
    baseline: str
    arms: tuple[Arm, ...]
    primary: Condition
    secondary: tuple[Condition, ...] = ()
    samples: Mapping[str, int] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    data: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise UsageError(f"scale is {self.scale!r}", hint=f"choose from {', '.join(get_args(Scale))}")
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise UsageError(f"{self.slug}: two arms share a name in {names}")
        if self.baseline not in names:
            raise UsageError(f"{self.slug}: the baseline {self.baseline!r} is none of the arms {names}")

    @property
    def holds(self) -> bool:
        return self.primary.verdict == "holds"

    @property
    def exit_status(self) -> int:
        """What the command ends with. A smoke run only shows that every part executes: its figures decide nothing."""
        return 0 if self.scale == "smoke" else _EXIT_STATUS[self.primary.verdict]

    @property
    def report(self) -> Report:
        """The verdicts, the figures of every arm, and how they came about."""
        conditions = (("primary", self.primary), *(("secondary", condition) for condition in self.secondary))
        baseline = {arm.name: " (baseline)" if arm.name == self.baseline else "" for arm in self.arms}
        notes = list(self.notes)
        if self.scale == "smoke":
            notes.insert(0, "a smoke run shows that every part executes; its figures decide nothing")
        return Report(
            title=f"{self.slug}: {self.statement}",
            tables=(
                Table(
                    f"{self.slug} ({self.scale}): {self.statement}",
                    ("condition", "", "figure", "verdict"),
                    tuple((c.statement, rank, str(c), c.verdict) for rank, c in conditions),
                ),
                Table(
                    "Arms",
                    ("arm", "figure", "value"),
                    tuple(
                        (arm.name + baseline[arm.name], metric.name, str(metric))
                        for arm in self.arms
                        for metric in arm.metrics
                    ),
                ),
                Table("Run", ("fact", "value"), tuple(self._facts())),
            ),
            notes=tuple(notes),
            details=self.to_json(),
        )

    def _facts(self) -> list[tuple[str, str]]:
        facts = [
            ("samples", ", ".join(f"{count} {what}" for what, count in self.samples.items())),
            ("seeds", ", ".join(map(str, self.seeds))),
            ("data", "; ".join(self.data)),
            ("seconds", f"{self.seconds:.0f}"),
        ]
        if self.provenance is not None:
            code = self.provenance.commit or "unknown"
            versions = ", ".join(f"{package} {version}" for package, version in self.provenance.versions.items())
            facts += [
                ("date", self.provenance.date),
                ("code", code if self.provenance.clean else f"{code} with changes"),
                ("processor", self.provenance.cpu),
                ("versions", versions),
            ]
        return facts

    def __rich__(self) -> RenderableType:
        return self.report.__rich__()

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the derived verdicts beside the figures they come from."""
        data = dataclasses.asdict(self)
        del data["provenance"]
        if self.provenance is not None:
            data |= dataclasses.asdict(self.provenance)
        data["holds"] = self.holds
        for condition, plain in zip(
            (self.primary, *self.secondary), (data["primary"], *data["secondary"]), strict=True
        ):
            plain["verdict"] = condition.verdict
        plain_data: dict[str, Any] = json.loads(json.dumps(data))
        return plain_data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClaimResult:
        """The inverse of `to_json`. Raises `UsageError` where a stored verdict is not what the figures say."""
        provenance = None
        if "commit" in data:
            provenance = Provenance(**{f.name: data[f.name] for f in dataclasses.fields(Provenance)})
        result = cls(
            slug=data["slug"],
            statement=data["statement"],
            scale=data["scale"],
            baseline=data["baseline"],
            arms=tuple(Arm(arm["name"], tuple(map(_metric, arm["metrics"]))) for arm in data["arms"]),
            primary=_condition(data["primary"]),
            secondary=tuple(map(_condition, data["secondary"])),
            samples=data["samples"],
            seeds=tuple(data["seeds"]),
            data=tuple(data["data"]),
            notes=tuple(data["notes"]),
            seconds=data["seconds"],
            provenance=provenance,
        )
        if result.to_json() != dict(data):
            raise UsageError(f"{result.slug}: a verdict in the file is not what its figures say")
        return result

    def save(self, folder: Path | str) -> tuple[Path, Path]:
        """Write `<slug>.json` and `<slug>.html` into `folder`."""
        return write_json(self, folder), write_text(Path(folder) / f"{self.slug}.html", self.report.to_html())


def write_json(result: ClaimResult, folder: Path | str) -> Path:
    """Write `<slug>.json` into `folder`."""
    text = json.dumps(result.to_json(), indent=2, ensure_ascii=False)
    return write_text(Path(folder) / f"{result.slug}.json", text + "\n")


def _metric(data: Mapping[str, Any]) -> Metric:
    interval = data["interval"]
    return Metric(
        data["name"], tuple(data["values"]), data["unit"], data["count"], None if interval is None else tuple(interval)
    )


def _condition(data: Mapping[str, Any]) -> Condition:
    return Condition(**{f.name: data[f.name] for f in dataclasses.fields(Condition)})


def _checkout(package: Path) -> tuple[str, bool]:
    """The commit that the files of `package` are at, and whether the tree is as committed.

    Stored results do not count as changes: recording one claim must not make the next one's tree unclean.
    """

    def git(*words: str) -> str:
        command = ("git", "-C", str(package), *words)
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    try:
        # An installed package may lie inside another project's repository, whose commit says nothing about it.
        git("ls-files", "--error-unmatch", "__init__.py")
        root = git("rev-parse", "--show-toplevel")
        changes = git(
            "-C", root, "status", "--porcelain", "--", ".", ":!src/wieldy/claims/results", ":!benchmarks/results"
        )
        return git("rev-parse", "HEAD"), not changes
    except (OSError, subprocess.SubprocessError):
        return "", False
