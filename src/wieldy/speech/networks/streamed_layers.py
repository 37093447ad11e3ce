"""The layers of other people's encoders, changed in place so that they see a window and remember what was before.

Each stands in for the `forward` of one module, which keeps its weights and their names. `streamed` puts them in place.

Notation: B utterances, t frames that are there, p frames remembered, D features, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.speech.networks.encoder import within


@dataclass(frozen=True)
class Window:
    """Frame t, in the chunk that begins with frame b = t // chunk * chunk, sees frames b - left .. b + chunk - 1 +
    right. A chunk of one frame is a window around each."""

    chunk: int
    left: int
    right: int

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        """A mask [t, s] for the frames numbered `queries` [t] and `keys` [s]."""
        begin = torch.div(queries, self.chunk, rounding_mode="floor")[:, None] * self.chunk
        return (keys >= begin - self.left) & (keys < begin + self.chunk + self.right)


class Stream:
    """What the layers of one encoder share while it runs: which frames are there, and what each layer remembers.

    Called directly, an encoder sees whole utterances, which begin with frame 0, and remembers nothing.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self.last = 0  # number of the frame after the last that is there
        self.ends: Tensor | None = None  # [B], where each utterance ends
        self.before: dict[str, Tensor] | None = None  # by layer, [B, p, D]; None: called directly
        self.after: dict[str, Tensor] = {}  # the same for the next call
        self.padding: Tensor | None = None  # [B, t], True beyond the end, that torch's encoder was called with

    def whole(self, name: str, x: Tensor, keep: int) -> Tensor:
        """x [B, t, D] after what layer `name` remembers: [B, p + t, D]. It will remember the last `keep` frames."""
        if self.before is None:
            return x
        if name in self.before:
            x = torch.cat([self.before[name], x], dim=1)
        self.after[name] = x[:, max(0, x.shape[1] - keep) :]
        return x

    def known(self, frames: int) -> Tensor | None:
        """Which of the last so many frames belong to their utterances, [B, frames]; None: not known here."""
        return None if self.ends is None else within(self.ends, self.last - frames, frames)

    def mask(self, like: Tensor, queries: int, keys: int, given: Tensor | None = None) -> Tensor:
        """What is added to the scores of the last `queries` frames with the last `keys`: [B or 1, H or 1, t, s].

        0, or -inf where the window, the end of the utterance or `given` (a library's mask, True or 0 for what may be
        seen) says so. Every query sees itself: one of padding has an answer that is a number, and is not used.
        """
        last = keys if self.before is None else self.last
        q, k = (torch.arange(last - count, last, device=like.device) for count in (queries, keys))
        visible = self.window.visible(q, k)[None, None]
        known = self.known(keys)
        if known is not None:
            visible = visible & known[:, None, None]
        if given is not None:
            visible = visible & (given if given.dtype == torch.bool else given == 0)
        visible = visible | (q[:, None] == k)
        return torch.zeros_like(visible, dtype=like.dtype).masked_fill(~visible, -torch.inf)


class Streamed:
    """Stands in for the `forward` of `module`, which is called `name` in its encoder."""

    def __init__(self, module: nn.Module, name: str, stream: Stream) -> None:
        self.module, self.name, self.stream = module, name, stream

    def original(self, *args: Any, **options: Any) -> Any:
        return type(self.module).forward(self.module, *args, **options)

    def remembered(self, x: Tensor) -> Tensor:
        return self.stream.whole(self.name, x, self.stream.window.left)


class KeyValueAttention(Streamed):
    """Attention of wav2vec 2.0 and HuBERT, which can take its keys and values from elsewhere."""

    def __call__(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        whole = self.remembered(hidden_states)
        mask = self.stream.mask(whole, hidden_states.shape[1], whole.shape[1], attention_mask)
        return self.original(hidden_states, key_value_states=whole, attention_mask=mask, **options)


class ConformerAttention(Streamed):
    """Attention of Wav2Vec2-Conformer, whose positions want as many queries as keys: what is remembered is asked again,
    and its answers are dropped."""

    def __init__(self, module: nn.Module, name: str, stream: Stream, positions: nn.Module | None) -> None:
        super().__init__(module, name, stream)
        self.positions = positions

    def __call__(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        relative_position_embeddings: Tensor | None = None,
        **options: Any,
    ) -> Any:
        whole = self.remembered(hidden_states)
        frames = whole.shape[1]
        if self.positions is not None and self.stream.before is not None:
            relative_position_embeddings = self._positions(whole)
        y, weights = self.original(
            hidden_states=whole,
            attention_mask=self.stream.mask(whole, frames, frames, attention_mask),
            relative_position_embeddings=relative_position_embeddings,
            **options,
        )
        return y[:, frames - hidden_states.shape[1] :], weights

    def _positions(self, whole: Tensor) -> Tensor:
        assert self.positions is not None
        if getattr(self.module, "position_embeddings_type", "") != "rotary":
            relative: Tensor = self.positions(whole)
            return relative
        # Before its projections are applied, a rotation tells where a frame is, not how far from another.
        first = self.stream.last - whole.shape[1]
        absolute: Tensor = self.positions(whole[:1, :1, :1].expand(1, self.stream.last, 1))
        return absolute[:, first:]


class BiasedAttention(Streamed):
    """Attention of WavLM, which adds a bias to square scores: as `ConformerAttention`."""

    def __call__(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        whole = self.remembered(hidden_states)
        self.given = attention_mask
        y, weights, bias = self.original(whole, attention_mask=None, **options)
        return y[:, whole.shape[1] - hidden_states.shape[1] :], weights, bias

    def biased(self, hidden_states: Tensor, attention_mask: None, bias: Tensor) -> Any:
        """Stands in for the step of the original that computes the scores, whose `bias` is [B H, t, t]."""
        frames = hidden_states.shape[1]
        given = None if self.given is None else self.given[:, None, None].bool()
        mask = self.stream.mask(hidden_states, frames, frames, given)
        bias = (bias.view(len(hidden_states), -1, frames, frames) + mask).flatten(0, 1)
        return type(self.module).torch_multi_head_self_attention(  # type: ignore[attr-defined]
            self.module, hidden_states, attention_mask, bias
        )


class TorchAttention(Streamed):
    """A hook before `torch.nn.MultiheadAttention` within an encoder; hooks also keep torch from its fused layers, which
    would pass the attention by."""

    def __call__(self, module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        x = args[0] if module.batch_first else args[0].transpose(0, 1)
        whole = self.remembered(x)
        queries, keys = x.shape[1], whole.shape[1]
        given = None if self.stream.padding is None else ~self.stream.padding[:, None, None]
        mask = self.stream.mask(x, queries, keys, given).expand(len(x), module.num_heads, -1, -1).flatten(0, 1)
        if options.get("attn_mask") is not None:
            mask = mask + options["attn_mask"]
        key = whole if module.batch_first else whole.transpose(0, 1)
        options = {**options, "attn_mask": mask, "key_padding_mask": None, "is_causal": False}
        return (args[0], key, key), options


def padding_to_stream(stream: Stream) -> Any:
    """A hook before `torch.nn.TransformerEncoder` that leaves its padding mask to the attentions: with one, torch would
    pack the frames in another way."""

    def hook(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        names = ("src", "mask", "src_key_padding_mask", "is_causal")
        options = dict(zip(names, args, strict=False)) | options
        padding = options.pop("src_key_padding_mask", None)
        if padding is not None and padding.dtype != torch.bool:
            padding = padding != 0
        stream.padding = padding
        return (options.pop("src"),), options

    return hook


class Convolution(Streamed):
    """A convolution over time that keeps the length (or gives one frame more, which its encoder drops): frames beyond
    the chunk count as zero."""

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, C, t]."""
        module, stream = self.module, self.stream
        assert isinstance(module, nn.Conv1d)
        (taps,), back = module.kernel_size, reach_back(module)
        x = x.transpose(1, 2)
        frames, chunk = x.shape[1], stream.window.chunk
        known = stream.known(frames)
        if known is not None:
            x = x * known[:, :, None]
        earlier = x.new_zeros(len(x), back, x.shape[2])
        if stream.before is not None:
            earlier = stream.before.get(self.name, earlier)
        whole = torch.cat([earlier, x], dim=1)
        if stream.before is not None:
            stream.after[self.name] = whole[:, whole.shape[1] - back :]
        rows = whole.transpose(1, 2)
        if chunk == 1:  # one by one they would be as many rows as frames
            y = functional.conv1d(rows, module.weight[..., : back + 1], module.bias, groups=module.groups)
        else:
            chunks = -(-frames // chunk)
            rows = functional.pad(rows, (0, chunks * chunk - frames)).unfold(2, back + chunk, chunk).transpose(1, 2)
            rows = functional.pad(rows.flatten(0, 1), (0, taps - 1 - back))
            y = functional.conv1d(rows, module.weight, module.bias, groups=module.groups)
            y = y.view(len(x), chunks, *y.shape[1:]).transpose(1, 2).flatten(2)[..., :frames]
        return functional.pad(y, (0, 2 * back + 1 - taps))


def reach_back(convolution: nn.Conv1d) -> int:
    """Frames that a convolution sees before the one it answers for."""
    return int(convolution.padding[0])
