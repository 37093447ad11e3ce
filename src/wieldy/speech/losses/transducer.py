"""The transducer loss: -log of the probability of a transcript, over all its alignments with the frames.

For training streaming recognisers. `transducer_loss` takes the outputs of encoder and predictor and never holds the
logits of more than a chunk of lattice nodes; `rnnt_loss` takes the logits and is a drop-in for torchaudio's. Both are
exact unless mode "pruned" is asked for. Where labels and frames are aligned already, plain cross-entropy is cheaper
(`wieldy.speech.losses.joint_ce`).

Graves 2012, Sequence transduction with recurrent neural networks, arXiv 1211.3711; the merged gradient and the packed
lattice after Jinyu Li et al. 2019, Improving RNN transducer modeling for end-to-end speech recognition, arXiv
1909.12415. With h the logits of a node, P = softmax(h), and gamma the probability that a path passes the node
(`wieldy.kernels.transducer_lattice`),

    d loss / d h_k = gamma P(k) - [k = blank] p(blank arc taken) - [k = next label] p(label arc taken).

With an emission bias b(t, u) a path counts exp(sum of b over its label arcs) times its probability, and p and gamma
are those of the biased lattice. Lattices are float64 whatever the logits are. Notation: B utterances, T frames, U
symbols, V vocabulary with blank.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wieldy.errors import InputError, UsageError
from wieldy.kernels.transducer_lattice import Emissions, Lattices
from wieldy.speech.losses.chunks import BUDGET_BYTES, NodeLosses, emissions, gradient, joint_losses
from wieldy.speech.losses.nodes import Nodes, lattice_shape
from wieldy.speech.losses.pruned import PruningConfig, SimpleJoint, simple_arcs, windows

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True, kw_only=True)
class TransducerLossConfig:
    blank: int = 0  # index of the blank symbol, [-V, V)
    mode: Literal["exact", "modified", "pruned"] = "exact"  # modified: at most one symbol per frame
    fastemit: float = 0.0  # lambda of Yu et al. 2021, arXiv 2010.11148: labels' gradient times 1 + lambda, >= 0
    budget_bytes: int = BUDGET_BYTES  # for the logits of one chunk of nodes, > 0
    reduction: Reduction = "mean"  # over utterances
    pruning: PruningConfig = field(default_factory=PruningConfig)  # of mode pruned

    def __post_init__(self) -> None:
        if self.mode not in ("exact", "modified", "pruned"):
            raise UsageError(f"transducer loss mode {self.mode!r}", hint="choose exact, modified or pruned")
        if not self.fastemit >= 0:
            raise UsageError(f"fastemit is {self.fastemit}", hint="it must not be negative")
        if self.budget_bytes < 1:
            raise UsageError(f"budget_bytes is {self.budget_bytes}", hint="it must be above 0")
        if self.reduction not in ("mean", "sum", "none"):
            raise UsageError(f"reduction {self.reduction!r}", hint="choose mean, sum or none")

    @property
    def modified(self) -> bool:
        return self.mode == "modified"


def transducer_loss(
    f: Tensor,
    g: Tensor,
    joint: nn.Module,
    targets: Tensor,
    f_lens: Tensor,
    target_lens: Tensor,
    *,
    config: TransducerLossConfig = TransducerLossConfig(),
    bias: Tensor | None = None,
    arcs: Tensor | None = None,
    simple: SimpleJoint | None = None,
) -> Tensor:
    """The loss from encoder outputs `f` [B, T, D] and predictor outputs `g` [B, U + 1, E].

    `joint(f_rows [n, D], g_rows [n, E])` gives logits [n, V]; it is called on chunks of lattice nodes, once forward and
    once more backward, and only three numbers per node are kept between the two. `targets` are integers [B, U] without
    blanks, `f_lens` and `target_lens` integers [B]; what lies beyond them is never read. Gradients reach f, g and the
    joint's parameters. Returns a number, or [B] without reduction. Raises `InputError` naming the utterance.

    `bias` [B, T, U], in nats, is added to the log-probability of emitting symbol u at frame t: latency penalties. -inf
    forbids it, and so does false in the boolean `arcs` [B, T, U]: emission within so many frames of an alignment
    (Mahadeokar et al. 2020, Alignment restricted streaming recurrent neural network transducer, arXiv 2011.03072). Both
    are constants, no gradient reaches them. A biased loss is no likelihood: log the plain one beside it.

    Mode pruned needs `simple`, whose parameters are trained by the same loss; see `wieldy.speech.losses.pruned`.
    """
    if (config.mode == "pruned") != (simple is not None):
        raise UsageError(f"mode {config.mode} with{'' if simple else 'out'} a simple joint", hint="they go together")
    nodes = Nodes.of_targets(targets, f_lens, target_lens, lattice_shape(f, g), modified=config.modified)
    nodes = nodes.biased(bias, arcs)
    if simple is None:
        return _reduced(_exact(f, g, joint, nodes, config), config.reduction)
    pruning = config.pruning
    simply, found = simple_arcs(f, g, simple, nodes, config.blank, pruning)
    lattices = nodes.forward_backward(found)
    losses: Tensor = _FromArcs.apply(simply, nodes, _node_losses(lattices, config))  # type: ignore[no-untyped-call]
    losses = pruning.simple_scale * losses
    if pruning.pruned_scale:
        inside = nodes.select(windows(nodes, lattices, pruning.s_range))
        losses = losses + pruning.pruned_scale * _exact(f, g, joint, inside, config)
    return _reduced(losses, config.reduction)


def rnnt_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = -1,
    clamp: float = -1,
    reduction: Reduction = "mean",
    fused_log_softmax: bool = True,
) -> Tensor:
    """As `torchaudio.functional.rnnt_loss`, from `logits` [B, T, U + 1, V].

    `clamp` above 0 bounds every entry of the gradient; without `fused_log_softmax`, `logits` are log-probabilities.
    """
    if logits.dim() != 4:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}", hint="they are [batch, frames, symbols + 1, vocabulary]"
        )
    config = TransducerLossConfig(blank=blank, reduction=reduction)
    nodes = Nodes.of_targets(targets, logit_lengths, target_lengths, logits.shape[:3])
    losses = _FromLogits.apply(logits, nodes, config, clamp, fused_log_softmax)  # type: ignore[no-untyped-call]
    return _reduced(losses, reduction)


def _exact(f: Tensor, g: Tensor, joint: nn.Module, nodes: Nodes, config: TransducerLossConfig) -> Tensor:
    """Over all paths through `nodes`."""
    return joint_losses(
        f,
        g,
        joint,
        nodes,
        lambda vocabulary: nodes.checked_blank(vocabulary, config.blank),
        lambda found: _node_losses(nodes.forward_backward(found, modified=config.modified), config),
        budget_bytes=config.budget_bytes,
    )


def _node_losses(lattices: Lattices, config: TransducerLossConfig) -> NodeLosses:
    return NodeLosses(-lattices.log_z, lattices.blank, lattices.label * (1 + config.fastemit))


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, nodes: Nodes, config: TransducerLossConfig, clamp: float, softmax: bool
    ) -> Tensor:
        blank = nodes.checked_blank(logits.shape[-1], config.blank)
        found = emissions(logits.detach().contiguous().flatten(0, 2), nodes.dense_rows(), nodes.label, blank)
        nodes.refuse_unless_finite(found)
        if not softmax:
            found = Emissions(found.lse, found.blank + found.lse, found.label + found.lse)
        losses = _node_losses(nodes.forward_backward(found), config)
        ctx.save_for_backward(logits)
        ctx.rest = nodes, clamp, softmax, blank, found.lse, losses
        return losses.tensor(logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (logits,) = ctx.saved_tensors
        nodes, clamp, softmax, blank, lse, losses = ctx.rest
        p, q = losses.times(upstream, nodes)
        d = torch.empty_like(logits, memory_format=torch.contiguous_format)
        for n, (t, u) in enumerate(zip(nodes.frames.tolist(), nodes.symbols.tolist(), strict=True)):
            d[n, t:], d[n, :t, u + 1 :] = 0, 0
        flat = d.flatten(0, 2)
        if softmax:
            x = logits.detach().contiguous().flatten(0, 2)
            gradient(x, nodes.dense_rows(), nodes.label, blank, lse, p, q, flat)
        else:
            flat.zero_()
            rows, labelled = torch.from_numpy(nodes.dense_rows()), nodes.label >= 0
            flat[rows, blank] = torch.from_numpy(-p).to(flat)
            flat[rows[labelled], torch.from_numpy(nodes.label[labelled])] = torch.from_numpy(-q[labelled]).to(flat)
        if clamp > 0:
            d.clamp_(-clamp, clamp)
        return d, None, None, None, None


class _FromArcs(torch.autograd.Function):
    """From the log-probabilities [2, nodes] of blank and label arcs, whose lattices have been computed."""

    @staticmethod
    def forward(ctx: Any, arcs: Tensor, nodes: Nodes, losses: NodeLosses) -> Tensor:
        ctx.rest = nodes, losses, arcs.device, arcs.dtype
        return losses.tensor(arcs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        nodes, losses, device, dtype = ctx.rest
        taken = torch.from_numpy(np.stack(losses.times(upstream, nodes)))
        return -taken.to(device=device, dtype=dtype), None, None


def _reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()
