"""The nodes of a batch's lattices, packed: what is known of each without any logits.

Utterances of different length lie one after the other without padding, as in `wieldy.kernels.transducer_lattice`; a
selection of nodes leaves out the others and every path through them. Notation: B utterances, T frames, U symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wieldy.errors import InputError, UsageError
from wieldy.kernels.transducer_lattice import Emissions, Lattices, fast


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """`frames` and `symbols` int64 [B]; `shape` is (B, T, U + 1), padding included. Of each node: its utterance, frame
    and symbol position; the class that its label arc stands for (-1 where there is no such arc) and what is added to
    that arc's log-probability; its place among all nodes of all lattices."""

    frames: NDArray[np.int64]
    symbols: NDArray[np.int64]
    shape: tuple[int, int, int]
    utterance: NDArray[np.int64]
    frame: NDArray[np.int64]
    position: NDArray[np.int64]
    label: NDArray[np.int64]
    bias: NDArray[np.float64]
    place: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.utterance)

    @classmethod
    def of_lengths(cls, f_lens: Tensor, target_lens: Tensor, shape: Sequence[int]) -> Nodes:
        """All nodes, without labels."""
        batch, most_frames, positions = shape
        frames, symbols = (lengths.detach().cpu().numpy().astype(np.int64) for lengths in (f_lens, target_lens))
        for name, lengths in (("frames", frames), ("symbols", symbols)):
            if lengths.shape != (batch,):
                raise InputError(f"{lengths.shape} numbers of {name} for {batch} utterances")
        for n, (t, u) in enumerate(zip(frames.tolist(), symbols.tolist(), strict=True)):
            if not 1 <= t <= most_frames:
                raise InputError(f"utterance {n} has {t} frames", hint=f"there must be 1 to {most_frames}")
            if not 0 <= u < positions:
                raise InputError(f"utterance {n} has {u} symbols", hint=f"there is room for 0 to {positions - 1}")
        counts = frames * (symbols + 1)
        place = np.arange(counts.sum())
        utterance = np.repeat(np.arange(batch), counts)
        frame, position = np.divmod(place - np.repeat(np.cumsum(counts) - counts, counts), symbols[utterance] + 1)
        return cls(
            frames=frames,
            symbols=symbols,
            shape=(batch, most_frames, positions),
            utterance=utterance,
            frame=frame,
            position=position,
            label=np.full(len(place), -1),
            bias=np.zeros(len(place)),
            place=place,
        )

    @classmethod
    def of_targets(
        cls, targets: Tensor, f_lens: Tensor, target_lens: Tensor, shape: Sequence[int], *, modified: bool = False
    ) -> Nodes:
        """All nodes; the label arc at position u stands for symbol u of `targets` [B, U]."""
        batch, most_frames, positions = shape
        known = targets.detach().cpu().numpy().astype(np.int64)
        if known.ndim != 2 or known.shape[0] != batch:
            raise InputError(f"targets have shape {known.shape}", hint=f"they are [{batch}, symbols]")
        nodes = cls.of_lengths(f_lens, target_lens, (batch, most_frames, min(positions, known.shape[1] + 1)))
        for n, (t, u) in enumerate(zip(nodes.frames.tolist(), nodes.symbols.tolist(), strict=True)):
            if modified and u > t:
                raise InputError(f"utterance {n} has {u} symbols in {t} frames", hint="modified allows one per frame")
        padded = np.concatenate([known, np.full((batch, 1), -1)], axis=1)
        inside = nodes.position < nodes.symbols[nodes.utterance]
        label = np.where(inside, padded[nodes.utterance, nodes.position], -1)
        return replace(nodes, label=label, shape=(batch, most_frames, positions))

    def select(self, kept: NDArray[np.bool_]) -> Nodes:
        names = ("utterance", "frame", "position", "label", "bias", "place")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})

    def biased(self, bias: Tensor | None, arcs: Tensor | None) -> Nodes:
        """With `bias` [B, T, U] added to the log-probabilities of label arcs, without those whose `arcs` [B, T, U] is
        false. Raises `InputError` naming the utterance where a bias is no number or +inf."""
        batch, most_frames, positions = self.shape
        arc = self.position < self.symbols[self.utterance]
        n, t, u = self.utterance[arc], self.frame[arc], self.position[arc]
        total = np.zeros(len(self))
        for name, given in (("bias", bias), ("arcs", arcs)):
            if given is not None and tuple(given.shape) != (batch, most_frames, positions - 1):
                raise InputError(
                    f"{name} has shape {tuple(given.shape)}", hint=f"it is [{batch}, {most_frames}, {positions - 1}]"
                )
        if bias is not None:
            added = bias.detach().cpu().double().numpy()[n, t, u]
            if not (usable := added < np.inf).all():
                i = int(usable.argmin())
                what = f"utterance {n[i]}: the bias of symbol {u[i]} at frame {t[i]} is {added[i]}"
                raise InputError(what, hint="it must be finite, or -inf to forbid the arc")
            total[arc] = added
        if arcs is not None:
            if arcs.dtype != torch.bool:
                raise InputError(f"arcs are {arcs.dtype}", hint="they are boolean, true where an arc is allowed")
            total[arc] += np.where(arcs.detach().cpu().numpy()[n, t, u], 0.0, -np.inf)
        return replace(self, bias=total)

    def checked_blank(self, vocabulary: int, blank: int) -> int:
        """The blank's index counted from 0; `InputError` for a symbol that is the blank or not in the vocabulary."""
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

    def dense_rows(self) -> NDArray[np.int64]:
        """Where nodes lie in a dense [B * T * (U + 1)]."""
        _, most_frames, positions = self.shape
        return (self.utterance * most_frames + self.frame) * positions + self.position

    def frame_rows(self, part: slice = slice(None)) -> Tensor:
        """Where nodes' frames lie in [B * T]."""
        return torch.from_numpy(self.utterance[part] * self.shape[1] + self.frame[part])

    def position_rows(self, part: slice = slice(None)) -> Tensor:
        """Where nodes' symbol positions lie in [B * (U + 1)]."""
        return torch.from_numpy(self.utterance[part] * self.shape[2] + self.position[part])

    def forward_backward(self, found: Emissions, *, modified: bool = False) -> Lattices:
        """Over the paths through these nodes alone; `blank` and `label` of the result are of these nodes."""
        self.refuse_unless_finite(found)
        total = int((self.frames * (self.symbols + 1)).sum())
        blank, label = np.full((2, total), -np.inf)
        blank[self.place], label[self.place] = found.blank, found.label + self.bias
        lattices = fast.lattices(
            blank, label, self.frames, self.symbols, modified=modified, threads=torch.get_num_threads()
        )
        if not (possible := lattices.log_z > -np.inf).all():
            n = int(possible.argmin())
            if self.bias.any():
                raise InputError(
                    f"utterance {n} has no path left",
                    hint="bias and arcs must allow each symbol at a frame not before the last symbol's",
                )
            raise InputError(f"utterance {n} has probability 0 by these logits")
        return replace(lattices, blank=lattices.blank[self.place], label=lattices.label[self.place])

    def refuse_unless_finite(self, found: Emissions) -> None:
        if not (finite := np.isfinite(found.lse)).all():
            i = int(finite.argmin())
            raise InputError(f"utterance {self.utterance[i]}: the logits at frame {self.frame[i]} are not finite")


def lattice_shape(f: Tensor, g: Tensor) -> tuple[int, int, int]:
    """(B, T, U + 1) from encoder outputs [B, T, D] and predictor outputs [B, U + 1, E]."""
    if f.dim() != 3 or g.dim() != 3 or f.shape[0] != g.shape[0]:
        raise InputError(
            f"f has shape {tuple(f.shape)}, g {tuple(g.shape)}",
            hint="they are [batch, frames, size] and [batch, symbols + 1, size]",
        )
    if f.device != g.device:
        raise InputError(f"f is on {f.device}, g on {g.device}", hint="move them to one device")
    return f.shape[0], f.shape[1], g.shape[1]
