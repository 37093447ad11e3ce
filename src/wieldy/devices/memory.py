"""How much memory a piece of work needed at its worst, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wieldy.errors import MissingError

# A process starts with the peak of the one that spawned it (Linux carries `ru_maxrss` over fork and exec), so a command
# started from a large process would never seem small. This bare interpreter in between sets the floor to about 10 MB.
_LAUNCHER = """
import json, os, sys, time
report, command = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(report, False)
started = time.monotonic()
process = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.monotonic() - started
os.write(report, json.dumps([seconds, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]).encode())
"""

# The unit of `ru_maxrss`.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Run:
    """A command that ended. `peak` is its largest resident set in bytes, or that of a child it waited for, if larger;
    `exit_status` is negative for a signal."""

    seconds: float
    peak: int
    exit_status: int
    output: str
    errors: str


def peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    if found := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
        return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def run(command: Sequence[str | os.PathLike[str]], environment: Mapping[str, str] | None = None) -> Run:
    """Run `command` in a fresh process and measure it. `environment` replaces this process's when given.

    Raises `MissingError` when there is no such program. An unsuccessful exit is for the caller to judge.
    """
    words = [os.fspath(word) for word in command]
    if shutil.which(words[0]) is None:
        raise MissingError(f"there is no program {words[0]!r}", hint="install it or put it on PATH")
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writer), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=(writer,),
        )
    finally:
        os.close(writer)
        with open(reader, "rb") as pipe:
            report = pipe.read()
    seconds, resident, status = json.loads(report)
    return Run(seconds, resident * _RSS_UNIT, status, done.stdout, done.stderr)


def installed() -> int | None:
    """The machine's main memory in bytes, None where it is not told."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
