"""The transducer loss: -log of the probability of a transcript, over all its alignments with the frames.

For training streaming recognisers. `transducer_loss` takes the outputs of encoder and predictor and never holds the
logits of more than a chunk of lattice nodes; `rnnt_loss` takes the logits and is a drop-in for torchaudio's. Both are
exact. Where labels and frames are aligned already, plain cross-entropy is cheaper.

Graves 2012, Sequence transduction with recurrent neural networks, arXiv 1211.3711; the merged gradient and the packed
lattice after Jinyu Li et al. 2019, Improving RNN transducer modeling for end-to-end speech recognition, arXiv
1909.12415. With h the logits of a node, P = softmax(h), and gamma the probability that a path passes the node
(`wieldy.kernels.transducer_lattice`),

    d loss / d h_k = gamma P(k) - [k = blank] p(blank arc taken) - [k = next label] p(label arc taken).

Lattices are float64 whatever the logits are. Notation: B utterances, T frames, U symbols, V vocabulary with blank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wieldy.errors import InputError, UsageError
from wieldy.kernels.transducer_lattice import Emissions, Lattices, fast

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True, kw_only=True)
class TransducerLossConfig:
    blank: int = 0  # index of the blank symbol, [-V, V)
    mode: Literal["exact", "modified"] = "exact"  # modified: at most one symbol per frame
    fastemit: float = 0.0  # lambda of Yu et al. 2021, arXiv 2010.11148: labels' gradient times 1 + lambda, >= 0
    budget_bytes: int = 64 * 2**20  # for the logits of one chunk of nodes, > 0
    reduction: Reduction = "mean"  # over utterances

    def __post_init__(self) -> None:
        if self.mode not in ("exact", "modified"):
            raise UsageError(f"transducer loss mode {self.mode!r}", hint="choose exact or modified")
        if not self.fastemit >= 0:
            raise UsageError(f"fastemit is {self.fastemit}", hint="it must not be negative")
        if self.budget_bytes < 1:
            raise UsageError(f"budget_bytes is {self.budget_bytes}", hint="it must be above 0")
        if self.reduction not in ("mean", "sum", "none"):
            raise UsageError(f"reduction {self.reduction!r}", hint="choose mean, sum or none")


def transducer_loss(
    f: Tensor,
    g: Tensor,
    joint: nn.Module,
    targets: Tensor,
    f_lens: Tensor,
    target_lens: Tensor,
    *,
    config: TransducerLossConfig = TransducerLossConfig(),
) -> Tensor:
    """The loss from encoder outputs `f` [B, T, D] and predictor outputs `g` [B, U + 1, E].

    `joint(f_rows [n, D], g_rows [n, E])` gives logits [n, V]; it is called on chunks of lattice nodes, once forward and
    once more backward, and only three numbers per node are kept between the two. `targets` are integers [B, U] without
    blanks, `f_lens` and `target_lens` integers [B]; what lies beyond them is never read. Gradients reach f, g and the
    joint's parameters. Returns a number, or [B] without reduction. Raises `InputError` naming the utterance.
    """
    if any(isinstance(module, nn.Dropout) and module.p and module.training for module in joint.modules()):
        raise UsageError("the joint has dropout, which would differ when it is computed again", hint="put it before")
    nodes = Nodes.of(targets, f_lens, target_lens, (f.shape[0], f.shape[1], g.shape[1]), config)
    parameters = [parameter for parameter in joint.parameters() if parameter.requires_grad]
    losses = _Chunked.apply(f, g, joint, nodes, config, *parameters)  # type: ignore[no-untyped-call]
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
    nodes = Nodes.of(targets, logit_lengths, target_lengths, tuple(logits.shape[:3]), config)
    losses = _FromLogits.apply(logits, nodes, config, clamp, fused_log_softmax)  # type: ignore[no-untyped-call]
    return _reduced(losses, reduction)


@dataclass(frozen=True)
class Nodes:
    """The nodes of all lattices of a batch, packed. int64 arrays: of each node its utterance, frame, symbol position
    and next label (-1 at u = U); `frames` and `symbols` of each utterance. `shape` is (B, T, U + 1), padding included.
    """

    utterance: NDArray[np.int64]
    frame: NDArray[np.int64]
    position: NDArray[np.int64]
    label: NDArray[np.int64]
    frames: NDArray[np.int64]
    symbols: NDArray[np.int64]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.utterance)

    @classmethod
    def of(
        cls, targets: Tensor, f_lens: Tensor, target_lens: Tensor, shape: tuple[int, ...], config: TransducerLossConfig
    ) -> Nodes:
        batch, most_frames, positions = shape
        known = targets.detach().cpu().numpy().astype(np.int64)
        frames, symbols = (lengths.detach().cpu().numpy().astype(np.int64) for lengths in (f_lens, target_lens))
        for name, lengths in (("frames", frames), ("symbols", symbols)):
            if lengths.shape != (batch,):
                raise InputError(f"{lengths.shape} numbers of {name} for {batch} utterances")
        if known.ndim != 2 or known.shape[0] != batch:
            raise InputError(f"targets have shape {known.shape}", hint=f"they are [{batch}, symbols]")
        most_symbols = min(positions - 1, known.shape[1])
        for n, (t, u) in enumerate(zip(frames.tolist(), symbols.tolist(), strict=True)):
            if not 1 <= t <= most_frames:
                raise InputError(f"utterance {n} has {t} frames", hint=f"there must be 1 to {most_frames}")
            if not 0 <= u <= most_symbols:
                raise InputError(f"utterance {n} has {u} symbols", hint=f"there is room for 0 to {most_symbols}")
            if config.mode == "modified" and u > t:
                raise InputError(f"utterance {n} has {u} symbols in {t} frames", hint="modified allows one per frame")
        counts = frames * (symbols + 1)
        utterance = np.repeat(np.arange(batch), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        frame, position = np.divmod(within, symbols[utterance] + 1)
        padded = np.concatenate([known, np.full((batch, 1), -1)], axis=1)
        label = np.where(position < symbols[utterance], padded[utterance, np.minimum(position, known.shape[1])], -1)
        return cls(utterance, frame, position, label, frames, symbols, (batch, most_frames, positions))

    def checked(self, vocabulary: int, blank: int) -> int:
        """The blank's index counted from 0; `InputError` for a label that is the blank or not in the vocabulary."""
        if not -vocabulary <= blank < vocabulary:
            raise UsageError(f"blank is {blank}", hint=f"the vocabulary has {vocabulary} entries")
        blank %= vocabulary
        inside = self.position < self.symbols[self.utterance]
        bad = inside & ((self.label < 0) | (self.label >= vocabulary) | (self.label == blank))
        if bad.any():
            i = int(bad.argmax())
            what = "is the blank" if self.label[i] == blank else f"is outside the vocabulary of {vocabulary}"
            raise InputError(f"utterance {self.utterance[i]}: symbol {self.position[i]}, {self.label[i]}, {what}")
        return blank

    def rows(self, part: slice = slice(None)) -> NDArray[np.int64]:
        """Where nodes lie in a dense [B * T * (U + 1)]."""
        _, most_frames, positions = self.shape
        return (self.utterance[part] * most_frames + self.frame[part]) * positions + self.position[part]

    def forward_backward(self, found: Emissions, config: TransducerLossConfig) -> Lattices:
        if not (finite := np.isfinite(found.lse)).all():
            i = int(finite.argmin())
            raise InputError(f"utterance {self.utterance[i]}: the logits at frame {self.frame[i]} are not finite")
        modified = config.mode == "modified"
        lattices = fast.lattices(
            found.blank, found.label, self.frames, self.symbols, modified=modified, threads=torch.get_num_threads()
        )
        if not (possible := lattices.log_z > -np.inf).all():
            raise InputError(f"utterance {int(possible.argmin())} has probability 0 by these logits")
        return lattices


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, nodes: Nodes, config: TransducerLossConfig, clamp: float, softmax: bool
    ) -> Tensor:
        blank = nodes.checked(logits.shape[-1], config.blank)
        flat = logits.detach().contiguous().flatten(0, 2)
        found = _emissions(flat, nodes.rows(), nodes.label, blank)
        if not softmax:
            found = Emissions(np.zeros_like(found.lse), found.blank + found.lse, found.label + found.lse)
        lattices = nodes.forward_backward(found, config)
        ctx.save_for_backward(logits)
        ctx.rest = nodes, config, clamp, softmax, blank, found, lattices
        return _losses(lattices, logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (logits,) = ctx.saved_tensors
        nodes, config, clamp, softmax, blank, found, lattices = ctx.rest
        occupied = _occupied(lattices, nodes, config, upstream)
        gradient = torch.zeros_like(logits, memory_format=torch.contiguous_format)
        flat = gradient.flatten(0, 2)
        if softmax:
            x = logits.detach().contiguous().flatten(0, 2)
            _gradient(x, nodes.rows(), nodes.label, blank, found.lse, *occupied, flat)
        else:
            rows = torch.from_numpy(nodes.rows())
            labelled = nodes.label >= 0
            flat[rows, blank] = torch.from_numpy(-occupied[0]).to(flat)
            labels = torch.from_numpy(nodes.label[labelled])
            flat[rows[labelled], labels] = torch.from_numpy(-occupied[1][labelled]).to(flat)
        if clamp > 0:
            gradient.clamp_(-clamp, clamp)
        return gradient, None, None, None, None


class _Chunked(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        f: Tensor,
        g: Tensor,
        joint: Callable[[Tensor, Tensor], Tensor],
        nodes: Nodes,
        config: TransducerLossConfig,
        *parameters: Tensor,
    ) -> Tensor:
        chunks: list[Emissions] = []
        step, first, blank = 1, 0, config.blank  # one node tells how large the vocabulary is
        while first < len(nodes):
            part = slice(first, first + step)
            logits = joint(*_rows_of(f, g, nodes, part)).detach().contiguous()
            if not first:
                blank = nodes.checked(logits.shape[1], config.blank)
                step = max(1, config.budget_bytes // (logits.shape[1] * logits.element_size()))
            chunks.append(_emissions(logits, np.arange(len(logits)), nodes.label[part], blank))
            first = part.stop
        found = Emissions(
            *(np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("lse", "blank", "label"))
        )
        lattices = nodes.forward_backward(found, config)
        ctx.save_for_backward(f, g, *parameters)
        ctx.rest = joint, nodes, config, blank, step, found.lse, lattices
        return _losses(lattices, f)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        f, g, *parameters = ctx.saved_tensors
        joint, nodes, config, blank, step, lse, lattices = ctx.rest
        occupied = _occupied(lattices, nodes, config, upstream)
        df, dg = torch.zeros_like(f).flatten(0, 1), torch.zeros_like(g).flatten(0, 1)
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for first in range(0, len(nodes), step):
            part = slice(first, min(first + step, len(nodes)))
            with torch.enable_grad():
                rows = [row.detach().requires_grad_() for row in _rows_of(f, g, nodes, part)]
                logits = joint(*rows)
            d = torch.empty_like(logits, memory_format=torch.contiguous_format)
            blank_here, label_here = (occupation[part] for occupation in occupied)
            rows_here, labels = np.arange(len(logits)), nodes.label[part]
            _gradient(logits.detach().contiguous(), rows_here, labels, blank, lse[part], blank_here, label_here, d)
            drows_f, drows_g, *partial = torch.autograd.grad(logits, [*rows, *parameters], d, allow_unused=True)
            for total, index, drows in (
                (df, _frame_index(nodes, part), drows_f),
                (dg, _symbol_index(nodes, part), drows_g),
            ):
                if drows is not None:
                    total.index_add_(0, index.to(total.device), drows.to(total.dtype))
            for total, own in zip(sums, partial, strict=True):
                if own is not None:
                    total += own
        return df.view_as(f), dg.view_as(g), None, None, None, *sums


def _frame_index(nodes: Nodes, part: slice) -> Tensor:
    return torch.from_numpy(nodes.utterance[part] * nodes.shape[1] + nodes.frame[part])


def _symbol_index(nodes: Nodes, part: slice) -> Tensor:
    return torch.from_numpy(nodes.utterance[part] * nodes.shape[2] + nodes.position[part])


def _rows_of(f: Tensor, g: Tensor, nodes: Nodes, part: slice) -> tuple[Tensor, Tensor]:
    return (
        f.flatten(0, 1)[_frame_index(nodes, part).to(f.device)],
        g.flatten(0, 1)[_symbol_index(nodes, part).to(g.device)],
    )


def _emissions(flat: Tensor, rows: NDArray[np.int64], labels: NDArray[np.int64], blank: int) -> Emissions:
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


def _gradient(
    flat: Tensor,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    blank: int,
    lse: NDArray[np.float64],
    occupied_blank: NDArray[np.float64],
    occupied_label: NDArray[np.float64],
    out: Tensor,
) -> None:
    """`fast.gradient` into `out`, contiguous [rows, V], of any type, on any device."""
    if flat.device.type == "cpu" and flat.dtype == torch.float32:
        arrays = lse, occupied_blank, occupied_label
        fast.gradient(flat.numpy(), rows, labels, blank, *arrays, out.numpy(), threads=torch.get_num_threads())
        return
    index = torch.from_numpy(rows).to(flat.device)
    x = flat[index]
    x = x if x.dtype == torch.float64 else x.float()
    column = {
        name: torch.from_numpy(array).to(x)
        for name, array in (("lse", lse), ("blank", occupied_blank), ("label", occupied_label))
    }
    d = (column["blank"] + column["label"])[:, None] * (x - column["lse"][:, None]).exp()
    d[:, blank] -= column["blank"]
    taken = torch.from_numpy(np.flatnonzero(labels >= 0)).to(x.device)
    d[taken, torch.from_numpy(labels[labels >= 0]).to(x.device)] -= column["label"][taken]
    out[index] = d.to(out.dtype)


def _occupied(
    lattices: Lattices, nodes: Nodes, config: TransducerLossConfig, upstream: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often the arcs of each node are taken, times what its utterance's loss is multiplied with afterwards."""
    weight = upstream.double().cpu().numpy()[nodes.utterance]
    return lattices.blank * weight, lattices.label * weight * (1 + config.fastemit)


def _losses(lattices: Lattices, like: Tensor) -> Tensor:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.from_numpy(-lattices.log_z).to(device=like.device, dtype=dtype)


def _reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()
