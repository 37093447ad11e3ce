"""A result says what its figures say, adds nothing, and survives a round trip through JSON."""

import json

import pytest
from rich.console import Console

from wieldy.claims.result import Arm, ClaimResult, Condition, Provenance
from wieldy.errors import UsageError
from wieldy.report import Metric

HERE = Provenance("2026-01-02 03:04 UTC", "abc123", True, "a processor, 2 cores", {"wieldy": "0"})


def result(figure: float | None = -0.02, **changes: object) -> ClaimResult:
    reason = "" if figure is not None else "the peer is not installed"
    fields = {
        "slug": "a-system",
        "statement": "Ours makes fewer errors than theirs.",
        "scale": "full",
        "baseline": "theirs",
        "arms": (
            Arm("ours", (Metric.of("cpWER", 0.2, count=100, interval=(0.1, 0.3)),)),
            Arm("theirs", (Metric("cpWER", (0.2, 0.3, 0.25), count=100),)),
        ),
        "primary": Condition("upper end of the interval of the difference", figure, "<", 0.0, reason),
        "secondary": (Condition("every word has a speaker", 1.0, ">=", 1.0),),
        "samples": {"meetings": 24},
        "seeds": (0, 1, 2),
        "data": ("generated meetings",),
        "seconds": 12.5,
        "provenance": HERE,
    }
    return ClaimResult(**{**fields, **changes})


@pytest.mark.parametrize(
    ("figure", "verdict", "status"), [(-0.02, "holds", 0), (0.0, "does not hold", 1), (None, "not run", 4)]
)
def test_the_primary_condition_decides(figure: float | None, verdict: str, status: int) -> None:
    found = result(figure)
    assert found.primary.verdict == verdict
    assert found.holds == (verdict == "holds")
    assert found.exit_status == status


def test_secondary_conditions_do_not_decide() -> None:
    failed = Condition("every word has a speaker", 0.9, ">=", 1.0)
    assert result(secondary=(failed,)).holds
    assert failed.verdict == "does not hold"


def test_a_smoke_run_decides_nothing() -> None:
    assert result(1.0, scale="smoke").exit_status == 0


@pytest.mark.parametrize(
    ("relation", "figure", "holds"),
    [("<", 1, False), ("<=", 1, True), (">", 1, False), (">=", 1, True), ("<", 0.5, True), (">", 1.5, True)],
)
def test_relations(relation: str, figure: float, holds: bool) -> None:
    assert (Condition("x", figure, relation, 1.0).verdict == "holds") == holds


@pytest.mark.parametrize("figure", [-0.02, 0.01, None])
def test_json_round_trip(figure: float | None) -> None:
    found = result(figure)
    stored = json.loads(json.dumps(found.to_json()))
    assert ClaimResult.from_json(stored) == found
    assert stored["holds"] == found.holds
    assert stored["commit"] == "abc123"


def test_a_file_with_another_verdict_is_refused() -> None:
    stored = result(0.01).to_json()
    stored["holds"] = True
    with pytest.raises(UsageError, match="not what its figures say"):
        ClaimResult.from_json(stored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "nobody"}, "baseline 'nobody' is none of the arms"),
        ({"scale": "huge"}, "scale is 'huge': choose from smoke, full, extended"),
        ({"arms": (Arm("theirs", ()), Arm("theirs", ()))}, "two arms share a name"),
    ],
)
def test_inconsistent_results_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        result(**changes)


@pytest.mark.parametrize(
    ("figure", "relation", "message"),
    [(None, "<", "does not say why"), (float("nan"), "<", "compares nan"), (1.0, "==", "compares by '=='")],
)
def test_conditions_without_meaning_are_refused(figure: float | None, relation: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Condition("x", figure, relation, 0.0)


def test_a_terminal_shows_verdict_figures_counts_and_code() -> None:
    console = Console(record=True, width=160, file=None, quiet=False, force_terminal=False)
    with console.capture() as shown:
        console.print(result(None, notes=("tried a wider reach: no better",)))
    text = shown.get()
    for expected in (
        "the peer is not installed",
        "not run",
        "theirs (baseline)",
        "0.2 [0.1, 0.3], n = 100",
        "24 meetings",
        "abc123",
        "tried a wider reach",
    ):
        assert expected in text


def test_save_writes_json_and_page(tmp_path) -> None:
    written = result().save(tmp_path)
    assert [path.name for path in written] == ["a-system.json", "a-system.html"]
    assert ClaimResult.from_json(json.loads(written[0].read_text())) == result()
    assert "theirs (baseline)" in written[1].read_text()
