"""Spectral features that encoders and recognisers are fed, in numpy.

`power_mel` is for speaker encoders. Its frames are centred: frame t looks at the samples around t * hop. A recording
read in blocks gives the same frames as one read whole when each block is handed over with `context` samples of its
neighbours and `padded=False`.

`log_mel` is for recognisers. Its frames look ahead only: frame t starts at sample t * hop, so that a frame is there as
soon as its last sample is; `LogMelStream` gives the same frames from samples that arrive piece by piece.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from wieldy.errors import InputError, UsageError


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Which mel spectrogram. The defaults are those the d-vector encoder was trained on."""

    sample_rate: int = 16_000  # Hz
    window: int = 400  # samples under one periodic Hann window, also the FFT length; even
    hop: int = 160  # samples from one frame to the next
    mels: int = 40  # triangular bands from 0 Hz to half the sample rate

    def __post_init__(self) -> None:
        for name in ("sample_rate", "window", "hop", "mels"):
            if getattr(self, name) < 1:
                raise UsageError(f"MelConfig.{name} is {getattr(self, name)}", hint="it must be at least 1")
        if self.window % 2:
            raise UsageError(f"MelConfig.window is {self.window}", hint="centred frames need an even window")

    @property
    def context(self) -> int:
        """Samples a frame reaches to either side of its centre."""
        return self.window // 2

    @property
    def frames_per_second(self) -> float:
        return self.sample_rate / self.hop


def power_mel(
    samples: NDArray[np.float32], config: MelConfig = MelConfig(), *, padded: bool = True, warp: float = 1.0
) -> NDArray[np.float32]:
    """Mel powers (no logarithm) of mono samples [n] as [frames, mels], never negative.

        P[t, f] = |sum_j w[j] x[t hop + j - window/2] exp(-2 pi i f j / window)|^2,    mel[t] = filters P[t]

    With `padded` the signal is continued by zeros, and n samples give 1 + n // hop frames. Without, `samples` begins
    and ends with `config.context` samples of context, and frame 0 is centred on sample number `config.context`.
    `warp`: see `mel_filters`.
    """
    if padded:
        samples = np.pad(samples, config.context)
    if len(samples) < config.window:
        return np.zeros((0, config.mels), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.window)[:: config.hop]
    filters = mel_filters(config, warp).T
    mel = np.empty((len(frames), config.mels), np.float32)
    # 4,096 frames at a time: the windowed frames are 2.5 times as large as the signal itself.
    for start in range(0, len(frames), 4096):
        spectrum = scipy.fft.rfft(frames[start : start + 4096] * _hann(config.window))
        mel[start : start + 4096] = (spectrum.real**2 + spectrum.imag**2) @ filters
    return mel


@dataclass(frozen=True, kw_only=True)
class LogMelConfig:
    """Which logarithmic mel spectrogram. The defaults: 80 bands every 10 ms, three joined to a frame of 30 ms."""

    sample_rate: int = 16_000  # Hz
    window: int = 400  # samples under one periodic Hann window, also the FFT length; even
    hop: int = 160  # samples from one spectrum to the next
    mels: int = 80  # triangular bands from 0 Hz to half the sample rate
    stack: int = 3  # neighbouring spectra joined to one frame, at least 1

    def __post_init__(self) -> None:
        if self.stack < 1:
            raise UsageError(f"LogMelConfig.stack is {self.stack}", hint="it must be at least 1")
        if self.hop > self.window:
            raise UsageError(f"LogMelConfig.hop is {self.hop}", hint=f"at most the window, {self.window} samples")
        _ = self.spectrum  # which checks the rest

    @property
    def spectrum(self) -> MelConfig:
        """The spectra that are joined."""
        return MelConfig(sample_rate=self.sample_rate, window=self.window, hop=self.hop, mels=self.mels)

    @property
    def dim(self) -> int:
        """Numbers in a frame."""
        return self.mels * self.stack

    @property
    def frame_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop * self.stack / self.sample_rate

    @property
    def frame_samples(self) -> int:
        """Samples a frame is made of; neighbouring frames share some of them."""
        return (self.stack - 1) * self.hop + self.window

    def frames(self, samples: int) -> int:
        """How many frames that many samples give."""
        return max(0, (samples - self.window) // self.hop + 1) // self.stack


def log_mel(
    samples: NDArray[np.float32], config: LogMelConfig = LogMelConfig(), *, warp: float = 1.0
) -> NDArray[np.float32]:
    """Natural logarithms of the mel powers of mono samples [n] in [-1, 1], as float32 [frames, mels * stack].

        spectrum[i] = log max(floor, filters |FFT(hann * samples[i hop : i hop + window])|^2)
        frame[t] = spectrum[t stack], ..., spectrum[t stack + stack - 1]

    Samples after the last whole frame are left out. `warp`: see `mel_filters`. Raises `InputError` where `samples` is
    not [n].
    """
    if samples.ndim != 1:
        raise InputError(f"samples have shape {samples.shape}", hint="features are made of one channel, shape [n]")
    frames = config.frames(len(samples))
    needed = (frames * config.stack - 1) * config.hop + config.window if frames else 0
    mel = power_mel(samples[:needed], config.spectrum, padded=False, warp=warp)
    return np.log(np.maximum(mel, _FLOOR), dtype=np.float32).reshape(frames, config.dim)


# Just below what rounding to 16 bits alone adds to a band of the default spectrum (3e-10).
_FLOOR = np.float32(1e-10)


class LogMelStream:
    """`log_mel` of samples that arrive piece by piece: the frames of all pieces are those of the whole, to 1e-5."""

    def __init__(self, config: LogMelConfig = LogMelConfig()) -> None:
        self.config = config
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frames [t, mels * stack] that are whole now that `samples` [n], any number of them, have come."""
        self._rest = np.concatenate([self._rest, samples])
        frames = log_mel(self._rest, self.config)
        self._rest = self._rest[len(frames) * self.config.stack * self.config.hop :].copy()
        return frames


@functools.lru_cache
def mel_filters(config: MelConfig, warp: float = 1.0) -> NDArray[np.float32]:
    """Triangular bands [mels, window / 2 + 1], each of unit area in Hz, evenly spaced in mel.

    Mel after Malcolm Slaney, "Auditory Toolbox", 1998, `fb40`: linear below 1 kHz (200/3 Hz per mel), logarithmic
    above (27 mels per factor 6.4).

    `warp` above 1 makes the speaker's vocal tract seem longer: the bands lie that much higher. Up to 0.6 of half the
    sample rate all frequencies are scaled, beyond it the rest is stretched or squeezed to fit (Jaitly and Hinton 2013,
    Vocal tract length perturbation (VTLP) improves speech recognition; they have 4.8 of 8 kHz).
    """
    edges = _warped(_hertz(np.linspace(0.0, _mel(config.sample_rate / 2), config.mels + 2)), warp)
    bins = np.arange(config.window // 2 + 1) * (config.sample_rate / config.window)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(min=0.0)
    return np.asarray(triangles * 2.0 / (high - low), np.float32)


def _warped(hertz: NDArray[np.float64], warp: float) -> NDArray[np.float64]:
    top, scaled = hertz[-1], 0.6 * hertz[-1] * min(warp, 1.0)
    return np.asarray(np.interp(hertz, [0.0, scaled / warp, top], [0.0, scaled, top]))


_BREAK_HZ, _BREAK_MEL, _PER_MEL = 1000.0, 15.0, np.log(6.4) / 27.0


def _mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz * _BREAK_MEL / _BREAK_HZ
    return float(_BREAK_MEL + np.log(hertz / _BREAK_HZ) / _PER_MEL)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_HZ * np.exp((mel - _BREAK_MEL) * _PER_MEL)
    return np.asarray(np.where(mel < _BREAK_MEL, mel * _BREAK_HZ / _BREAK_MEL, above))


@functools.lru_cache
def _hann(length: int) -> NDArray[np.float32]:
    return np.asarray(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length), np.float32)
