"""The transducer loss with its gradient against torchaudio's, from logits and from a joint; pruned against exact.

Every run is one loss and its gradient in a fresh process, after a loss of two frames has warmed it up. Memory is what
the peak of the process grew by. torchaudio has an environment of its own; it is given the logits of the same joint on
the padded lattice, which is how it is used. Both compute in float32 on the same inputs. torchaudio's lattice is float32
as well and drifts on long utterances, so gradients are compared with each other on short ones, and with those in
float64 on what is timed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.arms import CORES, Observation, observe
from benchmarks.peer_environment import python_of
from benchmarks.result import BenchmarkResult, shut
from wieldy.cache import cache_root
from wieldy.claims.result import Condition
from wieldy.devices import memory
from wieldy.report import Metric

if TYPE_CHECKING:
    from torch import Tensor, nn

SUMMARY = "transducer loss and gradient against torchaudio's: at most 0.12x its time from logits, 0.4x from a joint"
BAR = 0.12
PACKAGES = ("numpy", "torch")

MAX_MEMORY = 0.55
MAX_JOINT_TIME, MAX_JOINT_MEMORY = 0.4, 0.25
MAX_PRUNED_TIME = 0.3  # of ours, exact
MAX_DIFFERENCE = 1e-4  # of gradients, over the largest entry
SHORTEST = 0.4  # of the longest, frames and symbols alike, where lengths differ


@dataclass(frozen=True, kw_only=True)
class Case:
    """Logits, or where there is a `width` encoder and predictor outputs of that size and lengths that differ."""

    batch: int
    frames: int
    symbols: int
    vocabulary: int
    width: int = 0
    s_range: int = 5  # of the pruned loss
    keep: bool = False  # whether the arm leaves its gradients beside the case, for the gate

    def __str__(self) -> str:
        joint = f" from a joint of {self.width}, lengths 40-100 %" if self.width else " from logits"
        return f"({self.batch}, {self.frames}, {self.symbols}, {self.vocabulary}){joint}"


SHORT = Case(batch=8, frames=20, symbols=5, vocabulary=500)
SMALL = Case(batch=8, frames=200, symbols=50, vocabulary=500)
LARGE = Case(batch=4, frames=400, symbols=100, vocabulary=1000)
JOINT = Case(batch=8, frames=200, symbols=60, vocabulary=4000, width=320)


@dataclass
class Inputs:
    """`tensors` are [logits] or [f, g]; `sizes` targets, frames and symbols as torchaudio wants them; `leaves` what has
    a gradient."""

    tensors: list[Tensor]
    joint: nn.Module | None
    sizes: tuple[Tensor, Tensor, Tensor]
    leaves: list[Tensor]


def ours(folder: Path) -> Observation:
    """`rnnt_loss`, or `transducer_loss` in exact mode."""
    from wieldy.speech.losses.transducer import rnnt_loss, transducer_loss

    def loss(inputs: Inputs) -> Tensor:
        if inputs.joint is None:
            return rnnt_loss(*inputs.tensors, *inputs.sizes, blank=0)
        return transducer_loss(*inputs.tensors, inputs.joint, *inputs.sizes)

    return _observed(folder, "ours", loss)


def float64(folder: Path) -> Observation:
    """What `ours` is in float64, lattices and logits: the truth that both are compared with."""
    from wieldy.speech.losses.transducer import rnnt_loss, transducer_loss

    def loss(inputs: Inputs) -> Tensor:
        tensors = [tensor.double() for tensor in inputs.tensors]
        if inputs.joint is None:
            return rnnt_loss(*tensors, *inputs.sizes, blank=0)
        return transducer_loss(*tensors, inputs.joint.double(), *inputs.sizes)

    return _observed(folder, "float64", loss)


def torchaudio(folder: Path) -> Observation:
    """`torchaudio.functional.rnnt_loss` on all logits at once."""
    from torchaudio.functional import rnnt_loss

    def loss(inputs: Inputs) -> Tensor:
        if inputs.joint is None:
            return rnnt_loss(*inputs.tensors, *inputs.sizes, blank=0)
        f, g = inputs.tensors
        return rnnt_loss(inputs.joint(f[:, :, None], g[:, None]), *inputs.sizes, blank=0)

    return _observed(folder, "torchaudio", loss)


def pruned(folder: Path) -> Observation:
    """`transducer_loss` in pruned mode with its defaults; for the gate, of the windows alone."""
    from wieldy.speech.losses.pruned import PruningConfig, SimpleJoint
    from wieldy.speech.losses.transducer import TransducerLossConfig, transducer_loss

    case = _case(folder)
    simple = SimpleJoint(case.width, case.width, case.vocabulary)
    pruning = PruningConfig(s_range=case.s_range)
    if case.keep:
        pruning = dataclasses.replace(pruning, simple_scale=0.0)
    config = TransducerLossConfig(mode="pruned", pruning=pruning)

    def loss(inputs: Inputs) -> Tensor:
        assert inputs.joint is not None
        return transducer_loss(*inputs.tensors, inputs.joint, *inputs.sizes, config=config, simple=simple)

    return _observed(folder, "pruned", loss)


ARMS = {"ours": ours, "float64": float64, "torchaudio": torchaudio, "pruned": pruned}


def run(runs: int) -> BenchmarkResult:
    """Gate on gradients, then `runs` rounds of all arms."""
    python_of("torchaudio")
    bar = Condition(f"time over torchaudio's, {SMALL}", None, "<=", BAR, "not measured yet")
    gates, notes = [], []
    for case in (SHORT, SMALL, LARGE, JOINT):
        reference = "torchaudio" if case is SHORT else "float64"
        ours, theirs = _differences(case, ("ours", "torchaudio"), reference)
        gates.append(Condition(f"gradients against {reference}'s, {case}", ours, "<=", MAX_DIFFERENCE))
        if case is not SHORT:
            notes.append(f"torchaudio's gradients are {theirs:.1e} off those in float64, {case}")
    whole = dataclasses.replace(JOINT, s_range=JOINT.symbols + 1)
    (apart,) = _differences(whole, ("pruned",), "ours")
    gates.append(Condition("gradients pruned to windows of U + 1 against exact ones", apart, "<=", MAX_DIFFERENCE))
    data = ("normal logits, encoder and predictor outputs and weights; even targets; all from one seed",)
    if any(gate.verdict != "holds" for gate in gates):
        return shut("rnnt_loss", SUMMARY, bar, gates, data=data, notes=tuple(notes))
    turns = [(case, arm) for case in (SMALL, LARGE, JOINT) for arm in ("ours", "torchaudio")] + [(JOINT, "pruned")]
    rounds = [{(case, arm): _measured(case, arm) for case, arm in turns} for _ in range(runs)]
    seconds, extra = {}, {}
    for case, arm in turns:
        seen = [observed[case, arm] for observed in rounds]
        seconds[case, arm] = Metric(f"{arm}, {case}", tuple(o.seconds for o in seen), "s")
        extra[case, arm] = Metric(f"memory, {arm}, {case}", tuple(o.output["extra"] / 2**20 for o in seen), "MiB")

    def condition(what: str, of: dict[tuple[Case, str], Metric], case: Case, threshold: float) -> Condition:
        ratio = of[case, "ours"].median / of[case, "torchaudio"].median
        return Condition(f"{what} over torchaudio's, {case}", ratio, "<=", threshold)

    pruned_ratio = seconds[JOINT, "pruned"].median / seconds[JOINT, "ours"].median
    return BenchmarkResult(
        name="rnnt_loss",
        summary=SUMMARY,
        bar=condition("time", seconds, SMALL, BAR),
        gates=tuple(gates),
        further=(
            condition("memory", extra, SMALL, MAX_MEMORY),
            condition("time", seconds, LARGE, BAR),
            condition("memory", extra, LARGE, MAX_MEMORY),
            condition("time", seconds, JOINT, MAX_JOINT_TIME),
            condition("memory", extra, JOINT, MAX_JOINT_MEMORY),
            Condition(f"time pruned over exact, {JOINT}", pruned_ratio, "<=", MAX_PRUNED_TIME),
        ),
        ours=seconds[SMALL, "ours"],
        peer=seconds[SMALL, "torchaudio"],
        beside=(*(seconds[turn] for turn in turns[2:]), *extra.values()),
        data=data,
        notes=(*notes, *(f"{arm}: {rounds[0][JOINT, arm].output['versions']}" for _, arm in turns[4:])),
    )


def _measured(case: Case, arm: str, keep: Path | None = None) -> Observation:
    """One run of an arm; its gradients go to the folder `keep`."""
    with tempfile.TemporaryDirectory(dir=cache_root()) as scratch:
        inputs = keep or Path(scratch)
        (inputs / "case.json").write_text(json.dumps(dataclasses.asdict(case)), encoding="utf-8")
        return observe("rnnt_loss", arm, inputs, python_of("torchaudio") if arm == "torchaudio" else sys.executable)


def _differences(case: Case, arms: Sequence[str], reference: str) -> list[float]:
    """How far the gradients of each arm are from those of another, over the largest entry of each tensor's."""
    import numpy as np

    with tempfile.TemporaryDirectory(dir=cache_root()) as folder:
        kept = Path(folder)
        for arm in {*arms, reference}:
            _measured(dataclasses.replace(case, keep=True), arm, kept)
        found = []
        for arm in arms:
            pairs = [
                (np.load(kept / path.name.replace(reference, arm, 1)), np.load(path))
                for path in sorted(kept.glob(f"{reference}-*.npy"))
            ]
            found.append(max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs))
        return found


def _observed(folder: Path, arm: str, loss: Callable[[Inputs], Tensor]) -> Observation:
    """`loss` and its gradient once; the output has the bytes that the peak grew by."""
    import numpy as np
    import torch

    case = _case(folder)
    inputs = _inputs(case)
    loss(_inputs(dataclasses.replace(case, batch=1, frames=2, symbols=1))).backward()
    before, started = memory.peak(), time.perf_counter()
    loss(inputs).backward()
    seconds, extra = time.perf_counter() - started, memory.peak() - before
    if case.keep:
        for i, tensor in enumerate(inputs.leaves):
            np.save(folder / f"{arm}-{i}.npy", tensor.grad.numpy())
    return Observation(seconds, {"extra": extra, "versions": f"torch {torch.__version__}, float32"})


def _case(folder: Path) -> Case:
    return Case(**json.loads((folder / "case.json").read_text(encoding="utf-8")))


def _inputs(case: Case) -> Inputs:
    import numpy as np
    import torch

    torch.set_num_threads(CORES)
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, np.float32)).requires_grad_()

    shares = np.linspace(1, SHORTEST, case.batch) if case.width else np.ones(case.batch)
    frames, symbols = (
        torch.from_numpy((most * shares).round().astype(np.int32)) for most in (case.frames, case.symbols)
    )
    targets = torch.from_numpy(rng.integers(1, case.vocabulary, (case.batch, case.symbols), np.int32))
    if not case.width:
        logits = normal(case.batch, case.frames, case.symbols + 1, case.vocabulary)
        return Inputs([logits], None, (targets, frames, symbols), [logits])
    f, g = normal(case.batch, case.frames, case.width), normal(case.batch, case.symbols + 1, case.width)
    joint = _joint(case)
    with torch.no_grad():
        for parameter in joint.parameters():
            parameter.copy_(normal(*parameter.shape) / case.width**0.5)
    return Inputs([f, g], joint, (targets, frames, symbols), [f, g, *joint.parameters()])


def _joint(case: Case) -> nn.Module:
    """W tanh(f + g) + b."""
    import torch
    from torch import nn

    class Joint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(case.width, case.vocabulary)

        def forward(self, f: Tensor, g: Tensor) -> Tensor:
            logits: Tensor = self.output(torch.tanh(f + g))
            return logits

    return Joint()
