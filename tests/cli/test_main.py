"""The command line as a newcomer meets it: help, typing errors, exit statuses."""

import importlib
import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import tyro

from wieldy import cli
from wieldy.errors import MissingError


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, verb in cli.VERBS.items():
        assert name in printed
        assert verb.summary in printed


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_option_of_every_verb_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    command = getattr(importlib.import_module(cli.VERBS[name].module), cli.VERBS[name].command)
    assert command.__doc__.split("\n")[0].split(",")[0][:40] in " ".join(printed.split())
    for option, kind in typing.get_type_hints(command, include_extras=True).items():
        # What has no flag: inputs, and the choice of a subcommand, which is a union of commands.
        if tyro.conf.Positional[int].__metadata__[0] not in getattr(kind, "__metadata__", ()) and option != "action":
            assert f"--{option.replace('_', '-')}" in printed


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["transcrib"], 2, "there is no command 'transcrib': did you mean transcribe?"),
        (["transcribe"], 2, "no recording given: wieldy transcribe meeting.wav"),
        (["transcribe", "no-such.wav"], 3, "no-such.wav"),
        (["transcribe", "a.wav", "--format", "srr"], 2, "no format is called 'srr': did you mean srt?"),
        (["transcribe", "x/a.wav", "y/a.wav"], 2, "two recordings are called 'a'"),
        (["transcribe", "a.wav", "--speakers", "0"], 2, "--speakers is 0"),
        (["transcribe", "a.wav", "--min-speakers", "3", "--max-speakers", "2"], 2, "--max-speakers 2 is below"),
        (["transcribe", "a.wav", "--language", "German"], 2, "--language German"),
        (["transcribe", __file__, "--language", "de", "--offline"], 4, "large-v3-turbo"),
        (["transcribe", __file__, "--model", "no/such-model", "--offline"], 4, "no/such-model"),
        (["transcribe", "a.wav", "--config", "no.toml"], 3, "no.toml"),
        (["show", "mestt"], 2, "mest"),
        (["list", "--room", "kitchen"], 2, "kitchen"),
        (["models", "get"], 2, "wieldy models get NAME"),
        (["models", "get", "no-such-model-here"], 4, "no-such-model-here"),
        (["score", "no.json", "no.stm"], 3, "no."),
        (["reproduce", "no-such-system"], 2, "no-such-system"),
        (["train", "asr", "no-such-folder", "--out", "m"], 3, "no-such-folder does not exist"),
    ],
)
def test_bad_requests_end_in_one_line(
    words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.splitlines()[-1]
    assert line.startswith("wieldy: ")
    assert message in line


@pytest.mark.parametrize("verb", ["transcribe", "diarize"])
def test_every_recording_is_looked_for_before_the_work_begins(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "first.wav").write_bytes(b"no sound")  # would be refused too, later
    assert cli.main([verb, str(tmp_path / "first.wav"), str(tmp_path / "second.wav"), "--out", str(tmp_path)]) == 3
    assert "second.wav does not exist" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["first.wav"]


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["transcribe", "a.wav", "--speeker", "2"])
    assert stopped.value.code == 2
    assert "--speaker" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from() -> None:
    with pytest.raises(MissingError):
        cli.main(["transcribe", __file__, "--language", "de", "--offline", "--debug"])


def test_a_bug_is_an_internal_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_args: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("wieldy.cli.catalog.List.run", fail)
    assert cli.main(["list"]) == 5
    assert "internal error: ZeroDivisionError" in capsys.readouterr().err


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("wieldy.cli.catalog.List.run", interrupt)
    assert cli.main(["list"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["list"], ["show", "speech-pipeline"], ["models", "list"], ["doctor"]])
def test_json_is_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_help_and_the_package_import_nothing_heavy() -> None:
    """`wieldy --help` and `import wieldy` must be quick on a laptop: neither imports numpy, tyro or torch."""
    code = "import sys, wieldy, wieldy.cli; wieldy.cli.main(['--help']); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(printed.splitlines()[-1].split())
    assert not loaded & {"numpy", "torch", "tyro", "rich", "scipy", "onnxruntime", "transformers"}


def test_transcribe_help_does_not_import_the_engines() -> None:
    code = (
        "import sys, wieldy.cli\ntry: wieldy.cli.main(['transcribe', '--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(printed.splitlines()[-1].split()) & {"torch", "onnxruntime", "faster_whisper", "scipy"}


def test_training_without_its_packages_says_what_to_install(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "lhotse", None)
    for name in [name for name in sys.modules if name.startswith("wieldy.speech.")]:
        monkeypatch.delitem(sys.modules, name)
    assert cli.main(["train", "asr", "recordings", "--out", "model"]) == 4
    assert "training needs lhotse" in capsys.readouterr().err
