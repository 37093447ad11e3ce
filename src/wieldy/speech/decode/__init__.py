"""From what recognisers compute to hypotheses: greedy and beam searches, N-best lists, confusion networks.

All searches return `TokenHypothesis`. What else should count, a language model for one, attaches as a `PrefixScorer`:
it scores the next token by the tokens before it, and the searches add its scores without knowing what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

State = Any  # a tensor, or tuples and dictionaries of tensors, hypotheses first


@dataclass(frozen=True, kw_only=True)
class TokenFeatures:
    """What a transducer search saw where it emitted each token: float32 [tokens] each, natural logarithms.

    For word confidence ("On Addressing Practical Challenges for RNN-Transducer", Rui Zhao et al. 2021, arXiv
    2105.00858). A token's node is the one its label arc leaves, on the frame of emission.
    """

    log_prob: NDArray[np.float32]  # of the token
    entropy: NDArray[np.float32]  # of the whole distribution, blank included, in nats
    margin: NDArray[np.float32]  # log_prob minus that of the best other label; below 0 where another was likelier
    blank_before: NDArray[np.float32]  # log P(blank) one frame earlier, still without the token; 0 where none was taken
    blank_after: NDArray[np.float32]  # log P(blank) at the first node with the token; 0 where the audio ended
    gap: NDArray[np.float32]  # score of the best hypothesis minus the second after that frame; inf for one alone
    active: NDArray[np.float32]  # hypotheses in the beam after that frame

    @classmethod
    def of_log_probs(cls, log_probs: Sequence[float]) -> TokenFeatures:
        """Of a search that tells no more than its tokens' log-probabilities, such as `generate` of transformers."""
        nothing = np.zeros(len(log_probs), np.float32)
        return cls(
            log_prob=np.asarray(log_probs, np.float32),
            entropy=nothing,
            margin=nothing,
            blank_before=nothing,
            blank_after=nothing,
            gap=nothing,
            active=nothing + 1,
        )


@dataclass(frozen=True, kw_only=True)
class TokenHypothesis:
    """One answer of a search. `score` = (`acoustic` + `fused`) / tokens ** length_norm ranks an N-best list.

    `acoustic` is the log-probability of the tokens by the recogniser: for a transducer the sum over all alignments that
    the search kept, which never exceeds the whole. `fused` is the sum of `parts`, named by the scorer. `frames` are the
    encoder frames of emission on the likeliest alignment, as many as tokens; a search without frames has none.
    """

    tokens: tuple[int, ...]
    score: float
    acoustic: float
    fused: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    frames: tuple[int, ...] = ()
    features: TokenFeatures | None = None


class PrefixScorer(Protocol):
    """Scores of next tokens by the tokens before them, already weighted, in natural logarithms.

    What is scored must be the same however a prefix was reached: searches compute it once for each prefix, when its
    last token is appended, and merge alignments without it. `names` has an entry for each of P parts, which add up.
    `g` [n, J] is the transducer's own prediction for the same prefixes, for scorers that read it; an encoder-decoder
    has none. State for transducers: tensors, or tuples and dictionaries of tensors, hypotheses first.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, State]:
        """Scores [n, P, V] of first tokens and the state before them. The blank's entry is not read."""
        ...

    def advance(self, tokens: Tensor, state: State, g: Tensor | None = None) -> tuple[Tensor, State]:
        """Scores and state after one more token each, `tokens` [n]."""
        ...

    def select(self, state: State, index: Tensor) -> State:
        """The states of the hypotheses `index` [m], repeated as often as they are named."""
        ...

    def end(self, state: State) -> Tensor:
        """Scores [n, P] of ending here."""
        ...
