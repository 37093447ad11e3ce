"""What was measured, for people and for programs: a table in the terminal, JSON, one self-contained HTML page.

A `Metric` keeps the single observations, so spreads and ratios are derived, never typed. A `Result` is what every
method hands back: the value and the report that proves it.
"""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wieldy.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")


@dataclass(frozen=True)
class Metric:
    """One measured quantity. `values` are the observations in `unit`; `count` what an error rate was counted over
    (words, seconds), `interval` its 95 % bootstrap interval where one was computed."""

    name: str
    values: tuple[float, ...]
    unit: str = ""
    count: int | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.values:
            raise UsageError(f"metric {self.name!r} has no observation")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise UsageError(f"metric {self.name!r}: interval {self.interval} is upside down")

    @classmethod
    def of(cls, name: str, value: float, unit: str = "", **more: Any) -> Metric:
        """A metric observed once."""
        return cls(name, (float(value),), unit, **more)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        text = _number(self.median) + (f" {self.unit}" if self.unit else "")
        if self.interval is not None:
            text += f" [{_number(self.interval[0])}, {_number(self.interval[1])}]"
        elif len(self.values) > 1:
            text += f" ({_number(min(self.values))} to {_number(max(self.values))})"
        return text + (f", n = {self.count}" if self.count is not None else "")


@dataclass(frozen=True)
class Series:
    """A line of a plot: `y` against `x`."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """A small line plot, drawn as inline SVG."""

    title: str
    series: tuple[Series, ...]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise UsageError(f"table {self.title!r}: row {row} has {len(row)} cells, not {len(self.columns)}")


@dataclass(frozen=True)
class Report:
    """Everything worth knowing about one piece of work. `details` are facts such as options, machine and hashes."""

    title: str
    metrics: tuple[Metric, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def metric(self, name: str) -> Metric:
        """The metric called `name`; raises `KeyError` naming those there are."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(f"no metric {name!r} in {[metric.name for metric in self.metrics]}")

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "metrics": [
                {
                    "name": metric.name,
                    "values": list(metric.values),
                    "unit": metric.unit,
                    "count": metric.count,
                    "interval": None if metric.interval is None else list(metric.interval),
                }
                for metric in self.metrics
            ],
            "tables": [
                {"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in table.rows]}
                for table in self.tables
            ],
            "plots": [
                {
                    "title": plot.title,
                    "x_label": plot.x_label,
                    "y_label": plot.y_label,
                    "series": [{"name": s.name, "x": list(s.x), "y": list(s.y)} for s in plot.series],
                }
                for plot in self.plots
            ],
            "notes": list(self.notes),
            "details": dict(self.details),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """The inverse of `to_json`."""
        return cls(
            title=data["title"],
            metrics=tuple(
                Metric(m["name"], tuple(m["values"]), m["unit"], m["count"], m["interval"] and tuple(m["interval"]))
                for m in data["metrics"]
            ),
            tables=tuple(Table(t["title"], tuple(t["columns"]), tuple(map(tuple, t["rows"]))) for t in data["tables"]),
            plots=tuple(
                Plot(
                    p["title"],
                    tuple(Series(s["name"], tuple(s["x"]), tuple(s["y"])) for s in p["series"]),
                    p["x_label"],
                    p["y_label"],
                )
                for p in data["plots"]
            ),
            notes=tuple(data["notes"]),
            details=data["details"],
        )

    def __rich__(self) -> RenderableType:
        """How a terminal shows it: metrics first, then the tables, then the notes."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        parts: list[RenderableType] = []
        tables = list(self.tables)
        if self.metrics:
            tables.insert(0, Table(self.title, ("figure", "value"), tuple((m.name, str(m)) for m in self.metrics)))
        for table in tables:
            drawn = RichTable(title=table.title, title_justify="left")
            for column in table.columns:
                drawn.add_column(column)
            for row in table.rows:
                drawn.add_row(*(Text(cell) for cell in row))
            parts.append(drawn)
        parts.extend(Text(f"- {note}") for note in self.notes)
        return Group(*parts)

    def to_html(self) -> str:
        """One page without scripts or remote assets."""
        body = [f"<h1>{html.escape(self.title)}</h1>"]
        if self.metrics:
            body.append(_html_table("Figures", ("figure", "value"), [(m.name, str(m)) for m in self.metrics]))
        body += [_html_table(table.title, table.columns, table.rows) for table in self.tables]
        body += [_svg(plot) for plot in self.plots]
        body += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        if self.details:
            details = html.escape(json.dumps(dict(self.details), indent=2, default=str))
            body.append(f"<details><summary>Details</summary><pre>{details}</pre></details>")
        return _PAGE.format(title=html.escape(self.title), body="\n".join(body))

    def save(self, folder: Path | str) -> tuple[Path, Path]:
        """Write `report.json` and `report.html` into `folder`."""
        from wieldy.cache import write_text

        folder = Path(folder)
        data = json.dumps(self.to_json(), indent=2, default=str)
        return write_text(folder / "report.json", data + "\n"), write_text(folder / "report.html", self.to_html())


@dataclass(frozen=True)
class Result(Generic[T]):
    """What a method hands back. Unpacks: `model, report = ...`."""

    value: T
    report: Report

    def __iter__(self) -> Iterator[Any]:
        return iter((self.value, self.report))


def _number(value: float) -> str:
    if value == 0 or 0.001 <= abs(value) < 100_000:
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.3g}"


def _html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<h2>{html.escape(title)}</h2><table><tr>{head}</tr>{body}</table>"


_COLOURS = ("#0b6bcb", "#c4432b", "#2a7f3f", "#8a4fbf", "#b07a00", "#4a5568")


def _svg(plot: Plot, width: int = 640, height: int = 320, margin: int = 52) -> str:
    """A line plot as SVG; series of no points are named in the legend and not drawn."""
    xs = [x for series in plot.series for x in series.x] or [0.0]
    ys = [y for series in plot.series for y in series.y] or [0.0]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)

    def point(x: float, y: float) -> str:
        across = margin + (width - 2 * margin) * ((x - x0) / (x1 - x0) if x1 > x0 else 0.5)
        down = height - margin - (height - 2 * margin) * ((y - y0) / (y1 - y0) if y1 > y0 else 0.5)
        return f"{across:.1f},{down:.1f}"

    def label(x: float, y: float, text: str, anchor: str = "middle", colour: str = "#333") -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{html.escape(text)}</text>'

    left, right, top, bottom = margin, width - margin, margin, height - margin
    parts = [f'<path d="M{left} {top}V{bottom}H{right}" stroke="#999" fill="none"/>']
    parts += [label(left, bottom + 16, _number(x0)), label(right, bottom + 16, _number(x1))]
    parts += [label(left - 6, bottom, _number(y0), "end"), label(left - 6, top + 4, _number(y1), "end")]
    parts += [label(width / 2, height - 8, plot.x_label), label(left, top - 14, plot.y_label, "start")]
    for index, series in enumerate(plot.series):
        colour = _COLOURS[index % len(_COLOURS)]
        points = " ".join(point(x, y) for x, y in zip(series.x, series.y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(label(right, top + 16 * index, series.name, "end", colour))
    drawing = "".join(parts)
    return f'<h2>{html.escape(plot.title)}</h2><svg viewBox="0 0 {width} {height}" font-size="12">{drawing}</svg>'


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }}
table {{ border-collapse: collapse; margin: .5rem 0 }}
td, th {{ text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd }}
h2 {{ font-size: 1.1rem; margin-top: 1.6rem }}
svg {{ max-width: 40rem; width: 100% }}
pre {{ background: #f5f5f5; padding: .8rem; overflow: auto }}
</style>
{body}
</html>
"""
