"""Finished stages of an unfinished transcription, so that a killed or interrupted one goes on where it stopped.

Each result is stored under a hash of all it depends on (the recording's content, the options and the model), whole or
not at all; a result whose inputs changed is simply not found. What was stored is deleted once the transcript is safe.
Two processes on the same recording write the same values and do not disturb each other.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wieldy import __version__
from wieldy.cache import Cache, cache_root, digest
from wieldy.errors import OutputError

_FORGOTTEN_S = 30 * 24 * 3600  # unfinished work that nobody came back to in a month is deleted


class Checkpoint:
    """Stage results kept under `folder`; None keeps nothing. With `resume` False earlier results are not used.

    Results are JSON values: mappings, lists, text, numbers, None inside them but not as a whole.
    """

    def __init__(self, folder: Path | None = None, *, resume: bool = False) -> None:
        self._cache = None if folder is None else Cache(folder)
        self.resume = resume

    @classmethod
    def of_recording(cls, content_digest: str, *, resume: bool) -> Checkpoint:
        """The one in the user's cache for the recording with this SHA-256."""
        root = cache_root() / "unfinished"
        _forget(root)
        return cls(root / content_digest[:32], resume=resume)

    def load(self, stage: str, *inputs: Any) -> Any | None:
        """What was stored for the same stage and inputs; None if there is nothing or it is not to be used."""
        if self._cache is None or not self.resume:
            return None
        return self._cache.load(stage, digest(__version__, *inputs))

    def store(self, stage: str, value: Any, *inputs: Any) -> None:
        """Keep `value` for the same stage and inputs."""
        if self._cache is None:
            return
        try:
            self._cache.store(stage, digest(__version__, *inputs), value)
        except OutputError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            # Another process has finished the same recording and deleted the folder in this moment.

    def once(self, stage: str, compute: Callable[[], Any], *inputs: Any) -> Any:
        """The stored value, or what `compute()` gives, which is then stored."""
        value = self.load(stage, *inputs)
        if value is None:
            value = compute()
            self.store(stage, value, *inputs)
        return value

    def clear(self) -> None:
        """The transcript is safe: delete what was kept for it."""
        if self._cache is not None:
            shutil.rmtree(self._cache.root, ignore_errors=True)


def _forget(root: Path) -> None:
    old = time.time() - _FORGOTTEN_S
    for folder in root.glob("*"):
        try:
            if folder.stat().st_mtime < old:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another process was faster
            continue
