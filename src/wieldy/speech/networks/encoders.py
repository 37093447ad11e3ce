"""The encoders by the name that a configuration file calls them."""

from __future__ import annotations

from typing import Any

from wieldy.speech.networks.bilstm import BlstmConfig, BlstmEncoder
from wieldy.speech.networks.encoder import Encoder
from wieldy.speech.networks.layer_trajectory import LayerTrajectoryConfig, LayerTrajectoryEncoder
from wieldy.speech.networks.lstm import LstmConfig, LstmEncoder
from wieldy.speech.networks.streaming_config import StreamingConfig
from wieldy.speech.networks.streaming_transformer import StreamingEncoder

EncoderConfig = LstmConfig | LayerTrajectoryConfig | BlstmConfig | StreamingConfig
ENCODERS: dict[type[EncoderConfig], Any] = {
    LstmConfig: LstmEncoder,
    LayerTrajectoryConfig: LayerTrajectoryEncoder,
    BlstmConfig: BlstmEncoder,
    StreamingConfig: StreamingEncoder,
}


def build_encoder(input_dim: int, config: EncoderConfig) -> Encoder:
    """The encoder that `config` describes, for `input_dim` features a frame, with fresh weights."""
    encoder: Encoder = ENCODERS[type(config)](input_dim, config)
    return encoder
