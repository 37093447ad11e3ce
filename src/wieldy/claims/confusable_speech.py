"""Made-up speech in which each sound has a double that only language tells it from: a test bed for language models.

A recogniser of it trains in a minute, errs like one of real speech, and what it learns of its transcripts' language can
be told exactly from what another language would have it learn. It says nothing about real sound: for that the claims
have real recognisers.

Half of the labels begin words. In each half the labels come in pairs whose means lie `distance` standard deviations
apart, other pairs being far apart; a label lasts 2 to 5 frames, and 0 to 3 frames of silence stand between words. Two
domains share words and sounds and differ in their grammar: which word follows which.

Notation: U labels, T frames, F numbers of a frame, V vocabulary with blank.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wieldy.metrics.text import WordErrors, word_errors

Domain = Literal["source", "target"]
Sentence = tuple[int, ...]  # words by number
DOMAINS: tuple[Domain, ...] = ("source", "target")

LETTERS = "abcdefghijklmnopqrst"  # names of labels; those that begin a word have the mark of word pieces before them
SILENCE = 0  # in frame labels


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """As the specification of ilme has it, but for `distance`, which is set once for all claims."""

    words: int = 120  # of 1 to 3 labels
    successors: int = 6  # likely words after each word
    smoothing: float = 0.1  # probability that any word follows
    features: int = 16
    distance: float = 1.0  # of the means of two labels that sound alike, in standard deviations of a frame
    spread: float = 2.0  # standard deviation of all means


@dataclass(frozen=True)
class Spoken:
    """B utterances, zero beyond the length of each."""

    features: Tensor  # float32 [B, T, F]
    feature_lens: Tensor  # int64 [B]
    targets: Tensor  # int64 [B, U]
    target_lens: Tensor  # int64 [B]
    frames: Tensor  # int64 [B, T], the label that is said, 0 for silence

    def __len__(self) -> int:
        return len(self.features)

    def to(self, device: torch.device | str) -> Spoken:
        return Spoken(*(tensor.to(device) for tensor in vars(self).values()))


class ConfusableSpeech:
    """A language with two domains, and a voice. The same seed gives the same."""

    def __init__(self, config: SpeechConfig = SpeechConfig(), seed: int = 0) -> None:
        self.config, self.seed = config, seed
        half = len(LETTERS)
        self.pieces = ("<blank>", *(f"▁{letter}" for letter in LETTERS), *LETTERS)
        rng = np.random.default_rng([seed, 0])
        centres = np.repeat(rng.normal(0, config.spread, (half, config.features)), 2, axis=0)
        apart = rng.normal(size=(half, config.features))
        centres[1::2] += config.distance * apart / np.linalg.norm(apart, axis=1, keepdims=True)
        self._means = np.concatenate([np.zeros((1, config.features)), centres])  # of silence and of each label
        lexicon: set[tuple[int, ...]] = set()
        while len(lexicon) < config.words:
            tail = rng.integers(half + 1, 2 * half + 1, rng.integers(0, 3))
            lexicon.add((int(rng.integers(1, half + 1)), *tail.tolist()))
        self.lexicon = sorted(lexicon)
        self._grammars = {domain: self._grammar([seed, 1 + n]) for n, domain in enumerate(DOMAINS)}

    def _grammar(self, seed: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cumulative probabilities of the first word [words], by Zipf's law in random order, and of each next one."""
        rng, words = np.random.default_rng(seed), self.config.words
        first = rng.permutation(1 / np.arange(1, words + 1))
        following = np.full((words, words), self.config.smoothing / words)
        for row in following:
            likely = rng.choice(words, self.config.successors, replace=False)
            row[likely] += (1 - self.config.smoothing) * rng.dirichlet([0.5] * self.config.successors)
        return (first / first.sum()).cumsum(), following.cumsum(1)

    def sentences(self, domain: Domain, count: int, seed: int) -> list[Sentence]:
        """Sentences of 4 to 10 words. Another seed, other sentences."""
        rng = np.random.default_rng([self.seed, 3, seed])
        first, following = self._grammars[domain]
        made = []
        for length in rng.integers(4, 11, count).tolist():
            draws = rng.random(length)
            words = [int(np.searchsorted(first, draws[0]))]
            for draw in draws[1:]:
                words.append(int(np.searchsorted(following[words[-1]], draw)))
            made.append(tuple(min(word, self.config.words - 1) for word in words))
        return made

    def labels(self, sentence: Sentence) -> list[int]:
        return [label for word in sentence for label in self.lexicon[word]]

    def written(self, labels: Sequence[int]) -> list[str]:
        """Words of labels, whether the lexicon has them or not; whatever label comes first begins one."""
        words: list[str] = []
        for label in labels:
            piece = self.pieces[label]
            if piece.startswith("▁") or not words:
                words.append("")
            words[-1] += piece.removeprefix("▁")
        return words

    def errors(self, sentence: Sentence, heard: Sequence[int]) -> WordErrors:
        return word_errors(self.written(self.labels(sentence)), self.written(heard))

    def spoken(self, sentences: Sequence[Sentence], rng: np.random.Generator) -> Spoken:
        """All of them said once, each differently every time."""
        said = [self._frames(sentence, rng) for sentence in sentences]
        labels = [torch.tensor(self.labels(sentence)) for sentence in sentences]
        features = []
        for frames in said:
            noise = rng.normal(size=(len(frames), self.config.features))
            features.append(torch.from_numpy((self._means[frames] + noise).astype(np.float32)))
        return Spoken(
            pad_sequence(features, batch_first=True),
            torch.tensor([len(frames) for frames in said]),
            pad_sequence(labels, batch_first=True),
            torch.tensor([len(own) for own in labels]),
            pad_sequence([torch.from_numpy(frames) for frames in said], batch_first=True),
        )

    def _frames(self, sentence: Sentence, rng: np.random.Generator) -> NDArray[np.int64]:
        """The label of each frame [T]."""
        labels: list[int] = [SILENCE]
        for word in sentence:
            labels += [*self.lexicon[word], SILENCE]
        said = np.array(labels)
        lasts = np.where(said == SILENCE, rng.integers(0, 4, len(said)), rng.integers(2, 6, len(said)))
        return np.repeat(said, lasts)

    def stream(self, sentences: Sequence[Sentence], batch: int, seed: int) -> Stream:
        """Training data: every epoch says all sentences anew."""
        return Stream(self, sentences, batch, seed)


@dataclass(frozen=True)
class Stream:
    """`training.loop.Data` of sentences, `batch` at a time."""

    speech: ConfusableSpeech
    sentences: Sequence[Sentence]
    batch: int
    seed: int

    def epoch(self, number: int) -> Sequence[Spoken]:
        order = np.random.default_rng([self.seed, number]).permutation(len(self.sentences))
        groups = [order[first : first + self.batch] for first in range(0, len(order), self.batch)]
        return _Lazy([functools.partial(self._said, group, [self.seed, number, n]) for n, group in enumerate(groups)])

    def _said(self, group: NDArray[np.int64], seed: Sequence[int]) -> Spoken:
        return self.speech.spoken([self.sentences[n] for n in group], np.random.default_rng(seed))


class _Lazy(Sequence[Spoken]):
    def __init__(self, makers: Sequence[Callable[[], Spoken]]) -> None:
        self._makers = makers

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, index: int) -> Spoken:  # type: ignore[override]  # slices are not needed
        return self._makers[index]()
