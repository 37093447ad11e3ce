"""What a language model adds to a recogniser's scores, and what of its own is taken away for it.

A recogniser has learnt the language of its transcripts along with their sound. Where another language model is added,
that of the recogniser counts as well, and pulls towards what it was trained on; its estimate is subtracted.

    score(y) = log P(y | x) + lm_weight log P_target(y) - ilm_weight log P_source(y)

`shallow` leaves the last term out; in `density-ratio` it is a model of the transcripts the recogniser was trained on,
in `lodr` a bigram of them, and in `ilme` the recogniser itself without its ears:

    transducer         log softmax W_o act(W_g g_u + b_g) over the labels, without blank
    encoder-decoder    log softmax of the decoder, with nothing where attention to the sound was

Zhong Meng et al. 2020, Internal language model estimation for domain-adaptive end-to-end speech recognition, arXiv
2011.01991; Erik McDermott et al. 2019, A density ratio approach to language model fusion, arXiv 2002.11268; Huahuan
Zheng et al. 2022, An empirical study of language model integration for transducer based speech recognition (LODR),
arXiv 2203.16776. All of them depend on tokens alone, so a search computes them once for each prefix.

Notation: n hypotheses, P parts, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
from torch import Tensor

from wieldy.errors import UsageError
from wieldy.speech.decode import PrefixScorer, State
from wieldy.speech.decode.lm import TokenLM

if TYPE_CHECKING:
    from wieldy.speech.networks.views import AEDView, TransducerView

Method = Literal["shallow", "density-ratio", "lodr", "ilme"]
_TOO_MUCH = 2.0  # times lm_weight: what is subtracted then outweighs what is added


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Weights as ilme.md has them; every model and domain has better ones: `tune`."""

    method: Method = "ilme"
    lm_weight: float = 0.3  # of the target's language model, >= 0
    ilm_weight: float = 0.15  # of the source's, 0 to 2 lm_weight; with method shallow it does not count
    bonus: float = 0.0  # nats for every token, against language models' preference for short answers
    lm_end: bool = False  # whether the language model also scores where an utterance ends

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(f"fusion method {self.method!r}", hint=f"choose {', '.join(get_args(Method))}")
        for name in ("lm_weight", "ilm_weight"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must not be negative")
        if self.method != "shallow" and self.ilm_weight > self.lm_weight:
            if self.ilm_weight >= _TOO_MUCH * self.lm_weight:
                raise UsageError(
                    f"ilm_weight {self.ilm_weight:g} for an lm_weight of {self.lm_weight:g}",
                    hint="more is subtracted than added, and words are made up: about half of lm_weight is usual",
                )
            warnings.warn(
                f"ilm_weight {self.ilm_weight:g} is above lm_weight {self.lm_weight:g}: words may be made up",
                UserWarning,
                stacklevel=3,
            )


def fusion(
    view: TransducerView | AEDView, lm: TokenLM, config: FusionConfig = FusionConfig(), source: TokenLM | None = None
) -> PrefixScorer:
    """What a search with `view` adds for the target's language model `lm`: parts "lm" and, but for method shallow,
    "ilm". `source` is the model of the recogniser's transcripts, for methods density-ratio and lodr.

    Raises `UsageError` where it is missing, or where a model has another vocabulary than the recogniser.
    """
    for name, model in (("language model", lm), ("source's language model", source)):
        if model is not None and model.vocab != view.vocab:
            raise UsageError(
                f"the {name} has {model.vocab} tokens, the recogniser {view.vocab}",
                hint="train it on the recogniser's own tokens",
            )
    target = LMScorer(lm, config.lm_weight, bonus=config.bonus, end=config.lm_end)
    if config.method == "shallow":
        return target
    own: PrefixScorer
    if config.method == "ilme":
        if hasattr(view, "internal_step"):
            own = LMScorer(DecoderLM(cast("AEDView", view)), -config.ilm_weight, name="ilm", end=config.lm_end)
        else:
            own = InternalScorer(view, config.ilm_weight)
    elif source is None:
        raise UsageError(
            f"method {config.method} without a language model of what the recogniser was trained on",
            hint="give it one, or choose method ilme, which needs none",
        )
    else:
        own = LMScorer(source, -config.ilm_weight, name="ilm", end=config.lm_end)
    return Together([target, own])


class LMScorer:
    """A `PrefixScorer` of one language model: `weight` times its log-probabilities, and `bonus` for every token."""

    def __init__(self, lm: TokenLM, weight: float, *, name: str = "lm", bonus: float = 0.0, end: bool = False) -> None:
        self.lm, self.weight, self.names, self.bonus, self.scores_end = lm, weight, (name,), bonus, end

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, State]:
        log_p, state = self.lm.start(n, None if g is None else g.device)
        return self._scores(log_p), (self._ending(log_p), state)

    def advance(self, tokens: Tensor, state: State, g: Tensor | None = None) -> tuple[Tensor, State]:  # noqa: ARG002
        log_p, after = self.lm.advance(tokens, state[1])
        return self._scores(log_p), (self._ending(log_p), after)

    def select(self, state: State, index: Tensor) -> State:
        return state[0][index], self.lm.select(state[1], index)

    def end(self, state: State) -> Tensor:
        ending: Tensor = state[0]
        return ending

    def _scores(self, log_p: Tensor) -> Tensor:
        """[n, 1, V]; the end among them, which a search of encoder-decoders reads as a token."""
        scores = self.weight * log_p + self.bonus
        scores[:, self.lm.end] = self._ending(log_p)[:, 0]
        return scores[:, None]

    def _ending(self, log_p: Tensor) -> Tensor:
        return self.weight * log_p[:, self.lm.end, None] * float(self.scores_end)


class InternalScorer:
    """A `PrefixScorer` of a transducer's own language model, times minus `weight`. State: none."""

    names = ("ilm",)

    def __init__(self, view: TransducerView, weight: float) -> None:
        self.view, self.weight = view, weight

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, State]:
        if g is None:
            raise UsageError("a transducer's internal language model without its predictions")
        return self._scores(g), g.new_zeros(n, 0)

    def advance(self, tokens: Tensor, state: State, g: Tensor | None = None) -> tuple[Tensor, State]:  # noqa: ARG002
        return self.start(len(tokens), g)

    def select(self, state: State, index: Tensor) -> State:
        return state[index]

    def end(self, state: State) -> Tensor:
        return torch.zeros(len(state), 1, device=state.device)

    def _scores(self, g: Tensor) -> Tensor:
        return -self.weight * internal_log_p(self.view, g)[:, None]


def internal_log_p(view: TransducerView, g: Tensor) -> Tensor:
    """log P [n, V] of the next label by a transducer's own language model, from its predictions g [n, J]; 0 for blank,
    which is no label."""
    logits = view.join_internal(g).float().index_fill(1, torch.tensor([view.blank], device=g.device), -torch.inf)
    return logits.log_softmax(1).index_fill(1, torch.tensor([view.blank], device=g.device), 0.0)


class DecoderLM:
    """The `TokenLM` inside an encoder-decoder: its decoder without sound, after the prompt. 0 for tokens that are no
    text."""

    def __init__(self, view: AEDView) -> None:
        self.view, self.vocab, self.end = view, view.vocab, view.eos

    def start(self, n: int, device: torch.device | None = None) -> tuple[Tensor, State]:
        state = self.view.start_internal(n)
        for token in self.view.prompt:
            log_p, state = self.view.internal_step(torch.full((n,), token, dtype=torch.int64, device=device), state)
        return log_p, state

    def advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        return self.view.internal_step(tokens, state)

    def select(self, state: State, index: Tensor) -> State:
        return self.view.select(state, index)


class Together:
    """Several `PrefixScorer`s as one, each with its own parts."""

    def __init__(self, scorers: Sequence[PrefixScorer]) -> None:
        self.scorers = tuple(scorers)
        self.names = tuple(name for scorer in scorers for name in scorer.names)
        if len(set(self.names)) < len(self.names):
            raise UsageError(f"two scorers have parts of one name: {', '.join(self.names)}")

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, State]:
        return self._joined([scorer.start(n, g) for scorer in self.scorers])

    def advance(self, tokens: Tensor, state: State, g: Tensor | None = None) -> tuple[Tensor, State]:
        return self._joined([own.advance(tokens, of, g) for own, of in zip(self.scorers, state, strict=True)])

    def select(self, state: State, index: Tensor) -> State:
        return tuple(own.select(of, index) for own, of in zip(self.scorers, state, strict=True))

    def end(self, state: State) -> Tensor:
        return torch.cat([own.end(of) for own, of in zip(self.scorers, state, strict=True)], dim=1)

    @staticmethod
    def _joined(found: Sequence[tuple[Tensor, State]]) -> tuple[Tensor, State]:
        return torch.cat([scores for scores, _ in found], dim=1), tuple(state for _, state in found)
