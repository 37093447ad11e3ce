"""Run the arms of a benchmark, each time in a fresh process on the same two cores.

`python -m benchmarks.arms MODULE ARM INPUTS OUTPUT` is the process: it runs one arm once and writes its observation.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wieldy.devices import memory
from wieldy.errors import WieldyError

CHECKOUT = Path(__file__).resolve().parents[1]
CORES = 2  # what the bars were set for
RUNS = 5


@dataclass(frozen=True)
class Observation:
    """What one run of an arm took and what it produced (plain values, for the gate). `cpu_seconds` are those of its
    whole process on all cores, `peak` its largest resident set in bytes."""

    seconds: float
    output: Any = None
    cpu_seconds: float = 0.0
    peak: int = 0


def observe(module: str, arm: str, inputs: Path, python: str | Path = sys.executable) -> Observation:
    """Run `arm` of `benchmarks.<module>` on the file or folder `inputs` in a process of its own.

    Raises `WieldyError` with the last line the process wrote where it fails.
    """
    paths = [str(CHECKOUT), str(CHECKOUT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(CORES)}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "observation.json"
        command = (str(python), "-m", "benchmarks.arms", module, arm, str(inputs), str(output))
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or ["no message"]
            raise WieldyError(f"{module}: arm {arm} ended with status {ended.returncode}: {lines[-1]}")
        return Observation(**json.loads(output.read_text(encoding="utf-8")))


def take_turns(module: str, arms: Sequence[str], inputs: Path, runs: int) -> dict[str, list[Observation]]:
    """Every arm in each of `runs` rounds: A B A B ..., in the order given."""
    rounds = [{arm: observe(module, arm, inputs) for arm in arms} for _ in range(runs)]
    return {arm: [observed[arm] for observed in rounds] for arm in arms}


def main(module: str, arm: str, inputs: str, output: str) -> None:
    """The process of one run."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    observation: Observation = importlib.import_module(f"benchmarks.{module}").ARMS[arm](Path(inputs))
    cost = {"cpu_seconds": time.process_time(), "peak": memory.peak()}
    Path(output).write_text(json.dumps(asdict(observation) | cost), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
