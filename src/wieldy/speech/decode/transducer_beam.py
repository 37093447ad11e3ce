"""Beam search for transducers, over a batch of utterances or streams, with N-best lists.

Use it where greedy search makes too many mistakes, where a language model is to be heard (`fusion`) or where several
answers are wanted; `greedy` is several times cheaper. Frames may come all at once or piece by piece: the answer is the
same. Needs a transducer with one predictor per prefix of labels (`TransducerView`), not a CTC model.

Time-synchronous search (Alex Graves 2012, Sequence transduction with recurrent neural networks, arXiv 1211.3711) with
at most S symbols per frame, where alignments of equal prefixes are merged. The log-mass of prefix y that has emitted
s symbols on the present frame t is

    m_0(y) = log P(y, frames before t),     m_{s+1}(y k) = m_s(y) + log P(k | t, y)
    log P(y, frames up to t) = log sum_s exp m_s(y) + log P(blank | t, y)

so each prefix needs one row of the joint per frame, however it was reached, and mass that passes between two prefixes
of the beam costs nothing. An extension by a label is followed only while it beats the K-th best of the prefixes as they
would be after a blank, because an extension only gets less likely: on most frames the blank rules and none is followed.
Exact without pruning: with room for every prefix, log P(y) is minus the transducer loss of y. In `modified` mode a
label takes its frame with it, as in that mode of the loss.

Notation: B utterances, n of them with a frame left, K = beam, W prefixes on a frame, P parts of fusion, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import torch
from torch import Tensor

from wieldy.errors import InputError, UsageError
from wieldy.speech.decode import PrefixScorer, State, TokenHypothesis
from wieldy.speech.decode.links import Links, Rows

if TYPE_CHECKING:
    from wieldy.speech.networks.views import TransducerView

NONE = -torch.inf

# Prefixes are told apart by a hash of 64 bits: that two of one beam collide has a chance below 1e-17 per frame.
# The multipliers are those of splitmix64 (Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators).
_STIR = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_ROOT, _ABOVE_ROOT, _EMPTY, _ABOVE_EMPTY = 1, 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class TransducerBeamConfig:
    beam: int = 5  # hypotheses kept per utterance, >= 1; rnnt-surpass-hybrid's default, 4 is ilme's
    nbest: int = 1  # hypotheses returned per utterance, 1 .. beam
    # Per frame, >= 1; rnnt-surpass-hybrid and ilme have 3 for word pieces, but a word that is spelt out comes on one
    # frame all the same: with 3 a beam made 20 % errors, with 10 it made 13 %. Those not needed cost next to nothing.
    max_symbols: int = 10
    mode: Literal["exact", "modified"] = "exact"  # modified: at most one symbol per frame, which takes the frame
    length_norm: float = 0.0  # scores are divided by tokens ** this in the final ranking, >= 0

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise UsageError(f"beam is {self.beam}", hint="it must be at least 1")
        if not 1 <= self.nbest <= self.beam:
            raise UsageError(f"nbest is {self.nbest}", hint=f"with beam {self.beam} it lies in 1 .. {self.beam}")
        if self.max_symbols < 1:
            raise UsageError(f"max_symbols is {self.max_symbols}", hint="it must be at least 1")
        if self.mode not in ("exact", "modified"):
            raise UsageError(f"transducer beam mode {self.mode!r}", hint="choose exact or modified")
        if not self.length_norm >= 0:
            raise UsageError(f"length_norm is {self.length_norm}", hint="it must not be negative")


class TransducerBeam:
    """A search with one model and one configuration; streams and batches of it are independent of each other."""

    def __init__(
        self,
        view: TransducerView,
        config: TransducerBeamConfig = TransducerBeamConfig(),
        fusion: PrefixScorer | None = None,
    ) -> None:
        if not 0 <= view.blank < view.vocab:
            raise UsageError(f"blank is {view.blank}", hint=f"the vocabulary has {view.vocab} entries")
        if view.vocab < 2:
            raise UsageError("a vocabulary without labels", hint="there must be one beside the blank")
        self.view, self.config, self.fusion = view, config, fusion

    def decode(self, f: Tensor, f_lens: Tensor) -> list[list[TokenHypothesis]]:
        """N-best lists, best first, of encoder outputs `f` [B, T, J] with `f_lens` [B] frames each.

        A list is shorter than `nbest` where there were fewer hypotheses; an utterance without frames has the empty one.
        Raises `InputError` naming the utterance.
        """
        session = self.start(len(f))
        session.push(f, f_lens)
        return session.finish()

    def start(self, batch: int) -> BeamSession:
        """A search over `batch` streams whose frames come piece by piece."""
        return BeamSession(self.view, self.config, self.fusion, batch)


class BeamSession:
    """The search over some streams, between two pieces of them."""

    @torch.inference_mode()
    def __init__(
        self, view: TransducerView, config: TransducerBeamConfig, fusion: PrefixScorer | None, batch: int
    ) -> None:
        self._view, self._config, self._fusion = view, config, fusion
        g, state = view.start(batch)
        content: dict[str, State] = {"g": g, "state": state}
        names: tuple[str, ...] = ()
        if fusion is not None:
            names = fusion.names
            scores, content["scorer"] = fusion.start(batch, g)
            content["scores"] = self._of_labels(scores)
        self._rows = Rows(content)
        self._links = Links(g.device)
        self._seen = torch.zeros(batch, dtype=torch.int64, device=g.device)
        self._beam = _Prefixes.roots(batch, config.beam, len(names), g.device)
        self._evaluations = 0  # of the joint on the present frame
        self._log_p = g.new_zeros(0, view.vocab, dtype=torch.promote_types(g.dtype, torch.float32))

    @torch.inference_mode()
    def push(self, f: Tensor, f_lens: Tensor) -> None:
        """Searches the next encoder outputs `f` [B, t, J], of which `f_lens` [B] belong to each stream."""
        lens = checked_lens(f, f_lens, len(self._seen))
        lens, order = lens.sort(descending=True, stable=True)
        f, beam, seen = f[order], self._beam[order], self._seen[order]
        alive = (lens > torch.arange(f.shape[1], device=f.device)[:, None]).sum(1).tolist()
        search = self._exact if self._config.mode == "exact" else self._modified
        for t, n in enumerate(alive):
            if n == 0:
                break
            beam.link.copy_(self._links.collected(beam.link))
            here = search(f[:n, t], beam[:n], seen[:n] + t, beam.row)
            beam = here if n == len(beam) else here.joined(beam[n:])
        back = order.argsort()
        self._beam, self._seen = beam[back], (seen + lens)[back]

    @torch.inference_mode()
    def partial(self) -> list[TokenHypothesis]:
        """The best hypothesis of each stream so far."""
        return [hypotheses[0] for hypotheses in self._ranked(self._beam.parts, 1)]

    def settled(self) -> list[int]:
        """How many tokens from the beginning all hypotheses of each stream agree on: these will not change."""
        agreed = []
        for scores, links in zip(self._beam.score.tolist(), self._beam.link.tolist(), strict=True):
            lists = [self._links.trace(link)[0] for score, link in zip(scores, links, strict=True) if score > NONE]
            same = [len(set(column)) == 1 for column in zip(*lists, strict=False)]
            agreed.append(same.index(False) if False in same else len(same))
        return agreed

    @torch.inference_mode()
    def finish(self) -> list[list[TokenHypothesis]]:
        """The N-best lists of all streams, best first."""
        parts = self._beam.parts
        if self._fusion is not None:
            state = self._fusion.select(self._rows.content["scorer"], self._beam.row.flatten())
            parts = parts + self._fusion.end(state).view_as(parts)
        return self._ranked(parts, self._config.nbest)

    def _exact(self, f: Tensor, beam: _Prefixes, frame: Tensor, in_use: Tensor) -> _Prefixes:
        """The beam [n, K] after the frame `f` [n, J], number `frame` [n]. `in_use` are the rows of all streams.

        On the way `acoustic` is log(m_0 + .. + m_s) and `mass` is log m_s.
        """
        self._meet(f, beam)
        arcs = self._arcs(beam, beam)
        beam.mass.copy_(beam.acoustic)
        first, owners = len(self._links), []
        for _ in range(self._config.max_symbols):
            bar = _kth_best(beam.score + beam.blank, self._config.beam)
            grown, tokens = self._extensions(beam, beam.mass, arcs, bar)
            if tokens.numel():
                new = self._extended(beam, grown, tokens)
                here = grown.utterance, grown.target - beam.width
                used = torch.cat([in_use.flatten(), beam.row.flatten()])
                new.row[here] = self._advanced(tokens, beam.row[grown.utterance, grown.source], used)
                new.at[here], new.blank[here], new.best[here] = self._evaluated(f[grown.utterance], new.row[here])
                # Some prefixes of the beam may go on from a new one: it had been pruned before them.
                arcs = arcs.joined(grown).joined(self._arcs(new, beam, beam.width))
                beam = beam.joined(new, dim=1)
            inflow = beam.mass[arcs.utterance, arcs.source] + arcs.log_p
            if not tokens.numel() and not bool((inflow > NONE).any()):
                break
            ahead = inflow > beam.acoustic[arcs.utterance, arcs.target]
            owners.append(self._emit(beam, arcs, frame, ahead, beam.link))
            beam.mass.fill_(NONE)
            beam.mass[arcs.utterance, arcs.target] = inflow
            beam.acoustic.copy_(torch.logaddexp(beam.acoustic, beam.mass))
        beam.acoustic.add_(beam.blank)
        beam.before.copy_(beam.blank)
        return self._pruned(beam, first, owners)[0]

    def _modified(self, f: Tensor, beam: _Prefixes, frame: Tensor, in_use: Tensor) -> _Prefixes:
        """As `_exact`, where a label takes its frame with it: all the beam needs is one row of the joint each."""
        self._meet(f, beam)
        fresh = (beam.link > 0) & (self._links.frame(beam.link) == frame[:, None] - 1)
        self._links.set_blank_after(beam.link[fresh], beam.blank[fresh])
        arcs = self._arcs(beam, beam)
        mass, links = beam.acoustic.clone(), beam.link.clone()  # before this frame, which may have no second symbol
        stayed = beam.acoustic.add_(beam.blank)
        beam.mass.fill_(NONE)
        beam.mass[arcs.utterance, arcs.target] = mass[arcs.utterance, arcs.source] + arcs.log_p
        ahead = (beam.mass > stayed)[arcs.utterance, arcs.target]
        beam.acoustic.copy_(torch.logaddexp(stayed, beam.mass))
        bar = _kth_best(beam.score, self._config.beam)
        grown, tokens = self._extensions(beam, mass, arcs, bar)
        first, width = len(self._links), beam.width
        owners = [self._emit(beam, arcs, frame, ahead, links, later=True)]
        if tokens.numel():
            new = self._extended(beam, grown, tokens)
            here = grown.utterance, grown.target - width
            new.acoustic[here] = mass[grown.utterance, grown.source] + grown.log_p
            new.row[here] = beam.row[grown.utterance, grown.source]
            beam = beam.joined(new, dim=1)
            every = torch.ones_like(tokens, dtype=torch.bool)
            owners.append(self._emit(beam, grown, frame, every, links, later=True))
        beam.before.copy_(beam.blank)
        beam, kept = self._pruned(beam, first, owners)
        u, k = ((kept >= width) & (beam.acoustic > NONE)).nonzero(as_tuple=True)
        if u.numel():
            used = torch.cat([in_use.flatten(), beam.row.flatten()])
            beam.row[u, k] = self._advanced(beam.token[u, k], beam.row[u, k], used)
        return beam

    def _meet(self, f: Tensor, beam: _Prefixes) -> None:
        """Evaluates the joint for the beam on a new frame."""
        self._evaluations = 0
        found = self._evaluated(f.repeat_interleave(beam.width, dim=0), beam.row.flatten())
        for column, values in zip((beam.at, beam.blank, beam.best), found, strict=True):
            column.copy_(values.view_as(column))

    def _evaluated(self, f: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the nodes of prefixes in `rows` [m] on frames `f` [m, J]: where in `_log_p` their label log-probabilities
        lie, the blank's log-probability, and the best label score, fusion included."""
        content, blank = self._rows.content, self._view.blank
        logits = self._view.join(f, content["g"][rows])
        first, last = self._evaluations, self._evaluations + rows.shape[0]
        if last > self._log_p.shape[0]:
            more = self._log_p.new_empty(2 * last - self._log_p.shape[0], self._view.vocab)
            self._log_p = torch.cat([self._log_p, more])
        log_p = self._log_p[first:last]
        torch.log_softmax(logits.to(log_p.dtype), 1, out=log_p)
        blanks = log_p[:, blank].to(torch.float64, copy=True)
        log_p[:, blank] = NONE
        best = (log_p if self._fusion is None else log_p + content["scores"][rows].sum(1)).amax(1)
        self._evaluations = last
        return torch.arange(first, last, device=rows.device), blanks, best.double()

    def _advanced(self, tokens: Tensor, rows: Tensor, in_use: Tensor) -> Tensor:
        """The rows of the prefixes that are one of `tokens` [m] longer than those in `rows` [m]."""
        content = self._rows.content
        g, state = self._view.advance(tokens, self._view.select(content["state"], rows))
        new: dict[str, State] = {"g": g, "state": state}
        if self._fusion is not None:
            scorer = self._fusion.select(content["scorer"], rows)
            scores, new["scorer"] = self._fusion.advance(tokens, scorer, g)
            new["scores"] = self._of_labels(scores)
        return self._rows.put(new, in_use)

    def _of_labels(self, scores: Tensor) -> Tensor:
        """Fused scores [m, P, V] with 0 for the blank, whatever was there."""
        return scores.index_fill(2, torch.tensor([self._view.blank], device=scores.device), 0.0)

    def _arcs(self, sources: _Prefixes, targets: _Prefixes, offset: int = 0) -> _Arcs:
        """The label arcs from `sources`, columns `offset` and on, to those `targets` that are one label longer."""
        u, i, j = (sources.prefix[:, :, None] == targets.parent[:, None, :]).nonzero(as_tuple=True)
        log_p = self._log_p[sources.at[u, i], targets.token[u, j]].double()
        return _Arcs(u, i + offset, j, log_p)

    def _extensions(self, beam: _Prefixes, mass: Tensor, arcs: _Arcs, bar: Tensor) -> tuple[_Arcs, Tensor]:
        """Arcs to at most K prefixes that are not there yet and whose score is above `bar` [n], and their labels [m].

        Their targets are columns behind those of the beam, by utterance in order of score.
        """
        choices = min(self._config.beam, self._view.vocab - 1)
        scores = mass + beam.fused
        u, w = (scores + beam.best > bar[:, None]).nonzero(as_tuple=True)
        if not u.numel():
            return _Arcs(u, u, u, scores.new_zeros(0)), u
        candidates = self._log_p[beam.at[u, w]]
        if self._fusion is not None:
            candidates = candidates + self._rows.content["scores"][beam.row[u, w]].sum(1)
        place = torch.full_like(beam.row, -1)
        place[u, w] = torch.arange(u.shape[0], device=u.device)
        there = place[arcs.utterance, arcs.source]
        known = there >= 0
        candidates[there[known], beam.token[arcs.utterance, arcs.target][known]] = NONE
        values, labels = candidates.topk(choices)
        grid = scores.new_full((*scores.shape, choices), NONE)
        grid[u, w] = values.double() + scores[u, w, None]
        top, index = grid.flatten(1).topk(min(self._config.beam, grid[0].numel()))
        u, slot = (top > bar[:, None]).nonzero(as_tuple=True)
        source, rank = index[u, slot] // choices, index[u, slot] % choices
        tokens = labels[place[u, source], rank]
        log_p = self._log_p[beam.at[u, source], tokens].double()
        return _Arcs(u, source, slot + beam.width, log_p), tokens

    def _extended(self, beam: _Prefixes, grown: _Arcs, tokens: Tensor) -> _Prefixes:
        """The new prefixes, without mass, links and rows."""
        u, i, j = grown.utterance, grown.source, grown.target - beam.width
        new = _Prefixes.empty(len(beam), int(j.max()) + 1, beam.parts.shape[2], tokens.device)
        new.parent[u, j] = beam.prefix[u, i]
        new.prefix[u, j] = _hash(beam.prefix[u, i], tokens)
        new.token[u, j] = tokens
        new.length[u, j] = beam.length[u, i] + 1
        new.parts[u, j] = beam.parts[u, i]
        if self._fusion is not None:
            scores = self._rows.content["scores"]
            new.parts[u, j] += scores[beam.row[u, i], :, tokens].double()
        return new

    def _emit(
        self,
        beam: _Prefixes,
        arcs: _Arcs,
        frame: Tensor,
        which: Tensor,
        links: Tensor,
        later: bool = False,
    ) -> Tensor:
        """Links `which` of the arcs to the alignments of their sources, `links` [n, W], and returns their utterances.

        `later` leaves the blank after the token to the next frame.
        """
        u, i, j = arcs.utterance[which], arcs.source[which], arcs.target[which]
        if not u.numel():
            return u
        beam.link[u, j] = self._links.add(
            links[u, i],
            beam.token[u, j],
            frame[u],
            log_p=self._log_p[beam.at[u, i]],
            chosen=arcs.log_p[which],
            blank_before=torch.where(self._links.frame(links[u, i]) < frame[u] - int(later), beam.before[u, i], 0.0),
            blank=beam.blank[u, i],
            blank_after=None if later else beam.blank[u, j],
        )
        return u

    def _pruned(self, prefixes: _Prefixes, first_link: int, owners: list[Tensor]) -> tuple[_Prefixes, Tensor]:
        """The K best and the columns [n, K] they were in. Since `first_link` links were made for `owners`."""
        linked = len(self._links) > first_link
        if prefixes.width == self._config.beam and not linked:
            return prefixes, torch.zeros_like(prefixes.row)
        top, kept = prefixes.score.topk(self._config.beam)
        if linked:
            owner = torch.cat(owners)
            gap = top[:, 0] - top[:, 1] if top.shape[1] > 1 else torch.full_like(top[:, 0], torch.inf)
            self._links.set_beam(first_link, gap[owner], (top > NONE).sum(1)[owner])
        return prefixes.gathered(kept), kept

    def _ranked(self, parts: Tensor, nbest: int) -> list[list[TokenHypothesis]]:
        fused = parts.sum(-1)
        scores = (self._beam.acoustic + fused) / self._beam.length.clamp(min=1) ** self._config.length_norm
        names = () if self._fusion is None else self._fusion.names
        if bool(scores.isnan().any()):
            raise InputError(
                f"utterance {int(scores.isnan().any(1).int().argmax())}: the model's scores are not numbers"
            )
        ranked = []
        for n, best in enumerate(scores.argsort(dim=1, descending=True, stable=True).tolist()):
            alive = [k for k in best if self._beam.acoustic[n, k] > NONE]
            ranked.append([self._hypothesis(n, k, scores, fused, parts, names) for k in alive[:nbest]])
        return ranked

    def _hypothesis(
        self, n: int, k: int, scores: Tensor, fused: Tensor, parts: Tensor, names: tuple[str, ...]
    ) -> TokenHypothesis:
        tokens, frames, features = self._links.trace(int(self._beam.link[n, k]))
        return TokenHypothesis(
            tokens=tokens,
            frames=frames,
            score=float(scores[n, k]),
            acoustic=float(self._beam.acoustic[n, k]),
            fused=float(fused[n, k]),
            parts=dict(zip(names, parts[n, k].tolist(), strict=True)),
            features=features,
        )


@dataclass(frozen=True)
class _Prefixes:
    """Prefixes of labels, [n, W], and what is known of them. Columns that hold none have a score of -inf.

    One tensor for all integers and one for all numbers, so that prefixes are cut, joined and gathered in two steps. The
    properties below are views of them and may be written to.
    """

    ints: Tensor  # int64 [n, W, 7]
    numbers: Tensor  # float64 [n, W, 5 + P]

    @classmethod
    def empty(cls, n: int, width: int, parts: int, device: torch.device) -> Self:
        ints = torch.zeros(n, width, 7, dtype=torch.int64, device=device)
        prefixes = cls(ints, torch.zeros(n, width, 5 + parts, dtype=torch.float64, device=device))
        prefixes.prefix.fill_(_EMPTY)
        prefixes.parent.fill_(_ABOVE_EMPTY)
        prefixes.acoustic.fill_(NONE)
        prefixes.mass.fill_(NONE)
        return prefixes

    @classmethod
    def roots(cls, n: int, width: int, parts: int, device: torch.device) -> Self:
        """The empty prefix of each utterance, in the row of its number."""
        roots = cls.empty(n, width, parts, device)
        roots.acoustic[:, 0], roots.prefix[:, 0], roots.parent[:, 0] = 0.0, _ROOT, _ABOVE_ROOT
        roots.row[:, 0] = torch.arange(n, device=device)
        return roots

    @property
    def prefix(self) -> Tensor:
        """Hash of the labels."""
        return self.ints[..., 0]

    @property
    def parent(self) -> Tensor:
        """Hash of all but the last."""
        return self.ints[..., 1]

    @property
    def token(self) -> Tensor:
        """The last."""
        return self.ints[..., 2]

    @property
    def length(self) -> Tensor:
        return self.ints[..., 3]

    @property
    def link(self) -> Tensor:
        """Of the likeliest alignment."""
        return self.ints[..., 4]

    @property
    def row(self) -> Tensor:
        """Of predictor output, states and fused scores."""
        return self.ints[..., 5]

    @property
    def at(self) -> Tensor:
        """On the present frame: the row of label log-probabilities."""
        return self.ints[..., 6]

    @property
    def acoustic(self) -> Tensor:
        """log P(prefix, frames so far), the sum over its alignments."""
        return self.numbers[..., 0]

    @property
    def mass(self) -> Tensor:
        """On the present frame: of the alignments with the latest number of symbols on it."""
        return self.numbers[..., 1]

    @property
    def before(self) -> Tensor:
        """log P of the blank that led to the present frame, 0 where none did."""
        return self.numbers[..., 2]

    @property
    def blank(self) -> Tensor:
        """On the present frame: log P(blank)."""
        return self.numbers[..., 3]

    @property
    def best(self) -> Tensor:
        """On the present frame: the best label's log-probability plus its fused score."""
        return self.numbers[..., 4]

    @property
    def parts(self) -> Tensor:
        """Fused scores [n, W, P]."""
        return self.numbers[..., 5:]

    @property
    def fused(self) -> Tensor:
        return self.parts.sum(2)

    @property
    def score(self) -> Tensor:
        return self.acoustic + self.fused

    @property
    def width(self) -> int:
        return self.ints.shape[1]

    def __len__(self) -> int:
        return self.ints.shape[0]

    def __getitem__(self, utterances: Tensor | slice) -> _Prefixes:
        return _Prefixes(self.ints[utterances], self.numbers[utterances])

    def joined(self, other: _Prefixes, dim: int = 0) -> _Prefixes:
        """Further utterances; or, along 1, further prefixes of the same ones."""
        both = ((self.ints, other.ints), (self.numbers, other.numbers))
        return _Prefixes(*(torch.cat(pair, dim) for pair in both))

    def gathered(self, columns: Tensor) -> _Prefixes:
        """The prefixes in `columns` [n, K]."""
        index = columns[..., None]
        return _Prefixes(self.ints.take_along_dim(index, 1), self.numbers.take_along_dim(index, 1))


class _Arcs(NamedTuple):
    """Label arcs of one frame: utterance, columns of both prefixes and log-probability (float64), [arcs] each.

    No two have one target: a prefix has one parent.
    """

    utterance: Tensor
    source: Tensor
    target: Tensor
    log_p: Tensor

    def joined(self, other: _Arcs) -> _Arcs:
        return _Arcs(*map(torch.cat, zip(self, other, strict=True)))


def checked_lens(f: Tensor, f_lens: Tensor, batch: int) -> Tensor:
    """`f_lens` as integers beside `f`; `InputError` naming the utterance where the two do not go together."""
    if f.dim() != 3 or len(f) != batch or f_lens.shape != (batch,):
        raise InputError(
            f"encoder outputs of shape {tuple(f.shape)} with {tuple(f_lens.shape)} lengths",
            hint=f"they are [{batch}, frames, features] with [{batch}]",
        )
    lens = f_lens.to(device=f.device, dtype=torch.int64)
    for n in ((lens < 0) | (lens > f.shape[1])).nonzero()[:1, 0].tolist():
        raise InputError(f"utterance {n} has {int(lens[n])} frames", hint=f"there is room for 0 to {f.shape[1]}")
    inside = torch.arange(f.shape[1], device=f.device) < lens[:, None]
    for n in (inside & ~f.isfinite().all(2)).any(1).nonzero()[:1, 0].tolist():
        raise InputError(f"utterance {n}: the encoder's outputs are not finite")
    return lens


def _kth_best(scores: Tensor, k: int) -> Tensor:
    """[n] of [n, W], W >= k."""
    return scores.amin(1) if scores.shape[1] == k else scores.topk(k).values[:, -1]


def _hash(prefix: Tensor, token: Tensor) -> Tensor:
    """Of a prefix with one token more."""
    mixed = (prefix ^ ((token + 1) * _STIR[0])) * _STIR[1]
    return mixed ^ (mixed >> 32)
