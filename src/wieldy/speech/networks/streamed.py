"""Encoders that were made for whole utterances, made to stream: wav2vec 2.0, HuBERT, WavLM, Conformers, torch's own.

For a trained encoder that is to answer while somebody speaks. It sees less than it was trained with, so fine-tune it
afterwards; for a new one take `StreamingEncoder`, which streams in every mode and costs less. Not for encoders with a
norm over all of the time: what they answer needs the whole utterance, whatever their attention sees.

Chunks and masks after Liang Lu et al. 2020, Exploring transformers for large-scale speech recognition, arXiv
2005.09684. Attention sees the chunk, or a window, by a mask that is added to its scores; in a stream each layer
remembers its inputs as far back as it sees. Convolutions see zeros beyond the chunk.

Notation: B utterances, T input frames (for transformers' models, samples at 16 kHz), T' output frames, D features.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from wieldy.errors import UsageError
from wieldy.report import Metric, Report, Result, Table
from wieldy.speech.latency import AlgorithmicLatency
from wieldy.speech.networks.encoder import Encoder, State, zeroed
from wieldy.speech.networks.streamed_layers import (
    BiasedAttention,
    ConformerAttention,
    Convolution,
    KeyValueAttention,
    Stream,
    TorchAttention,
    Window,
    padding_to_stream,
    reach_back,
)

Mode = Literal["chunk", "mask"]
SAMPLE_RATE = 16_000  # Hz that transformers' speech encoders were trained at
FAMILIES = ("wav2vec2", "hubert", "wavlm", "wav2vec2-conformer")  # model_type of transformers' configurations


@dataclass(frozen=True, kw_only=True)
class MakeStreamingConfig:
    """How much an encoder sees. In milliseconds, multiples of its frames, which are 20 ms in transformers' models."""

    mode: Mode = "chunk"  # frames see their chunk and what is before it, or a window around each
    chunk_ms: float = 640  # mode chunk: > 0
    left_ms: float = 5120  # that each layer sees back, >= 0; in mode chunk a multiple of the chunk
    right_ms: float = (
        0  # mode mask: that each layer sees ahead, >= 0; adds up over layers, and then `step` cannot be had
    )
    frame_ms: float | None = None  # of a torch encoder, from one of its frames to the next, > 0; others know their own

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(
                f"mode {self.mode!r}", hint="choose chunk, which sees what xl sees, or mask; StreamingEncoder has xl"
            )
        for name, least in (("left_ms", "at least 0"), ("right_ms", "at least 0"), ("chunk_ms", "above 0")):
            value = getattr(self, name)
            if value < 0 or (value == 0 and name == "chunk_ms"):
                raise UsageError(f"{name} is {value:g}", hint=f"it must be {least}")
        if self.frame_ms is not None and not self.frame_ms > 0:
            raise UsageError(f"frame_ms is {self.frame_ms:g}", hint="it must be above 0")
        if self.mode == "chunk" and self.right_ms:
            raise UsageError(
                f"right_ms {self.right_ms:g} in mode chunk",
                hint="beyond their chunk, layers would see further with every layer: take longer chunks",
            )

    def window(self, frame_ms: float) -> Window:
        """The same in frames. `UsageError` names the nearest values that can be had."""
        left = _frames("left_ms", self.left_ms, frame_ms)
        if self.mode == "mask":
            return Window(1, left, _frames("right_ms", self.right_ms, frame_ms))
        if self.chunk_ms < frame_ms:
            raise UsageError(f"chunk_ms is {self.chunk_ms:g}", hint=f"the least is a frame, {frame_ms:g} ms")
        chunk = _frames("chunk_ms", self.chunk_ms, frame_ms)
        return Window(chunk, _frames("left_ms", self.left_ms, self.chunk_ms) * chunk, 0)


def _frames(name: str, value: float, unit: float) -> int:
    count = round(value / unit)
    if abs(count * unit - value) > 1e-6 * unit:
        below = int(value / unit) * unit
        raise UsageError(
            f"{name} is {value:g}, which is no multiple of {unit:g} ms",
            hint=f"take {below:g} or {below + unit:g}" if below or name != "chunk_ms" else f"take {unit:g}",
        )
    return count


def make_streaming(
    encoder: nn.Module, *, config: MakeStreamingConfig = MakeStreamingConfig()
) -> Result[StreamedEncoder]:
    """A copy of `encoder` that sees no more than `config` says, and what was changed. `encoder` stays as it is.

    Takes transformers' `Wav2Vec2Model`, `HubertModel`, `WavLMModel` and `Wav2Vec2ConformerModel`, and
    `torch.nn.TransformerEncoder` with torch's own layers. `value.model` is the changed copy, called and saved as
    before: put it in place of the encoder of a model with a head to fine-tune it, and it trains with the window.

    Warns where a norm needs the whole utterance; such an encoder has an infinite latency and no `step`. `UsageError`
    for other encoders, and names the nearest values where `config` does not fit the frames.
    """
    streamed = StreamedEncoder(copy.deepcopy(encoder), config)
    if streamed.over_time:
        warnings.warn(
            f"this encoder does not stream: {', '.join(streamed.over_time)} norm over the whole utterance",
            UserWarning,
            stacklevel=2,
        )
    return Result(streamed, streamed.report())


class StreamedEncoder(Encoder):
    """Made by `make_streaming`. x are samples [B, T, 1] for transformers' models, else features [B, T, F]."""

    def __init__(self, model: nn.Module, config: MakeStreamingConfig) -> None:
        super().__init__()
        family = getattr(getattr(model, "config", None), "model_type", None)
        self.torch_layers = isinstance(model, nn.TransformerEncoder)
        if not self.torch_layers and (family not in FAMILIES or not hasattr(model, "feature_extractor")):
            raise UsageError(
                f"{type(model).__name__} cannot be made to stream",
                hint="take a Wav2Vec2Model, HubertModel, WavLMModel, Wav2Vec2ConformerModel or torch's "
                "TransformerEncoder",
            )
        self.model = model
        front: Any = None if self.torch_layers else model.config
        kernels, strides = (front.conv_kernel, front.conv_stride) if front else ((), ())
        # Input frames that an output frame is made of, and from one to the next.
        self.field, self.subsampling = 1, 1
        for kernel, stride in zip(kernels, strides, strict=True):
            self.field += (kernel - 1) * self.subsampling
            self.subsampling *= stride
        if self.torch_layers:
            if config.frame_ms is None:
                raise UsageError("frame_ms is missing", hint="say how far apart the frames of a torch encoder are")
            self.frame_ms = config.frame_ms
        else:
            self.frame_ms = 1000 * self.subsampling / SAMPLE_RATE
        self.input_ms = self.frame_ms / self.subsampling
        self.stream = Stream(config.window(self.frame_ms))
        self.changed: list[tuple[str, str, str]] = []
        self.over_time = tuple(name for name, module in model.named_modules() if _norms_over_time(module))
        self.entry_convolution, self.layer_convolution = 0, 0  # frames that they see back
        self.batch_first = True
        if self.torch_layers:
            self._change_torch_layers()
        else:
            self._change_transformers_layers(str(family))

    # --- what is changed ---------------------------------------------------------------------------------------------

    def _change_torch_layers(self) -> None:
        model: Any = self.model
        self.layers = len(model.layers)
        for index, layer in enumerate(model.layers):
            name = f"layers.{index}.self_attn"
            if type(layer) is not nn.TransformerEncoderLayer:
                raise UsageError(f"layers.{index} is a {type(layer).__name__}", hint="only torch's own are known")
            layer.self_attn.register_forward_pre_hook(
                TorchAttention(layer.self_attn, name, self.stream), with_kwargs=True
            )
            self._note_attention(name)
        model.register_forward_pre_hook(padding_to_stream(self.stream), with_kwargs=True)
        attention = model.layers[0].self_attn
        self.batch_first = bool(attention.batch_first)
        self.input_dim = self.output_dim = attention.embed_dim

    def _change_transformers_layers(self, family: str) -> None:
        model: Any = self.model
        if getattr(model, "adapter", None) is not None:
            raise UsageError("this encoder ends in an adapter", hint="load it with add_adapter=False")
        implementation = getattr(model.config, "_attn_implementation", "eager")
        if implementation not in ("eager", "sdpa"):
            raise UsageError(
                f"attention by {implementation} takes no mask of ours",
                hint='load the model with attn_implementation="sdpa"',
            )
        self.input_dim, self.output_dim = 1, model.config.hidden_size
        self.layers = len(model.encoder.layers)
        conformer = family == "wav2vec2-conformer"
        for index, layer in enumerate(model.encoder.layers):
            name = f"encoder.layers.{index}"
            attention: Any
            if conformer:
                module, name = layer.self_attn, f"{name}.self_attn"
                attention = ConformerAttention(module, name, self.stream, model.encoder.embed_positions)
            elif family == "wavlm":
                module, name = layer.attention, f"{name}.attention"
                attention = BiasedAttention(module, name, self.stream)
                module.torch_multi_head_self_attention = attention.biased
            else:
                module, name = layer.attention, f"{name}.attention"
                attention = KeyValueAttention(module, name, self.stream)
            module.forward = attention
            self._note_attention(name)
            if conformer:
                convolution = layer.conv_module.depthwise_conv
                self._change_convolution(convolution, f"encoder.layers.{index}.conv_module.depthwise_conv")
                self.layer_convolution = reach_back(convolution)
        if not conformer:  # which has one, and does not use it
            convolution = model.encoder.pos_conv_embed.conv
            self._change_convolution(convolution, "encoder.pos_conv_embed.conv")
            self.entry_convolution = reach_back(convolution)

    def _change_convolution(self, module: Any, name: str) -> None:
        module.forward = Convolution(module, name, self.stream)
        ahead = module.kernel_size[0] - 1 - reach_back(module)
        left = "none" if self.stream.window.chunk == 1 else f"at most {ahead} frames, within the chunk"
        self.changed.append((name, f"convolution of {ahead} frames ahead", left))

    def _note_attention(self, name: str) -> None:
        window = self.stream.window
        if window.chunk == 1:
            self.changed.append((name, "attention to everything", f"{window.right} frames, more with every layer"))
        else:
            self.changed.append((name, "attention to everything", f"to the end of the chunk of {window.chunk} frames"))

    def report(self) -> Report:
        """What was changed, what is seen ahead now, and why it does not stream where that is so."""
        latency, window = self.latency().in_seconds(self.input_ms / 1000), self.stream.window
        rows = [*self.changed]
        beyond = self.field - self.subsampling
        if beyond > 0:
            rows.append(("feature_extractor", "not changed", f"{beyond} samples, {1000 * beyond / SAMPLE_RATE:.3g} ms"))
        rows += [(name, "not changed: norms over time", "everything") for name in self.over_time]
        metrics = [Metric.of("modules changed", len(self.changed)), Metric.of("frame", self.frame_ms, "ms")]
        metrics.append(Metric.of("seen back in each layer", window.left * self.frame_ms / 1000, "s"))
        notes = []
        if self.over_time:
            notes.append("does not stream: replace the layers that norm over time, or take a model without them")
        else:
            metrics.append(Metric.of("look-ahead, worst", 1000 * latency.worst, "ms"))
            metrics.append(Metric.of("look-ahead, mean", 1000 * latency.mean, "ms"))
        if not self._steps:
            notes.append("look-ahead by mask adds up over layers: whole utterances alone, `step` needs right_ms=0")
        notes.append("it sees less than it was trained with: fine-tune it before use")
        return Report(
            title=f"{type(self.model).__name__} in mode {'mask' if window.chunk == 1 else 'chunk'}",
            metrics=tuple(metrics),
            tables=(Table("Layers", ("layer", "was", "sees ahead now"), tuple(rows)),),
            notes=tuple(notes),
        )

    # --- as an encoder -----------------------------------------------------------------------------------------------

    @property
    def _steps(self) -> bool:
        return not self.stream.window.right

    def latency(self) -> AlgorithmicLatency:
        """In input frames: samples, for transformers' models."""
        if self.over_time:
            infinite = float("inf")
            return AlgorithmicLatency(worst=infinite, mean=infinite, past=infinite)
        window = self.stream.window
        past = 0
        for frame in range(window.chunk):
            first = frame
            for _ in range(self.layers):
                first = (first - self.layer_convolution) // window.chunk * window.chunk - window.left
            past = max(past, frame - first + self.entry_convolution)
        return AlgorithmicLatency.of_chunks(
            window.chunk,
            window.right * self.layers,
            self.subsampling,
            self.field - self.subsampling,
            past=(past + 1) * self.subsampling - 1,
        )

    def output_lens(self, lens: Tensor) -> Tensor:
        """Frames that are heard whole: the last samples of an utterance may make none."""
        frames = torch.div(lens - self.field, self.subsampling, rounding_mode="floor") + 1
        return frames.clamp(min=0)

    def _start(self, batch: int, device: torch.device) -> State:
        return {
            "input": self._zeros(batch, 0, self.input_dim, device=device),
            "waiting": self._zeros(batch, 0, self.output_dim, device=device),
            "first": 0,
            "layers": {},
        }

    def _step(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:
        whole = final and not state["first"] and not state["layers"]
        if self.over_time and not whole:
            raise UsageError(f"{self.over_time[0]} norms over the whole utterance", hint="call it with whole ones")
        if not self._steps and not whole:
            raise UsageError(
                f"a stream with {self.stream.window.right} frames of look-ahead in each layer",
                hint="take mode chunk, or right_ms=0",
            )
        h, rest = self._front(torch.cat([state["input"], x], dim=1))
        h = torch.cat([state["waiting"], h], dim=1)
        frames, first, chunk = h.shape[1], state["first"], self.stream.window.chunk
        ready = frames if final else frames // chunk * chunk
        after = {"input": rest, "waiting": h[:, ready:], "first": first + ready, "layers": state["layers"]}
        if not ready:
            return h[:, :0], after
        stream, ends = self.stream, self.output_lens(ends)
        stream.last, stream.ends, stream.before, stream.after = first + ready, ends, state["layers"], {}
        try:
            y = self._layers(zeroed(h[:, :ready], ends, first))
            after["layers"] = stream.after
        finally:
            stream.ends, stream.before, stream.after = None, None, {}
        return y, after

    def _front(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the layers [B, t', D] from the input [B, t, F], and what of this is not used up."""
        if self.torch_layers:
            return x, x[:, :0]
        model: Any = self.model
        frames = max(0, (x.shape[1] - self.field) // self.subsampling + 1)
        rest = x[:, frames * self.subsampling :]
        if not frames or not len(x):
            return x.new_zeros(len(x), frames, self.output_dim), rest
        features = model.feature_extractor(x[:, :, 0]).transpose(1, 2)
        projected = model.feature_projection(features)
        return (projected[0] if isinstance(projected, tuple) else projected), rest

    def _layers(self, h: Tensor) -> Tensor:
        model: Any = self.model
        if not self.torch_layers:
            y: Tensor = model.encoder(h).last_hidden_state
        elif self.batch_first:
            y = model(h)
        else:
            y = model(h.transpose(0, 1)).transpose(0, 1)
        return y


def _norms_over_time(module: nn.Module) -> bool:
    """Whether it takes means over the frames of what it is given; a batch norm in use has its own from training."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm):
        return not module.track_running_stats
    return isinstance(module, nn.GroupNorm)
