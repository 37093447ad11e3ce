"""A speaker encoder: a stretch of speech in, one point on the unit sphere per voice out.

Use it to train or export; to run the exported encoder without torch take `wieldy.speech.voices.SpeakerEncoder`.
"Generalized End-to-End Loss for Speaker Verification", Li Wan et al., 2018, arXiv 1710.10467.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from wieldy.errors import InputError


class DVector(nn.Module):
    """d-vector of a stretch of speech (section 2 of the paper, with a rectifier before the norm).

        h = LSTM(x_1 .. x_T)_T          last hidden state of the last layer
        e = relu(W h + b) / |relu(W h + b)|

    `mel` [batch, frames, mels] holds powers, not logarithms (`wieldy.speech.features.power_mel`, level about
    -30 dBFS, trained on 160 frames = 1.6 s); the result e is [batch, size], with no negative element.
    """

    def __init__(self, mels: int = 40, hidden: int = 256, size: int = 256, layers: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTM(mels, hidden, layers, batch_first=True)
        self.linear = nn.Linear(hidden, size)

    def forward(self, mel: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mel)
        voice: Tensor = torch.relu(self.linear(hidden[-1]))
        # The floor keeps a voice that rectifies to nothing at zero, where a caller can see it, instead of NaN.
        length: Tensor = torch.linalg.vector_norm(voice, dim=1, keepdim=True)
        return voice / length.clamp_min(1e-12)


def load_checkpoint(path: Path | str) -> DVector:
    """The encoder stored in a GE2E checkpoint (`model_state` with `lstm.*` and `linear.*`), in evaluation mode.

    Only tensors are read from the file: an archive that wants to run code is refused. The scale and offset of the
    training loss (`similarity_*`) are left out. Raises `InputError` for any other file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        network = DVector()
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith("similarity_")})
    except Exception as error:
        # torch reports a foreign file by many types (pickle, zip, key, shape); all of them mean the same here.
        raise InputError(f"{path} is not a d-vector checkpoint", hint=f"reading it: {type(error).__name__}") from error
    return network.eval()


def export_onnx(network: DVector, path: Path | str) -> None:
    """Write `network` as ONNX: input `mel` [batch, frames, 40], output `embedding` [batch, 256], both float32.

    Batch and frames stay free. Needs the `onnx` package.
    """
    # One utterance: the exporter fixes the initial LSTM state to the batch it sees unless that is 1. The
    # TorchScript exporter keeps nn.LSTM as one LSTM operator, which is what makes the runtime fast.
    mel = torch.zeros(1, 160, network.lstm.input_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about these two choices
        torch.onnx.export(
            network,
            (mel,),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["mel"],
            output_names=["embedding"],
            dynamic_axes={"mel": {0: "batch", 1: "frames"}, "embedding": {0: "batch"}},
        )
