"""The transducer: an encoder that hears, a predictor that remembers what was said, a joint that decides.

Train it with `wieldy.speech.losses.transducer_loss(f, g, model.joint, ...)`, search with `wieldy.speech.decode`. For
recordings that are transcribed as a whole and need no stream, an attention decoder (`aed`) is the simpler model.

Alex Graves 2012, Sequence transduction with recurrent neural networks, arXiv 1211.3711; sizes after Jinyu Li et al.
2020, Developing RNN-T models surpassing high-performance hybrid models with customization capability, arXiv 2007.15188.

    f = W_f Enc(x) + b_f      g = W_g Pred(y)      logits = W_o act(f_t + g_u) + b_o

Notation: B utterances, T frames, T' encoder frames, U labels, J joint width, V vocabulary with blank, which is id 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from wieldy.errors import UsageError
from wieldy.speech.latency import AlgorithmicLatency
from wieldy.speech.networks.encoder import State
from wieldy.speech.networks.encoders import ENCODERS, EncoderConfig, build_encoder
from wieldy.speech.networks.feature_norm import NormalizedFeatures, moments
from wieldy.speech.networks.joint import Activation, Head, Joint
from wieldy.speech.networks.lstm import LstmConfig
from wieldy.speech.networks.model_folder import config_of, load_weights, read_config, save_network
from wieldy.speech.networks.predictors import (
    LstmPredictorConfig,
    PredictorConfig,
    PredictorState,
    StatelessPredictorConfig,
    build_predictor,
)
from wieldy.speech.networks.streaming_config import StreamingConfig
from wieldy.speech.networks.views import InternalLmCut

Preset = Literal["tiny", "small", "large"]


@dataclass(frozen=True, kw_only=True)
class TransducerConfig:
    kind: ClassVar[str] = "transducer"
    vocabulary: int  # V, blank included, >= 2
    input_dim: int = 240  # features of a frame, >= 1; three 10 ms frames of 80 mels
    encoder: EncoderConfig = field(default_factory=LstmConfig)
    predictor: PredictorConfig = field(default_factory=LstmPredictorConfig)
    joint: int = 128  # J, >= 1
    head: Head = "rnnt"
    activation: Activation = "tanh"
    internal_lm: InternalLmCut = "projected"  # what stands for the encoder in `join_internal`

    def __post_init__(self) -> None:
        if self.vocabulary < 2:
            raise UsageError(f"vocabulary is {self.vocabulary}", hint="a blank and at least one label make 2")
        if min(self.input_dim, self.joint) < 1:
            raise UsageError(f"input_dim {self.input_dim}, joint {self.joint}", hint="both are at least 1")
        for name, value, choices in (
            ("head", self.head, Head),
            ("activation", self.activation, Activation),
            ("internal_lm", self.internal_lm, InternalLmCut),
        ):
            if value not in get_args(choices):
                raise UsageError(f"{name} {value!r}", hint=f"choose {', '.join(get_args(choices))}")

    @classmethod
    def preset(cls, name: Preset, vocabulary: int, input_dim: int = 240) -> TransducerConfig:
        """`tiny` for a few dozen words, with convolutions that hear new voices better than an LSTM does; `small`, LSTMs
        for one CPU core; `large`, LSTMs as in the paper. All for `LogMelConfig(stack=3)`."""
        encoder: EncoderConfig
        predictor: PredictorConfig
        if name == "tiny":
            encoder = StreamingConfig(
                layers=3,
                size=128,
                feed_forward=384,
                chunk=4,
                left=16,
                front="vgg",
                subsampling=2,
                channels=(16, 32),
                planes=3,
                centred=True,
                convolution=7,
                dropout=0.15,
            )
            predictor, joint = StatelessPredictorConfig(embedding=64), 64
        elif name == "small":
            encoder, predictor, joint = LstmConfig(), LstmPredictorConfig(), 128
        elif name == "large":
            encoder = LstmConfig(layers=6, hidden=1280, projection=640)
            predictor, joint = LstmPredictorConfig(embedding=640, layers=2, hidden=1280, projection=640), 640
        else:
            raise UsageError(f"preset {name!r}", hint=f"choose {', '.join(get_args(Preset))}")
        return cls(vocabulary=vocabulary, input_dim=input_dim, encoder=encoder, predictor=predictor, joint=joint)


class Transducer(NormalizedFeatures):
    """A transducer and its own `TransducerView`."""

    blank = 0

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__(config.input_dim)
        self.config = config
        self.vocab = config.vocabulary
        self.encoder = build_encoder(config.input_dim, config.encoder)
        self.predictor = build_predictor(config.vocabulary, config.predictor)
        self.encoder_projection = nn.Linear(self.encoder.output_dim, config.joint)
        self.predictor_projection = nn.Linear(self.predictor.output_dim, config.joint, bias=False)
        self.joint = Joint(config.joint, config.vocabulary, head=config.head, activation=config.activation)
        self.register_buffer("mean_encoding", torch.full((config.joint,), torch.nan))
        self.mean_encoding: Tensor

    def forward(self, x: Tensor, lens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f [B, T', J], its lengths [B] and g [B, U + 1, J] of features [B, T, F] and labels [B, U], for the loss.

        One call for both halves, so that a wrapper for several processes sees all parameters in one forward.
        """
        f, f_lens = self.encode(x, lens)
        return f, f_lens, self.predict(targets)

    def hear(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's own outputs [B, T', D], before the joint's projection, and their lengths."""
        y, lens = self.encoder(self.normalized(x), lens)
        return y, lens

    def encode(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        y, lens = self.hear(x, lens)
        return self.encoder_projection(y), lens

    def predict(self, targets: Tensor) -> Tensor:
        g: Tensor = self.predictor_projection(self.predictor(targets))
        return g

    def latency(self) -> AlgorithmicLatency:
        return self.encoder.latency()

    def init_state(self, batch: int, device: torch.device | str | None = None) -> State:
        """The state before the first frame of `batch` streams."""
        return self.encoder.init_state(batch, device or self.mean_encoding.device)

    def step(self, x: Tensor, state: State, *, lens: Tensor | None = None, final: bool = False) -> tuple[Tensor, State]:
        """`Encoder.step`, projected: the f [B, t', J] that the next frames [B, t, F] complete, and the state."""
        y, state = self.encoder.step(self.normalized(x), state, lens=lens, final=final)
        return self.encoder_projection(y), state

    def start(self, n: int) -> tuple[Tensor, PredictorState]:
        y, state = self.predictor.start(n, self.mean_encoding.device)
        return self.predictor_projection(y), state

    def advance(self, tokens: Tensor, state: PredictorState) -> tuple[Tensor, PredictorState]:
        y, state = self.predictor.advance(tokens, state)
        return self.predictor_projection(y), state

    def select(self, state: PredictorState, index: Tensor) -> PredictorState:
        return self.predictor.select(state, index)

    def join(self, f_rows: Tensor, g_rows: Tensor) -> Tensor:
        logits: Tensor = self.joint(f_rows, g_rows)
        return logits

    def join_internal(self, g_rows: Tensor) -> Tensor:
        if self.config.internal_lm == "projected":
            f = torch.zeros_like(self.mean_encoding)
        elif self.config.internal_lm == "encoder_output":
            f = self.encoder_projection.bias
        elif bool(self.mean_encoding.isnan().any()):
            raise UsageError("internal_lm is mean, and no mean was measured", hint="call measure_mean_encoding_ first")
        else:
            f = self.mean_encoding
        return self.join(f, g_rows)

    def measure_mean_encoding_(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set what stands for speech in the internal language model: the mean f over all frames of `batches`, pairs of
        features [B, T, F] and lengths [B]; about a hundred utterances will do. It is saved with the weights."""
        mean, _ = moments(self.encode(x, lens) for x, lens in batches)
        self.mean_encoding.copy_(mean)

    def save(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_network(folder, self.config, self)

    @classmethod
    def load(cls, folder: Path | str) -> Transducer:
        """The network that `save` wrote, in evaluation mode, on the CPU. `InputError` for anything else."""
        data, where = read_config(folder)
        for name, kinds in (
            ("encoder", tuple(ENCODERS)),
            ("predictor", (LstmPredictorConfig, StatelessPredictorConfig)),
        ):
            if name in data:
                data[name] = config_of(data[name], kinds, f"{where}, {name},")
        network = cls(config_of(data, (TransducerConfig,), where))
        load_weights(folder, network)
        return network.eval()
