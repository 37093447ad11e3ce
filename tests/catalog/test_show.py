import io
import json

import pytest
from rich.console import Console

from wieldy import catalog, claims
from wieldy.catalog import show
from wieldy.claims.result import Arm, ClaimResult, Condition, Provenance, write_json
from wieldy.errors import UsageError


def printed(renderable):
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(show, "RESULTS", tmp_path)
    return tmp_path


def test_the_listing_names_every_system_with_its_status():
    lines = printed(show.listing()).splitlines()
    for system in catalog.systems():
        [line] = [line for line in lines if line.split()[:1] == [system.slug]]
        assert line.split()[1] == system.status
        assert system.summary in line


def test_the_listing_of_a_room_has_only_that_room():
    text = printed(show.listing("trust"))
    assert "protect data, explain attacks" in text
    assert "fulcra" in text
    assert "mest" not in text
    with pytest.raises(UsageError, match="no room 'kitchen'"):
        show.listing("kitchen")


def test_the_json_of_the_listing_has_every_field():
    rows = json.loads(json.dumps(show.listing_json()))
    assert [row["slug"] for row in rows] == [system.slug for system in catalog.systems()]
    assert rows[1]["paper"]["title"]
    assert {row["room"] for row in show.listing_json("learn")} == {"learn"}


def test_the_card_of_a_planned_system_promises_nothing():
    text = printed(show.card(catalog.find("mest")))
    assert "MEST (mest), planned" in text
    assert "Yuan et al., 2021 (NeurIPS 2021, arXiv 2110.14032)" in text
    assert "claim" not in text
    assert "reproduce" not in text


@pytest.mark.parametrize("stored", [None, "not json", "[]", "{}"])
def test_a_claim_without_a_result_is_not_run(results, stored):
    system = catalog.find("speech-pipeline")
    if stored is not None:
        (results / "speech-pipeline.json").write_text(stored)
    assert show.verdict(system) == "not run"
    assert "not run" in printed(show.card(system))


@pytest.mark.parametrize(("figure", "expected"), [(1.0, "holds"), (3.0, "does not hold"), (None, "not run")])
def test_the_card_tells_the_last_result_as_it_is(results, figure, expected):
    system = catalog.find("speech-pipeline")
    result = ClaimResult(
        slug=system.slug,
        statement="It works.",
        scale="full",
        baseline="glue",
        arms=(Arm("glue", ()),),
        primary=Condition("fewer errors", figure, "<", 2.0, reason="no model"),
        provenance=Provenance("2026-11-22 10:00 UTC", "abc", True, "a processor", {}),
    )
    write_json(result, results)
    lines = {line.split("  ")[0]: line for line in printed(show.card(system)).splitlines()}
    assert lines["claim"].split(maxsplit=1)[1].strip() == expected
    assert "It works." in lines["statement"]
    assert "2026-11-22" in lines["date"]
    assert show.card_json(system)["claim_result"] == result.to_json()


def test_results_are_read_where_claims_store_them():
    assert show.RESULTS == claims.RESULTS
