"""The processor as the extension sees it against the processor as the Linux kernel describes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wieldy import errors
from wieldy.devices import cpu

pytestmark = pytest.mark.skipif(cpu.native is None, reason="the native extension is not installed")

# What each level promises a kernel, written down a second time on purpose.
PROMISES = {
    "portable": set(),
    "avx2": {"avx2", "fma", "f16c"},
    "avx512": {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512_vnni": {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
}


@pytest.fixture
def on_one_core():
    """Cores of one processor may differ, so both views are taken from the same one."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def test_extension_and_linux_agree(on_one_core):
    assert cpu.describe() == cpu.describe_naive()


def test_levels_are_those_whose_promise_the_features_keep():
    there = set(cpu.describe_naive().features)
    assert list(cpu.levels()) == [level for level, needs in PROMISES.items() if needs <= there]
    assert cpu.level() == cpu.levels()[-1]


def test_forced_level_nests_and_ends():
    highest = cpu.level()
    with cpu.forced_level("portable"):
        assert cpu.level() == "portable"
        with cpu.forced_level(highest):
            assert cpu.level() == highest
        assert cpu.level() == "portable"
    assert cpu.level() == highest


def test_unknown_level_is_refused_by_name():
    with pytest.raises(errors.UsageError, match=r"level 'mmx' is not available: levels on this machine: portable"):
        with cpu.forced_level("mmx"):
            pass


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_naive_reads_a_recorded_machine(tmp_path):
    core = min(os.sched_getaffinity(0))
    cpuinfo = "processor\t: 0\nmodel name\t: Toy 9000\nflags\t\t: fpu avx2 sse4_2 madeup\n"
    write(tmp_path / "proc/cpuinfo", cpuinfo)
    for index, (level, kind, size) in enumerate([("1", "Data", "48K"), ("3", "Unified", "2M"), ("2", "Unified", "")]):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cache/index{index}"
        write(folder / "level", level + "\n")
        write(folder / "type", kind + "\n")
        write(folder / "size", size + "\n")
    seen = cpu.describe_naive(tmp_path)
    assert seen.name == "Toy 9000"
    assert seen.features == ("sse4_2", "avx2")
    assert seen.caches == (cpu.CacheMemory(1, "data", 48 << 10), cpu.CacheMemory(3, "unified", 2 << 20))


def test_naive_knows_nothing_of_a_machine_without_proc(tmp_path):
    seen = cpu.describe_naive(tmp_path)
    assert (seen.features, seen.caches) == ((), ())
    assert seen.cores >= 1


def test_without_the_extension_the_naive_answer_serves():
    code = (
        "import sys; sys.modules['wieldy._native'] = None\n"
        "from wieldy.devices import cpu\n"
        "assert cpu.describe() == cpu.describe_naive()\n"
        "assert (cpu.levels(), cpu.level()) == ((), None)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
