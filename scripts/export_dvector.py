"""Export the speaker encoder once to `src/wieldy/weights/bundled/dvector/dvector.onnx`: the base install has no torch.

    python scripts/export_dvector.py [CHECKPOINT]

Without CHECKPOINT the carrier package `dvector-torch` is used. The file is only replaced when onnxruntime gives the
same embeddings as torch to 1e-5 on batches and lengths other than the exported one. Needs `wieldy[torch]` and `onnx`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from wieldy.cache import replacing, sha256_of
from wieldy.speech.networks.dvector import DVector, export_onnx, load_checkpoint

TARGET = Path(__file__).parents[1] / "src/wieldy/weights/bundled/dvector/dvector.onnx"
TOLERANCE = 1e-5


def largest_difference(network: DVector, path: Path) -> float:
    """The largest |torch - onnxruntime| over embeddings of random features of several shapes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch, frames in ((1, 160), (7, 160), (3, 41)):
        # Squared normal numbers scaled to what speech at -30 dBFS has: mostly small, a few large powers.
        mel = 0.05 * torch.randn(batch, frames, 40, generator=generator) ** 4
        (exported,) = session.run(None, {"mel": mel.numpy()})
        with torch.inference_mode():
            differences.append(float(np.abs(network(mel).numpy() - exported).max()))
    return max(differences)


def main(arguments: list[str]) -> None:
    if arguments:
        checkpoint = Path(arguments[0])
    else:
        from wieldy.weights import locate

        checkpoint = locate("dvector-torch")
    network = load_checkpoint(checkpoint)
    with replacing(TARGET) as temporary:
        export_onnx(network, temporary)
        difference = largest_difference(network, temporary)
        if not difference <= TOLERANCE:
            raise SystemExit(f"not written: torch and onnxruntime differ by {difference:.1e}, not <= {TOLERANCE:.0e}")
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes, sha256 {sha256_of(TARGET)}, differs by {difference:.1e}")


if __name__ == "__main__":
    main(sys.argv[1:])
