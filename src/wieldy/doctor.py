"""What this installation has, what it lacks and what to do about it: the facts behind `wieldy doctor`.

Nothing is imported to find out: what is installed is read from its metadata, so the answer takes well under a second.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from wieldy import __version__, weights
from wieldy.cache import cache_root
from wieldy.devices import cpu, memory
from wieldy.report import Report, Table
from wieldy.weights.registry import registry

# What each extra that has packages of its own is for ("" is the base); which they are is read from wieldy's metadata.
EXTRAS = {
    "": "transcribe, diarize, score",
    "torch": "models of transformers; converting, training and compressing models",
    "speech": "a small recogniser (pocketsphinx), a voice for simulated meetings (hibari)",
    "dev": "working on wieldy itself",
    "docs": "building the documentation",
}

# Debian packages of system-packages.txt: a program on PATH or a folder shows that one is there.
SYSTEM_PACKAGES = {
    "chromium": ("chromium", "tests of the HTML pages"),
    "espeak-ng": ("espeak-ng", "more voices for simulated meetings"),
    "flite": ("flite", "voices for simulated meetings"),
    "pocketsphinx-testdata": ("/usr/share/pocketsphinx/test/data", "real read speech for tests and claims"),
}

# What the native extension does better, and what serves without it.
NATIVE_GAINS = {
    "processor features and caches": "read from the operating system, equally fast",
    "transducer loss": "node by node in Python, hundreds of times slower",
}


def report() -> Report:
    """This machine and this installation, as tables for people and `details` for programs."""
    processor = cpu.describe()
    level = cpu.level()
    cache = cache_root()
    packages = {extra: _packages(extra) for extra in EXTRAS}
    system = {name: _is_there(probe) for name, (probe, _) in SYSTEM_PACKAGES.items()}
    models = {name: weights.where(name) for name in registry()}
    return Report(
        title="wieldy doctor",
        tables=(
            Table("This machine", ("fact", "value"), tuple(_machine(processor, level, cache))),
            Table("Installed with wieldy", ("extra", "state", "for"), tuple(_extras(packages))),
            Table(
                "System packages",
                ("package", "state", "for"),
                tuple(
                    (name, "there" if system[name] else "missing", purpose)
                    for name, (_, purpose) in SYSTEM_PACKAGES.items()
                ),
            ),
            Table(
                "Models and recordings",
                ("name", "state", "size"),
                tuple(
                    (name, "there" if models[name] else "not fetched", _size(asset.bytes))
                    for name, asset in registry().items()
                ),
            ),
        ),
        notes=tuple(_notes(level, packages, system)),
        details={
            "version": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": {
                "name": processor.name,
                "cores": processor.cores,
                "features": list(processor.features),
                "caches": [{"level": c.level, "kind": c.kind, "bytes": c.size} for c in processor.caches],
            },
            "memory_bytes": memory.installed(),
            "native_level": level,
            "packages": packages,
            "system_packages": system,
            "cache": str(cache),
            "cache_free_bytes": _free(cache),
            "models": {name: str(path) if path else None for name, path in models.items()},
        },
    )


def _machine(processor: cpu.Cpu, level: str | None, cache: Path) -> Iterator[tuple[str, str]]:
    installed = memory.installed()
    yield "wieldy", __version__
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    yield "processor", f"{processor.name}, {processor.cores} core{'s' if processor.cores > 1 else ''}"
    yield "instruction sets", " ".join(processor.features) or "unknown"
    caches = (f"L{c.level} {c.kind} {_size(c.size)}" for c in processor.caches if c.kind != "instruction")
    yield "caches", ", ".join(caches) or "unknown"
    yield "memory", _size(installed) if installed else "unknown"
    yield "native extension", f"there, kernels run at level {level}" if level else "not there"
    yield "cache folder", f"{cache} ({_size(_free(cache))} free)"


def _extras(packages: dict[str, dict[str, str | None]]) -> Iterator[tuple[str, str, str]]:
    for extra, versions in packages.items():
        missing = [name for name, version in versions.items() if version is None]
        state = f"missing: {', '.join(missing)}" if missing else "installed" if versions else "unknown"
        yield extra or "(base)", state, EXTRAS[extra]


def _notes(level: str | None, packages: dict[str, dict[str, str | None]], system: dict[str, bool]) -> Iterator[str]:
    if not packages[""]:
        yield "wieldy is not installed, only importable: run `pip install .` in its folder"
    if level is None:
        gains = "; ".join(f"{what}: {instead}" for what, instead in NATIVE_GAINS.items())
        yield (
            "the native extension is not there because no C++17 compiler worked when wieldy was installed. "
            f"Without it: {gains}. To get it, install g++ and run `pip install --force-reinstall --no-deps .`"
        )
    for extra, versions in packages.items():
        if None in versions.values() and extra not in ("dev", "docs"):
            what = f"wieldy[{extra}]" if extra else "wieldy"
            yield f"for {EXTRAS[extra]}: pip install '{what}'"
    if missing := [name for name, there in system.items() if not there]:
        yield f"some tests and claims use system packages: apt-get install {' '.join(missing)}"
    yield "a model or recording: wieldy models get NAME"


def _packages(extra: str) -> dict[str, str | None]:
    """Each package that an extra (the base for "") asks for itself, with its version or None."""
    try:
        requirements = metadata.requires("wieldy") or []
    except metadata.PackageNotFoundError:
        return {}
    found = {}
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        marked = re.search(r"extra\s*==\s*[\"']([\w.-]+)[\"']", requirement)
        if name and name[0] != "wieldy" and (marked[1] if marked else "") == extra:
            found[name[0]] = _version(name[0])
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _is_there(probe: str) -> bool:
    return Path(probe).exists() if Path(probe).is_absolute() else shutil.which(probe) is not None


def _free(folder: Path) -> int:
    """Free bytes on the disk that `folder` lies on, or will lie on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _size(amount: float) -> str:
    """Bytes as people read them, in powers of two as memory and caches are sold."""
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{round(amount, 1):g} {unit}"
        amount /= 1024
    return f"{round(amount, 1):g} GiB"
