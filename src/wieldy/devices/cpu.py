"""The processor: instruction sets, cache sizes, and the level that the native kernels run at.

`describe` asks the processor itself through the native extension; `describe_naive` reads what the Linux kernel says
and serves where the extension is absent. Both give the same answer, which a test checks.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from wieldy.errors import UsageError

try:
    from wieldy import _native as native
except ImportError:
    native = None  # type: ignore[assignment]

# Extensions a kernel here could use, by the Linux kernel's names, in the order of `native/cpu.cpp`.
FEATURES = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class CacheMemory:
    """One cache as the first usable core sees it. `kind` is data, instruction or unified; `size` is in bytes."""

    level: int
    kind: str
    size: int


@dataclass(frozen=True)
class Cpu:
    """`cores` counts those this process may use; `features` is a subset of `FEATURES`, empty where none is known."""

    name: str
    cores: int
    features: tuple[str, ...]
    caches: tuple[CacheMemory, ...]


def describe() -> Cpu:
    """This machine's processor, by the native extension where it is installed."""
    if native is None or not (features := native.cpu_features()):
        return describe_naive()
    caches = tuple(CacheMemory(*cache) for cache in native.cpu_caches())
    return replace(describe_naive(), features=tuple(features), caches=caches)


def describe_naive(system: Path = Path("/")) -> Cpu:
    """The same from `/proc/cpuinfo` and `/sys/devices/system/cpu` below `system`; unknown facts stay empty."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    info = _read(system / "proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", info, re.MULTILINE)
    there = set(flags[1].split()) if flags else set()
    caches = []
    for folder in sorted((system / f"sys/devices/system/cpu/cpu{cores[0]}/cache").glob("index*")):
        level, kind, size = (_read(folder / part).strip() for part in ("level", "type", "size"))
        if level and (amount := re.fullmatch(r"(\d+)([KMG]?)", size)):
            caches.append(CacheMemory(int(level), kind.lower(), int(amount[1]) * _UNITS[amount[2]]))
    return Cpu(
        name=name[1] if name else platform.processor() or platform.machine(),
        cores=len(cores),
        features=tuple(feature for feature in FEATURES if feature in there),
        caches=tuple(caches),
    )


def levels() -> tuple[str, ...]:
    """The levels native kernels can run at here, lowest ("portable") first; empty without the native extension."""
    return () if native is None else tuple(native.cpu_levels())


def level() -> str | None:
    """The level native kernels run at now: the highest, unless one is forced. None without the native extension."""
    return None if native is None else native.cpu_level()


@contextlib.contextmanager
def forced_level(name: str) -> Iterator[None]:
    """Run native kernels at level `name` inside `with`, in all threads: how a test reaches the lower ones.

    Raises `UsageError` for a level this processor has not.
    """
    if native is None or name not in levels():
        there = ", ".join(levels()) or "none, the native extension is not installed"
        raise UsageError(f"level {name!r} is not available", hint=f"levels on this machine: {there}")
    before = native.cpu_level()
    native.force_cpu_level(name)
    try:
        yield
    finally:
        native.force_cpu_level(before)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
