"""How likely each recognised word is right, as a probability that means what it says.

A small classifier looks at what the search saw where it emitted the word's tokens and, in an N-best list, at the words
that compete for its place. It is trained on recordings that the recogniser was not trained on (`learn_confidence`), and
calibrated on others again. Without N-best lists, as in streams, it does with the first kind.

Rui Zhao et al. 2021, On addressing practical challenges for RNN-Transducer, arXiv 2105.00858, have both kinds of
features; which ones, and the classifier, are ours. With z the standardised features and q the calibration,

    confidence = q(sigmoid(W_3 relu(W_2 relu(W_1 z + b_1) + b_2) + b_3))
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from wieldy.cache import replacing, write_text
from wieldy.errors import InputError, UsageError
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.decode.confusion_network import Span, confusion_network
from wieldy.speech.decode.word_times import Said
from wieldy.speech.recognize import HeardWord
from wieldy.weights.folders import read_json
from wieldy.weights.tensors import load_safetensors

if TYPE_CHECKING:
    from wieldy.speech.networks.transducer import Transducer
    from wieldy.speech.recognize.transducer import TransducerRecognizer

Kind = Literal["decode", "decode+cn"]

_SEARCH = ("log_prob", "entropy", "margin", "blank_before", "blank_after", "gap", "active")
_TOKEN = (*_SEARCH, "frames_since", "internal", "without_internal")
DECODING = (
    *(f"{name}, {of}" for name in _TOKEN for of in ("mean", "least", "last")),
    "tokens",
    "seconds",
    "log of seconds over expected",
)
NETWORK = ("posterior", "entropy", "competitors", "posterior of no word", "posterior by time", "alone")
ALONE = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])  # of a word without competitors because there is one hypothesis
_WIDEST = 20.0  # nats: a wider gap to the second hypothesis, and an infinite one, say no more

_ABOUT, _WEIGHTS = "confidence.json", "confidence.safetensors"
_FORMAT = "wieldy-confidence-1"


@dataclass(frozen=True)
class Confidence:
    """A trained classifier. `layers` are pairs of weights [in, out] and biases [out], the last with one output;
    `knots` [2, k] are sorted outputs and the probabilities they stand for, straight lines between them."""

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    knots: NDArray[np.float32]
    kind: Kind = "decode+cn"
    nbest: int = 8  # hypotheses that are compared, as far as the beam has so many
    scale: float | None = None  # of scores in the confusion network; None: its default

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"features {self.kind!r}", hint=f"choose {', '.join(get_args(Kind))}")
        width = len(self.names)
        for weights, bias in self.layers:
            if weights.shape != (width, len(bias)):
                raise InputError(f"weights of shape {weights.shape} for {width} inputs and {len(bias)} outputs")
            width = len(bias)
        if width != 1 or {self.mean.shape, self.deviation.shape} != {(len(self.names),)}:
            raise InputError(f"a classifier of {self.mean.shape} features with {width} outputs")

    @property
    def names(self) -> tuple[str, ...]:
        return names_of(self.kind)

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities [words] of being right, of features [words, F]."""
        return np.asarray(np.interp(self.raw(features), *self.knots), np.float64)

    def raw(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The classifier's logits [words], before calibration."""
        z = (features - self.mean) / self.deviation
        for number, (weights, bias) in enumerate(self.layers):
            z = z @ weights + bias
            if number + 1 < len(self.layers):
                z = np.maximum(z, 0.0)
        return np.asarray(z[:, 0], np.float64)

    def seen(
        self, recognizer: TransducerRecognizer, nbest: Sequence[TokenHypothesis], words: Sequence[HeardWord]
    ) -> NDArray[np.float64]:
        """The features [words, F] of the best hypothesis of `recognizer`, whose words have the times of `words`."""
        return features_of(recognizer, nbest, words, self.kind, self.scale)

    def marked(self, words: Sequence[HeardWord], features: NDArray[np.float64]) -> list[HeardWord]:
        """The words with their confidence."""
        values = self(features).tolist() if words else []
        return [replace(word, confidence=value) for word, value in zip(words, values, strict=True)]

    def save(self, folder: Path) -> None:
        tensors = {"mean": self.mean, "deviation": self.deviation, "knots": self.knots}
        for number, (weights, bias) in enumerate(self.layers):
            tensors |= {f"weights.{number}": weights, f"bias.{number}": bias}
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / _WEIGHTS) as path:
            save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
        about = {"format": _FORMAT, "features": self.names, "kind": self.kind, "nbest": self.nbest, "scale": self.scale}
        write_text(folder / _ABOUT, json.dumps(about, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Confidence:
        """What `save` wrote. Raises `InputError` where it is something else."""
        about, tensors = read_json(folder / _ABOUT), load_safetensors(folder / _WEIGHTS, "numpy")
        if about.get("format") != _FORMAT or about.get("kind") not in get_args(Kind):
            raise InputError(f"{folder / _ABOUT} is no {_FORMAT}")
        if tuple(about.get("features", ())) != names_of(about["kind"]):
            raise InputError(f"{folder / _ABOUT} has other features than this version", hint="train it again")
        try:
            count = sum(name.startswith("weights.") for name in tensors)
            layers = tuple((tensors[f"weights.{number}"], tensors[f"bias.{number}"]) for number in range(count))
            return cls(
                layers,
                tensors["mean"],
                tensors["deviation"],
                tensors["knots"],
                about["kind"],
                int(about["nbest"]),
                about["scale"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder / _WEIGHTS} is no classifier of {about['kind']}: {error}") from error

    @staticmethod
    def in_folder(folder: Path) -> bool:
        return (folder / _ABOUT).is_file()


def names_of(kind: Kind) -> tuple[str, ...]:
    return DECODING + NETWORK if kind == "decode+cn" else DECODING


def utterance_confidence(words: Sequence[float]) -> float:
    """The probability that all words are right, taken as independent; 1 without any."""
    return math.prod(words)


def features_of(
    recognizer: TransducerRecognizer,
    nbest: Sequence[TokenHypothesis],
    words: Sequence[HeardWord],
    kind: Kind,
    scale: float | None = None,
) -> NDArray[np.float64]:
    """Features [words, F] of the best of `nbest`, whose words have the times of `words`."""
    said = recognizer.said(nbest[0])
    if not said.words:
        return np.zeros((0, len(names_of(kind))))
    timer = recognizer.timing.phones if recognizer.timing else None
    lengths: list[tuple[float, float | None] | None] = []
    for word in words:
        expected = timer.expected_s(word.text) if timer else None
        timed = word.start is not None and word.end is not None
        lengths.append((word.end - word.start, expected) if timed else None)  # type: ignore[operator]
    internal = internal_log_probs(recognizer.network, said.tokens)
    decoding = decoding_features(nbest[0], said, internal, lengths)
    if kind == "decode":
        return decoding
    hypotheses = [said, *map(recognizer.said, nbest[1:])]
    return np.concatenate([decoding, network_features(hypotheses, [one.score for one in nbest], scale)], axis=1)


def decoding_features(
    best: TokenHypothesis,
    said: Said,
    internal: NDArray[np.floating] | None = None,
    lengths: Sequence[tuple[float, float | None] | None] = (),
) -> NDArray[np.float64]:
    """What the search saw of each word, [words, `DECODING`].

    `internal` [tokens] are log-probabilities of the tokens by the prediction network alone; `lengths` how long each
    word lasts and how long it lasts usually, in seconds. What is not known counts as 0. Raises `UsageError` for a
    hypothesis without features.
    """
    if best.features is None:
        raise UsageError(
            "a hypothesis without features", hint="TokenFeatures.of_log_probs makes the least there can be"
        )
    frames = np.array(said.frames or np.zeros(len(said.tokens)), float)
    own = np.zeros(len(said.tokens)) if internal is None else np.asarray(internal, float)
    columns = [np.asarray(getattr(best.features, name), float) for name in _SEARCH]
    columns[_SEARCH.index("gap")] = np.minimum(columns[_SEARCH.index("gap")], _WIDEST)
    columns += [np.diff(frames, prepend=0.0), own, columns[0] - own]
    tokens = np.stack(columns, axis=1)
    starts = np.array(said.starts)
    after = np.append(starts[1:], len(tokens))
    count = (after - starts)[:, None]
    mean = np.add.reduceat(tokens, starts) / count
    least = np.minimum.reduceat(tokens, starts)
    by_word = np.stack([mean, least, tokens[after - 1]], axis=2).reshape(len(starts), -1)
    return np.concatenate([by_word, count, _of_lengths(lengths, len(starts))], axis=1)


def _of_lengths(lengths: Sequence[tuple[float, float | None] | None], words: int) -> NDArray[np.float64]:
    found = np.zeros((words, 2))
    for row, length in zip(found, lengths, strict=False):
        if length is not None:
            seconds, expected = length
            row[:] = seconds, math.log(max(seconds, 1e-2) / max(expected, 1e-2)) if expected else 0.0
    return found


def network_features(
    hypotheses: Sequence[Said], scores: Sequence[float], scale: float | None = None
) -> NDArray[np.float64]:
    """What competes with each word of the first hypothesis, [words, `NETWORK`]; "alone" is 1 for an only one.

    `posterior by time` is of a network whose words share a place only where they overlap in time.
    """
    if len(hypotheses) == 1:
        return np.tile(ALONE, (len(hypotheses[0].words), 1))
    words = [said.words for said in hypotheses]
    plain = confusion_network(words, scores, scale=scale)
    timed = confusion_network(words, scores, scale=scale, times=[_spans(said) for said in hypotheses])
    found = []
    for slot, other, word in zip(plain.of_pivot(), timed.of_pivot(), words[0], strict=True):
        competitors = sum(candidate not in (word, None) for candidate in slot.posteriors)
        nothing = slot.posteriors.get(None, 0.0)
        by_time = other.posteriors[word]
        found.append([slot.posteriors[word], slot.entropy, float(competitors), nothing, by_time, 0.0])
    return np.array(found).reshape(-1, len(NETWORK))


def _spans(said: Said) -> list[Span]:
    """From the first frame of each word to the one after its last."""
    after = (*said.starts, len(said.tokens))[1:]
    return [
        (float(said.frames[first]), float(said.frames[last - 1] + 1))
        for first, last in zip(said.starts, after, strict=True)
    ]


@torch.inference_mode()
def internal_log_probs(network: Transducer, tokens: Sequence[int]) -> NDArray[np.float64]:
    """Log-probabilities [tokens] of each token by those before it, without the encoder and without blanks."""
    targets = torch.tensor([list(tokens)])
    logits = network.join_internal(network.predict(targets)[0, :-1]).double()
    logits[:, network.blank] = -torch.inf
    return logits.log_softmax(1).gather(1, targets[0, :, None])[:, 0].numpy()
