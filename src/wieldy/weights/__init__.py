"""Where weights and recordings come from: a registry, a cache, carrier packages, a hub; and how they are read safely.

`locate("whisper-tiny.en")` gives the folder, fetching it first when someone is at the terminal.
"""

from wieldy.weights.resolve import get, locate, where

__all__ = ["get", "locate", "where"]
