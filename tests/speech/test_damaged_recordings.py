"""Two thousand damaged recordings end in audio or in one clear line, fifty of them as transcripts; a decoder's crash or
hang would end a child."""

import subprocess
import sys
from pathlib import Path

import mutate
import pytest

import wieldy
from wieldy.cache import cache_root

PROGRAM = Path(mutate.__file__)
PIPELINE = PROGRAM.with_name("transcribe_mutated.py")
SECONDS_TO_START = 60  # of imports on a busy machine


def read_in_a_child(first: int, last: int, folder: Path, program: Path = PROGRAM) -> subprocess.CompletedProcess[str]:
    """Read the recordings of these seeds; where the child dies or hangs, name the seed it was at."""
    source = str(Path(wieldy.__file__).parents[1])
    try:
        result = subprocess.run(
            [sys.executable, "-W", "error", program, str(first), str(last), folder],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": source, "PATH": "", "OMP_NUM_THREADS": "1"},
            timeout=SECONDS_TO_START + (last - first) * mutate.SECONDS_PER_FILE / 10,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"seed {seed_in_flight(folder)} hangs")
    if result.returncode:
        pytest.fail(f"seed {seed_in_flight(folder)}: exit status {result.returncode}\n{result.stderr[-3000:]}")
    return result


def seed_in_flight(folder: Path) -> str:
    lines = (folder / "in-flight").read_text().split()
    return lines[-1] if lines else "none"


def check(first: int, last: int, folder: Path) -> None:
    result = read_in_a_child(first, last, folder)
    assert result.stderr == "", "a decoder wrote to standard error"
    audio, refused = (int(part.split()[0]) for part in result.stdout.split(","))
    assert audio + refused == last - first
    assert min(audio, refused) > (last - first) // 4, "the damage is too mild or too heavy to test anything"
    left_over = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert left_over == ["in-flight"]


def test_two_hundred(tmp_path):
    check(0, 200, tmp_path)


@pytest.mark.slow
def test_two_thousand(tmp_path):
    check(200, 2000, tmp_path)


@pytest.mark.slow
def test_fifty_through_the_whole_pipeline(tmp_path, whisper_tiny, conversation):
    """Each ends in whole files or in none and one line; the program checks that."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to(cache_root() / "models")
    result = read_in_a_child(0, 50, tmp_path, PIPELINE)
    transcribed, refused, other_language, words = (int(part.split()[0]) for part in result.stdout.split(","))
    assert transcribed + refused + other_language == 50
    assert min(transcribed, refused) > 10
    assert words > 5 * transcribed, "what is left of the speech is understood"
    left_over = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left_over == ["in-flight"]


def test_a_seed_always_makes_the_same_file():
    assert mutate.mutated(7) == mutate.mutated(7)
    assert mutate.mutated(7) != mutate.mutated(8)


@pytest.mark.parametrize("fault", ["raise MemoryError", "import os; os.abort()", "import time; time.sleep(99)"])
def test_a_fault_names_its_seed(tmp_path, fault):
    """The watch itself works: a traceback, a crash and a hang are found and named."""
    program = tmp_path / "sabotaged.py"
    program.write_text(f"""
import pathlib, sys
sys.path.insert(0, {str(PROGRAM.parent)!r})
import mutate
mutate.SECONDS_PER_FILE = 1
mutate.mutated = lambda seed: exec({fault!r})
mutate.read_all(3, 5, pathlib.Path(sys.argv[3]))
""")
    with pytest.raises(pytest.fail.Exception, match="seed 3: exit status"):
        read_in_a_child(3, 5, tmp_path, program)
