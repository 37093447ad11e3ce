"""A peer whose versions do not go with ours gets an environment of its own, outside the checkout."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from wieldy.cache import cache_root
from wieldy.errors import MissingError

PEERS = Path(__file__).with_name("peers")


def python_of(peer: str, folder: Path = PEERS) -> Path:
    """The interpreter of the environment made from `peers/<peer>.txt`; made where it is not there yet.

    The environment is named after the content of that file, so another pin makes another one. Raises `MissingError`
    where it cannot be installed.
    """
    requirements = folder / f"{peer}.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    environment = cache_root() / "benchmarks" / "peers" / f"{peer}-{key}"
    python = environment / "bin" / "python"
    ready = environment / "ready"
    if ready.exists():
        return python
    shutil.rmtree(environment, ignore_errors=True)  # left by an installation that was interrupted
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
    make = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    try:
        for command in (make, [*pip, "install", "-r", str(requirements)]):
            subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        raise MissingError(
            f"the peer {peer} cannot be installed: {detail}", hint=f"pip install -r {requirements}"
        ) from error
    ready.touch()
    return python
