"""Which token a frame belongs to, by the times of words: labels for frames and lattice nodes, masks for lattice arcs.

A word's frames are shared among its pieces; the rest is silence. Frame labels and lattice classes number alike: label 0
is silence for an encoder and blank for a whole transducer, the others are the tokenizer's ids.

Hu Hu et al. 2020, Exploring pre-training with alignments for RNN transducer based end-to-end speech
recognition, arXiv 2005.00572; the borrowing of frames is ours. Notation: B utterances, T encoder frames, U tokens; the
span of token u is its frames [first_u, after_u), its anchor one of them, a_u; u*(t) = number of tokens with a_u < t.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray
from torch import Tensor

from wieldy.errors import InputError, UsageError
from wieldy.metrics.text import basic
from wieldy.speech.batches import Batch
from wieldy.speech.corpus import aligned, text_of
from wieldy.speech.tokens import Tokenizer

Variant = Literal["all", "correct", "path"]
Anchor = Literal["start", "mid", "end"]
SILENCE = 0
PADDING = -1
_TOLERANCE_S = 0.001  # times in manifests are rounded, and scaled when speed is changed
_MOST_SHIFT = 2  # frames that an encoder's output may differ from what its frame period says


Spans = NDArray[np.int64]  # [U, 2], first frame of a token and the one after its last


class Spanned:
    """Where the tokens of cuts lie in frames of `frame_s` seconds, worked out once for each cut.

    Cuts have word times, and are cut at phone times within words where they have these too. `delay` moves the spans so
    many frames later, as far as there is room. An utterance is discarded where its tokens, or those of a word with the
    silence beside it, are more than its frames: `discarded` has the reasons by the cut's name, `seen` how many cuts
    there were.
    """

    def __init__(self, tokenizer: Tokenizer, frame_s: float, *, delay: int = 0) -> None:
        self.tokenizer, self.frame_s, self.delay = tokenizer, frame_s, delay
        self.discarded: dict[str, str] = {}
        self._known: dict[str, tuple[Cut, int, Spans | None]] = {}

    @property
    def seen(self) -> int:
        return len(self._known)

    def __call__(self, batch: Batch, frames: Tensor) -> list[Spans | None]:
        """Of each utterance of a batch with `frames` [B] encoder frames, None where it is discarded.

        Raises `InputError` naming the utterance where the times cannot be those of its transcript, of its sound or of
        `frames`.
        """
        found = []
        tokens = zip(batch.targets.tolist(), batch.target_lens.tolist(), strict=True)
        for cut, (row, symbols), length in zip(batch.cuts, tokens, frames.tolist(), strict=True):
            known = self._known.get(cut.id)
            # An augmented cut has the old name and other times.
            if known is None or known[0] is not cut or known[1] != length:
                known = cut, length, self._spans(cut, row[:symbols], length)
                self._known[cut.id] = known
            found.append(known[2])
        return found

    def _spans(self, cut: Cut, tokens: Sequence[int], frames: int) -> Spans | None:
        try:
            spans = token_spans(cut, tokens, self.tokenizer, frames, self.frame_s)
        except TooFewFramesError as reason:
            self.discarded[cut.id] = str(reason)
            return None
        return _delayed(spans, frames, self.delay)


def frame_labels(batch: Batch, tokenizer: Tokenizer, frames: Tensor, frame_s: float, *, delay: int = 0) -> Tensor:
    """The token of each frame as int64 [B, T]: ids, 0 for silence, -1 beyond `frames` [B] and in what is discarded.

    `frames` are encoder frames of `frame_s` seconds; see `Spanned`.
    """
    return labels_of(batch, Spanned(tokenizer, frame_s, delay=delay)(batch, frames), frames)


def labels_of(batch: Batch, spans: Sequence[Spans | None], frames: Tensor) -> Tensor:
    """As `frame_labels`, from spans."""
    labels = np.full((len(batch), int(frames.max())), PADDING)
    for row, own, tokens, length in zip(labels, spans, batch.targets.numpy(), frames.tolist(), strict=True):
        if own is not None:
            row[:length] = SILENCE
            row[_frames_of(own)] = np.repeat(tokens[: len(own)], own[:, 1] - own[:, 0])
    return torch.from_numpy(labels)


def label_tensor(
    spans: Spans,
    tokens: Sequence[int] | NDArray[np.int64],
    num_frames: int,
    variant: Variant = "path",
    anchor: Anchor = "end",
) -> tuple[Tensor, Tensor]:
    """The class Y int64 [T, U + 1] of each lattice node and its weight w float32 [T, U + 1], 1 or 0.

    all      Y(t, u) is the frame's label, whatever u.
    correct  Y(t, u) is token u where t lies in its span and u = u*(t), elsewhere blank.
    path     only the nodes that the alignment passes count, T + U of them: Y(a_u, u) is token u, and (t, u*(t)) and
             (a_u, u + 1) are blank.
    """
    tokens = np.asarray(tokens, np.int64)
    _check_spans(spans, len(tokens), num_frames)
    labels = np.zeros((num_frames, len(tokens) + 1), np.int64)
    weights = np.zeros((num_frames, len(tokens) + 1), np.float32)
    _label_(labels, weights, spans, tokens, variant, anchor)
    return torch.from_numpy(labels), torch.from_numpy(weights)


def node_labels(
    batch: Batch, spans: Sequence[Spans | None], frames: Tensor, variant: Variant, anchor: Anchor
) -> tuple[Tensor, Tensor]:
    """`label_tensor` of each utterance, padded: [B, T, U + 1]. What is discarded has weight 0."""
    shape = (len(batch), int(frames.max()), batch.targets.shape[1] + 1)
    labels, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for b, (own, tokens, length) in enumerate(zip(spans, batch.targets.numpy(), frames.tolist(), strict=True)):
        if own is not None:
            part = b, slice(length), slice(len(own) + 1)
            _label_(labels[part], weights[part], own, tokens[: len(own)], variant, anchor)
    return torch.from_numpy(labels), torch.from_numpy(weights)


def _label_(
    labels: NDArray[np.int64],
    weights: NDArray[np.float32],
    spans: Spans,
    tokens: NDArray[np.int64],
    variant: Variant,
    anchor: Anchor,
) -> None:
    """Fill the zeros [T, U + 1] of one utterance."""
    t, u = np.arange(len(labels)), np.arange(len(tokens))
    anchors = _anchors(spans, anchor)
    if variant == "path":
        weights[t, np.searchsorted(anchors, t)] = 1  # u*(t)
        weights[anchors, u + 1] = 1
        labels[anchors, u] = tokens
        return
    weights[:] = 1
    at, of = _frames_of(spans), np.repeat(u, spans[:, 1] - spans[:, 0])
    if variant == "all":
        labels[at] = tokens[of, None]
    elif variant == "correct":
        due = np.searchsorted(anchors, at) == of
        labels[at[due], of[due]] = tokens[of[due]]
    else:
        raise UsageError(f"variant {variant!r}", hint=f"choose {', '.join(get_args(Variant))}")


def arc_mask(batch: Batch, spans: Sequence[Spans | None], frames: Tensor, *, before: int, after: int) -> Tensor:
    """Bool [B, T, U], the `arcs` of `transducer_loss`: a token may come from `before` frames ahead of its span to
    `after` frames behind it (Mahadeokar et al. 2020, arXiv 2011.03072), and anywhere in what is discarded."""
    if min(before, after) < 0:
        raise UsageError(f"{before} frames before and {after} after", hint="neither is negative")
    t = torch.arange(int(frames.max()))[:, None]
    mask = torch.ones(len(batch), len(t), batch.targets.shape[1], dtype=torch.bool)
    for own, row in zip(spans, mask, strict=True):
        if own is not None:
            first, last = torch.from_numpy(own).T
            row[:, : len(own)] = (t >= first - before) & (t < last + after)
    return mask


# --- spans -----------------------------------------------------------------------------------------------------------


class TooFewFramesError(Exception):
    """An utterance that cannot be labelled."""


def token_spans(cut: Cut, tokens: Sequence[int], tokenizer: Tokenizer, frames: int, frame_s: float) -> Spans:
    """The spans [U, 2] of the tokens of one cut, disjoint and in order, each at least a frame.

    Raises `TooFewFramesError` where that cannot be, and `InputError` as `Spanned` does.
    """
    words = _words(cut, text_of(cut).split(), frame_s)
    if abs(frames - cut.duration / frame_s) > _MOST_SHIFT:
        implied = cut.duration / max(1, frames) / frame_s
        raise InputError(
            f"{cut.id}: the encoder gives {frames} frames, its {cut.duration:g} s are {cut.duration / frame_s:.1f} of "
            f"{1000 * frame_s:g} ms",
            hint=f"that is sub-sampled {implied:.2g} times as much: correct the frame period",
        )
    if len(tokens) > frames:
        raise TooFewFramesError(f"{len(tokens)} tokens in {frames} frames")
    starts = [u for u, token in enumerate(tokens) if tokenizer.begins_word(token)]
    if len(starts) != len(words) or starts[:1] not in ([], [0]):
        raise InputError(
            f"{cut.id}: {len(tokens)} tokens begin {len(starts)} words, its transcript has {len(words)}",
            hint="this tokenizer joins words, so word times say nothing of its pieces: take another, such as char",
        )
    pieces = np.diff([*starts, len(tokens)])
    first, after = (np.rint(np.array(times) / frame_s).astype(np.int64).clip(0, frames) for times in _times(words))
    _borrow_(first, after, pieces, frames, words)
    of = np.repeat(np.arange(len(words)), pieces)  # the word of each token
    place = np.arange(len(tokens)) - np.repeat(starts, pieces)  # and its place in it
    count = (after - first)[of]
    begin, end = (first[of] + (place + j) * count // pieces[of] for j in (0, 1))
    for w, boundaries in _phone_boundaries(cut, words, pieces):
        letters = [len(tokenizer.pieces[token].lstrip("▁")) for token in tokens[starts[w] :][: pieces[w]]]
        own = slice(starts[w], starts[w] + int(pieces[w]))
        begin[own], end[own] = _cut_at(boundaries / frame_s, np.cumsum(letters), int(first[w]), int(after[w]))
    return np.stack([begin, end], axis=1)


def _words(cut: Cut, transcript: list[str], frame_s: float) -> list[AlignmentItem]:
    """The aligned words of a cut, checked against its transcript and its sound."""
    items = [item for item in aligned(cut, "word") if not _is_mark(item.symbol)]
    for n, (item, word) in enumerate(zip(items, transcript, strict=False), 1):
        if item.symbol != word and basic(item.symbol) != basic(word):
            raise InputError(f"{cut.id}: word {n} of its alignment is {item.symbol!r}, of its transcript {word!r}")
    if len(items) != len(transcript):
        raise InputError(f"{cut.id}: {len(items)} aligned words, {len(transcript)} in its transcript")
    for item in items:
        if item.duration < 0 or item.start < -_TOLERANCE_S:
            raise InputError(f"{cut.id}: {_when(item)}, which cannot be")
    for one, other in pairwise(items):
        if other.start < one.end - _TOLERANCE_S:
            raise InputError(f"{cut.id}: {_when(one)} and {_when(other)} overlap")
    if items and items[-1].end > cut.duration + frame_s + _TOLERANCE_S:
        raise InputError(f"{cut.id}: {_when(items[-1])}, its sound ends at {cut.duration:g} s")
    return items


def _is_mark(symbol: str) -> bool:
    """Whether an aligner stands for no word with this: <sil>, <unk>, [noise] or nothing at all."""
    return not symbol.strip() or symbol[0] + symbol[-1] in ("<>", "[]")


def _when(item: AlignmentItem) -> str:
    return f"{item.symbol!r} from {item.start:g} to {item.end:g} s"


def _times(words: Sequence[AlignmentItem]) -> tuple[list[float], list[float]]:
    return [word.start for word in words], [word.end for word in words]


def _borrow_(
    first: NDArray[np.int64],
    after: NDArray[np.int64],
    pieces: NDArray[np.int64],
    frames: int,
    words: Sequence[AlignmentItem],
) -> None:
    """Give a word of fewer frames than pieces what silence there is beside it, behind it first: what is recognised late
    has at least been heard."""
    np.maximum(first[1:], after[:-1], out=first[1:])  # rounded, neighbours may overlap by a frame
    for w in np.flatnonzero(after - first < pieces).tolist():
        behind = (first[w + 1] if w + 1 < len(first) else frames) - after[w]
        after[w] += np.clip(pieces[w] - (after[w] - first[w]), 0, behind)
        before = first[w] - (after[w - 1] if w else 0)
        first[w] -= np.clip(pieces[w] - (after[w] - first[w]), 0, before)
        if after[w] - first[w] < pieces[w]:
            raise TooFewFramesError(f"{words[w].symbol!r} has {after[w] - first[w]} frames for {pieces[w]} tokens")


def _phone_boundaries(
    cut: Cut, words: Sequence[AlignmentItem], pieces: NDArray[np.int64]
) -> list[tuple[int, NDArray[np.float64]]]:
    """The words of several pieces whose phones are known, with the times in seconds at which these begin and end."""
    if not all(supervision.alignment and "phone" in supervision.alignment for supervision in cut.supervisions):
        return []
    phones = aligned(cut, "phone")
    middles = np.array([(phone.start + phone.end) / 2 for phone in phones])
    found = []
    for w in np.flatnonzero(pieces > 1).tolist():
        own = slice(*np.searchsorted(middles, [words[w].start, words[w].end]))
        if phones[own]:
            found.append((w, np.array([phone.start for phone in phones[own]] + [phones[own][-1].end])))
    return found


def _cut_at(
    boundaries: NDArray[np.float64], letters: NDArray[np.int64], first: int, after: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First frames and ends of pieces that end with letter number `letters` of a word of frames [first, after), cut at
    the phone boundary, given in frames, that is as far through the phones as the piece is through the letters."""
    share = letters[:-1] / max(1, letters[-1])
    cuts = np.rint(boundaries[np.rint(share * (len(boundaries) - 1)).astype(int)]).astype(np.int64)
    place = np.arange(1, len(letters))
    cuts = np.maximum.accumulate(np.maximum(cuts, first + place) - place) + place  # a frame each, in order
    cuts = np.minimum(cuts, after - len(letters) + place)
    return np.concatenate([[first], cuts]), np.concatenate([cuts, [after]])


def _delayed(spans: Spans, frames: int, delay: int) -> Spans:
    """Spans `delay` frames later, those at the end as late as leaves each a frame."""
    last = frames - len(spans) + np.arange(len(spans))[:, None] + np.array([0, 1])
    delayed: Spans = np.minimum(spans + delay, last)
    return delayed


def _anchors(spans: Spans, anchor: Anchor) -> NDArray[np.int64]:
    if anchor not in get_args(Anchor):
        raise UsageError(f"anchor {anchor!r}", hint=f"choose {', '.join(get_args(Anchor))}")
    first, last = spans[:, 0], spans[:, 1] - 1
    anchors: NDArray[np.int64] = {"start": first, "mid": (first + last) // 2, "end": last}[anchor]
    return anchors


def _frames_of(spans: Spans) -> NDArray[np.int64]:
    """All frames of all spans, in order."""
    lengths: NDArray[np.int64] = spans[:, 1] - spans[:, 0]
    frames: NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(spans[:, 1] - np.cumsum(lengths), lengths)
    return frames


def _check_spans(spans: Spans, count: int, frames: int) -> None:
    if spans.shape != (count, 2):
        raise InputError(f"spans have shape {spans.shape}", hint=f"they are [{count}, 2]")
    bounds = np.concatenate([[0], spans.ravel(), [frames]])
    if (np.diff(spans) < 1).any() or (np.diff(bounds) < 0).any():
        raise InputError(f"spans {spans.tolist()} of {frames} frames", hint="they are in order, each at least a frame")
