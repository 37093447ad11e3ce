"""What keeps an adaptation from costing more than it brings: both domains are measured while it goes on.

The weights that make fewest errors in the new domain are kept, among those that do not make more than
`AdaptConfig.max_worse` more than before on recordings of the source; with the first that do, training ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from wieldy.metrics.text import WordErrors, word_errors
from wieldy.speech.adapt.recordings import Answer, Recordings
from wieldy.speech.networks.transducer import Transducer

DOMAIN, SOURCE = "new domain", "source"
_MEASUREMENTS = 8  # in the course of an adaptation


class SourceWorseError(Exception):
    """Ends the training loop when the source has become too much worse."""


class Guard:
    """Measures `network` on `tests`, by name `DOMAIN` and `SOURCE`, each of which may be missing."""

    def __init__(self, network: Transducer, tests: Mapping[str, Recordings], max_worse: float) -> None:
        self._network, self._tests, self._max_worse = network, tests, max_worse
        self.before = {name: recordings.answers(network) for name, recordings in tests.items()}
        self.after = self.before
        self.rates = {name: {0: rate(answers)} for name, answers in self.before.items()}
        self.best_step, self.stopped_at = 0, 0
        self._best = self._weights()
        self.every, self.steps = 1, 1

    def watch(self, steps: int) -> None:
        """Measure now and then in the next `steps` steps, and after the last."""
        self.steps, self.every = steps, max(1, steps // _MEASUREMENTS)

    def step(self, number: int) -> None:
        """To be called after each step. Raises `SourceWorseError`, which is meant to end the training."""
        if number % self.every and number != self.steps:
            return
        found = {name: recordings.answers(self._network) for name, recordings in self._tests.items()}
        for name, answers in found.items():
            self.rates[name][number] = rate(answers)
        if SOURCE in found and self.rates[SOURCE][number] > self.rates[SOURCE][0] * (1 + self._max_worse):
            self.stopped_at = number
            raise SourceWorseError
        # Where the new domain cannot be measured, the last weights are taken.
        rates = self.rates.get(DOMAIN, {})
        if not rates or rates[number] <= rates[self.best_step]:
            self.best_step, self.after, self._best = number, found, self._weights()

    def restore_best(self) -> None:
        """Give the network the weights that were kept, those it began with where none were."""
        self._network.load_state_dict(self._best)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._network.state_dict().items()}


def errors(answers: Sequence[Answer]) -> list[WordErrors]:
    return [word_errors(said, heard) for said, heard in answers]


def rate(answers: Sequence[Answer]) -> float:
    """The word error rate."""
    return sum(errors(answers), WordErrors()).rate or 0.0
