"""The registry itself: what is in it is complete, and what is not a registry is refused."""

import pytest
from carriers import asset_of, write_wheel

from wieldy.cache import sha256_of
from wieldy.errors import UsageError
from wieldy.weights.registry import Asset, AssetFile, Carrier, bundled_folder, package_folder, read_registry, registry

BUNDLED = [(asset, file) for asset in registry().values() if asset.bundled for file in asset.files]
FILE = {"name": "model.bin", "bytes": 3, "sha256": "0" * 64}


def test_registry_names_what_the_main_job_needs():
    assert {"whisper-tiny.en", "conversation", "dvector"} <= registry().keys()
    assert all(asset.licence and asset.about and asset.kind for asset in registry().values())


@pytest.mark.parametrize(
    "asset", [asset for asset in registry().values() if asset.bundled], ids=lambda asset: asset.name
)
def test_bundled_files_are_the_registered_ones(asset):
    for file in asset.files:
        path = bundled_folder(asset) / file.name
        assert (path.stat().st_size, sha256_of(path)) == (file.bytes, file.sha256)


def test_nothing_is_bundled_without_being_registered():
    files = [path for path in (package_folder() / "bundled").rglob("*") if path.is_file()]
    assert sorted(files) == sorted(bundled_folder(asset) / file.name for asset, file in BUNDLED)


@pytest.mark.parametrize("name", ["../model.bin", "/model.bin", "a/b", "a\\b", "..", ""])
def test_file_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(UsageError, match="not a plain file name"):
        AssetFile(**{**FILE, "name": name})


@pytest.mark.parametrize("folder", ["/data", "../data", "data/../../x", "a\\b"])
def test_archive_folders_that_leave_the_archive_are_refused(folder):
    with pytest.raises(UsageError, match="not a folder inside an archive"):
        Carrier(package="p", version="1", wheel="p.whl", bytes=1, sha256="0" * 64, folder=folder)


@pytest.mark.parametrize("change", [{"sha256": "abc"}, {"sha256": "X" * 64}, {"bytes": 0}])
def test_files_without_exact_size_and_hash_are_refused(change):
    with pytest.raises(UsageError, match=r"registry: "):
        AssetFile(**{**FILE, **change})


def test_unknown_keys_are_refused():
    table = {"name": "a", "kind": "k", "about": "a", "licence": "l", "bundled": True, "files": [FILE]}
    assert Asset.from_toml(table).name == "a"
    with pytest.raises(UsageError, match="licens"):
        Asset.from_toml({**table, "licens": "MIT"})


def test_an_asset_without_a_source_is_refused(tmp_path):
    wheel = write_wheel(tmp_path, {})
    with pytest.raises(UsageError, match="no source"):
        asset_of(wheel, carrier=None)
    with pytest.raises(UsageError, match="none of its files"):
        asset_of(wheel, entry="other.bin")


def test_a_name_registered_twice_is_refused(tmp_path):
    table = (
        '[[asset]]\nname = "a"\nkind = "k"\nabout = "a"\nlicence = "l"\nbundled = true\n'
        f'files = [{{ name = "f", bytes = 1, sha256 = "{"0" * 64}" }}]\n'
    )
    path = tmp_path / "registry.toml"
    path.write_text(table)
    assert list(read_registry(path)) == ["a"]
    path.write_text(table + table)
    with pytest.raises(UsageError, match="twice"):
        read_registry(path)


def test_the_key_changes_with_the_content(tmp_path):
    wheel = write_wheel(tmp_path, {})
    one, other = asset_of(wheel, {"f": b"1"}), asset_of(wheel, {"f": b"2"})
    assert one.key != other.key
    assert one.key == asset_of(wheel, {"f": b"1"}).key
