"""What `wieldy models` shows: assets by name, whether they are here, and whether they are intact."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wieldy.cache import sha256_of
from wieldy.errors import MissingError
from wieldy.report import Table
from wieldy.weights import hub
from wieldy.weights.progress import megabytes
from wieldy.weights.registry import Asset, bundled_folder, registry
from wieldy.weights.resolve import where
from wieldy.weights.stored import folder_of, is_stored, origin

FileState = Literal["intact", "changed", "missing"]


@dataclass(frozen=True)
class FileCheck:
    """One file of a verified asset. `intact` means that it hashes to what was registered or recorded."""

    file: str
    state: FileState


def available() -> tuple[Asset, ...]:
    """Every asset wieldy knows by name."""
    return tuple(registry().values())


def is_here(asset: Asset) -> bool:
    """Whether `asset` can be used without a download."""
    return asset.bundled or is_stored(asset)


def verify(name: str) -> tuple[FileCheck, ...]:
    """Hash the files of `name` again: an asset against the registry, a hub model against the hashes it came with.

    Raises `MissingError` when nothing of that name is on this machine.
    """
    asset = registry().get(name)
    if asset is not None:
        place = bundled_folder(asset) if asset.bundled else folder_of(asset)
        if not place.is_dir():
            raise MissingError(f"{name} is not on this machine", hint=f"run `wieldy models get {name}`")
        return tuple(FileCheck(file.name, _state(place / file.name, file.sha256)) for file in asset.files)
    source = hub.parse(name)
    folder = hub.find(source) if source else None
    if folder is None:
        raise MissingError(f"no model called {name!r} is on this machine", hint="`wieldy models list` shows the names")
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return tuple(FileCheck(str(path.relative_to(folder)), _blob_state(path)) for path in files)


def models_table() -> Table:
    """All assets with kind, size, licence and whether they are here."""
    rows = [(asset.name, asset.kind, megabytes(asset.bytes), _place(asset), asset.licence) for asset in available()]
    rows += [(name, "hub model", "", "in the cache", "see its page") for name in _hub_models()]
    return Table("Models and recordings", ("name", "kind", "size", "here", "licence"), tuple(rows))


def verify_table(names: Iterable[str] = ()) -> tuple[Table, bool]:
    """The state of every file of `names` (nothing named: of all that is here), and whether all are intact."""
    chosen: Sequence[str] = tuple(names) or [asset.name for asset in available() if is_here(asset)] + _hub_models()
    rows = [(name, check.file, check.state) for name in chosen for check in verify(name)]
    return Table("Files hashed again", ("name", "file", "state"), tuple(rows)), all(row[2] == "intact" for row in rows)


def where_table(names: Iterable[str]) -> tuple[Table, bool]:
    """Where each of `names` lies and where it came from, and whether all of them are here."""
    paths = {name: where(name) for name in names}
    rows = [(name, str(path or "not on this machine"), _origin(name, path)) for name, path in paths.items()]
    return Table("Where they lie", ("name", "path", "from"), tuple(rows)), all(paths.values())


def _origin(name: str, path: Path | None) -> str:
    asset = registry().get(name)
    if asset is not None and asset.bundled:
        return "wieldy itself"
    return origin(path) if path else ""


def _place(asset: Asset) -> str:
    if asset.bundled:
        return "in the package"
    return "in the cache" if is_stored(asset) else f"no ({megabytes(asset.download_bytes)} to fetch)"


def _hub_models() -> list[str]:
    """The ids of the hub models in wieldy's cache; the hub library names their folders `models--org--name`."""
    folders = sorted(hub.hub_cache().glob("models--*--*"))
    ids = (folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders)
    return [name for name in ids if where(name)]


def _state(path: Path, sha256: str) -> FileState:
    if not path.is_file():
        return "missing"
    return "intact" if sha256_of(path) == sha256 else "changed"


def _blob_state(path: Path) -> FileState:
    """The hub library stores a file under its hash: SHA-256 for large files, git's blob id for the others."""
    if not path.is_file():
        return "missing"
    blob = Path(os.path.realpath(path))
    if len(blob.name) == 64:
        return _state(blob, blob.name)
    content = blob.read_bytes()
    git_id = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return "intact" if git_id == blob.name else "changed"
