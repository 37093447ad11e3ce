"""Files that are either whole or absent, and results that are computed once.

`replacing` writes any file so that a crash, a full disk or a second process never leaves half of it. `Cache` keeps
results under a hash of everything they depend on: the same inputs find them again, other inputs never do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wieldy.errors import OutputError


def cache_root() -> Path:
    """`$WIELDY_CACHE`, else `$XDG_CACHE_HOME/wieldy`, else `~/.cache/wieldy`. Not created here."""
    if chosen := os.environ.get("WIELDY_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wieldy"


@contextlib.contextmanager
def replacing(path: Path | str, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any error it is removed.

    `private`: only the owner may read the file, and its folder where that has to be made (not on Windows).
    Raises `OutputError` when the disk is full or the folder cannot be written; an old `path` stays intact.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(0o700 if private else 0o777, parents=True, exist_ok=True)
        # The suffix is kept last: writers such as soundfile choose the format by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o600 if private else 0o666 & ~_umask())
        temporary.replace(path)
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}", hint="free some space or choose another folder with --out"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> Path:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def sha256_of(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """Hex SHA-256 of values made of dataclasses, mappings, sequences, paths, numbers, strings and None."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Cache:
    """Results as JSON files under `root`, named by stage and by the digest of what they were computed from."""

    root: Path

    def path(self, stage: str, key: str, suffix: str = ".json") -> Path:
        return self.root / stage / f"{key}{suffix}"

    def load(self, stage: str, key: str) -> Any | None:
        """The stored value, or None where there is none or it cannot be read (then it is computed again)."""
        try:
            return json.loads(self.path(stage, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def store(self, stage: str, key: str, value: Any) -> None:
        write_text(self.path(stage, key), json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, dataclasses.asdict(value)]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__qualname__} has no stable digest")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
