"""Reports keep observations, survive JSON, and show themselves without the network."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from wieldy.errors import UsageError
from wieldy.report import Metric, Plot, Report, Result, Series, Table

REPORT = Report(
    title="<Speed> of & things",
    metrics=(
        Metric("latency", (3.0, 1.0, 2.0), "ms"),
        Metric.of("WER (basic)", 0.1728, count=81, interval=(0.07, 0.31)),
    ),
    tables=(Table("Stages", ("stage", "seconds"), (("read", "0.1"), ("find <b>", "2"))),),
    plots=(Plot("Trade-off", (Series("ours", (0.0, 1.0), (2.0, 3.0)), Series("none", (), ())), "x", "y"),),
    notes=("a note & more",),
    details={"seed": 0},
)


def test_json_round_trip() -> None:
    assert Report.from_json(json.loads(json.dumps(REPORT.to_json()))) == REPORT


def test_figures_are_derived_from_the_observations() -> None:
    latency, wer = REPORT.metrics
    assert str(latency) == "2 ms (1 to 3)"
    assert str(wer) == "0.1728 [0.07, 0.31], n = 81"
    assert REPORT.metric("latency").median == 2.0
    with pytest.raises(KeyError, match="no metric 'speed' in"):
        REPORT.metric("speed")


def test_the_page_escapes_what_it_shows_and_asks_nobody() -> None:
    page = REPORT.to_html()
    assert "&lt;Speed&gt; of &amp; things" in page
    assert "find &lt;b&gt;" in page
    assert page.count("<polyline") == 2
    assert not re.search(r"https?://|<script|src=|href=", page)


def test_the_terminal_shows_every_part() -> None:
    written = io.StringIO()
    Console(width=100, file=written).print(REPORT)
    printed = written.getvalue()
    for part in ("latency", "2 ms (1 to 3)", "find <b>", "- a note & more"):
        assert part in printed


def test_saved_whole(tmp_path: Path) -> None:
    data, page = REPORT.save(tmp_path / "deep")
    assert Report.from_json(json.loads(data.read_text())) == REPORT
    assert page.read_text() == REPORT.to_html()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="has no observation"):
        Metric("empty", ())
    with pytest.raises(UsageError, match="upside down"):
        Metric.of("x", 1, interval=(2.0, 1.0))
    with pytest.raises(UsageError, match="has 1 cells, not 2"):
        Table("t", ("a", "b"), (("only",),))


def test_a_result_unpacks() -> None:
    model, report = Result("model", REPORT)
    assert (model, report) == ("model", REPORT)
