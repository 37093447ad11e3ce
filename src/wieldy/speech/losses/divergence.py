"""How far a transducer's answers are from those of another: keeps a model that is trained further near what it was.

Add it, weighted, to the loss on data that the model must go on doing well (`wieldy.speech.adapt`). Not for teaching a
small model what a large one knows, which wants all of the lattice: here only the nodes count that the first model's
alignments of the transcript pass.

KL-regularised adaptation after Dong Yu et al. 2013, KL-divergence regularized deep neural network adaptation for
improved large vocabulary speech recognition; over a transducer's lattice it is ours. With P_0 and gamma_0(t, u) the
first model's probabilities and how likely its alignments are to pass a node,

    D = sum over nodes with gamma_0 > c of gamma_0(t, u) sum_k P_0(k | t, u) (log P_0(k | t, u) - log P(k | t, u))

the expected divergence along an alignment, in nats. Notation: B utterances, T frames, U symbols, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wieldy.errors import UsageError
from wieldy.speech.losses.chunks import BUDGET_BYTES, joint_emissions
from wieldy.speech.losses.nodes import Nodes, lattice_shape


@dataclass(frozen=True)
class Lattice:
    """A model's lattice of a batch: encoder outputs `f` [B, T, D], predictor outputs `g` [B, U + 1, E], its joint."""

    f: Tensor
    g: Tensor
    joint: nn.Module


def lattice_divergence(
    first: Lattice,
    other: Lattice,
    targets: Tensor,
    f_lens: Tensor,
    target_lens: Tensor,
    *,
    blank: int = 0,
    floor: float = 1e-3,
    budget_bytes: int = BUDGET_BYTES,
) -> Tensor:
    """D of `other` from `first`, mean over utterances; its gradient reaches `other` alone.

    `targets` [B, U], `f_lens` [B] and `target_lens` [B] are as for `transducer_loss`. `floor`, c above, lies in [0, 1).
    Logits are held a chunk of nodes at a time.
    """
    if not 0 <= floor < 1:
        raise UsageError(f"floor is {floor}", hint="it is a probability below 1")
    shape = lattice_shape(other.f, other.g)
    nodes = Nodes.of_targets(targets, f_lens, target_lens, shape)
    found = joint_emissions(
        first.f,
        first.g,
        first.joint,
        nodes,
        lambda vocabulary: nodes.checked_blank(vocabulary, blank),
        budget_bytes=budget_bytes,
    )
    lattices = nodes.forward_backward(found)
    gamma = lattices.blank + lattices.label
    nodes, gamma = nodes.select(gamma > floor), gamma[gamma > floor]
    share = torch.from_numpy(gamma / shape[0]).to(other.f)

    def divergence(f: Tensor, g: Tensor, part: slice) -> Tensor:
        frames, positions = (rows.to(f.device) for rows in (nodes.frame_rows(part), nodes.position_rows(part)))
        with torch.no_grad():
            log_p0 = _rows(first, frames, positions)
        log_p = _rows(Lattice(f, g, other.joint), frames, positions)
        return (share[part] * (log_p0.exp() * (log_p0 - log_p)).sum(1)).sum()

    # At a time there are the first model's log-probabilities, the other's, and a product of the two.
    step = max(1, budget_bytes // (3 * _vocabulary_bytes(other)))
    parts = [slice(begin, begin + step) for begin in range(0, len(nodes), step)]
    parameters = [parameter for parameter in other.joint.parameters() if parameter.requires_grad]
    total: Tensor = _InParts.apply(divergence, parts, other.f, other.g, *parameters)  # type: ignore[no-untyped-call]
    return total


class _InParts(torch.autograd.Function):
    """A sum of parts. The gradient of each is taken while its logits are there, so they are computed once."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Callable[[Tensor, Tensor, slice], Tensor],
        parts: Sequence[slice],
        f: Tensor,
        g: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        leaves = [f.detach().requires_grad_(), g.detach().requires_grad_(), *parameters]
        total, ctx.gradients = f.new_zeros(()), [torch.zeros_like(leaf) for leaf in leaves]
        for part in parts:
            with torch.set_grad_enabled(any(ctx.needs_input_grad)):
                own = value(leaves[0], leaves[1], part)
            total += own.detach()
            if own.requires_grad:
                for summed, gradient in zip(ctx.gradients, torch.autograd.grad(own, leaves), strict=True):
                    summed += gradient
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(upstream * gradient for gradient in ctx.gradients)


def _vocabulary_bytes(lattice: Lattice) -> int:
    """Size of one node's logits."""
    with torch.no_grad():
        logits: Tensor = lattice.joint(lattice.f[:1, 0], lattice.g[:1, 0])
    return logits.numel() * logits.element_size()


def _rows(lattice: Lattice, frames: Tensor, positions: Tensor) -> Tensor:
    logits: Tensor = lattice.joint(lattice.f.flatten(0, 1)[frames], lattice.g.flatten(0, 1)[positions])
    return logits.log_softmax(-1)
