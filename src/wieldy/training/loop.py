"""One training loop: interruptible, resumable to the same losses, watched for divergence.

For anything of wieldy's that is trained from batches. Whoever has a loop of their own keeps it: the methods do not
need this one. Several processes (`python -m torch.distributed.run`), a GPU and bfloat16 are `accelerate`'s doing.

A resumed run is the same run: the batches of an epoch follow from its number, the random numbers of a step from the
seed and the step, and weights, moments and losses lie in `last.safetensors`, which is replaced whole.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from wieldy.cache import digest
from wieldy.errors import InputError, UsageError
from wieldy.training import checkpoint
from wieldy.training.schedules import Schedule
from wieldy.weights.tensors import load_safetensors

LAST, BEST = "last.safetensors", "best.safetensors"


class Data(Protocol):
    """Batches by epoch. The same number gives the same batches; a batch is made when it is asked for."""

    def epoch(self, number: int) -> Sequence[Any]: ...


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int = 2000  # optimiser steps, >= 1
    schedule: Schedule = field(default_factory=Schedule)
    betas: tuple[float, float] = (0.9, 0.98)  # Adam's; the second lower than its default, as for Transformers
    weight_decay: float = 0.0  # AdamW's, >= 0
    clip: float = 5.0  # gradient norm above which the gradient is scaled down, > 0
    validate_every: int = 0  # steps from one validation to the next; 0: only at the end
    save_every: int = 100  # steps from one checkpoint to the next, >= 1
    precision: Literal["no", "bf16", "fp16"] = "no"  # mixed precision, as `accelerate` names it
    cpu: bool = False  # stay on the CPU where there is a GPU
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("save_every", 1), ("validate_every", 0), ("weight_decay", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")
        if not self.clip > 0:
            raise UsageError(f"clip is {self.clip}", hint="it must be above 0")


@dataclass
class Trained:
    """How a run went: the loss of each step, the figures of each validation by its step, and the step at which a run
    that diverged was ended."""

    losses: list[float] = field(default_factory=list)
    validations: dict[int, dict[str, float]] = field(default_factory=dict)
    diverged_at: int | None = None

    @property
    def best_step(self) -> int | None:
        """The validated step with the lowest first figure."""
        return min(self.validations, key=lambda step: next(iter(self.validations[step].values())), default=None)


def train(
    model: nn.Module,
    data: Data,
    loss: Callable[[nn.Module, Any], Tensor],
    config: TrainConfig = TrainConfig(),
    *,
    folder: Path | None = None,
    resume: bool = False,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trained:
    """Train `model` in place by `loss(model, batch)`, the mean over the items of a batch.

    With `folder`, its `last.safetensors` is replaced every `save_every` steps, and `resume` goes on from there;
    `best.safetensors` holds the weights of the best validation (lowest first figure), which the model ends with.
    `progress(step, loss)` is called after each step. A run whose loss is not finite, or stays above three times its
    median for fifty steps, ends there: that is a result (`diverged_at`), not an error. Frozen parameters stay as they
    are. Raises `InputError` where there are no batches or the checkpoint is of a run with other settings.
    """
    if folder is None and (resume or config.validate_every):
        raise UsageError("resuming and keeping the best weights need a folder")
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise UsageError("every parameter of the model is frozen, so nothing would be trained")
    accelerator = Accelerator(cpu=config.cpu, mixed_precision=config.precision)
    optimizer = torch.optim.AdamW(
        trained.values(), lr=config.schedule.peak, betas=config.betas, eps=1e-9, weight_decay=config.weight_decay
    )
    identity = digest(config, [[name, list(parameter.shape)] for name, parameter in trained.items()])
    last, best = (folder / name if folder else None for name in (LAST, BEST))
    run = _resumed(last, model, optimizer, identity) if resume and last and last.is_file() else Trained()
    objective, stepper = accelerator.prepare(_Objective(model, loss), optimizer)
    done = config.steps if run.diverged_at else len(run.losses)
    batches = _Batches(data, accelerator.process_index, accelerator.num_processes, done, config.steps)
    for step, batch in enumerate(batches, done + 1):
        # One stream of random numbers per step and process: what a resumed step draws does not depend on the past.
        torch.manual_seed(_seed(config.seed, step, accelerator.process_index))
        for group in optimizer.param_groups:
            group["lr"] = config.schedule.rate(step, config.steps)
        model.train()
        value = objective(batch)
        accelerator.backward(value)
        accelerator.clip_grad_norm_(trained.values(), config.clip)
        run.losses.append(float(accelerator.reduce(value.detach(), "mean")))
        if diverged(run.losses):
            run.diverged_at = step
        else:
            stepper.step()
        stepper.zero_grad()
        if progress:
            progress(step, run.losses[-1])
        ended = step == config.steps or run.diverged_at is not None
        if validate and (ended or (config.validate_every and step % config.validate_every == 0)):
            model.eval()
            run.validations[step] = validate(model)
            if best and accelerator.is_main_process and run.best_step == step:
                checkpoint.save_weights(best, model)
        if last and accelerator.is_main_process and (ended or step % config.save_every == 0):
            checkpoint.save(last, model, optimizer, {"identity": identity, **asdict(run)})
        if run.diverged_at:
            break
    accelerator.wait_for_everyone()
    if best and run.best_step:
        checkpoint.restore(model, load_safetensors(best), best)
    model.eval()
    return run


def diverged(losses: Sequence[float], factor: float = 3.0, patience: int = 50, window: int = 500) -> bool:
    """Whether the last loss is not finite, or the last `patience` all exceed `factor` times the median of up to
    `window` before them."""
    if not math.isfinite(losses[-1]):
        return True
    before = losses[-patience - window : -patience]
    return bool(before) and min(losses[-patience:]) > factor * statistics.median(before)


class _Objective(nn.Module):
    """The loss as the output of a module, so that gradients are averaged over processes whatever it calls."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.model, batch)


class _Batches:
    """The batches of all epochs in a row, as one of several processes sees them: every epoch is cut into groups of
    one batch per process, and what is left over is not used. While a step is computed, its thread makes the next."""

    def __init__(self, data: Data, process: int, processes: int, first: int, steps: int) -> None:
        self.data, self.process, self.processes = data, process, processes
        self.number = -1
        self.first = self.after = 0  # the steps of the epoch that is loaded
        self.steps = range(first, steps)

    def __iter__(self) -> Iterator[Any]:
        with ThreadPoolExecutor(1) as thread:
            ahead: deque[Future[Any]] = deque()
            for step in self.steps:
                ahead.append(thread.submit(self.batch, step))
                if len(ahead) > 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def batch(self, step: int) -> Any:
        while step >= self.after:
            self.number += 1
            self.epoch = self.data.epoch(self.number)
            groups = len(self.epoch) // self.processes
            if not groups:
                raise InputError(
                    f"epoch {self.number} has {len(self.epoch)} batches for {self.processes} processes",
                    hint="give more recordings or use fewer processes",
                )
            self.first, self.after = self.after, self.after + groups
        return self.epoch[(step - self.first) * self.processes + self.process]


def _resumed(last: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> Trained:
    state = checkpoint.load(last, model, optimizer)
    if state["identity"] != identity:
        raise InputError(f"{last} was written by a run with other settings", hint="train into another folder")
    validations = {int(step): figures for step, figures in state["validations"].items()}
    return Trained(state["losses"], validations, state["diverged_at"])


def _seed(seed: int, step: int, process: int) -> int:
    return int(digest("training step", seed, step, process)[:15], 16)
