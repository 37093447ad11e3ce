"""Sound in: any recording, as float32 at 16 kHz, with its faults named.

`Recording.open` takes any common container, resamples with soxr and keeps memory constant: up to ten minutes are held
in memory; a longer file is decoded once, block by block, and then read by seeking.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import soundfile
import soxr

from wieldy.cache import cache_root, digest, sha256_of
from wieldy.errors import InputError, OutputError
from wieldy.speech.containers import BLOCK_SAMPLES, Source, open_sound, open_source

SAMPLE_RATE = 16_000  # Hz, what speech recognisers and speaker encoders are trained on
SAMPLES_PER_MS = SAMPLE_RATE // 1000
MIN_SAMPLES = 512  # 32 ms, one frame of the speech detector: nothing shorter can hold speech
MAX_SECONDS = 24 * 3600  # bounds what a small file that unpacks without end can cost: 5.5 GB of disk per channel
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz; below there is no speech, above there is no converter
MAX_CHANNELS = 64
MEMORY_SAMPLES = 600 * SAMPLE_RATE  # ten minutes per channel are held in memory, ...
MEMORY_CHANNELS = 2  # ... of two channels (77 MB); with more channels, proportionally less time

FULL_SCALE = 0.999  # |sample| from here on counts as clipped; the largest 16-bit value is 0.99997
CLIPPED_SHARE = 0.001  # warned about from here on: a peak-normalised recording has a few samples at full scale
DEAD_CHANNEL_DB = 60.0  # a channel this far below the loudest one carries nothing; open headsets measure 20-40 dB
MAX_ARRAY_PEAK = 4.0  # float arrays beyond +12 dBFS are integers that were converted without scaling


class _Store(Protocol):
    """Where the 16 kHz samples lie. `read` may be called from several threads."""

    channels: int
    sample_count: int

    def read(self, first: int, last: int) -> np.ndarray:
        """Samples `first` to `last` (exclusive) as a fresh float32 array [channels, last - first]."""
        ...

    def close(self) -> None: ...


class Recording:
    """A recording at `SAMPLE_RATE`, float32 in [-1, 1], however long.

    `name` is the file's stem, `warnings` what is wrong with the sound, `digest` the SHA-256 of the content (files:
    of their bytes). Made by `open` or `from_array`; closing it, or losing the last reference, frees its working copy.
    """

    def __init__(self, name: str, store: _Store, content_digest: str, warnings: tuple[str, ...]) -> None:
        self.name = name
        self.digest = content_digest
        self.warnings = warnings
        self.channels = store.channels
        self.sample_count = store.sample_count  # per channel
        self._store = store

    @classmethod
    def open(cls, path: Path | str) -> Recording:
        """Read a file. Raises `InputError` naming the file where it holds no usable audio."""
        path = Path(path)
        check_is_file(path)
        try:
            content_digest = sha256_of(path)
            with contextlib.closing(open_source(path)) as source:
                store, warnings = _take_in(source, str(path))
        except OutputError:
            raise
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        return cls(path.stem, store, content_digest, warnings)

    @classmethod
    def from_array(cls, samples: np.ndarray, sample_rate: int, name: str = "recording") -> Recording:
        """Take samples in memory: [n] or [channels, n]; float in [-1, 1], int16, int32, or uint8 around 128.

        Raises `InputError` for other shapes and types, no samples, or floats beyond full scale.
        """
        scaled = _scaled(np.asarray(samples), name)
        content = hashlib.sha256(scaled.tobytes())
        store, warnings = _take_in(_Array(scaled, sample_rate), name)
        return cls(name, store, digest(content.hexdigest(), list(scaled.shape), sample_rate), warnings)

    @property
    def duration_ms(self) -> int:
        """Whole milliseconds of audio."""
        return self.sample_count // SAMPLES_PER_MS

    def read(self, start_ms: int, end_ms: int, channel: int = 0) -> np.ndarray:
        """One channel from `start_ms` to `end_ms` as float32 [samples]; what lies outside the recording is left out."""
        self._check_channel(channel)
        samples: np.ndarray = self.read_channels(start_ms, end_ms)[channel]
        return samples

    def read_channels(self, start_ms: int, end_ms: int) -> np.ndarray:
        """Like `read`, all channels at once: float32 [channels, samples]."""
        first, last = (min(max(ms * SAMPLES_PER_MS, 0), self.sample_count) for ms in (start_ms, end_ms))
        return self._store.read(first, max(first, last))

    def blocks(self, seconds: float = 60.0) -> Iterator[np.ndarray]:
        """All of it, in order, as float32 [channels, samples] of `seconds` each; the last block may be shorter."""
        step = max(1, round(seconds * SAMPLE_RATE))
        for first in range(0, self.sample_count, step):
            yield self._store.read(first, min(first + step, self.sample_count))

    def channel(self, index: int) -> Recording:
        """A view of one channel, for stages that work on mono."""
        return self.mean((index,))

    def mean(self, channels: Sequence[int]) -> Recording:
        """A view with one channel, the mean of `channels`. It shares the samples and has its own digest."""
        for channel in channels:
            self._check_channel(channel)
        if self.channels == 1:
            return self
        view = _Mean(self._store, list(channels))
        return Recording(self.name, view, digest(self.digest, list(channels)), self.warnings)

    def close(self) -> None:
        """Free the samples or the working copy. Nothing can be read afterwards, nor from views of the recording."""
        self._store.close()

    def _check_channel(self, channel: int) -> None:
        if not 0 <= channel < self.channels:
            raise InputError(f"{self.name} has no channel {channel}", hint=f"its channels are 0 to {self.channels - 1}")

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Recording({self.name!r}, channels={self.channels}, duration_ms={self.duration_ms})"


# Stores ------------------------------------------------------------------------------------------------------------


class _InMemory:
    def __init__(self, samples: np.ndarray) -> None:
        self.channels, self.sample_count = samples.shape
        self._samples = samples

    def read(self, first: int, last: int) -> np.ndarray:
        return self._samples[:, first:last].copy()

    def close(self) -> None:
        self._samples = self._samples[:, :0]


class _WorkingCopy:
    """Interleaved float32 samples in a nameless temporary file, which vanishes with the process, however it ends."""

    def __init__(self, file: IO[bytes], channels: int, sample_count: int) -> None:
        self.channels, self.sample_count = channels, sample_count
        self._file = file
        self._lock = threading.Lock()
        weakref.finalize(self, file.close)

    def read(self, first: int, last: int) -> np.ndarray:
        frame_bytes = 4 * self.channels
        with self._lock:
            self._file.seek(first * frame_bytes)
            data = self._file.read((last - first) * frame_bytes)
        return np.array(np.frombuffer(data, np.float32).reshape(-1, self.channels).T, order="C")

    def close(self) -> None:
        self._file.close()


class _Original:
    """A 16 kHz file that can be read by seeking; it needs no working copy."""

    def __init__(self, sound: soundfile.SoundFile, sample_count: int) -> None:
        self.channels, self.sample_count = sound.channels, sample_count
        self._sound = sound
        self._lock = threading.Lock()

    def read(self, first: int, last: int) -> np.ndarray:
        with self._lock:
            self._sound.seek(first)
            frames = self._sound.read(last - first, dtype="float32", always_2d=True)
        return np.array(_usable(frames).T, order="C")

    def close(self) -> None:
        self._sound.close()


class _Mean:
    channels = 1

    def __init__(self, store: _Store, averaged: list[int]) -> None:
        self.sample_count = store.sample_count
        self._store, self._averaged = store, averaged

    def read(self, first: int, last: int) -> np.ndarray:
        samples: np.ndarray = self._store.read(first, last)[self._averaged].mean(axis=0, keepdims=True)
        return samples

    def close(self) -> None:
        """The recording it was taken from owns the samples."""


# From source to store ------------------------------------------------------------------------------------------------


def _take_in(source: Source, label: str) -> tuple[_Store, tuple[str, ...]]:
    """Decode, inspect, resample and keep everything `source` has."""
    if not MIN_RATE <= source.rate <= MAX_RATE:
        raise InputError(
            f"{label} has a sample rate of {source.rate:,} Hz", hint=f"rates from {MIN_RATE:,} to {MAX_RATE:,} Hz work"
        )
    if not 1 <= source.channels <= MAX_CHANNELS:
        raise InputError(f"{label} has {source.channels} channels", hint=f"1 to {MAX_CHANNELS} channels work")
    inspection = _Inspection(source.channels)
    keeper = _Keeper(source, label)
    # "HQ" keeps 20 bits, more than any microphone resolves.
    resampler = soxr.ResampleStream(source.rate, SAMPLE_RATE, source.channels, "float32", "HQ")
    try:
        for block in source.blocks():
            block = inspection.usable(block)
            keeper.add(block if source.rate == SAMPLE_RATE else resampler.resample_chunk(block))
        if source.rate != SAMPLE_RATE:
            keeper.add(resampler.resample_chunk(np.empty((0, source.channels), np.float32), last=True))
        inspection.check(label)
        return keeper.store(), (*source.warnings, *inspection.warnings(source.rate))
    except BaseException:
        keeper.discard()
        raise


def _usable(block: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] with zeros for what is not a number; changed in place."""
    finite = np.isfinite(block)
    if not finite.all():
        block[~finite] = 0.0
    return np.clip(block, -1.0, 1.0, out=block)


class _Inspection:
    """Counts what is wrong with the samples that pass through it."""

    def __init__(self, channels: int) -> None:
        self._samples = self._not_numbers = self._clipped = 0
        self._energy = np.zeros(channels)

    def usable(self, block: np.ndarray) -> np.ndarray:
        self._samples += block.size
        self._not_numbers += block.size - int(np.count_nonzero(np.isfinite(block)))
        block = _usable(block)
        self._clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        self._energy += [np.dot(channel, channel) for channel in block.T]
        return block

    def check(self, label: str) -> None:
        """Raise `InputError` where nothing usable passed."""
        if not self._samples:
            raise InputError(f"{label} holds no samples (0 s of audio)")
        if self._samples == self._not_numbers:
            raise InputError(f"{label} holds no numbers: all {self._samples:,} samples are NaN or infinite")

    def warnings(self, rate: int) -> Iterator[str]:
        if rate < 8000:
            yield f"a sample rate of {rate:,} Hz leaves out most consonants; expect many wrong words"
        if self._not_numbers:
            yield f"{self._not_numbers:,} samples are not numbers (NaN or infinite) and were set to 0"
        if self._clipped >= CLIPPED_SHARE * self._samples:
            yield f"{self._clipped / self._samples:.1%} of the samples are clipped; record at a lower level"
        loudest = self._energy.max()
        if loudest == 0:
            yield "the recording is silent"
            return
        dead = 1 + np.flatnonzero(self._energy < loudest * 10 ** (-DEAD_CHANNEL_DB / 10))
        if len(dead):
            which = f"channel {dead[0]}" if len(dead) == 1 else f"channels {', '.join(map(str, dead))}"
            yield f"{which} of {len(self._energy)} {'is' if len(dead) == 1 else 'are'} dead"


class _Keeper:
    """Collects 16 kHz blocks in memory until they are too many, then in a working copy, unless none is needed."""

    def __init__(self, source: Source, label: str) -> None:
        self._source, self._label = source, label
        self._memory_frames = MEMORY_SAMPLES * MEMORY_CHANNELS // max(MEMORY_CHANNELS, source.channels)
        self._original = source.seekable if source.rate == SAMPLE_RATE else None
        self._blocks: list[np.ndarray] = []
        self._frames = 0
        self._file: IO[bytes] | None = None

    def add(self, block: np.ndarray) -> None:
        """Keep a block [n, channels]."""
        self._frames += len(block)
        if self._frames > MAX_SECONDS * SAMPLE_RATE:
            raise InputError(
                f"{self._label} holds more than {MAX_SECONDS // 3600} h of audio", hint="cut it into parts"
            )
        self._blocks.append(np.clip(block, -1.0, 1.0))  # the resampling filter overshoots at full scale
        if self._frames > self._memory_frames:
            self._spill()

    def _spill(self) -> None:
        if self._original is None:
            folder = cache_root()
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = self._file or tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
                self._file.writelines(block.tobytes() for block in self._blocks)
                self._file.flush()
            except OSError as error:
                raise OutputError(
                    f"cannot keep the sound of {self._label} in {folder}: {error.strerror or error}",
                    hint="free some space, or set WIELDY_CACHE to a folder on another disk",
                ) from error
        self._blocks.clear()

    def store(self) -> _Store:
        if self._frames < MIN_SAMPLES:
            raise InputError(
                f"{self._label} holds {1000 * self._frames / SAMPLE_RATE:.3g} ms of audio",
                hint=f"{1000 * MIN_SAMPLES // SAMPLE_RATE} ms is the least that can hold speech",
            )
        if self._frames <= self._memory_frames:
            samples = np.empty((self._source.channels, self._frames), np.float32)
            np.concatenate([block.T for block in self._blocks], axis=1, out=samples)
            return _InMemory(samples)
        if self._file is not None:
            return _WorkingCopy(self._file, self._source.channels, self._frames)
        assert self._original is not None
        return _Original(open_sound(self._original), self._frames)

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()


class _Array:
    """Samples in memory as a source."""

    def __init__(self, samples: np.ndarray, rate: int) -> None:
        self.rate, self.channels = rate, samples.shape[0]
        self.warnings: list[str] = []
        self.seekable: Path | None = None
        self._samples = samples

    def blocks(self) -> Iterator[np.ndarray]:
        step = BLOCK_SAMPLES // self.channels
        for first in range(0, self._samples.shape[1], step):
            yield np.array(self._samples[:, first : first + step].T, order="C")

    def close(self) -> None:
        """The caller owns the samples."""


def check_is_file(path: Path) -> None:
    """Raise `InputError` for what cannot be a recording: nothing there, a folder, a pipe."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder", hint="name the recordings in it")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a regular file", hint="save the sound to a file first")


def _scaled(samples: np.ndarray, name: str) -> np.ndarray:
    """A user's array as float32 [channels, n] in [-1, 1]."""
    if samples.ndim not in (1, 2):
        raise InputError(f"{name} has shape {samples.shape}", hint="samples are [n] or [channels, n]")
    samples = np.atleast_2d(samples)
    if samples.shape[0] > MAX_CHANNELS >= samples.shape[1] > 0:
        raise InputError(f"{name} has shape {samples.shape}", hint="samples are [channels, n]: transpose the array")
    if samples.dtype == np.uint8:  # the convention of 8-bit WAV
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype in (np.int16, np.int32):
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"{name} has samples of type {samples.dtype}", hint="use float, int16, int32 or uint8")
    peak = np.abs(samples, where=np.isfinite(samples), out=np.zeros(samples.shape, samples.dtype)).max(initial=0)
    if peak > MAX_ARRAY_PEAK:
        raise InputError(
            f"{name} has samples up to {peak:.6g}", hint="float samples lie in [-1, 1]: divide by the full scale"
        )
    return samples.astype(np.float32)
