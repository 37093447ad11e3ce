"""Assets in wieldy's cache: where they lie, whether they are whole, and how they get there.

A folder is named after the content it holds and appears by one rename, so what is there is whole, an older or newer
wieldy never finds the wrong files, and processes that fetch at the same time wait for each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wieldy.cache import cache_root
from wieldy.errors import OutputError
from wieldy.weights.registry import Asset, Carrier, Hub

SOURCE_FILE = "source.json"


def models_folder() -> Path:
    """The part of the cache that holds weights and recordings."""
    return cache_root() / "models"


def folder_of(asset: Asset) -> Path:
    """Where `asset` lies in the cache once it has been fetched."""
    return models_folder() / f"{asset.name}-{asset.key}"


def is_stored(asset: Asset) -> bool:
    """Whether the cache has every file of `asset` at its registered size. Hashes: `verify`."""
    folder = folder_of(asset)
    try:
        return all((folder / file.name).stat().st_size == file.bytes for file in asset.files)
    except OSError:
        return False


def record_source(folder: Path, asset: Asset, source: Carrier | Hub) -> None:
    """Write down beside the files what they are, under which licence, and where they came from."""
    record = {
        "name": asset.name,
        "licence": asset.licence,
        "source": {type(source).__name__.lower(): dataclasses.asdict(source)},
        "files": {file.name: {"bytes": file.bytes, "sha256": file.sha256} for file in asset.files},
    }
    (folder / SOURCE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def origin(path: Path) -> str:
    """The package or repository that was recorded beside the files of an asset; empty where none was."""
    folder = path if path.is_dir() else path.parent
    try:
        source = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))["source"]
        carrier = source.get("carrier")
        return f"{carrier['package']} {carrier['version']}" if carrier else str(source["hub"]["repo"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the right to make `target`; a second process waits until the first has made it."""
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / f".{target.name}.lock")
        lock.acquire()
    except OSError as error:
        raise _cannot_store(target, error) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; on success it takes its place.

    On any error it is removed and what was at `target` stays. Call with `locked(target)` held.
    """
    staging = None
    try:
        _remove_leftovers(target)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        yield staging
        staging.chmod(0o755)
        _swap(staging, target)
    except OutputError:
        raise
    except OSError as error:
        raise _cannot_store(target, error) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, target: Path) -> None:
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        target.rename(old / "old")
        staging.rename(target)
        shutil.rmtree(old)
    else:
        staging.rename(target)


def _remove_leftovers(target: Path) -> None:
    """A fetch that was killed leaves its folder behind; whoever holds the lock knows that nobody is using it."""
    for path in target.parent.glob(f".{target.name}.*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _cannot_store(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot store {target}: {error.strerror or error}",
        hint="free some space or point WIELDY_CACHE at a folder that can be written",
    )
