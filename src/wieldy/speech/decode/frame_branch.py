"""A small network that says of each frame which phone is spoken, from what an encoder has made of the sound.

It listens at a layer of a trained encoder without touching it, so that what is recognised stays the same to the bit.
The branch that knows phones gives words their times (`word_times`); the same network with word pieces for phones is a
CTC model.

Rui Zhao et al. 2021, On addressing practical challenges for RNN-Transducer, arXiv 2105.00858, share the encoder with a
branch of phones; convolutions for layers are ours. Notation: B utterances, T encoder frames, D features of the tapped
layer, r answers for each frame, C classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class FrameBranchConfig:
    kind: ClassVar[str] = "frame-branch"
    input_dim: int  # D, >= 1
    classes: int  # C, >= 2
    layers: int = 1  # convolutions before the linear one, >= 0
    dim: int = 256  # their width, >= 1; rnnt-practical's default
    context: int = 2  # frames that each of them sees to either side, >= 0; what is ahead, word times wait for
    per_frame: int = 1  # r, >= 1: answers for equal parts of an encoder frame

    def __post_init__(self) -> None:
        for name, least in (
            ("input_dim", 1),
            ("classes", 2),
            ("layers", 0),
            ("dim", 1),
            ("context", 0),
            ("per_frame", 1),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")

    @property
    def reach(self) -> int:
        """Frames that an answer depends on to either side."""
        return self.layers * self.context


class FrameBranch(nn.Module):
    """x [B, T, D] to logits [B, T r, C]."""

    def __init__(self, config: FrameBranchConfig) -> None:
        super().__init__()
        self.config = config
        width = 2 * config.context + 1
        sizes = [config.input_dim, *[config.dim] * config.layers]
        self.layers = nn.ModuleList(nn.Linear(width * size, config.dim) for size in sizes[:-1])
        self.classes = nn.Linear(sizes[-1], config.per_frame * config.classes)

    def forward(self, x: Tensor, lens: Tensor) -> Tensor:
        """What lies beyond `lens` [B] is never read."""
        inside = torch.arange(x.shape[1], device=x.device) < lens[:, None]
        reach = self.config.reach
        return self.within(functional.pad(x * inside[..., None], (0, 0, reach, reach)))

    def within(self, x: Tensor) -> Tensor:
        """Of frames x [B, reach + T + reach, D], the answers for those in the middle."""
        for layer in self.layers:
            # Windows as rows of one matrix: on a CPU faster than a convolution of so few channels.
            frames = x.shape[1] - 2 * self.config.context
            x = layer(torch.cat([x[:, k : k + frames] for k in range(2 * self.config.context + 1)], dim=2)).relu()
        logits: Tensor = self.classes(x)
        return logits.view(x.shape[0], x.shape[1] * self.config.per_frame, self.config.classes)


class BranchStream:
    """`FrameBranch` on one stream of frames that come piece by piece; all answers together are those of `forward`."""

    def __init__(self, branch: FrameBranch) -> None:
        self.branch = branch
        self._recent = torch.zeros(1, branch.config.reach, branch.config.input_dim)

    @torch.inference_mode()
    def push(self, x: Tensor, *, final: bool = False) -> Tensor:
        """The logits [t r, C] that the next frames x [1, t, D] complete; with `final` all there are."""
        reach = self.branch.config.reach
        whole = torch.cat([self._recent, x], dim=1)
        if final:
            whole = functional.pad(whole, (0, 0, 0, reach))
        if whole.shape[1] <= 2 * reach:
            self._recent = whole
            return x.new_zeros(0, self.branch.config.classes)
        self._recent = whole[:, whole.shape[1] - 2 * reach :]
        return self.branch.within(whole)[0]


class Tap:
    """What a module inside of `root` puts out while `root` runs, through a forward hook; a linear layer is tapped at
    what goes in. Use it in `with`.

    Outputs are tensors [B, T, D], or tuples and transformers' outputs of which that is the first.
    """

    def __init__(self, root: nn.Module, name: str) -> None:
        try:
            self._module = root.get_submodule(name)
        except AttributeError:
            raise UsageError(
                f"there is no module {name!r} to tap", hint=f"it has {', '.join(n for n, _ in root.named_children())}"
            ) from None
        self.name = name
        self._caught: list[Tensor] = []
        self._handle: Any = None

    def __enter__(self) -> Self:
        if isinstance(self._module, nn.Linear):
            self._handle = self._module.register_forward_pre_hook(lambda _, entering: self._catch(entering))
        else:
            self._handle = self._module.register_forward_hook(lambda _, __, leaving: self._catch(leaving))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    @property
    def runs(self) -> int:
        """How often the module ran since frames were last taken."""
        return len(self._caught)

    def taken(self) -> Tensor:
        """Frames [B, T, D] since the last call; several runs of a stream follow each other."""
        if not self._caught:
            raise UsageError(f"{self.name} did not run", hint="tap a module that the encoder calls")
        caught, self._caught = torch.cat(self._caught, dim=1), []
        return caught

    def _catch(self, output: Any) -> None:
        first = _first_tensor(output)
        if first is not None and first.dim() == 3:
            self._caught.append(first)


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "last_hidden_state"):
        output = (output.last_hidden_state,)
    return output[0] if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor) else None


def tap_of(network: nn.Module, encoder: str, run: Callable[[], object], frames: int) -> str | None:
    """The name of the layer two thirds of the way up the submodule `encoder` of `network`: lower layers keep time
    better, higher ones know more.

    `run()` runs `network` once with a result of `frames` frames. Chosen among the members of a list of modules that put
    out [B, frames, D]; None where fewer than two do.
    """
    lists = [
        [f"{encoder}.{name}.{i}" for i in range(len(module))]
        for name, module in network.get_submodule(encoder).named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    for names in sorted(lists, key=len, reverse=True):
        with contextlib.ExitStack() as stack:
            taps = [stack.enter_context(Tap(network, name)) for name in names]
            run()
        fitting = [tap.name for tap in taps if tap.runs and tap.taken().shape[1] == frames]
        if len(fitting) > 1:
            return fitting[round(2 / 3 * len(fitting)) - 1]
    return None
