"""Pruning for the transducer loss: a cheap lattice says where the full joint is worth computing.

For vocabularies of thousands on long utterances, where even one chunked pass of the joint over all nodes is slow. The
simple joint h = A f_t + C g_u needs no [nodes, V]: its log-sum-exp is a product of exponentials. Where it puts its
paths, each frame gets a window of `s_range` symbol positions, and the full joint is computed inside the windows only.
The loss is then at least the exact one, whose value it takes at s_range = U + 1. Below a few hundred entries of
vocabulary the exact loss is fast enough.

Kuang et al. 2022, Pruned RNN-T for fast, memory-efficient ASR training, arXiv 2206.13236. Departures: windows are those
of the largest summed occupancy among all that fit together, found by dynamic programming; the encoder-only term is not
weighted by the predictor's mean. Notation: gamma(t, u) the probability that a path passes (t, u), S = s_range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wieldy.errors import InputError, UsageError
from wieldy.kernels.transducer_lattice import Emissions, Lattices
from wieldy.speech.losses.nodes import Nodes


@dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """Defaults as in the code released with the paper. For the first part of a training set `pruned_scale` to 0, then
    raise it to 1: until the simple joint has learnt something, its windows are wrong."""

    s_range: int = 5  # symbol positions per frame, >= 2
    simple_scale: float = 0.5  # what the simple joint's loss counts, >= 0
    pruned_scale: float = 1.0  # what the full joint's loss in the windows counts, >= 0; at 0 it is not computed
    lm_only_scale: float = 0.25  # how much of the simple joint's log-probabilities is the predictor's alone, [0, 1]
    am_only_scale: float = 0.0  # likewise the encoder's; together at most 1

    def __post_init__(self) -> None:
        if self.s_range < 2:
            raise UsageError(f"s_range is {self.s_range}", hint="a window must be at least 2 wide to move on")
        for name in ("simple_scale", "pruned_scale", "lm_only_scale", "am_only_scale"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must not be negative")
        if self.lm_only_scale + self.am_only_scale > 1:
            raise UsageError(
                f"lm_only_scale {self.lm_only_scale} and am_only_scale {self.am_only_scale}",
                hint="together they are at most 1",
            )


class SimpleJoint(nn.Module):
    """h = A f_t + C g_u + b, trained beside the full joint and not needed afterwards. `forward` gives the two terms
    apart, [..., V] each, from f [..., D] and g [..., E]."""

    def __init__(self, f_size: int, g_size: int, vocabulary: int) -> None:
        super().__init__()
        self.f = nn.Linear(f_size, vocabulary)
        self.g = nn.Linear(g_size, vocabulary, bias=False)

    def forward(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        return self.f(f), self.g(g)


def simple_arcs(
    f: Tensor, g: Tensor, simple: SimpleJoint, nodes: Nodes, blank: int, config: PruningConfig
) -> tuple[Tensor, Emissions]:
    """The smoothed log-probabilities [2, nodes] of blank and label arcs, through which gradients pass; the same as
    `Emissions`. A label arc that is not there has a number in the tensor that says nothing."""
    device = f.device
    f, g = (  # what lies beyond the lengths would spoil the gradient of the parameters, even at weight 0
        torch.where(_within(lengths, x.shape[1]).to(device), x, 0)
        for x, lengths in ((f, nodes.frames), (g, nodes.symbols + 1))
    )
    am, lm = simple(f, g)
    blank = nodes.checked_blank(am.shape[-1], blank)
    with torch.autocast(device.type, enabled=False):
        am, lm = (x if x.dtype == torch.float64 else x.float() for x in (am, lm))
        highest_am, highest_lm = (x.detach().amax(-1, keepdim=True) for x in (am, lm))
        product = (am - highest_am).exp() @ (lm - highest_lm).exp().mT  # [B, T, U + 1]
        tiny = torch.finfo(product.dtype).tiny  # below it an arc is taken for less likely than it is
        lse = product.clamp(min=tiny).log() + highest_am + highest_lm.mT
        rows = torch.from_numpy(nodes.dense_rows()).to(device)
        frame, position = nodes.frame_rows().to(device), nodes.position_rows().to(device)
        label = torch.from_numpy(nodes.label).clamp(min=0).to(device)
        lse = lse.flatten()[rows]
        am_lse, lm_lse = am.logsumexp(-1).flatten()[frame], lm.logsumexp(-1).flatten()[position]
        am, lm = am.flatten(0, 1), lm.flatten(0, 1)
        am_only, lm_only = config.am_only_scale, config.lm_only_scale
        arcs = torch.stack(
            [
                (1 - am_only - lm_only) * (of_am + of_lm - lse)
                + am_only * (of_am - am_lse)
                + lm_only * (of_lm - lm_lse)
                for of_am, of_lm in (
                    (am[:, blank][frame], lm[:, blank][position]),
                    (am[frame, label], lm[position, label]),
                )
            ]
        )
    known = Emissions(*(x.detach().double().cpu().numpy() for x in (lse, *arcs)))
    return arcs, replace(known, label=np.where(nodes.label < 0, -np.inf, known.label))


def windows(nodes: Nodes, lattices: Lattices, s_range: int) -> NDArray[np.bool_]:
    """Which of all nodes lie in the windows: of `s_range` positions at each frame (all, where there are fewer), the
    first from 0, the last up to U, and each starting 0 to s_range - 1 positions after the one before.

    Their summed occupancy is the largest possible. Raises `InputError` for an utterance with more symbols than such
    windows can pass.
    """
    batch, _, positions = nodes.shape
    frames, last = nodes.frames, np.maximum(nodes.symbols + 1 - s_range, 0)  # where the last window starts
    for n in np.flatnonzero((frames - 1) * (s_range - 1) < last):
        t, u = int(frames[n]), int(nodes.symbols[n])
        raise InputError(
            f"utterance {n} has {u} symbols in {t} frames, which windows of {s_range} cannot pass",
            hint=f"s_range must be at least {-(-u // t) + 1}",
        )
    longest, starts = int(frames.max()), int(last.max()) + 1
    gamma = np.zeros((batch, longest, positions + s_range))
    gamma[nodes.utterance, nodes.frame, nodes.position] = lattices.blank + lattices.label
    sums = np.cumsum(gamma, axis=2)
    mass = sums[:, :, s_range - 1 : s_range - 1 + starts].copy()  # of the window that starts at s
    mass[:, :, 1:] -= sums[:, :, : starts - 1]
    # best[n, s]: the largest mass of windows up to this frame, the last of which starts at s.
    step = min(s_range, starts)  # so many starts one window can follow
    best = np.full((batch, step - 1 + starts), -np.inf)
    best[:, step - 1] = mass[:, 0, 0]
    steps = np.zeros((longest, batch, starts), np.int64)
    for t in range(1, longest):
        before = np.lib.stride_tricks.sliding_window_view(best, step, axis=1)[:, :, ::-1]  # [n, s, d]: from s - d
        steps[t] = before.argmax(axis=2)
        best[:, step - 1 :] = before.max(axis=2) + mass[:, t]
    start = np.zeros((batch, longest), np.int64)
    here, every = last.copy(), np.arange(batch)
    for t in reversed(range(longest)):
        start[:, t] = here
        here = here - np.where(t < frames, steps[t, every, here], 0)
    offset = nodes.position - start[nodes.utterance, nodes.frame]
    return (offset >= 0) & (offset < s_range)


def _within(lengths: NDArray[np.int64], most: int) -> Tensor:
    """[B, most, 1]: true up to the length."""
    return torch.from_numpy(np.arange(most) < lengths[:, None])[..., None]
