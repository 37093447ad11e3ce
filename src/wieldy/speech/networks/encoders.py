"""The encoders by the name that a configuration file calls them."""

from __future__ import annotations

from wieldy.speech.networks.encoder import Encoder
from wieldy.speech.networks.lstm import LstmConfig, LstmEncoder

EncoderConfig = LstmConfig
ENCODERS: dict[type[EncoderConfig], type[Encoder]] = {LstmConfig: LstmEncoder}


def build_encoder(input_dim: int, config: EncoderConfig) -> Encoder:
    """The encoder that `config` describes, for `input_dim` features a frame, with fresh weights."""
    return ENCODERS[type(config)](input_dim, config)
