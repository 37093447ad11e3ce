"""The exported encoder against the torch network it came from."""

import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

import wieldy  # noqa: E402
from wieldy.errors import InputError  # noqa: E402
from wieldy.speech.networks.dvector import DVector, export_onnx, load_checkpoint  # noqa: E402

BUNDLED = Path(wieldy.__file__).parent / "weights/bundled/dvector/dvector.onnx"


def from_onnx(path: Path) -> DVector:
    """The torch network with the weights of an exported file. ONNX orders gates i, o, f, c; torch i, f, c, o."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(path)).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [[tensors[name] for name in node.input[1:4]] for node in graph.node if node.op_type == "LSTM"]
    (gemm,) = [node for node in graph.node if node.op_type == "Gemm"]
    state = {"linear.weight": tensors[gemm.input[1]], "linear.bias": tensors[gemm.input[2]]}

    def reorder(weights: np.ndarray) -> np.ndarray:
        gate_in, gate_out, forget, cell = np.split(weights, 4)
        return np.concatenate([gate_in, forget, cell, gate_out])

    for index, (inputs, recurrent, biases) in enumerate(layers):
        first, second = np.split(biases[0], 2)
        state |= {
            f"lstm.weight_ih_l{index}": reorder(inputs[0]),
            f"lstm.weight_hh_l{index}": reorder(recurrent[0]),
            f"lstm.bias_ih_l{index}": reorder(first),
            f"lstm.bias_hh_l{index}": reorder(second),
        }
    network = DVector()
    network.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in state.items()})
    return network.eval()


def compare(network: DVector, path: Path) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, frames in ((1, 160), (5, 160), (3, 41), (2, 1)):
        mel = np.random.default_rng(batch).normal(0, 0.3, (batch, frames, 40)).astype(np.float32) ** 4
        with torch.inference_mode():
            expected = network(torch.from_numpy(mel)).numpy()
        (embedding,) = session.run(None, {"mel": mel})
        np.testing.assert_allclose(embedding, expected, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-5)


def test_the_bundled_file_is_small_and_equals_torch_with_its_weights() -> None:
    assert BUNDLED.stat().st_size <= 7_000_000
    compare(from_onnx(BUNDLED), BUNDLED)


def test_an_export_equals_its_network_on_other_batches_and_lengths(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    torch.manual_seed(1)
    network = DVector().eval()
    export_onnx(network, tmp_path / "voice.onnx")
    compare(network, tmp_path / "voice.onnx")


def test_a_voice_without_any_positive_element_is_zero_not_nan() -> None:
    network = DVector().eval()
    torch.nn.init.zeros_(network.linear.weight)
    torch.nn.init.constant_(network.linear.bias, -1.0)
    with torch.inference_mode():
        assert torch.equal(network(torch.rand(2, 10, 40)), torch.zeros(2, 256))


def test_a_checkpoint_returns_its_weights_without_those_of_the_loss(tmp_path: Path) -> None:
    state = DVector().state_dict()
    torch.save({"model_state": {**state, "similarity_weight": torch.ones(1)}, "step": 3}, tmp_path / "voice.pt")
    loaded = load_checkpoint(tmp_path / "voice.pt").state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "voice.pt").write_bytes(pickle.dumps({"model_state": Payload(tmp_path / "ran")}))
    with pytest.raises(InputError, match=r"voice\.pt is not a d-vector checkpoint"):
        load_checkpoint(tmp_path / "voice.pt")
    assert not (tmp_path / "ran").exists()
