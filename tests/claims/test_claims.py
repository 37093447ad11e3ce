"""Finding, running and recording a claim, with one that takes no time; which code ran is read from a real git."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from wieldy import catalog, claims
from wieldy.claims import __main__ as record_all
from wieldy.claims.result import Arm, ClaimResult, Condition, Provenance, _checkout
from wieldy.errors import MissingError, OutputError, UsageError
from wieldy.report import Metric


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The claim of a system that the catalogue calls `toy`."""

    def run(scale: str, seed: int) -> ClaimResult:
        arms = (Arm("ours", (Metric.of("errors", seed),)), Arm("theirs", (Metric.of("errors", 5),)))
        return ClaimResult(
            slug="toy",
            statement="Ours makes fewer errors.",
            scale=scale,
            baseline="theirs",
            arms=arms,
            primary=Condition("errors of ours minus theirs", seed - 5.0, "<", 0.0),
            seeds=(seed,),
        )

    module = types.ModuleType("wieldy.claims.toy")
    module.PACKAGES, module.run = ("numpy",), run
    monkeypatch.setitem(sys.modules, "wieldy.claims.toy", module)
    system = catalog.System(
        slug="toy",
        name="Toy",
        room="speech",
        kind="pipeline",
        method="play",
        summary="Plays.",
        entry="wieldy.speech.toy:play",
        claim="wieldy.claims.toy",
        status="available",
        docs="toy.md",
    )
    planned = catalog.find("mest")
    monkeypatch.setattr(catalog, "systems", lambda: (system, planned))
    return module


@pytest.fixture
def clean_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wieldy.claims.result._checkout", lambda package: ("abc123", True))


def test_every_available_system_has_a_claim_that_can_be_imported() -> None:
    assert "speech-pipeline" in claims.slugs()
    for slug in claims.slugs():
        module = catalog.find(slug).claim
        assert module == f"wieldy.claims.{slug.replace('-', '_')}"
        assert Path(claims.__file__).with_name(f"{slug.replace('-', '_')}.py").is_file()


@pytest.mark.parametrize("name", ["toy", "play"])
def test_reproduce_finds_by_slug_or_method_and_says_where_it_ran(toy: types.ModuleType, name: str) -> None:
    found = claims.reproduce(name, scale="full", seed=3)
    assert found.holds
    assert found.seeds == (3,)
    assert found.provenance is not None
    assert set(found.provenance.versions) == {"wieldy", "python", "numpy"}
    assert claims.reproduce(name, seed=7).scale == "smoke"


def test_a_planned_system_has_no_claim_to_run(toy: types.ModuleType) -> None:
    with pytest.raises(UsageError, match="mest is planned and has no claim yet: there are toy"):
        claims.reproduce("mest")


def test_what_is_missing_is_passed_on(toy: types.ModuleType) -> None:
    def run(scale: str, seed: int) -> ClaimResult:
        raise MissingError("flite is not installed", hint="apt-get install flite")

    toy.run = run
    with pytest.raises(MissingError, match="apt-get install flite"):
        claims.reproduce("toy")


def test_only_full_runs_of_committed_code_are_recorded(
    toy: types.ModuleType, clean_tree: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = claims.record(claims.reproduce("toy", scale="full"), tmp_path)
    assert path == tmp_path / "toy.json"
    assert ClaimResult.from_json(json.loads(path.read_text())).provenance.commit == "abc123"
    with pytest.raises(UsageError, match="a smoke run decides nothing"):
        claims.record(claims.reproduce("toy"), tmp_path)
    monkeypatch.setattr("wieldy.claims.result._checkout", lambda package: ("abc123", False))
    with pytest.raises(OutputError, match="is not what is committed: commit first"):
        claims.record(claims.reproduce("toy", scale="full"), tmp_path)


def test_a_tree_edited_during_the_run_is_not_clean(toy: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter([("abc123", True), ("def456", True)])
    monkeypatch.setattr("wieldy.claims.result._checkout", lambda package: next(commits))
    assert not claims.reproduce("toy").provenance.clean


@pytest.mark.parametrize(("seed", "status"), [(0, 0), (9, 1)])
def test_recording_all_ends_with_the_worst_status(
    toy: types.ModuleType, clean_tree: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, status: int
) -> None:
    once = toy.run
    toy.run = lambda scale, _: once(scale, seed)
    monkeypatch.setattr(record_all, "record", lambda result: claims.record(result, tmp_path))
    assert record_all.main([]) == status
    assert json.loads((tmp_path / "toy.json").read_text())["holds"] == (status == 0)


def test_the_commit_is_that_of_the_repository_that_tracks_the_code(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        command = ("git", "-C", str(tmp_path), *identity, *words)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "src" / "wieldy"
    results = package / "claims" / "results"
    results.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git("init", "--quiet")
    assert _checkout(package) == ("", False)  # the code is not tracked: the repository says nothing about it
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert _checkout(package) == (commit, True)
    (results / "toy.json").write_text("{}")
    assert _checkout(package) == (commit, True)
    (tmp_path / "new.py").write_text("")
    assert _checkout(package) == (commit, False)


def test_provenance_names_the_machine() -> None:
    here = Provenance.here(("numpy",))
    assert "cores" in here.cpu
    assert here.date.endswith("UTC")


def test_stored_results_are_true_to_themselves() -> None:
    for path in claims.RESULTS.glob("*.json"):
        stored = ClaimResult.from_json(json.loads(path.read_text()))
        assert path.stem == stored.slug
        assert stored.scale == "full"
        assert stored.provenance is not None
        assert stored.provenance.clean
