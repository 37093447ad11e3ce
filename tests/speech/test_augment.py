"""Augmented sound has the pitch, pace, echo and noise that were asked for; masked features the rest as it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.speech.augment import AugmentConfig, augmented, faster, in_a_room, revoiced, spec_augment, with_noise

RATE = 16_000
NOTHING = AugmentConfig(speed=None, frequency_masks=0, time_masks=0)


def buzz(seconds: float = 1.0, pitch: float = 120.0) -> np.ndarray:
    """A voiced sound: pulses through one formant at 1 kHz, between two pauses."""
    length = round(seconds * RATE)
    time = np.arange(length) / RATE
    pulses = sum(np.cos(2 * np.pi * k * pitch * time) / (1 + ((k * pitch - 1000) / 200) ** 2) for k in range(1, 50))
    quiet = np.zeros(RATE // 4)
    return np.concatenate([quiet, 0.1 * pulses, quiet]).astype(np.float32)


def pitch_of(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples, 2 * samples.size)) ** 2
    correlation = np.fft.irfft(spectrum)[RATE // 300 : RATE // 60]
    return RATE / (RATE // 300 + int(np.argmax(correlation)))


def centroid(samples: np.ndarray) -> float:
    """Mean frequency of the energy, in Hz."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float(power @ np.fft.rfftfreq(samples.size, 1 / RATE) / power.sum())


def loud_part(samples: np.ndarray) -> tuple[float, float]:
    loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())
    return loud[0] / RATE, loud[-1] / RATE


@pytest.mark.parametrize("speed", [0.8, 0.93, 1.0, 1.2])
def test_speed_moves_pace_and_pitch_together(speed):
    changed, factor = augmented(buzz(), np.random.default_rng(0), AugmentConfig(speed=(speed, speed)))
    assert factor == speed
    assert changed.size == pytest.approx(buzz().size / speed, abs=2)
    assert pitch_of(changed) == pytest.approx(120 * speed, rel=0.02)
    assert loud_part(changed) == pytest.approx([t / speed for t in loud_part(buzz())], abs=0.01)
    np.testing.assert_array_equal(changed, faster(buzz(), speed, RATE))


@pytest.mark.parametrize("factor", [0.8, 0.95, 1.15, 1.25])
def test_voice_moves_pitch_and_formants_and_no_times(factor):
    before = buzz()
    changed, speed = augmented(before, np.random.default_rng(0), AugmentConfig(speed=None, voice=(factor, factor)))
    assert speed == 1.0
    assert changed.dtype == np.float32
    assert changed.size == before.size
    assert pitch_of(changed) == pytest.approx(120 * factor, rel=0.02)
    assert centroid(changed) == pytest.approx(centroid(before) * factor, rel=0.03)
    assert loud_part(changed) == pytest.approx(loud_part(before), abs=0.02)
    assert np.sqrt(np.mean(changed**2) / np.mean(before**2)) == pytest.approx(1.0, abs=0.05)


def test_a_voice_that_is_not_changed_is_the_same():
    np.testing.assert_allclose(revoiced(buzz(), 1.0, RATE), buzz(), atol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 500, 959, 960, 2000])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_short_sounds_keep_their_length(length, factor):
    samples = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    assert revoiced(samples, factor, RATE).shape == (length,)


@pytest.mark.parametrize("rt60_s", [0.2, 0.6])
def test_a_room_decays_in_its_time(rt60_s):
    click = np.zeros(RATE, np.float32)
    click[0] = 1.0
    echo = in_a_room(click, rt60_s, np.random.default_rng(0), RATE)
    assert np.argmax(np.abs(echo)) == 0
    assert np.abs(echo[1 : 3 * RATE // 1000]).max() < 1e-6
    # Schroeder's backward integral falls evenly: from -5 to -25 dB it takes a third of the time to -60.
    left = np.cumsum(np.square(echo[RATE // 100 :], dtype=np.float64)[::-1])[::-1]
    falls = 10 * np.log10(left / left[0] + 1e-12)
    taken = (np.argmax(falls < -25) - np.argmax(falls < -5)) / RATE
    assert 3 * taken == pytest.approx(rt60_s, rel=0.15)


def test_a_room_keeps_length_level_and_times():
    before = buzz()
    for seed in range(5):
        wet = in_a_room(before, 0.4, np.random.default_rng(seed), RATE)
        assert wet.shape == before.shape
        assert np.mean(wet**2) == pytest.approx(np.mean(before**2), rel=1e-3)
        assert loud_part(wet)[0] == pytest.approx(loud_part(before)[0], abs=0.005)


@pytest.mark.parametrize("kind", ["white", "pink", "babble"])
def test_noise_is_as_loud_as_asked(kind):
    before = buzz()
    added = with_noise(before, kind, 12.0, np.random.default_rng(0)) - before
    assert 10 * np.log10(np.mean(before**2) / np.mean(added**2)) == pytest.approx(12.0, abs=0.05)


def test_levels_change_by_decibels():
    config = AugmentConfig(speed=None, level_db=(-6.0, -6.0))
    changed, _ = augmented(buzz(), np.random.default_rng(0), config)
    np.testing.assert_allclose(changed, buzz() * 10 ** (-6 / 20), rtol=1e-5)


EVERYTHING = AugmentConfig(
    voice=(0.9, 1.1), room_rt60_s=(0.1, 0.5), noise_snr_db=(0.0, 30.0), level_db=(-10.0, 10.0), speed=(0.9, 1.1)
)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(1), np.zeros(5000), np.ones(3)])
def test_silence_and_next_to_nothing(samples):
    changed, _ = augmented(samples.astype(np.float32), np.random.default_rng(0), EVERYTHING)
    assert np.isfinite(changed).all()
    assert changed.any() == samples.any()


def test_the_generator_decides_alone():
    before = buzz(0.3)
    kept = before.copy()
    first, again, other = (augmented(before, np.random.default_rng(seed), EVERYTHING)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    np.testing.assert_array_equal(before, kept)


def test_nothing_asked_nothing_changed():
    changed, speed = augmented(buzz(), np.random.default_rng(0), NOTHING)
    np.testing.assert_array_equal(changed, buzz())
    assert speed == 1.0
    assert not NOTHING.changes_sound
    assert EVERYTHING.changes_sound


# --- masks -----------------------------------------------------------------------------------------------------------


@given(
    lens=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    masks=st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 3), st.floats(0, 1)),
    stack=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_masks_cover_whole_bands_and_frames_within_their_bounds(lens, masks, stack, seed):
    bands, wide, stretches, share = masks
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((len(lens), 40, 10 * stack)).astype(np.float32)
    config = AugmentConfig(frequency_masks=bands, frequency_width=wide, time_masks=stretches, time_share=share)
    masked = spec_augment(features, np.array(lens), rng, config, mels=10)
    for before, after, length in zip(features, masked, lens, strict=True):
        np.testing.assert_array_equal(before[length:], after[length:])
        changed = before[:length] != after[:length]
        columns = changed.all(axis=0).reshape(stack, 10)
        assert (columns == columns[0]).all()  # the same mels in each spectrum of a frame
        rows = changed.all(axis=1)
        assert not changed[~rows][:, ~columns.reshape(-1)].any()
        if not rows.all():
            assert columns[0].sum() <= bands * wide
        if not columns.all():
            assert rows.sum() <= stretches * int(share * length)
        means = np.broadcast_to(before[:length].mean(axis=0), changed.shape) if length else before[:0]
        np.testing.assert_allclose(after[:length][changed], means[changed], atol=1e-6)


def test_masks_do_mask():
    features = np.random.default_rng(0).standard_normal((20, 50, 80)).astype(np.float32)
    masked = spec_augment(features, np.full(20, 50), np.random.default_rng(0), AugmentConfig())
    changed = masked != features
    assert 0.1 < changed.mean() < 0.5
    assert changed.all(axis=1).any(axis=1).mean() > 0.8  # a band in nearly every utterance
    assert changed.all(axis=2).any(axis=1).mean() > 0.8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("speed", (1.1, 0.9)),
        ("speed", (0.1, 1.0)),
        ("voice", (0.9, 3.0)),
        ("room_rt60_s", (0.0, 0.5)),
        ("noise_snr_db", (float("nan"), 10.0)),
        ("noise", ()),
        ("noise", ("brown",)),
        ("level_db", (-100.0, 0.0)),
        ("time_masks", -1),
        ("frequency_width", -1),
        ("time_share", 1.5),
    ],
)
def test_impossible_configs(field, value):
    with pytest.raises(UsageError, match=f"{field} is "):
        AugmentConfig(**{field: value})


def test_another_microphone_shifts_all_frames_of_a_band_alike():
    features = np.random.default_rng(0).normal(size=(3, 20, 30)).astype(np.float32)
    config = AugmentConfig(channel_db=4.0, frequency_masks=0, time_masks=0)
    heard = spec_augment(features, np.array([20, 12, 0]), np.random.default_rng(0), config, mels=10) - features
    assert np.allclose(heard[0], heard[0, :1], atol=1e-5)
    assert np.allclose(heard[1, :12], heard[1, :1], atol=1e-5)
    assert not heard[1, 12:].any()
    assert not heard[2].any()
    assert np.allclose(heard[0, 0, :10], heard[0, 0, 10:20], atol=1e-5)
    assert heard[0, 0].std() > 0.1
    assert not np.allclose(heard[0, 0], heard[1, 0])
