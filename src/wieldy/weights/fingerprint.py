"""Which weights exactly: the hashes that reports carry and stored results depend on."""

from __future__ import annotations

from pathlib import Path

from wieldy.cache import sha256_of

_WEIGHTS = (".bin", ".safetensors", ".onnx", ".gguf")


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights in a model folder, by file name; about a second per gigabyte."""
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.suffix in _WEIGHTS}
