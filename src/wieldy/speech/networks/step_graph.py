"""A streaming Transformer as one ONNX graph: the next chunk and the state go in, outputs and the new state come out.

For devices and programs without torch. `export_step` writes the graph, `OnnxStream` runs it with onnxruntime alone. The
modes chunk, xl and mask, as far as nothing beyond the chunk is seen: more look-ahead would make outputs wait for frames
of later calls, which a graph of fixed shapes cannot say.

Notation: B streams, t input frames of a step, F features, t' outputs of a step, D output features, L layers, H heads, E
features of a head.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wieldy.cache import replacing
from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech.networks.encoder import RUNNING, State
from wieldy.speech.networks.front_ends import VggFrontEnd
from wieldy.speech.networks.streaming_transformer import StreamingEncoder

META = "wieldy.step"  # key of the graph's metadata
OPSET = 17
PREFIX = "after_"  # of the name of a state that comes out


class StepGraph(nn.Module):
    """One step of `encoder` from tensors to tensors, for steps of `frames` of its own frames (mode mask; else chunks).

    Inputs x [B, t, F]; `seen` int64 [1], input frames before these; `end` int64 [B], the number of the input frame
    after a stream's last, or beyond all there will be; the state, each [B, ...]. Outputs y [B, t', D], the new state.
    """

    def __init__(self, encoder: StreamingEncoder, frames: int | None = None) -> None:
        super().__init__()
        config = encoder.config
        if config.mode == "full":
            raise UsageError("mode full does not stream", hint="choose chunk, xl or mask")
        if max(config.of_layer("right", layer) for layer in range(config.layers)) or config.front_look_ahead:
            raise UsageError(
                f"look-ahead beyond {'a frame' if config.mode == 'mask' else 'the chunk'} in a graph",
                hint="take right=0, and for vgg centred=False",
            )
        if frames is not None and (config.mode != "mask" or frames < 1):
            raise UsageError(
                f"steps of {frames} frames in mode {config.mode}", hint="only mode mask has a choice, >= 1"
            )
        self.encoder = encoder
        self.frames = frames or (config.chunk if config.mode != "mask" else 16)
        self.input_frames = self.frames * config.subsampling
        self.shapes = self._shapes()
        for index, layer in enumerate(encoder.layers):
            if config.positions == "relative":
                with torch.no_grad():
                    r = layer.attention.positions(self.frames, layer.left + self.frames, layer.left)  # type: ignore[operator,union-attr]
                self.register_buffer(f"positions_{index}", r, persistent=False)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each state, without its streams."""
        config = self.encoder.config
        shapes: dict[str, tuple[int, ...]] = {}
        if isinstance(self.encoder.front, VggFrontEnd):
            before = self.encoder.front.start(1, torch.device("cpu"))["before"]
            shapes |= {f"front_{i}": tuple(tensor.shape[1:]) for i, tensor in enumerate(before)}
        for index in range(config.layers):
            head = (config.heads, config.of_layer("left", index), config.size // config.heads)
            shapes[f"keys_{index}"] = shapes[f"values_{index}"] = head
            if config.convolution:
                shapes[f"before_{index}"] = (config.convolution - 1, config.size)
        return {name: shape for name, shape in shapes.items() if 0 not in shape}

    def forward(self, x: Tensor, seen: Tensor, end: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        config, given = self.encoder.config, dict(zip(self.shapes, state, strict=True))
        after: dict[str, Tensor] = {}
        number = seen + torch.arange(self.input_frames)
        x = x.masked_fill((number >= end[:, None])[:, :, None], 0.0)
        h = self._front(x, end - seen, given, after)
        first = torch.div(seen, config.subsampling, rounding_mode="floor")
        ends = torch.div(end + config.subsampling - 1, config.subsampling, rounding_mode="floor")
        h = h[:, None]
        for index, layer in enumerate(self.encoder.layers):
            h, own = layer.by_chunk(  # type: ignore[operator]
                h, self._of_layer(index, given, x), self.frames, self._visible(index, first, ends)
            )
            kept = {"keys": own["keys"], "values": own["values"], "before": own["before"]}
            after |= {f"{name}_{index}": value for name, value in kept.items() if f"{name}_{index}" in self.shapes}
        y = self.encoder.norm(h[:, 0])
        beyond = first + torch.arange(self.frames) >= ends[:, None]
        return (y.masked_fill(beyond[:, :, None], 0.0), *(after[name] for name in self.shapes))

    def _front(self, x: Tensor, ends: Tensor, given: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
        """What enters the layers; `ends` [B] are counted from the first frame of x."""
        front = self.encoder.front
        if not isinstance(front, VggFrontEnd):
            joined: Tensor = front.linear(x.reshape(x.shape[0], self.frames, -1))
            return joined
        state: State = front.start(x.shape[0], x.device)
        state["before"] = [given[f"front_{i}"] for i in range(4)]
        h, own = front(x, state, ends, False)
        after |= {f"front_{i}": before for i, before in enumerate(own["before"])}
        entering: Tensor = h
        return entering

    def _of_layer(self, index: int, given: dict[str, Tensor], x: Tensor) -> State:
        config = self.encoder.config
        head = config.size // config.heads
        none = x.new_zeros(x.shape[0], config.heads, 0, head)
        positions = {self.frames: getattr(self, f"positions_{index}")} if config.positions == "relative" else {}
        return {
            "keys": given.get(f"keys_{index}", none),
            "values": given.get(f"values_{index}", none),
            "before": given.get(f"before_{index}", x.new_zeros(x.shape[0], 0, config.size)),
            "positions": positions,
        }

    def _visible(self, index: int, first: Tensor, ends: Tensor) -> Tensor:
        """[B, 1, 1 or t', left + t']."""
        config = self.encoder.config
        left = config.of_layer("left", index)
        key = torch.arange(-left, self.frames)
        visible = ((first + key >= 0) & (first + key < ends[:, None]))[:, None, None]
        if config.mode == "mask":
            query = torch.arange(self.frames)[:, None]
            # Beyond the end, where nothing is to be seen, a frame sees itself: its answer is a number, and not used.
            visible = (visible & (key <= query) & (key >= query - left)) | (key == query)
        return visible


def export_step(encoder: StreamingEncoder, path: Path | str, *, streams: int = 1, frames: int | None = None) -> Path:
    """Write one step of `encoder` as ONNX, float32, for `streams` streams at a time; needs the `onnx` package.

    A step takes a chunk, or in mode mask `frames` of the encoder's frames (16, when missing). `UsageError` where the
    encoder looks beyond that. See `StepGraph` for inputs and outputs; the state that comes out has the names of the one
    that goes in, after "after_".
    """
    if importlib.util.find_spec("onnx") is None:
        raise MissingError("the package onnx is not installed", hint="pip install 'wieldy[torch]'")
    graph = StepGraph(encoder, frames).eval()
    x = torch.zeros(streams, graph.input_frames, encoder.input_dim)
    state = [torch.zeros(streams, *shape) for shape in graph.shapes.values()]
    names = ["x", "seen", "end", *graph.shapes]
    outputs = ["y", *(PREFIX + name for name in graph.shapes)]
    path = Path(path)
    with replacing(path) as temporary, warnings.catch_warnings(), torch.no_grad():
        # The TorchScript exporter needs no further package. It warns of its age, and of shapes that become constants,
        # which is what is meant.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (x, torch.zeros(1, dtype=torch.int64), torch.full((streams,), RUNNING), *state),
            str(temporary),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=outputs,
        )
        _describe_(temporary, graph, streams)
    return path


def _describe_(path: Path, graph: StepGraph, streams: int) -> None:
    import onnx

    model = onnx.load(str(path))
    facts = {
        "frames": graph.input_frames,
        "streams": streams,
        "input_dim": graph.encoder.input_dim,
        "output_dim": graph.encoder.output_dim,
        "subsampling": graph.encoder.subsampling,
        "state": {name: list(shape) for name, shape in graph.shapes.items()},
    }
    onnx.helper.set_model_props(model, {META: json.dumps(facts)})
    onnx.save(model, str(path))


class OnnxStream:
    """An exported step, run by onnxruntime on `threads` threads: its streams, pushed in pieces of any length."""

    def __init__(self, path: Path | str, *, threads: int = 1) -> None:
        import onnxruntime

        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        facts = self._session.get_modelmeta().custom_metadata_map
        if META not in facts:
            raise InputError(f"{path} is not an exported step", hint="write it with export_step")
        known = json.loads(facts[META])
        self.frames, self.input_dim, self.subsampling = known["frames"], known["input_dim"], known["subsampling"]
        self.streams = known["streams"]
        self._state = {name: np.zeros((self.streams, *shape), np.float32) for name, shape in known["state"].items()}
        self._seen = 0
        self._waiting = np.zeros((self.streams, 0, self.input_dim), np.float32)
        self._nothing = np.zeros((self.streams, 0, known["output_dim"]), np.float32)

    def push(self, x: NDArray[np.float32], *, final: bool = False) -> NDArray[np.float32]:
        """The outputs [B, t', D] that the next frames x [B, t, F] complete; `final`, all that are left."""
        if x.ndim != 3 or x.shape[0] != self.streams or x.shape[2] != self.input_dim:
            raise InputError(
                f"features of shape {x.shape}", hint=f"they are [{self.streams}, frames, {self.input_dim}]"
            )
        waiting = np.concatenate([self._waiting, x.astype(np.float32)], axis=1)
        outputs = []
        while waiting.shape[1] >= self.frames:
            outputs.append(self._step(waiting[:, : self.frames], RUNNING))
            waiting = waiting[:, self.frames :]
        if final and waiting.shape[1]:
            rest = waiting.shape[1]
            padded = np.pad(waiting, ((0, 0), (0, self.frames - rest), (0, 0)))
            outputs.append(self._step(padded, self._seen + rest)[:, : -(-rest // self.subsampling)])
            waiting = waiting[:, rest:]
        self._waiting = waiting
        return np.concatenate([self._nothing, *outputs], axis=1)

    def _step(self, x: NDArray[np.float32], end: int) -> NDArray[np.float32]:
        inputs = {"x": x, "seen": np.array([self._seen]), "end": np.full(self.streams, end), **self._state}
        names = [node.name for node in self._session.get_inputs()]
        y, *state = self._session.run(None, {name: inputs[name] for name in names})
        self._state = dict(zip(self._state, state, strict=True))
        self._seen += x.shape[1]
        output: NDArray[np.float32] = y
        return output
