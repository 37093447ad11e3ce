"""Mel features against torch's transform with filters written as loops, and block by block against whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.speech.features import MelConfig, mel_filters, power_mel


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def slaney_hertz(mel: float) -> float:
    return 200 / 3 * mel if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def loop_filters(mels: int, window: int, rate: int) -> np.ndarray:
    """The same bands from the definition of a triangle, one value at a time."""
    top = 15 + 27 * np.log(rate / 2 / 1000) / np.log(6.4)
    edges = [slaney_hertz(top * index / (mels + 1)) for index in range(mels + 2)]
    filters = np.zeros((mels, window // 2 + 1))
    for band, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for index in range(window // 2 + 1):
            hertz = index * rate / window
            if low < hertz <= centre:
                filters[band, index] = (hertz - low) / (centre - low)
            elif centre < hertz < high:
                filters[band, index] = (high - hertz) / (high - centre)
        filters[band] *= 2 / (high - low)
    return filters


def test_power_mel_equals_torch_stft_with_loop_filters() -> None:
    torch = pytest.importorskip("torch")
    samples = noise(16_123)
    window = torch.hann_window(400, periodic=True)
    spectrum = torch.stft(
        torch.from_numpy(samples), 400, 160, window=window, center=True, pad_mode="constant", return_complex=True
    )
    expected = loop_filters(40, 400, 16_000) @ spectrum.abs().square().numpy().astype(np.float64)
    np.testing.assert_allclose(power_mel(samples), expected.T, rtol=1e-4, atol=1e-7)


def test_filters_have_unit_area_and_only_those_below_the_top_are_complete() -> None:
    config = MelConfig(window=16_000)
    np.testing.assert_allclose(mel_filters(config).sum(axis=1), 1.0, rtol=1e-3)


@given(cut=st.integers(0, 60), samples=st.integers(0, 10_000))
def test_blocks_with_context_give_the_frames_of_the_whole(cut: int, samples: int) -> None:
    config = MelConfig()
    whole = noise(samples)
    padded = np.pad(whole, config.context)
    cut_frames = min(cut, samples // config.hop)
    first = padded[: cut_frames * config.hop + 2 * config.context - config.hop] if cut_frames else padded[:0]
    second = padded[cut_frames * config.hop :]
    parts = [power_mel(part, config, padded=False) for part in (first, second)]
    np.testing.assert_allclose(np.concatenate(parts), power_mel(whole, config), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161])
def test_short_signals_have_one_frame_per_started_hop(samples: int) -> None:
    assert power_mel(noise(samples)).shape == (1 + samples // 160, 40)


def test_a_signal_shorter_than_its_context_has_no_frames() -> None:
    assert power_mel(noise(399), padded=False).shape == (0, 40)


def test_an_odd_window_is_refused() -> None:
    with pytest.raises(UsageError, match=r"MelConfig.window is 401: centred frames need an even window"):
        MelConfig(window=401)
