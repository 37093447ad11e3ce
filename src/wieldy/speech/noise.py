"""Noise to mix with speech: generated, so that it needs no recordings and is the same for the same generator.

Not for telling how a recogniser does in a street or a car, which sound like none of these.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

NoiseKind = Literal["white", "pink", "babble"]


def noise(kind: NoiseKind, speech: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise as long as `speech` [n], at any level; babble is a dozen of the same speech at once, backwards."""
    match kind:
        case "white":
            return rng.standard_normal(speech.size, dtype=np.float32)
        case "pink":
            from scipy.signal import lfilter

            # Three poles and zeros that fall by 3 dB per octave (Smith, Spectral Audio Signal Processing, 2011).
            zeros = [0.049922035, -0.095993537, 0.050612699, -0.004408786]
            poles = [1.0, -2.494956002, 2.017265875, -0.522189400]
            return np.asarray(lfilter(zeros, poles, rng.standard_normal(speech.size)), np.float32)
        case "babble":
            backwards = speech[::-1]
            return np.asarray(np.sum([np.roll(backwards, rng.integers(speech.size)) for _ in range(12)], axis=0))
