"""Where weights and recordings come from: a registry, a cache, carrier packages, a hub; and how they are read safely.

`locate("whisper-tiny.en")` gives the folder, fetching it first when someone is at the terminal.
"""

from wieldy.weights.fingerprint import fingerprint
from wieldy.weights.folders import model_format
from wieldy.weights.resolve import get, locate, where
from wieldy.weights.tensors import load_safetensors
from wieldy.weights.whisper import as_ctranslate2, as_transformers

__all__ = [
    "as_ctranslate2",
    "as_transformers",
    "fingerprint",
    "get",
    "load_safetensors",
    "locate",
    "model_format",
    "where",
]
