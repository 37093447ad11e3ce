"""Make training recordings harder and more different: speed, voice, noise, rooms, and masked features.

For training a recogniser on few voices or clean recordings. Not for measuring one: report errors on recordings as they
are. All randomness comes from the generator handed in.

Speed after Ko et al. 2015, Audio augmentation for speech recognition; masks after Park et al. 2019, SpecAugment, arXiv
1904.08779, without its time warp, which it found to matter least; rooms as decaying noise after Polack 1988.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import scipy.signal
import soxr
from numpy.typing import NDArray

from wieldy.errors import UsageError
from wieldy.speech.noise import NoiseKind, noise

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is changed. A pair is the lowest and highest value, drawn evenly for each recording; None leaves it out."""

    speed: Range | None = (0.9, 1.1)  # factor of pace, pitch and formants together, 0.5 to 2; Ko et al.
    voice: Range | None = None  # factor of pitch and formants at the same pace, 0.5 to 2
    room_rt60_s: Range | None = None  # time in which the room's echo falls by 60 dB, 0.05 to 5 s
    noise_snr_db: Range | None = None  # speech to noise, -20 to 100 dB, over the whole recording
    noise: tuple[NoiseKind, ...] = ("white", "pink", "babble")  # one of these for each recording
    level_db: Range | None = None  # change of the level at the end, -60 to 60 dB
    warp: Range | None = (
        None  # of the mel bands' frequencies, 0.5 to 2: a cheap stand-in for `voice`, see `mel_filters`
    )
    channel_db: float = 0.0  # deviation of each of three slow waves that a microphone draws over the bands, >= 0
    frequency_masks: int = 2  # bands of neighbouring mels; this and the next as LibriSpeech "LD" of Park et al.
    frequency_width: int = 27  # mels, at most
    time_masks: int = 2  # stretches of neighbouring frames
    time_share: float = 0.1  # of the recording's frames, at most; utterances here are far shorter than LibriSpeech's

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            drawn = getattr(self, name)
            if drawn is not None and not least <= drawn[0] <= drawn[1] <= most:
                raise UsageError(
                    f"{name} is {drawn}", hint=f"it is the lowest and highest value, {least:g} to {most:g}"
                )
        if not self.noise or not set(self.noise) <= set(get_args(NoiseKind)):
            raise UsageError(f"noise is {self.noise}", hint=f"choose of {', '.join(get_args(NoiseKind))}")
        for name in ("frequency_masks", "frequency_width", "time_masks", "channel_db"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must not be negative")
        if not 0 <= self.time_share <= 1:
            raise UsageError(f"time_share is {self.time_share}", hint="it is a share, 0 to 1")

    @property
    def changes_sound(self) -> bool:
        """Whether anything but the features is changed."""
        return any(getattr(self, name) is not None for name in _RANGES)


_RANGES: dict[str, Range] = {
    "speed": (0.5, 2.0),
    "voice": (0.5, 2.0),
    "room_rt60_s": (0.05, 5.0),
    "noise_snr_db": (-20.0, 100.0),
    "level_db": (-60.0, 60.0),
    "warp": (0.5, 2.0),
}


def augmented(
    samples: NDArray[np.float32], rng: np.random.Generator, config: AugmentConfig, sample_rate: int = 16_000
) -> tuple[NDArray[np.float32], float]:
    """`samples` [n] changed as drawn, and the speed: what lay at t seconds now lies at t / speed."""
    speed = drawn(config.speed, rng)
    if speed is not None:
        samples = faster(samples, speed, sample_rate)
    if (voice := drawn(config.voice, rng)) is not None:
        samples = revoiced(samples, voice, sample_rate)
    if (rt60_s := drawn(config.room_rt60_s, rng)) is not None:
        samples = in_a_room(samples, rt60_s, rng, sample_rate)
    if (snr_db := drawn(config.noise_snr_db, rng)) is not None:
        kind = config.noise[rng.integers(len(config.noise))]
        samples = with_noise(samples, kind, snr_db, rng)
    if (level_db := drawn(config.level_db, rng)) is not None:
        samples = samples * np.float32(10 ** (level_db / 20))
    return samples, 1.0 if speed is None else speed


def drawn(between: Range | None, rng: np.random.Generator) -> float | None:
    return None if between is None else float(rng.uniform(*between))


# --- sound -----------------------------------------------------------------------------------------------------------


def faster(samples: NDArray[np.float32], speed: float, sample_rate: int) -> NDArray[np.float32]:
    """Played `speed` times as fast: pitch and formants rise with the pace."""
    return np.asarray(soxr.resample(samples, sample_rate * speed, sample_rate), np.float32)


def revoiced(samples: NDArray[np.float32], factor: float, sample_rate: int) -> NDArray[np.float32]:
    """Pitch and formants times `factor`, as from a vocal tract that much shorter; length and pace stay.

    Played `factor` times as fast, then drawn out to the old length (`_drawn_out`), times right to half a window.
    """
    return _drawn_out(faster(samples, factor, sample_rate), samples.size, sample_rate)


def _drawn_out(samples: NDArray[np.float32], length: int, sample_rate: int) -> NDArray[np.float32]:
    """`samples` made `length` long at the same pitch: windows overlap by half, each taken from where it continues the
    one before best, near its place (WSOLA: Verhelst, Roelands 1993, An overlap-add technique based on waveform
    similarity)."""
    window = 2 * (sample_rate * 15 // 1000)  # 30 ms, two periods of a low voice
    half, reach = window // 2, window // 4
    if samples.size < 2 * window:  # too short to have a pitch
        return np.pad(samples, (0, max(0, length - samples.size)))[:length]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    padded = np.pad(samples, (half + reach, window + half + reach))
    drawn_out = np.zeros(length + 2 * window, np.float32)
    pace = samples.size / length
    follows = reach  # where the window before goes on
    for begin in range(0, length + half, half):
        near = min(round(begin * pace), samples.size)  # the window's place less `reach`
        following = padded[follows : follows + window]
        around = padded[near : near + window + 2 * reach]
        sums = np.concatenate([[0.0], np.cumsum(np.square(around, dtype=np.float64))])
        energy = sums[window:] - sums[:-window]
        alike = np.correlate(around, following, "valid") / np.sqrt(energy + _SILENT)
        alike[reach] += _SILENT  # in silence, where all are alike, its own place
        chosen = near + int(np.argmax(alike))
        drawn_out[begin : begin + window] += hann * padded[chosen : chosen + window]
        follows = chosen + half
    return drawn_out[half : half + length]


_SILENT = 1e-9  # energy of a window in which a single sample is one step of 16 bits


def in_a_room(
    samples: NDArray[np.float32], rt60_s: float, rng: np.random.Generator, sample_rate: int
) -> NDArray[np.float32]:
    """With the echo of a room: noise that falls by 60 dB in `rt60_s`, 0 to 12 dB below the direct sound in all, as it
    is from arm's length to across a small room. Length, level and times stay."""
    length = max(1, round(rt60_s * sample_rate))
    tail = rng.standard_normal(length) * 10 ** (-3.0 * np.arange(length) / length)
    tail[: sample_rate * 3 // 1000] = 0.0  # the first wall is at least half a metre away: 3 ms there and back
    energy = float(np.square(tail).sum())
    if not (samples.any() and energy):
        return samples
    tail *= (10 ** (-rng.uniform(0.0, 12.0) / 10) / energy) ** 0.5
    tail[0] = 1.0
    wet = scipy.signal.oaconvolve(samples, tail.astype(np.float32))[: samples.size]
    return np.asarray(wet * (np.square(samples).mean() / np.square(wet).mean()) ** 0.5, np.float32)


def with_noise(
    samples: NDArray[np.float32], kind: NoiseKind, snr_db: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """With noise whose mean power is `snr_db` below that of `samples`; silence stays silent."""
    if not samples.any():
        return samples
    added = noise(kind, samples, rng)
    power, added_power = (float(np.square(part, dtype=np.float64).mean()) for part in (samples, added))
    return samples + added * np.float32((power / added_power) ** 0.5 * 10 ** (-snr_db / 20))


# --- features --------------------------------------------------------------------------------------------------------


def spec_augment(
    features: NDArray[np.float32],
    lens: NDArray[np.int64],
    rng: np.random.Generator,
    config: AugmentConfig,
    *,
    mels: int | None = None,
) -> NDArray[np.float32]:
    """A copy of `features` [B, T, F], as if by another microphone, and with bands of mels and stretches of frames
    masked, in the first `lens[b]` frames.

    What is masked becomes the utterance's own mean of that feature, which tells nothing and is 0 after any mean
    normalisation. `mels` is how many bands each of the spectra joined to a frame has; by default F, one spectrum.
    """
    features = features.copy()
    bands = mels or features.shape[2]
    for utterance, length in zip(features, lens.tolist(), strict=True):
        frames = utterance[:length]
        if not length:
            continue
        if config.channel_db:
            waves = rng.normal(0.0, config.channel_db, 3) @ np.cos(
                np.pi * np.outer([1, 2, 3], np.linspace(0, 1, bands))
            )
            frames += np.tile(waves * np.log(10) / 10, features.shape[2] // bands).astype(np.float32)
        mean = frames.mean(axis=0)
        masked = np.zeros(bands, bool)
        for _ in range(config.frequency_masks):
            width = int(rng.integers(min(config.frequency_width, bands) + 1))
            begin = int(rng.integers(bands - width + 1))
            masked[begin : begin + width] = True
        across = np.tile(masked, features.shape[2] // bands)
        frames[:, across] = mean[across]
        for _ in range(config.time_masks):
            width = int(rng.integers(int(config.time_share * length) + 1))
            begin = int(rng.integers(length - width + 1))
            frames[begin : begin + width] = mean
    return features
