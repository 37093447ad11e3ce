"""The settings of the streaming Transformer, and what they cost in latency.

`StreamingConfig.within` chooses the look-ahead for a latency; the network is in `streaming_transformer`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from wieldy.errors import UsageError
from wieldy.speech.latency import AlgorithmicLatency

Mode = Literal["full", "mask", "chunk", "xl"]
Norm = Literal["pre", "post", "sandwich", "pre_no_final"]
Init = Literal["xavier", "scaled", "depth", "fixup"]
Front = Literal["stack", "vgg"]
Positions = Literal["relative", "none"]


@dataclass(frozen=True, kw_only=True)
class StreamingConfig:
    """Frames are those of the encoder, after its front end, unless said otherwise. The defaults are a model for two CPU
    cores; Liang Lu et al. 2020, arXiv 2005.09684, compare the norms, initialisations and ways to stream.

    Modes: `full` sees the whole utterance and does not stream. `mask`: each layer sees `left` frames back and `right`
    ahead, which adds up over layers. `chunk`: frames see their chunk of `chunk` frames and `left` before it. `xl`: the
    same with the past as a memory that takes no gradient. In both, a chunk sees `right` frames more, which are computed
    again with the next chunk, so that nothing adds up.
    """

    kind: ClassVar[str] = "streaming-transformer"
    mode: Mode = "chunk"
    layers: int = 6  # >= 1
    size: int = 144  # D, a multiple of `heads`
    heads: int = 4  # >= 1
    feed_forward: int = 576  # >= 1
    chunk: int = 16  # >= 1
    left: int | tuple[int, ...] = (
        64  # >= 0; a multiple of `chunk` in mode chunk; in mode mask one per layer is possible
    )
    right: int | tuple[int, ...] = 0  # >= 0; in mode mask one per layer is possible
    front: Front = "stack"  # frames joined and one linear layer, or four convolutions
    subsampling: int = 1  # input frames per frame; stack: >= 1, vgg: 2 or 4
    channels: tuple[int, int] = (64, 128)  # of the two blocks of vgg
    planes: int = 1  # vgg: earlier frames that an input frame is joined of, 3 for `LogMelConfig(stack=3)`
    centred: bool = False  # vgg: convolutions see one frame ahead each, 6 input frames in all
    convolution: int = 0  # frames that a convolution in each layer sees, the last the present one; 0: none
    positions: Positions = "relative"
    norm: Norm = "pre"
    init: Init = "scaled"
    dropout: float = 0.1  # on what each branch adds, [0, 1)

    def __post_init__(self) -> None:
        for name, choices in (
            ("mode", Mode),
            ("norm", Norm),
            ("init", Init),
            ("front", Front),
            ("positions", Positions),
        ):
            if getattr(self, name) not in get_args(choices):
                raise UsageError(f"{name} {getattr(self, name)!r}", hint=f"choose {', '.join(get_args(choices))}")
        sizes = ("layers", "size", "heads", "feed_forward", "chunk", "subsampling", "planes")
        for name in sizes:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it is at least 1")
        if self.size % self.heads:
            raise UsageError(f"size {self.size} for {self.heads} heads", hint=f"take {_nearest(self.size, self.heads)}")
        for name in ("left", "right"):
            value = getattr(self, name)
            if isinstance(value, tuple) and (self.mode != "mask" or len(value) != self.layers):
                raise UsageError(f"{name} is {value}", hint=f"one number, or in mode mask {self.layers}, one per layer")
            if min(value if isinstance(value, tuple) else (value,)) < 0:
                raise UsageError(f"{name} is {value}", hint="it is not negative")
        if self.mode == "chunk" and isinstance(self.left, int) and self.left % self.chunk:
            raise UsageError(
                f"left is {self.left}, the chunk {self.chunk}", hint=f"take {_nearest(self.left, self.chunk)}"
            )
        if self.mode == "xl" and self.positions == "none":
            raise UsageError("mode xl without positions", hint="its memory needs relative ones")
        if self.front == "vgg" and self.subsampling not in (2, 4):
            raise UsageError(f"subsampling is {self.subsampling}", hint="vgg subsamples by 2 or 4")
        if self.convolution < 0:
            raise UsageError(f"convolution is {self.convolution}", hint="it is not negative")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}", hint="it lies in [0, 1)")

    def of_layer(self, name: Literal["left", "right"], layer: int) -> int:
        value: int | tuple[int, ...] = getattr(self, name)
        return value[layer] if isinstance(value, tuple) else value

    @property
    def front_look_ahead(self) -> int:
        """Input frames that the front end sees beyond those an output stands for: 2 convolutions on all, 2 on every
        second."""
        return 6 if self.front == "vgg" and self.centred else 0

    @property
    def front_look_back(self) -> int:
        return 0 if self.front == "stack" else 12 - self.front_look_ahead

    def latency(self) -> AlgorithmicLatency:
        """In input frames."""
        step, front = self.subsampling, self.front_look_ahead
        if self.mode == "full":
            infinite = float("inf")
            return AlgorithmicLatency(worst=infinite, mean=infinite, past=infinite)
        chunk = 1 if self.mode == "mask" else self.chunk
        right = sum(self.of_layer("right", i) for i in range(self.layers if self.mode == "mask" else 1))
        # How far back each frame of a chunk far from the start depends, through all layers from the top.
        past = 0
        for frame in range(chunk):
            first = frame
            for layer in reversed(range(self.layers)):
                first -= max(0, self.convolution - 1)
                first = first // chunk * chunk - self.of_layer("left", layer)
            past = max(past, frame - first)
        return AlgorithmicLatency.of_chunks(
            chunk, right, step, front, past=past * step + step - 1 + self.front_look_back
        )

    def within(self, seconds: float, frame_s: float) -> StreamingConfig:
        """The same with as much look-ahead as its mode can have within `seconds` in the worst case, for input frames
        `frame_s` apart: in mode mask equal `right` in each layer, in chunk and xl the chunk (`left` as many chunks as
        now), `right` staying as it is. `UsageError` names the least latency that is possible."""
        if self.mode == "full":
            raise UsageError("mode full needs the whole utterance", hint="choose mask, chunk or xl")
        least = dataclasses.replace(self, right=0) if self.mode == "mask" else self._with_chunk(1)
        spare = seconds / frame_s - least.latency().worst
        if spare < -1e-9:
            raise UsageError(
                f"a latency of {seconds * 1000:g} ms",
                hint=f"the least is {least.latency().worst * frame_s * 1000:g} ms",
            )
        more = int((spare + 1e-9) / self.subsampling)
        return (
            dataclasses.replace(self, right=more // self.layers) if self.mode == "mask" else self._with_chunk(1 + more)
        )

    def _with_chunk(self, chunk: int) -> StreamingConfig:
        left = self.of_layer("left", 0)
        return dataclasses.replace(self, chunk=chunk, left=left // self.chunk * chunk if self.mode == "chunk" else left)


def _nearest(value: int, unit: int) -> str:
    """The multiples of `unit` around `value`."""
    below = value // unit * unit
    return f"{below} or {below + unit}" if below else str(unit)
