"""An encoder with a phone for every frame and word pieces for the whole: small tasks to compare encoders by.

Trains in minutes where phone times are known, which a transducer does not. Not a recogniser for use: its pieces come
without a search; for that there are `Transducer` and `Aed`.

    loss = cross-entropy of phones over frames + ctc_weight x CTC of word pieces
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.speech.latency import AlgorithmicLatency
from wieldy.speech.networks.encoders import EncoderConfig, build_encoder
from wieldy.speech.networks.feature_norm import NormalizedFeatures

BLANK = 0
UNKNOWN = -1  # the phone of a frame that has none


class AcousticModel(NormalizedFeatures):
    """Features [B, T, F] to phones [B, T', phones] and pieces [B, T', pieces], logits; `pieces` of 0: phones alone."""

    def __init__(self, input_dim: int, encoder: EncoderConfig, phones: int, pieces: int = 0) -> None:
        super().__init__(input_dim)
        self.encoder = build_encoder(input_dim, encoder)
        self.phones = nn.Linear(self.encoder.output_dim, phones)
        self.pieces = nn.Linear(self.encoder.output_dim, pieces) if pieces else None

    def latency(self) -> AlgorithmicLatency:
        return self.encoder.latency()

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Logits of phones, logits of pieces if there are any, and lengths [B]."""
        y, lens = self.encoder(self.normalized(x), lens)
        return self.phones(y), self.pieces(y) if self.pieces else None, lens

    def loss(
        self, x: Tensor, lens: Tensor, phones: Tensor, targets: Tensor, target_lens: Tensor, ctc_weight: float = 0.3
    ) -> Tensor:
        """Of phones int64 [B, T'], `UNKNOWN` where there is none, and pieces `targets` [B, U] of `target_lens` [B]."""
        by_frame, by_piece, lens = self(x, lens)
        loss = functional.cross_entropy(by_frame.flatten(0, 1), phones.flatten(), ignore_index=UNKNOWN)
        if by_piece is not None:
            log_p = by_piece.log_softmax(-1).transpose(0, 1)
            ctc = functional.ctc_loss(log_p, targets, lens, target_lens, blank=BLANK, zero_infinity=True)
            loss = loss + ctc_weight * ctc
        return loss


def collapsed(labels: Sequence[int], blank: int = BLANK) -> list[int]:
    """The labels of frames as a sequence: each run once, blanks dropped."""
    runs = [label for label, before in zip(labels, [None, *labels], strict=False) if label != before]
    return [label for label in runs if label != blank]


def parameters(input_dim: int, encoder: EncoderConfig) -> int:
    """Weights of the encoder that `encoder` describes. It is made for that, and no random number is used up."""
    with torch.random.fork_rng(devices=[]):
        return sum(parameter.numel() for parameter in build_encoder(input_dim, encoder).parameters())
