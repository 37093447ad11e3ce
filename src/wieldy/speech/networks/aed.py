"""A small attention encoder-decoder: any encoder of this library, and a Transformer decoder that writes the answer.

The simplest model for recordings that are transcribed as a whole; it cannot stream, and long recordings need cutting.
Train it with cross-entropy on `forward`, search with `wieldy.speech.decode.aed_beam`.

Ashish Vaswani et al. 2017, Attention is all you need, arXiv 1706.03762, with norms before each branch; the internal
language model after Zhong Meng et al. 2020, arXiv 2011.01991. Id 0, a transducer's blank, begins and ends answers.

Notation: B utterances, T frames, T' encoder frames, n hypotheses, U labels, D size, V vocabulary, H heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import UsageError
from wieldy.speech.networks.encoder import within
from wieldy.speech.networks.encoders import ENCODERS, EncoderConfig, build_encoder
from wieldy.speech.networks.feature_norm import NormalizedFeatures, moments
from wieldy.speech.networks.model_folder import config_of, load_weights, read_config, save_network
from wieldy.speech.networks.streaming_config import StreamingConfig
from wieldy.speech.networks.views import InternalLmContext

KeysValues = tuple[Tensor, Tensor]  # [n, H, frames, D / H] each


def _whole_utterances() -> StreamingConfig:
    return StreamingConfig(mode="full")


@dataclass(frozen=True, kw_only=True)
class AedConfig:
    """Defaults: the size of the encoder's own, for two CPU cores."""

    kind: ClassVar[str] = "aed"
    vocabulary: int  # V, >= 2
    input_dim: int = 240  # features of a frame, >= 1
    encoder: EncoderConfig = field(default_factory=_whole_utterances)
    layers: int = 4  # of the decoder, >= 1
    size: int = 144  # D, even, a multiple of `heads`
    heads: int = 4  # >= 1
    feed_forward: int = 576  # >= 1
    dropout: float = 0.1  # on what each branch of the decoder adds, [0, 1)
    internal_lm: InternalLmContext = "skip"

    def __post_init__(self) -> None:
        if self.vocabulary < 2:
            raise UsageError(f"vocabulary is {self.vocabulary}", hint="the end and at least one label make 2")
        for name in ("input_dim", "layers", "size", "heads", "feed_forward"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it is at least 1")
        if self.size % self.heads or self.size % 2:
            raise UsageError(f"size {self.size} for {self.heads} heads", hint="it is even and a multiple of the heads")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}", hint="it lies in [0, 1)")
        if self.internal_lm not in get_args(InternalLmContext):
            raise UsageError(
                f"internal_lm {self.internal_lm!r}", hint=f"choose {', '.join(get_args(InternalLmContext))}"
            )


@dataclass(frozen=True)
class AedState:
    """Of n hypotheses: each decoder layer's keys and values of the tokens so far, and of what is heard, if anything."""

    past: tuple[KeysValues, ...]
    heard: tuple[KeysValues, ...]  # none: without sound
    visible: Tensor  # [n, T']
    utterance: Tensor  # [n]; hypotheses of one utterance hear the same


class Aed(NormalizedFeatures):
    """An encoder-decoder and its own `AEDView`."""

    eos = 0
    prompt = (0,)

    def __init__(self, config: AedConfig) -> None:
        super().__init__(config.input_dim)
        self.config, self.vocab = config, config.vocabulary
        self.encoder = build_encoder(config.input_dim, config.encoder)
        self.encoder_projection = nn.Linear(self.encoder.output_dim, config.size)
        self.embedding = nn.Embedding(config.vocabulary, config.size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.size)
        self.output = nn.Linear(config.size, config.vocabulary)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("mean_memory", torch.full((config.size,), torch.nan))
        self.mean_memory: Tensor
        nn.init.normal_(self.embedding.weight, std=config.size**-0.5)

    def forward(self, x: Tensor, lens: Tensor, targets: Tensor) -> Tensor:
        """Logits [B, U + 1, V] of each label and the end, given the labels `targets` [B, U] before it."""
        state = self.start(*self.encode(x, lens))
        logits, _ = self._run(functional.pad(targets, (1, 0)), state)
        return logits

    def encode(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        y, lens = self.encoder(self.normalized(x), lens)
        return self.encoder_projection(y), lens

    def start(self, memory: Tensor, lens: Tensor) -> AedState:
        heard = tuple(layer.heard(memory) for layer in self.layers)  # type: ignore[operator]
        return self._start(len(memory), heard, within(lens, 0, memory.shape[1]))

    def start_internal(self, n: int) -> AedState:
        if self.config.internal_lm == "skip":
            return self._start(n, (), torch.ones(n, 0, dtype=torch.bool, device=self.mean_memory.device))
        memory = self.mean_memory if self.config.internal_lm == "mean_states" else torch.zeros_like(self.mean_memory)
        if bool(memory.isnan().any()):
            raise UsageError("internal_lm is mean_states, and no mean was measured", hint="call measure_mean_memory_")
        return self.start(memory.expand(n, 1, -1), torch.ones(n, dtype=torch.int64, device=memory.device))

    def step(self, tokens: Tensor, state: AedState) -> tuple[Tensor, AedState]:
        logits, state = self._run(tokens[:, None], state)
        return logits[:, 0].log_softmax(-1), state

    def internal_step(self, tokens: Tensor, state: AedState) -> tuple[Tensor, AedState]:
        return self.step(tokens, state)  # the vocabulary has nothing but text and the end

    @staticmethod
    def select(state: AedState, index: Tensor) -> AedState:
        heard, visible, utterance = state.heard, state.visible, state.utterance[index]
        if not torch.equal(utterance, state.utterance):  # else it is the same, and large
            heard, visible = tuple((k[index], v[index]) for k, v in heard), visible[index]
        return AedState(tuple((k[index], v[index]) for k, v in state.past), heard, visible, utterance)

    def measure_mean_memory_(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set what stands for speech in the internal language model to the mean over `batches`, pairs of features
        [B, T, F] and lengths [B]. It is saved with the weights."""
        mean, _ = moments(self.encode(x, lens) for x, lens in batches)
        self.mean_memory.copy_(mean)

    def save(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_network(folder, self.config, self)

    @classmethod
    def load(cls, folder: Path | str) -> Aed:
        """The network that `save` wrote, in evaluation mode, on the CPU. `InputError` for anything else."""
        data, where = read_config(folder)
        if "encoder" in data:
            data["encoder"] = config_of(data["encoder"], tuple(ENCODERS), f"{where}, encoder,")
        network = cls(config_of(data, (AedConfig,), where))
        load_weights(folder, network)
        return network.eval()

    def _start(self, n: int, heard: tuple[KeysValues, ...], visible: Tensor) -> AedState:
        nothing = self.embedding.weight.new_zeros(n, self.config.heads, 0, self.config.size // self.config.heads)
        utterance = torch.arange(n, device=visible.device)
        return AedState(((nothing, nothing),) * len(self.layers), heard, visible, utterance)

    def _run(self, tokens: Tensor, state: AedState) -> tuple[Tensor, AedState]:
        """Logits [n, U, V] after each of `tokens` [n, U]."""
        x = self.embedding(tokens) * self.config.size**0.5
        x = self.dropout(x + self._positions(state.past[0][0].shape[2], tokens.shape[1]).to(x))
        past = []
        for index, layer in enumerate(self.layers):
            heard = state.heard[index] if state.heard else None
            x, own = layer(x, state.past[index], heard, state.visible)
            past.append(own)
        return self.output(self.norm(x)), AedState(tuple(past), state.heard, state.visible, state.utterance)

    def _positions(self, first: int, count: int) -> Tensor:
        """The sinusoids [count, D] of the paper."""
        size = self.config.size
        rate = 10000 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angle = torch.arange(first, first + count, dtype=torch.float64)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class DecoderLayer(nn.Module):
    """x + SelfAttention(LN x), then x + Attention(LN x, memory), then x + FeedForward(LN x)."""

    def __init__(self, config: AedConfig) -> None:
        super().__init__()
        size, self.heads = config.size, config.heads
        self.self_norm, self.heard_norm, self.feed_norm = (nn.LayerNorm(size) for _ in range(3))
        self.self_query, self.self_output = nn.Linear(size, size), nn.Linear(size, size)
        self.self_key_value = nn.Linear(size, 2 * size)
        self.heard_query, self.heard_output = nn.Linear(size, size), nn.Linear(size, size)
        self.heard_key_value = nn.Linear(size, 2 * size)
        self.feed_forward = nn.Sequential(
            nn.Linear(size, config.feed_forward), nn.ReLU(), nn.Linear(config.feed_forward, size)
        )
        self.dropout = nn.Dropout(config.dropout)

    def heard(self, memory: Tensor) -> KeysValues:
        """Keys and values of `memory` [n, T', D]."""
        key, value = self.heard_key_value(memory).chunk(2, dim=2)
        return self._of_heads(key), self._of_heads(value)

    def forward(
        self, x: Tensor, past: KeysValues, heard: KeysValues | None, visible: Tensor
    ) -> tuple[Tensor, KeysValues]:
        """x [n, U, D] after it, and keys and values of all tokens so far. Several tokens only after none."""
        h = self.self_norm(x)
        key, value = (self._of_heads(part) for part in self.self_key_value(h).chunk(2, dim=2))
        own = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        y = self._attended(self.self_query(h), own, is_causal=x.shape[1] > 1)
        x = x + self.dropout(self.self_output(y))
        if heard is not None:
            y = self._attended(self.heard_query(self.heard_norm(x)), heard, attn_mask=visible[:, None, None])
            x = x + self.dropout(self.heard_output(y))
        return x + self.dropout(self.feed_forward(self.feed_norm(x))), own

    def _attended(self, query: Tensor, over: KeysValues, **mask: Any) -> Tensor:
        y = functional.scaled_dot_product_attention(self._of_heads(query), *over, **mask)
        return y.transpose(1, 2).flatten(2)

    def _of_heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)
