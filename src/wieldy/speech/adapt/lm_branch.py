"""Adaptation of the predictor as a language model: no sound at all, and the cheapest there is.

The predictor gets a softmax over tokens for the time being. That layer is first trained alone, so that what it does not
know yet is not blamed on the predictor; then both learn the text. Joint and encoder never see what changed in between,
which is why synthetic speech (`tts`) usually does better. Named as an arm of the comparison in arXiv 2007.15188.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.speech.adapt.config import AdaptConfig
from wieldy.speech.networks.transducer import Transducer
from wieldy.speech.tokens import Tokenizer
from wieldy.training.loop import TrainConfig, train
from wieldy.training.schedules import Schedule

_SENTENCES = 32  # in a batch
# A softmax layer on fixed inputs is a convex problem: it settles quickly, at a high rate.
_HEAD_EPOCHS, _HEAD_RATE = 5, 1e-2
_PADDING = -1

Texts = tuple[Tensor, Tensor | None]  # tokens [n, U] of the new domain and of the source, -1 behind each sentence


class Branch(nn.Module):
    """The predictor with a softmax over tokens: P(y_u | y_1 .. y_u-1)."""

    def __init__(self, network: Transducer) -> None:
        super().__init__()
        self.predictor = network.predictor
        self.softmax = nn.Linear(network.predictor.output_dim, network.vocab).to(network.feature_mean.device)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean over tokens."""
        tokens = tokens.to(self.softmax.weight.device)
        logits = self.softmax(self.predictor(tokens.clamp(min=0))[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=_PADDING)


class Sentences:
    """Sentences of the new domain in random order, with as many of the source beside them."""

    def __init__(self, domain: Sequence[str], source: Sequence[str], tokenizer: Tokenizer, seed: int) -> None:
        self._domain, self._source = (_encoded(lines, tokenizer) for lines in (domain, source))
        self._seed = seed

    def epoch(self, number: int) -> Sequence[Texts]:
        rng = np.random.default_rng([self._seed, number])
        order = rng.permutation(len(self._domain))
        batches: list[Texts] = []
        for begin in range(0, len(order), _SENTENCES):
            own = order[begin : begin + _SENTENCES]
            source = None
            if self._source:
                source = _padded([self._source[i] for i in rng.choice(len(self._source), len(own))])
            batches.append((_padded([self._domain[i] for i in own]), source))
        return batches


def train_as_language_model(
    network: Transducer, sentences: Sentences, config: AdaptConfig, *, steps: int, progress: Callable[[int], None]
) -> None:
    """Train the predictor of `network` for `steps` steps, after the layer on top; `progress` as in `tts`."""
    torch.manual_seed(config.seed)
    branch = Branch(network)

    def loss(branch: nn.Module, texts: Texts) -> Tensor:
        assert isinstance(branch, Branch)
        own, source = texts
        if source is None:
            return branch.loss(own)
        return (1 - config.source_mix) * branch.loss(own) + config.source_mix * branch.loss(source)

    branch.predictor.requires_grad_(False)
    head = TrainConfig(
        steps=_HEAD_EPOCHS * len(sentences.epoch(0)),
        schedule=Schedule(peak=_HEAD_RATE, shape="cosine"),
        seed=config.seed,
    )
    train(branch, sentences, loss, head)
    branch.predictor.requires_grad_(True)
    both = TrainConfig(steps=steps, schedule=Schedule(peak=config.rate, shape="cosine"), seed=config.seed)
    train(branch, sentences, loss, both, progress=lambda step, _: progress(step))


def _encoded(lines: Sequence[str], tokenizer: Tokenizer) -> list[Tensor]:
    return [torch.tensor(tokenizer.encode(line)) for line in lines]


def _padded(tokens: Sequence[Tensor]) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(tokens), batch_first=True, padding_value=_PADDING)
