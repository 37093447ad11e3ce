"""Finds the weights of a fusion on recordings with transcripts: many by ranking answers anew, the best few by search.

A search with the weights one starts from gives each utterance many answers with their parts; other weights rank them in
another order. What that promises most is searched again, since a search with those weights may find what the first one
lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wieldy.errors import UsageError
from wieldy.metrics.text import WordErrors
from wieldy.report import Metric, Report, Table
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.decode.lm.fusion import FusionConfig

Decode = Callable[[FusionConfig], Sequence[Sequence[TokenHypothesis]]]
Errors = Callable[[int, tuple[int, ...]], WordErrors]

WEIGHTS = tuple(n / 20 for n in range(13))  # ilme.md: 0 to 0.6
SEARCHED = 3  # of the best cells


@dataclass(frozen=True)
class Tuning:
    """The best weights, and the error rate of every pair of weights: by ranking anew, or by search."""

    config: FusionConfig
    ranked: dict[tuple[float, float], float]
    searched: dict[tuple[float, float], float]

    @property
    def report(self) -> Report:
        rows = sorted((rate, *cell) for cell, rate in self.ranked.items())
        shown = tuple(
            (
                f"{lm:g}",
                f"{ilm:g}",
                f"{rate:.4f}",
                f"{self.searched[lm, ilm]:.4f}" if (lm, ilm) in self.searched else "",
            )
            for rate, lm, ilm in rows
        )
        best = self.config.lm_weight, self.config.ilm_weight if self.config.method != "shallow" else 0.0
        return Report(
            f"weights of {self.config.method} fusion",
            (
                Metric.of("language model", best[0]),
                Metric.of("subtracted", best[1]),
                Metric.of("word error rate", self.searched[best]),
            ),
            tables=(Table("All weights", ("language model", "subtracted", "WER, ranked", "WER, searched"), shown),),
        )


def tune(decode: Decode, errors: Errors, config: FusionConfig = FusionConfig()) -> Tuning:
    """`config` with the weights that make the fewest errors.

    `decode` searches the recordings with a config and returns long N-best lists (32), `errors` counts those of one
    answer to an utterance. Of equal weights the smallest are taken. Raises `UsageError` where `config` has no weight to
    start from: a part that was not scored cannot be weighted.
    """
    parts = ("lm",) if config.method == "shallow" else ("lm", "ilm")
    if not config.lm_weight or ("ilm" in parts and not config.ilm_weight):
        raise UsageError("tuning from a weight of 0", hint="begin with lm_weight 0.3 and ilm_weight 0.15")
    answers = [_Answers.of(number, nbest, errors, config) for number, nbest in enumerate(decode(config)) if nbest]
    if not answers:
        raise UsageError("tuning without an answer to any recording")
    cells = [(lm, ilm) for lm in WEIGHTS for ilm in WEIGHTS if ilm <= lm and ("ilm" in parts or not ilm)]
    ranked = {cell: _rate(own.best(*cell, config.bonus) for own in answers) for cell in cells}
    searched = {}
    for lm, ilm in sorted(cells, key=lambda cell: (ranked[cell], cell))[:SEARCHED]:
        weighted = dataclasses.replace(config, lm_weight=lm, ilm_weight=ilm)
        found = enumerate(decode(weighted))
        searched[lm, ilm] = _rate(errors(number, nbest[0].tokens) for number, nbest in found if nbest)
    lm, ilm = min(searched, key=lambda cell: (searched[cell], cell))
    return Tuning(dataclasses.replace(config, lm_weight=lm, ilm_weight=ilm), ranked, searched)


@dataclass(frozen=True)
class _Answers:
    """The N-best list of an utterance, [N] each: scores of the recogniser and of the models, unweighted."""

    acoustic: NDArray[np.float64]
    lm: NDArray[np.float64]
    ilm: NDArray[np.float64]
    tokens: NDArray[np.float64]  # how many
    errors: tuple[WordErrors, ...]

    @classmethod
    def of(cls, number: int, nbest: Sequence[TokenHypothesis], errors: Errors, config: FusionConfig) -> _Answers:
        tokens = np.array([len(one.tokens) for one in nbest], float)
        lm = np.array([one.parts["lm"] for one in nbest]) - config.bonus * tokens
        ilm = np.array([one.parts.get("ilm", 0.0) for one in nbest])
        return cls(
            np.array([one.acoustic for one in nbest]),
            lm / config.lm_weight,
            -ilm / config.ilm_weight if config.ilm_weight else ilm,
            tokens,
            tuple(errors(number, one.tokens) for one in nbest),
        )

    def best(self, lm: float, ilm: float, bonus: float) -> WordErrors:
        return self.errors[int(np.argmax(self.acoustic + lm * self.lm - ilm * self.ilm + bonus * self.tokens))]


def _rate(errors: Iterable[WordErrors]) -> float:
    total = sum(errors, WordErrors())
    return total.rate or 0.0
