"""Statistics over recordings that a network keeps with its weights: how its features spread, and what speech is like.

Norms of a whole utterance need all of it; these are measured once, before training, and work in streams.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wieldy.errors import InputError


class NormalizedFeatures(nn.Module):
    """A network on features with mean 0 and deviation 1 over the recordings that `measure_features_` was given."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(input_dim))
        self.register_buffer("feature_deviation", torch.ones(input_dim))
        self.feature_mean: Tensor
        self.feature_deviation: Tensor

    def normalized(self, x: Tensor) -> Tensor:
        return (x - self.feature_mean) / self.feature_deviation

    def measure_features_(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set mean and deviation from pairs of features [B, T, F] and lengths [B]. Before training; saved with the
        weights."""
        mean, deviation = moments(batches)
        self.feature_mean.copy_(mean)
        self.feature_deviation.copy_(deviation.clamp(min=1e-3))  # a band without any sound stays as it is


@torch.no_grad()
def moments(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [F] over all frames of pairs of [B, T, F] and lengths [B], float64.

    For the mean encoding of speech that some internal language models ask for, `(view.encode(*b) for b in batches)` of
    about a hundred utterances.
    """
    total = square = torch.zeros((), dtype=torch.float64)
    count = 0
    for x, lens in batches:
        for row, frames in zip(x, lens.tolist(), strict=True):
            part = row[:frames].double().cpu()
            total, square, count = total + part.sum(0), square + part.square().sum(0), count + frames
    if not count:
        raise InputError("no frames to take a mean of")
    mean = total / count
    return mean, (square / count - mean.square()).clamp(min=0).sqrt()
