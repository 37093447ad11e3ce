"""What a search or a loss needs to know of a recogniser, whoever made it.

`TransducerView` is implemented by `wieldy.speech.networks.transducer.Transducer`; other libraries' models get one by
the adapters beside this module. Internal language model: Zhong Meng et al. 2020, Internal language model estimation for
domain-adaptive end-to-end speech recognition, arXiv 2011.01991.

Notation: B utterances, T frames, T' encoder frames, n hypotheses, J joint width, V vocabulary with blank.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from torch import Tensor

# What stands for the encoder when a transducer is asked for its internal language model: nothing (`projected`), a
# silent encoder, whose projection has its bias still (`encoder_output`), or the mean encoding of real speech (`mean`).
InternalLmCut = Literal["projected", "encoder_output", "mean"]


class TransducerView(Protocol):
    """A transducer, hypothesis by hypothesis. Scores are logits [n, V]; a softmax makes them probabilities."""

    @property
    def blank(self) -> int: ...

    @property
    def vocab(self) -> int:
        """V, blank included."""
        ...

    def encode(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Projected encodings f [B, T', J] of features or samples, and their lengths [B]."""
        ...

    def start(self, n: int) -> tuple[Tensor, Any]:
        """Projected predictor output g [n, J] and state of `n` hypotheses without labels."""
        ...

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same after one more label each, `tokens` [n], none of them blank."""
        ...

    def select(self, state: Any, index: Tensor) -> Any:
        """The states of the hypotheses `index` [m], repeated as often as they are named."""
        ...

    def join(self, f_rows: Tensor, g_rows: Tensor) -> Tensor:
        """Logits [n, V] of rows f [n, J] and g [n, J]."""
        ...

    def join_internal(self, g_rows: Tensor) -> Tensor:
        """Logits [n, V] without the sound. The blank's is there and means nothing: leave it out of the softmax."""
        ...


# What an encoder-decoder's attention to the sound sees when it is asked for its internal language model: nothing, its
# branch adds 0 (`skip`), a memory of zeros (`zero_states`), which biases can still make something of, or the mean
# encoding of real speech (`mean_states`). All frames of the last two are alike, so one frame stands for them.
InternalLmContext = Literal["skip", "zero_states", "mean_states"]


class AEDView(Protocol):
    """An attention encoder-decoder, token by token. Scores are log-probabilities [n, V]."""

    @property
    def vocab(self) -> int: ...

    @property
    def eos(self) -> int:
        """The token that ends an answer."""
        ...

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens, one or more, that every answer begins with and that are not scored."""
        ...

    def encode(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Memory [B, T', D] of features or samples, and its lengths [B]."""
        ...

    def start(self, memory: Tensor, lens: Tensor) -> Any:
        """The state of one hypothesis per utterance, before the prompt."""
        ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Log-probabilities of what follows one more token each, `tokens` [n], and the state after them."""
        ...

    def select(self, state: Any, index: Tensor) -> Any:
        """The states of the hypotheses `index` [m], repeated as often as they are named. Of internal states too."""
        ...

    def start_internal(self, n: int) -> Any:
        """The state of `n` hypotheses before the prompt, without sound."""
        ...

    def internal_step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """`step` without sound: a distribution over text and the end, with 0 for all other tokens, which no language
        model scores."""
        ...
