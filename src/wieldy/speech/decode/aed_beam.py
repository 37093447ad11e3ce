"""Beam search for attention encoder-decoders, over a batch of utterances, with N-best lists and score parts.

Use it for Whisper-like models where several answers or a language model (`fusion`) are wanted; it also runs more than
one hypothesis per call of the decoder, and drops utterances that are done. A model's own `generate` has rules of its
own (timestamps, forced tokens) that this search leaves to its `AEDView`.

Label-synchronous, as in "Sequence to sequence learning with neural networks", Ilya Sutskever et al. 2014, arXiv
1409.3215: at each step the K hypotheses of an utterance grow by one token each, and of all of these the K best stay. A
hypothesis ends with the end token if that is among the K best continuations, and

    score(y) = (log P(y, end) + fused(y, end)) / (tokens of y + 1) ** length_norm

An utterance is done when K hypotheses have ended and none that goes on would score better, as it is, than the worst of
these. Caches of model and scorer are reordered together.

Notation: B utterances, n of them not done, K = beam, L tokens so far, P parts of fusion, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from wieldy.errors import InputError, UsageError
from wieldy.speech.decode import PrefixScorer, TokenHypothesis

if TYPE_CHECKING:
    from wieldy.speech.networks.views import AEDView

NONE = -torch.inf
LONGEST_LOOP = 4  # tokens in the longest phrase that the guard watches; speech-pipeline's loop guard


@dataclass(frozen=True, kw_only=True)
class AedBeamConfig:
    beam: int = 5  # hypotheses kept per utterance, >= 1; Whisper's own default
    nbest: int = 1  # hypotheses returned per utterance, 1 .. beam
    min_tokens: int = 0  # of a hypothesis, without prompt and end, >= 0
    max_tokens: int = 224  # likewise, >= 1: what is longer has to end there; half of Whisper's context, as in its paper
    length_norm: float = 0.0  # scores are divided by length ** this, >= 0
    # How often a phrase of 1 to 4 tokens may stand in a row, or 0 for any number; speech-pipeline's guard believes 3.
    max_repeats: int = 0

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise UsageError(f"beam is {self.beam}", hint="it must be at least 1")
        if not 1 <= self.nbest <= self.beam:
            raise UsageError(f"nbest is {self.nbest}", hint=f"with beam {self.beam} it lies in 1 .. {self.beam}")
        if not 0 <= self.min_tokens <= self.max_tokens or self.max_tokens < 1:
            raise UsageError(
                f"min_tokens {self.min_tokens}, max_tokens {self.max_tokens}", hint="0 <= min <= max, and max >= 1"
            )
        if not self.length_norm >= 0:
            raise UsageError(f"length_norm is {self.length_norm}", hint="it must not be negative")
        if self.max_repeats < 0:
            raise UsageError(f"max_repeats is {self.max_repeats}", hint="it must not be negative; 0 means no guard")


class AedBeam:
    """A search with one model and one configuration."""

    def __init__(
        self, view: AEDView, config: AedBeamConfig = AedBeamConfig(), fusion: PrefixScorer | None = None
    ) -> None:
        self.view, self.config, self.fusion = view, config, fusion

    @torch.inference_mode()
    def decode(self, memory: Tensor, lens: Tensor) -> list[list[TokenHypothesis]]:
        """N-best lists, best first, of encodings `memory` [B, T', D] with `lens` [B] frames.

        Tokens are those after the prompt, without the end; `acoustic` is the model's score, that of the end included.
        The scorer's entry for the end token is its score of ending. Raises `InputError` naming the utterance.
        """
        view, fusion, batch = self.view, self.fusion, len(memory)
        if not batch:
            return []
        state = view.start(memory, lens)
        for token in view.prompt:
            prompt = torch.full((batch,), token, dtype=torch.int64, device=memory.device)
            log_p, state = view.step(prompt, state)
        scores, scorer = (log_p.new_zeros(batch, 0, log_p.shape[1]), None) if fusion is None else fusion.start(batch)
        live = _Hypotheses.roots(batch, scores.shape[1], memory.device)
        ended: list[list[TokenHypothesis]] = [[] for _ in range(batch)]
        while len(live.tokens):
            grown, source = self._grown(live, log_p, scores)
            ends = grown.tokens[..., -1] == view.eos
            for n, k in (ends[:, : self.config.beam] & (grown.score[:, : self.config.beam] > NONE)).nonzero().tolist():
                ended[int(grown.utterance[n])].append(self._ended(grown, n, k))
            columns = ends.int().argsort(dim=1, stable=True)[:, : self.config.beam]
            width, live, source = live.acoustic.shape[1], grown.gathered(columns), source.gather(1, columns)
            live.acoustic.masked_fill_(ends.gather(1, columns), NONE)
            best = self._normed(live.score.amax(1), live.tokens.shape[2]).tolist()
            rows = [n for n, u in enumerate(live.utterance.tolist()) if not self._is_done(ended[u], best[n])]
            going = torch.tensor(rows, dtype=torch.int64, device=memory.device)
            live, index = live[going], (going[:, None] * width + source[going]).flatten()
            if rows:
                tokens = live.tokens[..., -1].flatten()
                log_p, state = view.step(tokens, view.select(state, index))
                if fusion is None:
                    scores = log_p.new_zeros(len(log_p), 0, log_p.shape[1])
                else:
                    scores, scorer = fusion.advance(tokens, fusion.select(scorer, index))
        return [sorted(those, key=lambda h: h.score, reverse=True)[: self.config.nbest] for those in ended]

    def _grown(self, live: _Hypotheses, log_p: Tensor, scores: Tensor) -> tuple[_Hypotheses, Tensor]:
        """The 2 K best continuations, among which K go on, best first, and the columns [n, 2 K] they come from."""
        n, width, length = live.tokens.shape
        vocab, eos, config = log_p.shape[1], self.view.eos, self.config
        total = (log_p.double() + scores.double().sum(1)).view(n, width, vocab) + live.score[..., None]
        for u in total.isnan().flatten(1).any(1).nonzero()[:1, 0].tolist():
            raise InputError(f"utterance {int(live.utterance[u])}: the scores of token {length} are not numbers")
        if length < config.min_tokens:
            total[..., eos] = NONE
        if length == config.max_tokens:
            ending = total[..., eos].clone()
            total.fill_(NONE)
            total[..., eos] = ending
        for loop in range(1, LONGEST_LOOP + 1):
            if config.max_repeats and length >= (span := loop * (config.max_repeats + 1) - 1):
                tail = live.tokens[..., length - span :]
                again = (tail[..., loop:] == tail[..., :-loop]).all(-1, keepdim=True)
                following = live.tokens[..., length - loop, None]
                total.scatter_(2, following, total.gather(2, following).masked_fill(again, NONE))
        _, index = total.flatten(1).topk(min(2 * config.beam, width * vocab))
        source, token = index // vocab, index % vocab
        grown = live.gathered(source)
        row = torch.arange(n, device=token.device)[:, None] * width + source
        grown.tokens = torch.cat([grown.tokens, token[..., None]], dim=2)
        grown.parts = grown.parts + scores[row, :, token].double()
        grown.acoustic = torch.where(total.flatten(1).gather(1, index) > NONE, grown.acoustic + log_p[row, token], NONE)
        return grown, source

    def _normed(self, score: Tensor, length: int) -> Tensor:
        normed: Tensor = score / length**self.config.length_norm
        return normed

    def _is_done(self, ended: list[TokenHypothesis], best: float) -> bool:
        """Whether nothing can be expected of hypotheses of which the best would score `best` if it ended now."""
        enough = sorted((h.score for h in ended), reverse=True)[: self.config.beam]
        return best == NONE or (len(enough) == self.config.beam and best <= enough[-1])

    def _ended(self, grown: _Hypotheses, n: int, k: int) -> TokenHypothesis:
        tokens = grown.tokens[n, k, :-1].tolist()
        names = () if self.fusion is None else self.fusion.names
        return TokenHypothesis(
            tokens=tuple(tokens),
            score=float(self._normed(grown.score[n, k], len(tokens) + 1)),
            acoustic=float(grown.acoustic[n, k]),
            fused=float(grown.parts[n, k].sum()),
            parts=dict(zip(names, grown.parts[n, k].tolist(), strict=True)),
        )


@dataclass
class _Hypotheses:
    utterance: Tensor  # [n]
    tokens: Tensor  # [n, W, L]
    acoustic: Tensor  # float64 [n, W]; -inf where there is none
    parts: Tensor  # float64 [n, W, P]

    @classmethod
    def roots(cls, batch: int, parts: int, device: torch.device) -> Self:
        return cls(
            utterance=torch.arange(batch, device=device),
            tokens=torch.zeros(batch, 1, 0, dtype=torch.int64, device=device),
            acoustic=torch.zeros(batch, 1, dtype=torch.float64, device=device),
            parts=torch.zeros(batch, 1, parts, dtype=torch.float64, device=device),
        )

    @property
    def score(self) -> Tensor:
        return self.acoustic + self.parts.sum(-1)

    def __getitem__(self, rows: Tensor) -> _Hypotheses:
        return _Hypotheses(self.utterance[rows], self.tokens[rows], self.acoustic[rows], self.parts[rows])

    def gathered(self, columns: Tensor) -> _Hypotheses:
        """The hypotheses in `columns` [n, K]."""
        index = columns[..., None]
        return _Hypotheses(
            self.utterance,
            self.tokens.take_along_dim(index, 1),
            self.acoustic.gather(1, columns),
            self.parts.take_along_dim(index, 1),
        )
