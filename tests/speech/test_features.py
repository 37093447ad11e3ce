"""Mel features against torch's transform with filters written as loops, and block by block against whole."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import InputError, UsageError
from wieldy.speech.features import LogMelConfig, LogMelStream, MelConfig, log_mel, mel_filters, power_mel


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


SMALL = LogMelConfig(window=40, hop=15, mels=5, stack=2)


def loop_log_mel(samples: np.ndarray, config: LogMelConfig) -> np.ndarray:
    """One discrete Fourier transform after the other, in float64."""
    filters = loop_filters(config.mels, config.window, config.sample_rate)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.window) / config.window)
    starts = range(0, len(samples) - config.window + 1, config.hop)
    spectra = [filters @ np.abs(np.fft.rfft(hann * samples[i : i + config.window])) ** 2 for i in starts]
    groups = zip(*(spectra[i :: config.stack] for i in range(config.stack)), strict=False)
    return np.array([np.log(np.maximum(np.concatenate(group), 1e-10)) for group in groups])


@pytest.mark.parametrize("config", [LogMelConfig(), SMALL, LogMelConfig(sample_rate=8000, window=200, hop=80, mels=40)])
def test_log_mel_equals_one_transform_after_the_other(config: LogMelConfig) -> None:
    samples = noise(8_000)
    features = log_mel(samples, config)
    assert features.dtype == np.float32
    assert features.shape == (config.frames(8_000), config.dim)
    np.testing.assert_allclose(features, loop_log_mel(samples, config), atol=1e-4)


@given(
    pieces=st.lists(st.sampled_from([0, 1, 2, 14, 15, 16, 40, 55, 300]), max_size=60),
    sound=st.sampled_from(["noise", "tone", "silence"]),
)
def test_a_stream_gives_the_frames_of_the_whole(pieces: list[int], sound: str) -> None:
    length = sum(pieces)
    samples = {"noise": noise(length), "tone": 0.9 * np.sin(np.arange(length) * 0.3), "silence": np.zeros(length)}
    whole = samples[sound].astype(np.float32)
    stream, ends = LogMelStream(SMALL), np.cumsum([0, *pieces])
    parts = [stream.push(whole[begin:end]) for begin, end in itertools.pairwise(ends)]
    # Every frame comes with its last sample, not later.
    assert [sum(map(len, parts[: i + 1])) for i in range(len(parts))] == [SMALL.frames(end) for end in ends[1:]]
    np.testing.assert_allclose(np.concatenate([log_mel(whole[:0], SMALL), *parts]), log_mel(whole, SMALL), atol=1e-5)


def test_a_stream_of_single_samples() -> None:
    samples = noise(2_000)
    stream = LogMelStream()
    parts = [stream.push(samples[i : i + 1]) for i in range(len(samples))]
    np.testing.assert_allclose(np.concatenate(parts), log_mel(samples), atol=1e-5)


def test_frames_of_thirty_milliseconds() -> None:
    assert LogMelConfig().frame_s == pytest.approx(0.03)
    assert [LogMelConfig().frames(n) for n in (0, 399, 719, 720, 1199, 1200)] == [0, 0, 0, 1, 1, 2]


def test_silence_lies_below_what_sixteen_bits_add() -> None:
    rounding = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32) / 32768
    assert log_mel(np.zeros(16_000, np.float32)).max() < log_mel(rounding).mean()


@pytest.mark.parametrize("field", [{"stack": 0}, {"hop": 0}, {"hop": 401}, {"mels": 0}, {"window": 401}])
def test_impossible_log_mels(field: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        LogMelConfig(**field)


def test_two_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 800\)"):
        log_mel(np.zeros((2, 800), np.float32))


def test_warped_bands_hear_a_tone_where_a_longer_vocal_tract_would_have_put_it():
    """A tone at f, heard through bands that are `warp` times as high, is the tone at f / warp heard as usual."""
    config = LogMelConfig(sample_rate=8000, window=200, hop=80, mels=40, stack=1)
    t = np.arange(4000) / 8000

    def loudest(hertz, warp=1.0):
        mel = log_mel(np.sin(2 * np.pi * hertz * t).astype(np.float32), config, warp=warp)
        return np.median(mel.argmax(axis=1))

    for hertz, warp in ((900.0, 1.2), (1500.0, 0.8), (2000.0, 1.1)):
        assert abs(loudest(hertz, warp) - loudest(hertz / warp)) <= 1
        assert abs(loudest(hertz, warp) - loudest(hertz)) >= 1
    for warp in (0.5, 1.0, 2.0):
        filters = mel_filters(config.spectrum, warp)
        assert np.isfinite(filters).all()
        assert (filters >= 0).all()
