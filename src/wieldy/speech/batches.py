"""Training batches of alike utterances, as large as their lattices allow.

A transducer's memory goes by frames times symbols, not by utterances, so that is what a batch has a budget of. For
recognising, where nothing is shuffled, take `log_mel` of each recording instead.

Everything drawn follows from the seed and the epoch: to go on where a run stopped, ask for batch i of epoch n again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from lhotse.cut import Cut, CutSet
from numpy.typing import NDArray
from torch import Tensor

from wieldy.errors import InputError, UsageError
from wieldy.speech.augment import AugmentConfig, augmented, drawn, spec_augment
from wieldy.speech.corpus import samples_of, text_of
from wieldy.speech.features import LogMelConfig, log_mel
from wieldy.speech.tokens import Tokenizer


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    max_lattice_nodes: int = 100_000  # utterances x longest frames x (most symbols + 1); at least 1
    max_utterances: int = 64  # in a batch, at least 1
    shuffle: bool = True  # False: the same batches every epoch, shortest first
    keep_bytes: int = 2 * 2**30  # of sound or features kept in memory; what does not fit is read again every epoch

    def __post_init__(self) -> None:
        for name, least in (("max_lattice_nodes", 1), ("max_utterances", 1), ("keep_bytes", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")


@dataclass(frozen=True)
class Batch:
    """B utterances, zero beyond the length of each; `cuts` have the times of the sound as it was augmented."""

    features: Tensor  # float32 [B, T, F]
    feature_lens: Tensor  # int64 [B]
    targets: Tensor  # int64 [B, U], ids of the tokenizer
    target_lens: Tensor  # int64 [B]
    cuts: tuple[Cut, ...]

    def __len__(self) -> int:
        return len(self.cuts)

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            self.features.to(device),
            self.feature_lens.to(device),
            self.targets.to(device),
            self.target_lens.to(device),
            self.cuts,
        )


class Batches:
    """All utterances of `cuts`, each once an epoch, in batches of about the same size.

    `cuts` are those of `checked`. Sound is augmented anew in every epoch by `augment`; where it leaves the sound as it
    is, features are computed once. An utterance above the budget is a batch of its own. Raises `InputError` naming the
    cut whose transcript the tokenizer cannot encode or that is shorter than a frame.
    """

    def __init__(
        self,
        cuts: CutSet,
        features: LogMelConfig,
        tokenizer: Tokenizer,
        config: BatchConfig = BatchConfig(),
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.config, self.features, self.augment, self.seed = config, features, augment, seed
        self._cuts = list(cuts)
        self._targets = [_targets(cut, tokenizer) for cut in self._cuts]
        self._samples = [round(cut.duration * features.sample_rate) for cut in self._cuts]
        for cut, samples in zip(self._cuts, self._samples, strict=True):
            if not features.frames(samples):
                raise InputError(
                    f"{cut.id} of {cut.duration:g} s is shorter than a frame", hint="`checked` leaves it out"
                )
        self._kept: dict[int, NDArray[np.float32]] = {}
        self._kept_bytes = 0

    def epoch(self, number: int) -> Sequence[Batch]:
        """The batches of an epoch, each made when it is asked for: the same ones for the same number and seed."""
        return _Epoch(self._groups(number), lambda index, group: self._batch(number, index, group))

    @property
    def hours(self) -> float:
        """Length of all utterances before augmentation."""
        return float(sum(cut.duration for cut in self._cuts)) / 3600

    def _groups(self, epoch: int) -> list[list[int]]:
        """Which utterances are in which batch."""
        # An utterance may be slowed down.
        slowest = self.augment.speed[0] if self.augment and self.augment.speed else 1.0
        frames = np.array([self.features.frames(math.ceil(samples / slowest) + 1) for samples in self._samples])
        symbols = np.array([len(target) + 1 for target in self._targets])
        rng = np.random.default_rng([self.seed, epoch, _ORDER])
        # Sizes are blurred, so that an utterance has other neighbours every time.
        blur = rng.uniform(1 - _BLUR, 1 + _BLUR, len(frames)) if self.config.shuffle else 1.0
        groups: list[list[int]] = []
        longest = most = 0
        for index in np.argsort(frames * symbols * blur, kind="stable").tolist():
            longest, most = max(longest, int(frames[index])), max(most, int(symbols[index]))
            fits = groups and len(groups[-1]) < self.config.max_utterances
            if fits and (len(groups[-1]) + 1) * longest * most <= self.config.max_lattice_nodes:
                groups[-1].append(index)
            else:
                groups.append([index])
                longest, most = int(frames[index]), int(symbols[index])
        return [groups[i] for i in rng.permutation(len(groups))] if self.config.shuffle else groups

    def _batch(self, epoch: int, index: int, group: Sequence[int]) -> Batch:
        made = [self._utterance(epoch, utterance) for utterance in group]
        lens = np.array([len(features) for features, _ in made])
        features = np.zeros((len(made), lens.max(), self.features.dim), np.float32)
        for row, (own, _) in zip(features, made, strict=True):
            row[: len(own)] = own
        if self.augment:
            rng = np.random.default_rng([self.seed, epoch, _MASKS, index])
            features = spec_augment(features, lens, rng, self.augment, mels=self.features.mels)
        targets = [torch.tensor(self._targets[utterance], dtype=torch.int64) for utterance in group]
        return Batch(
            torch.from_numpy(features),
            torch.from_numpy(lens),
            torch.nn.utils.rnn.pad_sequence(targets, batch_first=True),
            torch.tensor([len(target) for target in targets]),
            tuple(cut for _, cut in made),
        )

    def _utterance(self, epoch: int, index: int) -> tuple[NDArray[np.float32], Cut]:
        """Features [frames, F] and the cut with the times of the sound they were made of."""
        cut, config = self._cuts[index], self.features
        if not (self.augment and self.augment.changes_sound):
            return self._keeping(index, lambda: log_mel(samples_of(cut, config.sample_rate), config)), cut
        samples = self._keeping(index, lambda: samples_of(cut, config.sample_rate))
        rng = np.random.default_rng([self.seed, epoch, _SOUND, index])
        samples, speed = augmented(samples, rng, self.augment, config.sample_rate)
        # A short one spoken faster still has its one frame.
        samples = np.pad(samples, (0, max(0, config.frame_samples - samples.size)))
        # To the hundredth, so that the filters of most utterances are there already.
        features = log_mel(samples, config, warp=round(drawn(self.augment.warp, rng) or 1.0, 2))
        return features, cut.perturb_speed(speed, affix_id=False) if speed != 1.0 else cut

    def _keeping(self, index: int, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        if index in self._kept:
            return self._kept[index]
        made = make()
        if self._kept_bytes + made.nbytes <= self.config.keep_bytes:
            self._kept[index] = made
            self._kept_bytes += made.nbytes
        return made


_BLUR = 0.1  # of the size: neighbours change, and a batch still wastes little on padding
_ORDER, _SOUND, _MASKS = range(3)  # streams of random numbers


def _targets(cut: Cut, tokenizer: Tokenizer) -> list[int]:
    try:
        return tokenizer.encode(text_of(cut))
    except InputError as error:
        raise InputError(f"{cut.id}: {error.message}", hint=error.hint) from error


class _Epoch(Sequence[Batch]):
    """Batches that are made when asked for."""

    def __init__(self, groups: list[list[int]], make: Callable[[int, list[int]], Batch]) -> None:
        self._groups, self._make = groups, make

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._make(place, self._groups[place])
