"""Exported steps, run by onnxruntime without torch, against the encoder on the whole utterance."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from wieldy.errors import InputError, MissingError, UsageError  # noqa: E402
from wieldy.speech.networks.step_graph import OnnxStream, export_step  # noqa: E402
from wieldy.speech.networks.streaming_config import StreamingConfig  # noqa: E402
from wieldy.speech.networks.streaming_transformer import StreamingEncoder  # noqa: E402

CASES = {
    "chunk": {"mode": "chunk", "chunk": 4, "left": 8, "subsampling": 3},
    "chunk, no past": {"mode": "chunk", "chunk": 4, "left": 0, "positions": "none", "norm": "post"},
    "chunk, vgg": {"mode": "chunk", "chunk": 2, "left": 4, "front": "vgg", "subsampling": 4, "channels": (3, 4)},
    "vgg by 2": {"mode": "xl", "chunk": 5, "left": 8, "front": "vgg", "subsampling": 2, "channels": (3, 4)},
    "xl": {"mode": "xl", "chunk": 3, "left": 7, "convolution": 5, "norm": "sandwich"},
    "mask": {"mode": "mask", "left": (5, 0)},
}


def encoder_of(**settings: object) -> StreamingEncoder:
    torch.manual_seed(0)
    small = {"layers": 2, "size": 8, "heads": 2, "feed_forward": 12}
    encoder = StreamingEncoder(8, StreamingConfig(**{**small, **settings})).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return encoder


LONGER = ("chunk, no past", "vgg by 2")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in LONGER else []) for n in CASES])
def test_the_graph_is_the_encoder_on_streams_in_any_pieces(name, tmp_path) -> None:
    encoder = encoder_of(**CASES[name])
    path = export_step(encoder, tmp_path / "step.onnx", streams=2, **({"frames": 6} if name == "mask" else {}))
    x = torch.randn(2, 83, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, _ = encoder(x, torch.tensor([83, 83]))
    stream = OnnxStream(path)
    outputs = [stream.push(x[:, a:b].numpy()) for a, b in ((0, 5), (5, 30), (30, 31), (31, 83))]
    outputs.append(stream.push(np.zeros((2, 0, 8), np.float32), final=True))
    found = np.concatenate(outputs, axis=1)
    np.testing.assert_allclose(found, whole.numpy(), atol=1e-4)


def test_what_is_needed_to_write_a_graph_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"the package onnx is not installed: pip install 'wieldy\[torch\]'"):
        export_step(encoder_of(), tmp_path / "step.onnx")


def test_what_a_graph_cannot_say_and_what_does_not_fit(tmp_path) -> None:
    path = tmp_path / "step.onnx"
    for settings, message in (
        ({"mode": "full"}, "mode full does not stream"),
        ({"mode": "chunk", "chunk": 4, "left": 8, "right": 1}, "look-ahead beyond the chunk in a graph: take right=0"),
        ({"mode": "mask", "left": 4, "right": (0, 1)}, "look-ahead beyond a frame"),
        ({"chunk": 4, "left": 8, "front": "vgg", "subsampling": 2, "centred": True}, "for vgg centred=False"),
    ):
        with pytest.raises(UsageError, match=message):
            export_step(encoder_of(**settings), path)
    encoder = encoder_of(mode="chunk", chunk=4, left=4)
    with pytest.raises(UsageError, match="steps of 3 frames in mode chunk: only mode mask has a choice"):
        export_step(encoder, path, frames=3)
    assert not path.exists()
    stream = OnnxStream(export_step(encoder, path))
    assert stream.push(np.zeros((1, 3, 8), np.float32)).shape == (1, 0, 8)
    with pytest.raises(InputError, match=r"features of shape \(1, 3, 7\): they are \[1, frames, 8\]"):
        stream.push(np.zeros((1, 3, 7), np.float32))
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="is not an exported step: write it with export_step"):
        OnnxStream(path)
