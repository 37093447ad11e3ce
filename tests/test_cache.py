"""A file is whole or absent, whatever happens while it is written; a result is found again or not at all."""

import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.cache import Cache, cache_root, digest, replacing, sha256_of, write_text
from wieldy.errors import OutputError


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_text(tmp_path / "result.txt", "old")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*result\.txt: .*--out"):
        write_text(tmp_path / "file" / "result.txt", "new")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this system does not let root mount a small disk")
    try:
        path = write_text(tmp_path / "result.txt", "old")
        with pytest.raises(OutputError, match="No space left"):
            write_text(path, "x" * 1_000_000)
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    code = (
        "import sys; from wieldy.cache import write_text\n"
        "for _ in range(50): write_text(sys.argv[1], sys.argv[2] * 100_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    text = path.read_text()
    assert len(text) == 100_000
    assert len(set(text)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]


def test_the_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert stat.S_IMODE(write_text(tmp_path / "new.txt", "").stat().st_mode) == 0o644
    finally:
        os.umask(before)


@dataclass(frozen=True)
class Options:
    size: int
    name: str = "a"


def test_a_digest_depends_on_every_part_and_on_nothing_else() -> None:
    parts = [Options(1), {"b": 2, "a": [1, None]}, Path("x"), 0.5, frozenset("ab")]
    again = [Options(1), {"a": [1, None], "b": 2}, Path("x"), 0.5, frozenset("ba")]
    assert digest(*parts) == digest(*again)
    assert digest(Options(1)) != digest(Options(2))
    assert digest([1], [2]) != digest([1, 2])
    with pytest.raises(TypeError, match="object has no stable digest"):
        digest(object())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=8))
def test_a_stored_result_comes_back(value: object) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        cache.store("stage", "key", value)
        assert cache.load("stage", "key") == value
        assert cache.load("stage", "other") is None
        assert cache.load("other", "key") is None


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WIELDY_CACHE", str(tmp_path / "chosen"))
    assert cache_root() == tmp_path / "chosen"
    monkeypatch.delenv("WIELDY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "wieldy"


def test_sha256(tmp_path: Path) -> None:
    path = write_text(tmp_path / "abc", "abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
