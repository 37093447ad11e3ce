"""Teach a trained recogniser to say how sure it is of each word; see `confidence` for what is learnt.

Give it recordings with transcripts that it was not trained on, and as hard as those it will hear: on its own training
recordings it hardly makes errors, and would learn to be sure of everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from lhotse.cut import CutSet
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize_scalar
from torch import nn
from torch.nn import functional

from wieldy.errors import InputError, UsageError
from wieldy.metrics import confidence as figures
from wieldy.metrics.text import align, word_errors
from wieldy.report import Metric, Report, Result
from wieldy.speech.asr import error_rate
from wieldy.speech.corpus import SAMPLE_RATE, samples_of, text_of
from wieldy.speech.decode.confidence import ALONE, NETWORK, Confidence, Kind, features_of, names_of
from wieldy.speech.recognize.transducer import TransducerRecognizer
from wieldy.training.loop import TrainConfig, train
from wieldy.training.schedules import Schedule

Calibration = Literal["temperature", "isotonic"]

_EASY = 0.02  # share of wrong words, below which recordings were probably trained on; rnnt-practical's
_CALIBRATED_ON = 3  # one in so many recordings
_LOGITS = 15.0  # up to which calibrated logits are told apart: a chance of 3e-7
_POINTS = 121  # between which a temperature curve is straight: less than 0.002 off


@dataclass(frozen=True, kw_only=True)
class ConfidenceConfig:
    """Where no source is named, the default is that of rnnt-practical."""

    features: Kind = "decode+cn"  # decode: what one hypothesis tells, for streams and for least cost
    nbest: int = 8  # hypotheses that are compared, >= 1; no more than the beam has
    hidden: tuple[int, ...] = (64, 64)  # units of each layer; (): logistic regression
    calibration: Calibration = "temperature"  # isotonic takes some thousand words
    scale: float | None = None  # of scores in the confusion network, > 0; None: 1 / the mean number of words
    steps: int = 300  # on all words at once, >= 1; ours
    rate: float = 3e-3  # highest learning rate, > 0; ours
    weight_decay: float = 0.1  # >= 0; ours: there are few words to learn from
    seed: int = 0

    def __post_init__(self) -> None:
        if self.features not in get_args(Kind):
            raise UsageError(f"features {self.features!r}", hint=f"choose {', '.join(get_args(Kind))}")
        if self.calibration not in get_args(Calibration):
            raise UsageError(f"calibration {self.calibration!r}", hint=f"choose {', '.join(get_args(Calibration))}")
        for name, least in (("nbest", 1), ("steps", 1), ("weight_decay", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")
        if not self.rate > 0 or not all(units > 0 for units in self.hidden):
            raise UsageError(f"rate {self.rate}, hidden {self.hidden}", hint="they must be above 0")


@dataclass(frozen=True)
class Judged:
    """Words that were heard: features [words, F], whether each is right, what the recogniser thinks of its least likely
    token, and the errors of each recording."""

    features: NDArray[np.float64]
    right: NDArray[np.bool_]
    plain: NDArray[np.float64]
    errors: tuple[tuple[list[str], list[str]], ...]


def judged(
    recognizer: TransducerRecognizer, cuts: CutSet, kind: Kind = "decode+cn", scale: float | None = None
) -> Judged:
    """What is heard in `cuts` by the recogniser as it is. A word is right where a Levenshtein alignment to the
    transcript finds it."""
    rows, right, plain, answers = [], [], [], []
    for cut in cuts:
        nbest, tapped = recognizer.searched(samples_of(cut), SAMPLE_RATE)
        said = text_of(cut).split()
        heard: list[str] = []
        if nbest and nbest[0].tokens:
            words = recognizer.placed(recognizer.words(nbest[0]), nbest[0], tapped)
            heard = [word.text for word in words]
            rows.append(features_of(recognizer, nbest, words, kind, scale))
            plain += [word.confidence or 0.0 for word in words]
        found = {h for r, h in align(said, heard) if r is not None and h is not None and said[r] == heard[h]}
        right += [place in found for place in range(len(heard))]
        answers.append((said, heard))
    features = np.concatenate([*rows, np.zeros((0, len(names_of(kind))))])
    return Judged(features, np.array(right, bool), np.array(plain), tuple(answers))


def train_confidence(
    recognizer: TransducerRecognizer, cuts: CutSet, *, config: ConfidenceConfig = ConfidenceConfig()
) -> Result[TransducerRecognizer]:
    """`recognizer` with a confidence for its words, trained on two thirds of `cuts`, recordings with transcripts, and
    calibrated on the rest, on which the report's figures are, too.

    Raises `InputError` where too few words are heard, or all of them right.
    """
    beam = recognizer.beam.config
    searching = recognizer.changed(beam=replace(beam, nbest=min(config.nbest, beam.beam)), confidence=None)
    learn, calibrate = _parts(cuts, config.seed)
    taught = judged(searching, learn, config.features, config.scale)
    checked = judged(searching, calibrate, config.features, config.scale)
    for part in (taught, checked):
        if len(part.right) < 2 or part.right.all() or not part.right.any():
            raise InputError(
                f"{len(part.right)} words are heard, {int(part.right.sum())} of them right",
                hint="give recordings with right and wrong words, some hundred of them",
            )
    layers, mean, deviation = _trained(taught, config)
    classifier = Confidence(
        layers, mean, deviation, np.zeros((2, 1), np.float32), config.features, config.nbest, config.scale
    )
    classifier = _calibrated(classifier, checked, config.calibration)
    errors = [word_errors(said, heard) for said, heard in taught.errors + checked.errors]
    metric = error_rate("word error rate", errors)
    notes = []
    if metric.median < 100 * _EASY:
        notes.append(
            f"only {metric.median:.2g} % of the words are wrong: if it was trained on these recordings, it will be too "
            "sure of others"
        )
    if config.features == "decode+cn" and min(config.nbest, beam.beam) == 1:
        notes.append("the beam has one hypothesis: nothing competes with any word")
    values = classifier(checked.features)
    report = Report(
        "word confidence",
        (
            metric,
            Metric.of("words to learn from", len(taught.right)),
            *quality("classifier", values, checked.right),
            *quality("least token", checked.plain, checked.right),
        ),
        notes=tuple(notes),
        details=asdict(config),
    )
    return Result(recognizer.changed(confidence=classifier), report)


def recalibrate(
    recognizer: TransducerRecognizer, cuts: CutSet, calibration: Calibration = "temperature"
) -> TransducerRecognizer:
    """`recognizer` with its confidence calibrated anew on `cuts`: enough after an adaptation. Raises `UsageError` for
    one that has no confidence."""
    own = recognizer.confidence
    if own is None:
        raise UsageError(f"{recognizer.model_id} has no confidence", hint="train_confidence gives it one")
    return recognizer.changed(confidence=_calibrated(own, judged(recognizer, cuts, own.kind, own.scale), calibration))


def quality(name: str, values: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Metric, ...]:
    """The figures of `metrics.confidence`."""
    count = len(right)
    return (
        Metric.of(f"{name}: AUC", figures.auc(values, right), count=count),
        Metric.of(f"{name}: average precision of errors", figures.error_precision(values, right), count=count),
        Metric.of(f"{name}: NCE", figures.nce(values, right), count=count),
        Metric.of(f"{name}: ECE", figures.ece(values, right), count=count),
        *(
            Metric.of(
                f"{name}: wrong words accepted with {share:.0%} of the right ones",
                100 * figures.false_accepts(values, right, share),
                "%",
                count=count,
            )
            for share in (0.9, 0.95, 0.99)
        ),
    )


def _parts(cuts: CutSet, seed: int) -> tuple[CutSet, CutSet]:
    every = list(cuts)
    if len(every) < 2:
        raise InputError(f"{len(every)} recordings to learn confidence from", hint="give some hundred")
    order = np.random.default_rng(seed).permutation(len(every)).tolist()
    kept = max(1, len(every) // _CALIBRATED_ON)
    learn, calibrate = (CutSet.from_cuts([every[i] for i in part]) for part in (order[kept:], order[:kept]))
    return learn, calibrate


class _Once:
    """All words, an epoch of one step."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self._tensors = tensors

    def epoch(self, number: int) -> Sequence[tuple[torch.Tensor, ...]]:  # noqa: ARG002
        return [self._tensors]


def _trained(
    taught: Judged, config: ConfidenceConfig
) -> tuple[tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...], NDArray[np.float32], NDArray[np.float32]]:
    """Layers of the classifier, with mean and deviation of the features."""
    features, right = taught.features, taught.right
    if config.features == "decode+cn":
        # Streams have no N-best lists: every word is learnt as if it stood alone, too.
        without = features.copy()
        without[:, -len(NETWORK) :] = ALONE
        features, right = np.concatenate([features, without]), np.concatenate([right, right])
    mean, deviation = features.mean(0).astype(np.float32), features.std(0).astype(np.float32)
    deviation[deviation < 1e-6] = 1.0  # a feature that is always the same
    torch.manual_seed(config.seed)
    sizes = [features.shape[1], *config.hidden, 1]
    linear = [nn.Linear(entering, leaving) for entering, leaving in itertools.pairwise(sizes)]
    network = nn.Sequential(*(part for layer in linear for part in (layer, nn.ReLU())))[:-1]
    z = torch.from_numpy(((features - mean) / deviation).astype(np.float32))
    target = torch.from_numpy(right.astype(np.float32))

    def loss(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(network(batch[0])[:, 0], batch[1])

    settings = TrainConfig(
        steps=config.steps,
        schedule=Schedule(peak=config.rate, shape="cosine"),
        weight_decay=config.weight_decay,
        seed=config.seed,
        cpu=True,
    )
    train(network, _Once(z, target), loss, settings)
    layers = tuple((layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear)
    return layers, mean, deviation


def _calibrated(classifier: Confidence, checked: Judged, calibration: Calibration) -> Confidence:
    """The classifier with knots that fit its logits to how often words are right."""
    logits = classifier.raw(checked.features)
    right = checked.right.astype(float)
    if calibration == "isotonic":
        order = np.argsort(logits, kind="stable")
        # Half a word of either kind keeps a probability from being 0 or 1.
        least = 0.5 / len(right)
        knots = np.stack([logits[order], isotonic_regression(right[order]).x.clip(least, 1 - least)])
    else:

        def cost(log_temperature: float) -> float:
            scaled = logits / np.exp(log_temperature)
            return float(np.mean(np.logaddexp(0, scaled) - right * scaled))

        temperature = float(np.exp(minimize_scalar(cost, bounds=(-4, 4), method="bounded").x))
        scaled = np.linspace(-_LOGITS, _LOGITS, _POINTS)
        knots = np.stack([scaled * temperature, 1 / (1 + np.exp(-scaled))])
    return replace(classifier, knots=knots.astype(np.float32))
