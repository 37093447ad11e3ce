"""The benchmark machinery, with arms that take no time: gates, bars, exit statuses, turns, processes, peers."""

import dataclasses
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import arms, long_meeting, peer_environment
from benchmarks.arms import Observation, observe, take_turns
from benchmarks.result import BenchmarkResult, record, shut
from wieldy.claims.result import Condition, Provenance
from wieldy.errors import MissingError, OutputError, UsageError, WieldyError
from wieldy.report import Metric

HERE = Provenance("2026-01-02 03:04 UTC", "abc123", True, "a processor, 2 cores", {"wieldy": "0"})
OPEN = Condition("both say the same", 0.0, "<=", 0.0)
CLOSED = Condition("both say the same", 1.0, "<=", 0.0)
BAR = Condition("wall time of ours over the peer's", None, "<=", 1.0, "not measured yet")


def result(ours: tuple[float, ...] = (1.0, 2.0, 9.0), peer: tuple[float, ...] = (4.0, 4.0, 4.0)) -> BenchmarkResult:
    mine, theirs = Metric("ours", ours, "s"), Metric("theirs", peer, "s")
    return BenchmarkResult(
        name="toy",
        summary="ours against theirs",
        bar=Condition(BAR.statement, mine.median / theirs.median, "<=", 1.0),
        gates=(OPEN,),
        ours=mine,
        peer=theirs,
        provenance=HERE,
    )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A benchmark of its own, under the name `toy`."""
    module = types.ModuleType("benchmarks.toy")
    module.SUMMARY, module.BAR, module.PACKAGES, module.ARMS = "ours against theirs", 1.0, ("numpy",), {}
    module.run = lambda runs: result()
    monkeypatch.setitem(sys.modules, "benchmarks.toy", module)
    monkeypatch.setattr(command, "names", lambda: ("toy",))
    return module


def test_the_ratio_is_of_medians_and_the_line_has_six_values() -> None:
    assert result().line == {"name": "toy", "ours": 2.0, "peer": 4.0, "ratio": 0.5, "bar": 1.0, "holds": True}
    assert not result(ours=(5.0,)).holds


def test_further_bars_must_hold_as_well() -> None:
    slow = Condition("seconds", 70.0, "<", 60.0)
    assert result().holds
    assert not dataclasses.replace(result(), further=(slow,)).holds


def test_only_three_hours_of_the_whole_pipeline_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The verdict alone: what the arms would have found stands here."""
    seen = {"incomplete": 0, "bytes": 10, "stages": {"recognise": 1.0}}

    def observed(_module: str, arm: str, inputs: Path) -> Observation:
        minutes = float(inputs.name)
        output = 8 if arm == "clustering" else {**seen, "seconds": 60 * minutes, "words": int(150 * minutes)}
        return Observation(minutes, output, 1.0, 10_000 + int(minutes))

    monkeypatch.setattr(long_meeting, "observe", observed)
    monkeypatch.setattr(long_meeting, "repeated", lambda _audio, minutes, _path: Path(str(minutes)))
    monkeypatch.setattr(long_meeting, "cache_root", lambda: tmp_path / "59")  # what the clustering is given
    monkeypatch.setattr(long_meeting.meeting, "recording", lambda: Path("10"))
    (tmp_path / "59").mkdir()
    half = long_meeting.compare(90.0, "ours")
    assert (half.holds, half.bar.verdict, half.ours) == (False, "not run", None)
    assert "only 180 min of the whole pipeline decide" in half.bar.reason
    assert not long_meeting.compare(180.0, "without words").holds
    whole = long_meeting.compare(180.0, "ours")
    assert whole.holds
    assert whole.ours.median == whole.bar.figure == (10_180 - 10) / (10_010 - 10)
    assert [bar.figure for bar in whole.further] == [1.0, 59.0]


def test_a_shut_gate_has_no_figures_and_cannot_be_given_any() -> None:
    found = shut("toy", "ours against theirs", BAR, [CLOSED])
    assert found.line == {"name": "toy", "ours": None, "peer": None, "ratio": None, "bar": 1.0, "holds": False}
    assert "the output is wrong: both say the same" in found.bar.reason
    with pytest.raises(UsageError, match="a speed figure behind a gate that is shut"):
        BenchmarkResult(name="toy", summary="", bar=BAR, gates=(CLOSED,), ours=Metric("ours", (1.0,)))
    with pytest.raises(UsageError, match="figures without a bar"):
        BenchmarkResult(name="toy", summary="", bar=BAR, gates=(OPEN,), ours=Metric("ours", (1.0,)))


def test_what_is_stored_is_whole_and_committed(tmp_path: Path) -> None:
    stored = json.loads(record(result(), tmp_path).read_text())
    assert stored["ratio"] == 0.5
    assert stored["details"]["provenance"]["commit"] == "abc123"
    assert stored["details"]["ours"]["values"] == [1.0, 2.0, 9.0]
    dirty = BenchmarkResult(name="toy", summary="", bar=BAR, gates=(OPEN,))
    with pytest.raises(OutputError, match="is not what is committed"):
        record(dirty, tmp_path)


@pytest.mark.parametrize(("ours", "status"), [((1.0,), 0), ((5.0,), 1)])
def test_exit_status_follows_the_bar(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str], ours: tuple[float, ...], status: int
) -> None:
    toy.run = lambda runs: result(ours)
    assert command.main(["toy", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["holds"] == (status == 0)
    assert command.main(["toy"]) == status
    assert "wall time of ours over the peer's" in capsys.readouterr().out.replace("\n", " ") or status == 1


def test_a_missing_peer_is_neither_a_win_nor_a_loss(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def run(runs: int) -> BenchmarkResult:
        raise MissingError("the peer rival cannot be installed", hint="pip install rival")

    toy.run = run
    assert command.main(["--json"]) == 4
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "name": "toy", "ours": None, "peer": None, "ratio": None, "bar": 1.0, "holds": None,
    }  # fmt: skip
    assert shown.err == "toy: the peer rival cannot be installed: pip install rival\n"


def test_wrong_usage(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["nothing"]) == 2
    assert "there is no benchmark 'nothing': there are toy" in capsys.readouterr().err
    assert command.main(["toy", "--runs", "3"]) == 2
    assert "a median needs at least 5" in capsys.readouterr().err


def test_every_benchmark_is_listed_with_its_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    listed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert set(listed) == {
        "attribution",
        "embeddings",
        "long_meeting",
        "rnnt_loss",
        "rnnt_practical",
        "streaming",
        "streaming_attention",
        "streaming_transducer",
        "transcribe",
        "transducer_beam",
        "vad",
    }
    for name in listed:
        module = command._module(name)
        assert "ours" in module.ARMS
        assert module.BAR > 0
        assert module.PACKAGES


def test_arms_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def observed(module: str, arm: str, inputs: Path) -> Observation:
        order.append(arm)
        return Observation(len(order))

    monkeypatch.setattr(arms, "observe", observed)
    seconds = take_turns("toy", ["a", "b"], Path(), runs=3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert [observation.seconds for observation in seconds["b"]] == [2, 4, 6]


def test_an_arm_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "arm_in_a_file.py").write_text(
        "import os\n"
        "from benchmarks.arms import Observation\n"
        "def own(inputs):\n"
        "    return Observation(0.5, [os.getpid(), inputs.name, len(os.sched_getaffinity(0))])\n"
        "def broken(inputs):\n"
        "    raise ValueError('no such model')\n"
        "ARMS = {'own': own, 'broken': broken}\n"
    )
    run = subprocess.run

    def run_with_folder(cmd: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        # The module lies outside the package: put its folder on the package's path in the child.
        code = (
            f"import sys, benchmarks; benchmarks.__path__.append({str(tmp_path)!r}); "
            "from benchmarks.arms import main; main(*sys.argv[1:])"
        )
        return run([cmd[0], "-c", code, *cmd[3:]], **options)

    monkeypatch.setattr(subprocess, "run", run_with_folder)
    found = observe("arm_in_a_file", "own", tmp_path / "inputs")
    pid, name, cores = found.output
    assert found.seconds == 0.5
    assert found.peak > 1 << 20
    assert found.cpu_seconds > 0
    assert name == "inputs"
    assert cores <= arms.CORES
    assert pid not in (0, None)
    with pytest.raises(WieldyError, match="arm broken ended with status 1: ValueError: no such model"):
        observe("arm_in_a_file", "broken", tmp_path)


def test_a_peer_gets_an_environment_of_its_own(tmp_path: Path, empty_cache: Path) -> None:
    (tmp_path / "rival.txt").write_text("# nothing to install\n")
    python = peer_environment.python_of("rival", tmp_path)
    assert empty_cache in python.parents
    shown = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(shown.stdout.strip()) == python.parents[1]
    made = python.stat().st_mtime_ns
    assert peer_environment.python_of("rival", tmp_path) == python
    assert python.stat().st_mtime_ns == made


def test_a_peer_that_cannot_be_installed_is_missing(tmp_path: Path, empty_cache: Path) -> None:
    (tmp_path / "rival.txt").write_text(f"{tmp_path}/no-such-wheel-1.0-py3-none-any.whl\n")
    with pytest.raises(MissingError, match=r"the peer rival cannot be installed: .*no-such-wheel"):
        peer_environment.python_of("rival", tmp_path)


def test_stored_results_agree_with_their_details() -> None:
    from benchmarks.result import RESULTS

    for path in RESULTS.glob("*.json"):
        stored = json.loads(path.read_text())
        assert stored["name"] == path.stem
        assert stored["details"]["provenance"]["clean"] is True
