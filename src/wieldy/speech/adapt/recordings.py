"""Recordings as batches, with what an encoder makes of them: once for each where the encoder stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from lhotse.cut import CutSet
from torch import Tensor

from wieldy.speech.adapt.config import AdaptConfig
from wieldy.speech.augment import AugmentConfig
from wieldy.speech.batches import Batch, Batches
from wieldy.speech.corpus import text_of
from wieldy.speech.decode.greedy import greedy
from wieldy.speech.networks.transducer import Transducer
from wieldy.speech.recognize.transducer import TransducerRecognizer

Answer = tuple[list[str], list[str]]  # words of an utterance, and those heard


class Recordings:
    """Of a recogniser that is being adapted."""

    def __init__(
        self,
        cuts: CutSet,
        recognizer: TransducerRecognizer,
        config: AdaptConfig,
        *,
        frozen: bool,
        augment: AugmentConfig | None = None,
    ) -> None:
        """`frozen`: the encoder is that of `recognizer` and stays so."""
        self.tokenizer, self.frozen = recognizer.tokenizer, frozen
        self.batches = Batches(cuts, recognizer.features, recognizer.tokenizer, config.batches, augment, config.seed)
        self._free = 0 if augment else config.batches.keep_bytes  # what is augmented sounds different every time
        self._kept: dict[int, Tensor] = {}  # by `id` of the cut: sets that were joined may have names in common

    def epoch(self, number: int) -> Sequence[Batch]:
        return self.batches.epoch(number)

    def hear(self, network: Transducer, batch: Batch) -> tuple[Tensor, Tensor]:
        """`Transducer.hear` of one of these batches."""
        if not self.frozen:
            return network.hear(batch.features, batch.feature_lens)
        device = network.feature_mean.device
        if all(id(cut) in self._kept for cut in batch.cuts):
            rows = [self._kept[id(cut)] for cut in batch.cuts]
            lens = torch.tensor([len(row) for row in rows], device=device)
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device), lens
        network.encoder.eval()  # without dropout
        with torch.no_grad():
            y, lens = network.hear(batch.features, batch.feature_lens)
        for cut, row, length in zip(batch.cuts, y, lens.tolist(), strict=True):
            own = row[:length].cpu().clone()
            if id(cut) not in self._kept and own.nbytes <= self._free:
                self._kept[id(cut)] = own
                self._free -= own.nbytes
        return y, lens

    @torch.no_grad()
    def answers(self, network: Transducer) -> list[Answer]:
        """What greedy search finds in each recording."""
        network.eval()
        found = []
        for batch in self.epoch(0):
            y, lens = self.hear(network, batch.to(network.feature_mean.device))
            for cut, best in zip(batch.cuts, greedy(network, network.encoder_projection(y), lens), strict=True):
                found.append((text_of(cut).split(), self.tokenizer.decode(best.tokens).split()))
        return found


Pair = tuple[Batch, Batch | None]  # of the new domain and of the source


class Pairs:
    """Batches of the new domain, each with one of the source beside it; every epoch with other ones."""

    def __init__(self, domain: Recordings, source: Recordings | None) -> None:
        self.domain, self.source = domain, source

    def epoch(self, number: int) -> Sequence[Pair]:
        return _Epoch(self.domain.epoch(number), self.source.epoch(number) if self.source else ())


class _Epoch(Sequence[Pair]):
    def __init__(self, domain: Sequence[Batch], source: Sequence[Batch]) -> None:
        self._domain, self._source = domain, source

    def __len__(self) -> int:
        return len(self._domain)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Sequence[Pair]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._domain[place], self._source[place % len(self._source)] if self._source else None
