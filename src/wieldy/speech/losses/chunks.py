"""Losses of a joint network's logits that never hold more than a chunk of them.

The joint runs on chunks of nodes, once forward and, for the gradient, once more: between the two only three numbers per
node are kept. Any loss will do whose gradient by a node's logits h is, with non-negative weights p and q of the node,

    d loss / d h_k = (p + q) softmax(h)_k - p [k = blank] - q [k = label]

which the transducer loss (p, q: how often its arcs are taken; Jinyu Li et al. 2019, arXiv 1909.12415) and weighted
cross-entropy (p = 0) are. Time: one more forward pass of the joint than with all logits held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from wieldy.errors import UsageError
from wieldy.kernels.transducer_lattice import Emissions, fast
from wieldy.speech.losses.nodes import Nodes

BUDGET_BYTES = 64 * 2**20


@dataclass(frozen=True)
class NodeLosses:
    """`loss` float64 [B], and of each node the weights p (`blank`) and q (`label`), float64 [nodes]."""

    loss: NDArray[np.float64]
    blank: NDArray[np.float64]
    label: NDArray[np.float64]

    def tensor(self, like: Tensor) -> Tensor:
        """The losses, in float64 if `like` is, else in float32."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return torch.from_numpy(self.loss).to(device=like.device, dtype=dtype)

    def times(self, upstream: Tensor, nodes: Nodes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """p and q, times what the loss of the node's utterance was multiplied with."""
        weight = upstream.double().cpu().numpy()[nodes.utterance]
        return self.blank * weight, self.label * weight


def joint_losses(
    f: Tensor,
    g: Tensor,
    joint: nn.Module,
    nodes: Nodes,
    checked_blank: Callable[[int], int],
    losses_of: Callable[[Emissions], NodeLosses],
    *,
    budget_bytes: int,
) -> Tensor:
    """Losses [B] from `f` [B, T, D], `g` [B, U + 1, E] and `joint(f_rows [n, D], g_rows [n, E])` -> logits [n, V].

    `checked_blank` takes V and gives the blank's index, `losses_of` takes what the logits come to. Gradients reach f, g
    and the joint's parameters.
    """
    if budget_bytes < 1:
        raise UsageError(f"budget_bytes is {budget_bytes}", hint="it must be above 0")
    if any(isinstance(module, nn.Dropout) and module.p and module.training for module in joint.modules()):
        raise UsageError("the joint has dropout, which would differ when it is computed again", hint="put it before")
    chunks = _Chunks(joint, nodes, budget_bytes, f.device.type)
    losses: Tensor = _ThroughJoint.apply(f, g, chunks, checked_blank, losses_of, *chunks.parameters)  # type: ignore[no-untyped-call]
    return losses


def joint_emissions(
    f: Tensor,
    g: Tensor,
    joint: nn.Module,
    nodes: Nodes,
    checked_blank: Callable[[int], int],
    *,
    budget_bytes: int = BUDGET_BYTES,
) -> Emissions:
    """What the logits of `nodes` come to, without a gradient. Arguments are those of `joint_losses`."""
    with torch.no_grad():
        return _Chunks(joint, nodes, budget_bytes, f.device.type).emissions(f, g, checked_blank)


class _Chunks:
    """The joint on chunks of `nodes`, in the precision that autocast asks for where this is made."""

    def __init__(self, joint: nn.Module, nodes: Nodes, budget_bytes: int, device: str) -> None:
        self.joint, self.nodes, self.budget_bytes = joint, nodes, budget_bytes
        self.parameters = [parameter for parameter in joint.parameters() if parameter.requires_grad]
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        self._precision = torch.autocast(device, dtype=dtype, enabled=enabled)

    def emissions(self, f: Tensor, g: Tensor, checked_blank: Callable[[int], int]) -> Emissions:
        found: list[Emissions] = []
        flat = f.flatten(0, 1), g.flatten(0, 1)
        self.step, first = 1, 0  # one node tells how large the vocabulary is
        while first < len(self.nodes):
            part = slice(first, first + self.step)
            logits = self._logits(self._rows(flat, part)).detach().contiguous()
            if not first:
                self.blank = checked_blank(logits.shape[1])
                self.step = max(1, self.budget_bytes // (logits.shape[1] * logits.element_size()))
            found.append(emissions(logits, np.arange(len(logits)), self.nodes.label[part], self.blank))
            first = part.stop
        columns = ([getattr(chunk, name) for chunk in found] for name in ("lse", "blank", "label"))
        return Emissions(*map(np.concatenate, columns))

    def gradients(
        self, f: Tensor, g: Tensor, lse: NDArray[np.float64], p: NDArray[np.float64], q: NDArray[np.float64]
    ) -> tuple[Tensor, ...]:
        """By f, g and every parameter."""
        flat = f.flatten(0, 1), g.flatten(0, 1)
        df, dg = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in flat)
        sums = [torch.zeros_like(parameter) for parameter in self.parameters]
        d = torch.empty(0)
        for first in range(0, len(self.nodes), self.step):
            part = slice(first, first + self.step)
            rows = self._rows(flat, part)
            with torch.enable_grad():
                logits = self._logits(rows)
            x, every = logits.detach().contiguous(), np.arange(len(logits))
            if not first:
                d = torch.empty_like(x)  # fresh memory for each chunk would cost more than what is written there
            gradient(x, every, self.nodes.label[part], self.blank, lse[part], p[part], q[part], d[: len(x)])
            leaves = [*(row.tensor for row in rows), *self.parameters]
            found = torch.autograd.grad(logits, leaves, d[: len(x)], allow_unused=True)
            totals = [total[row.span] for total, row in zip((df, dg), rows, strict=True)] + sums
            for total, own in zip(totals, found, strict=True):
                if own is not None:
                    total += own
        return df.view_as(f), dg.view_as(g), *sums

    def _logits(self, rows: Sequence[_Rows]) -> Tensor:
        with self._precision:
            # An embedding is a choice of rows whose gradient is added up faster than by an index.
            logits: Tensor = self.joint(*(functional.embedding(row.index, row.tensor) for row in rows))
            return logits

    def _rows(self, flat: tuple[Tensor, Tensor], part: slice) -> tuple[_Rows, _Rows]:
        return _Rows.of(flat[0], self.nodes.frame_rows(part)), _Rows.of(flat[1], self.nodes.position_rows(part))


@dataclass(frozen=True)
class _Rows:
    """What a chunk needs of f or g [rows, size]: the span from the first to the last row, as a leaf of its own, and
    which row of that each node has."""

    span: slice
    tensor: Tensor
    index: Tensor

    @classmethod
    def of(cls, x: Tensor, index: Tensor) -> _Rows:
        first, last = int(index.min()), int(index.max())
        span = slice(first, last + 1)
        return cls(span, x[span].detach().requires_grad_(), (index - first).to(x.device))


class _ThroughJoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        f: Tensor,
        g: Tensor,
        chunks: _Chunks,
        checked_blank: Callable[[int], int],
        losses_of: Callable[[Emissions], NodeLosses],
        *parameters: Tensor,
    ) -> Tensor:
        found = chunks.emissions(f, g, checked_blank)
        losses = losses_of(found)
        ctx.save_for_backward(f, g, *parameters)
        ctx.rest = chunks, found.lse, losses
        return losses.tensor(f)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        f, g, *_ = ctx.saved_tensors
        chunks, lse, losses = ctx.rest
        df, dg, *parameters = chunks.gradients(f, g, lse, *losses.times(upstream, chunks.nodes))
        return df, dg, None, None, None, *parameters


def emissions(flat: Tensor, rows: NDArray[np.int64], labels: NDArray[np.int64], blank: int) -> Emissions:
    """`fast.emissions` of a detached, contiguous [rows, V] of any type, on any device."""
    if flat.device.type == "cpu" and flat.dtype == torch.float32:
        return fast.emissions(flat.numpy(), rows, labels, blank, threads=torch.get_num_threads())
    x = flat[torch.from_numpy(rows).to(flat.device)]
    x = x if x.dtype == torch.float64 else x.float()
    lse = x.logsumexp(dim=1)
    index = torch.from_numpy(labels).clamp(min=0).to(x.device)
    label = (x.gather(1, index[:, None])[:, 0] - lse).double().cpu().numpy()
    return Emissions(
        lse.double().cpu().numpy(),
        (x[:, blank] - lse).double().cpu().numpy(),
        np.where(labels < 0, -np.inf, label),
    )


def gradient(
    flat: Tensor,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    blank: int,
    lse: NDArray[np.float64],
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    out: Tensor,
) -> None:
    """`fast.gradient` into `out`, contiguous [rows, V], of any type, on any device."""
    if flat.device.type == "cpu" and flat.dtype == torch.float32:
        fast.gradient(flat.numpy(), rows, labels, blank, lse, p, q, out.numpy(), threads=torch.get_num_threads())
        return
    index = torch.from_numpy(rows).to(flat.device)
    x = flat[index]
    x = x if x.dtype == torch.float64 else x.float()
    column = {name: torch.from_numpy(array).to(x) for name, array in (("lse", lse), ("p", p), ("q", q))}
    d = (column["p"] + column["q"])[:, None] * (x - column["lse"][:, None]).exp()
    d[:, blank] -= column["p"]
    taken = torch.from_numpy(np.flatnonzero(labels >= 0)).to(x.device)
    d[taken, torch.from_numpy(labels[labels >= 0]).to(x.device)] -= column["q"][taken]
    out[index] = d.to(out.dtype)
