"""From a name to files on this machine, and the only door through which files are downloaded.

Resolution order: a path; wieldy's cache; the wieldy package itself; a carrier package; a hub. A name of the registry
is never taken for a file of the working directory: write `./conversation` to mean that.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from wieldy.errors import InputError, MissingError, UsageError, WieldyError
from wieldy.weights import carrier, hub
from wieldy.weights.progress import bar, megabytes, on_terminal
from wieldy.weights.registry import Asset, Carrier, Hub, bundled_folder, registry
from wieldy.weights.stored import folder_of, is_stored, locked, record_source, replacing_folder


def locate(name: str | os.PathLike[str], *, offline: bool = False, progress: bool = True) -> Path:
    """The file or folder that `name` means: a registered asset, a hub id `org/name[@revision]` or a local path.

    What is missing is downloaded when someone is at the terminal; otherwise, and with `offline`, a `MissingError`
    says what to run. `progress` shows a bar while downloading.
    """
    found = _present(name)
    if found is not None:
        return found
    name = os.fspath(name)
    asset = registry().get(name)
    if offline or not on_terminal():
        size = f" ({megabytes(asset.download_bytes)})" if asset else ""
        why = "downloads are forbidden by --offline" if offline else "nothing is downloaded without a terminal"
        without = " without --offline" if offline else ""
        raise MissingError(
            f"the {asset.kind if asset else 'model'} {name}{size} is not on this machine and {why}",
            hint=f"run `wieldy models get {name}`{without}",
        )
    return fetch(asset, progress=progress) if asset else hub.fetch(_hub_of(name), name, progress=progress)


def get(name: str, *, progress: bool = True) -> Path:
    """Download the asset or hub model `name`, replacing what the cache has of it; returns what `locate` would."""
    asset = registry().get(name)
    if asset is None:
        if Path(name).exists():
            raise UsageError(f"{name} is on this machine already", hint="use its path as it is")
        return hub.fetch(_hub_of(name), name, progress=progress)
    if asset.bundled:
        return _bundled(asset)
    return fetch(asset, progress=progress, again=True)


def where(name: str | os.PathLike[str]) -> Path | None:
    """Where `name` lies on this machine, or None. Never uses the network."""
    return _present(name)


def _present(name: str | os.PathLike[str]) -> Path | None:
    asset = registry().get(name) if isinstance(name, str) else None
    if asset is not None:
        if asset.bundled:
            return _bundled(asset)
        return asset.at(folder_of(asset)) if is_stored(asset) else None
    path = Path(name).expanduser()
    if path.exists():
        return path
    source = _hub_of(os.fspath(name))
    return hub.find(source)


def _hub_of(name: str) -> Hub:
    """The hub repository `name` means, or a `MissingError` that says what could have been meant."""
    source = hub.parse(name)
    if source is not None:
        return source
    known = [*registry(), *hub.known_sizes()]
    if "/" in name or os.sep in name:
        raise MissingError(f"there is no file or folder {name}", hint="check the path")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "`wieldy models list` shows the names"
    raise MissingError(f"there is no model or recording called {name!r}", hint=hint)


def _bundled(asset: Asset) -> Path:
    path = asset.at(bundled_folder(asset))
    if not path.exists():
        raise MissingError(f"the {asset.kind} {asset.name} is missing from this installation", hint="reinstall wieldy")
    return path


def fetch(asset: Asset, *, progress: bool = True, again: bool = False) -> Path:
    """Download `asset` into the cache, unless it is there or `again` is set; returns what stands for it.

    Safe to call from several processes at once: one downloads, the others wait and find it done.
    """
    folder = folder_of(asset)
    with locked(folder):
        # While this process waited for the lock another one may have fetched it.
        if again or not is_stored(asset):
            with replacing_folder(folder) as staging:
                record_source(staging, asset, _fill(asset, staging, progress))
    return asset.at(folder)


def _fill(asset: Asset, staging: Path, progress: bool) -> Carrier | Hub:
    """Put the files of `asset` into `staging`, from the carrier or, when that fails, from the hub; which one it was."""
    refusal: WieldyError | None = None
    if asset.carrier is not None:
        try:
            with bar(asset.name, asset.carrier.bytes, shown=progress) as on_bytes:
                carrier.fetch(asset, asset.carrier, staging, on_bytes)
            return asset.carrier
        except (MissingError, InputError) as error:
            refusal = error
    if asset.hub is not None:
        try:
            hub.fetch_asset(asset, asset.hub, staging, progress=progress)
            return asset.hub
        except (MissingError, InputError) as error:
            refusal = refusal or error
    raise refusal or MissingError(f"{asset.name} has no source to download it from")
