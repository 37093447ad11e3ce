"""Voices: a stretch of speech in, a point on the unit sphere out, close to other stretches of the same speaker.

The encoder is the d-vector network of `wieldy.speech.networks.dvector`, exported to ONNX and bundled, so that no torch
is needed. It hears 1.6 s at a time; less than about 0.5 s says little about who speaks. Two voices are compared by
the product of their vectors (the cosine): on telephone speech about 0.8 for one speaker, 0.5 to 0.7 for two.

People who are to be known by name again are in `enrolled.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wieldy.cache import sha256_of
from wieldy.errors import InputError, UsageError
from wieldy.speech.audio import SAMPLE_RATE, SAMPLES_PER_MS, Recording
from wieldy.speech.features import MelConfig, power_mel
from wieldy.speech.transcript import Span

if TYPE_CHECKING:
    import onnxruntime

WINDOW_MS = 1600  # what the encoder was trained on
VOICE_SIZE = 256
LEVEL_DB = -30.0  # dBFS of the training speech; every window is brought to it
# A window below this holds no voice: the rounding noise of 16 bits lies at -101 dBFS, that of 8-bit mu-law silence
# at -79 dBFS. Quieter windows would be noise raised by more than 45 dB.
SILENCE_DB = -75.0

_MEL = MelConfig(sample_rate=SAMPLE_RATE)
_FRAME_MS = _MEL.hop // SAMPLES_PER_MS
_MIN_FRAMES = 10
_BATCH = 32  # windows at a time: larger batches are no faster (measured: 1 gives 0.6 of the speed, 8 all of it)
_BLOCK_MS = 60_000


@dataclass(frozen=True)
class Windows:
    """Voices heard in a recording: `spans_ms` int [n, 2] (start, end), sorted; `vectors` float32 [n, 256], unit length.

    Windows without energy, and those the encoder maps to nothing, are not among them.
    """

    spans_ms: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.spans_ms.shape != (len(self.vectors), 2):
            raise UsageError(f"{len(self.vectors)} voices with spans of shape {self.spans_ms.shape}")

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def centres_ms(self) -> NDArray[np.float64]:
        return np.asarray(self.spans_ms.mean(axis=1))


class SpeakerEncoder:
    """The bundled encoder in onnxruntime. `threads` is how many cores one call may use; calls from several threads
    of the caller are safe."""

    def __init__(self, path: Path | str | None = None, *, threads: int = 1) -> None:
        if threads < 1:
            raise UsageError(f"SpeakerEncoder threads is {threads}", hint="it must be at least 1")
        if path is None:
            from wieldy.weights import locate

            path = locate("dvector")
        self.path = Path(path)
        self._session = _session(self.path, threads)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the network's file: voices of two encoders with different ones cannot be compared."""
        return sha256_of(self.path)

    def embed(self, utterances: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """One unit vector per utterance (float32 mono at 16 kHz, each of one speaker), [n, 256].

        An utterance longer than a window is the mean over its windows. Raises `InputError` for one without a voice:
        a vector of zeros would silently join any speaker.
        """
        voices = np.empty((len(utterances), VOICE_SIZE), np.float32)
        for index, samples in enumerate(utterances):
            recording = Recording.from_array(samples, SAMPLE_RATE) if len(samples) else None
            heard = self.embed_regions(recording, [Span(0, recording.duration_ms)]) if recording else None
            if heard is None or not len(heard):
                raise InputError(f"utterance {index} ({len(samples)} samples) has no voice in it")
            voices[index] = unit(heard.vectors.mean(axis=0))
        return voices

    def embed_regions(
        self,
        recording: Recording,
        regions: Iterable[Span],
        *,
        window_ms: int = WINDOW_MS,
        hop_ms: int = WINDOW_MS // 2,
        channel: int = 0,
    ) -> Windows:
        """Voices in windows over `regions` (sorted, disjoint). No window leaves its region.

        Windows are spread evenly from a region's start to its end, at most `hop_ms` apart; a region shorter than
        `window_ms` is one window. Memory is constant in the recording's length apart from the result.
        """
        spans = np.array(list(windows_over(regions, window_ms, hop_ms)), np.int64).reshape(-1, 2)
        vectors = np.zeros((len(spans), VOICE_SIZE), np.float32)
        first = 0
        while first < len(spans):
            last = int(np.searchsorted(spans[:, 0], spans[first, 0] + _BLOCK_MS, side="right"))
            vectors[first:last] = self._embed_block(recording, spans[first:last], channel)
            first = last
        heard = vectors.any(axis=1)
        return Windows(spans[heard], vectors[heard])

    def _embed_block(self, recording: Recording, spans: NDArray[np.int64], channel: int) -> NDArray[np.float32]:
        """Vectors [n, 256] of windows that lie close together; zeros where there is no voice."""
        start_ms, end_ms = int(spans[:, 0].min()), int(spans[:, 1].max())
        samples, mel = _mel_between(recording, start_ms, end_ms, channel)
        energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
        first_sample, last_sample = ((spans - start_ms) * SAMPLES_PER_MS).T
        power = (energy[last_sample] - energy[first_sample]) / np.maximum(last_sample - first_sample, 1)
        first_frame = (spans[:, 0] - start_ms) // _FRAME_MS
        # A whole number of 50 ms: windows of one length are encoded together.
        frames = np.maximum((spans[:, 1] - spans[:, 0]) // _FRAME_MS // 5 * 5, _MIN_FRAMES)
        first_frame = np.minimum(first_frame, np.maximum(len(mel) - frames, 0))
        gain = 10 ** (LEVEL_DB / 10) / np.maximum(power, 1e-12)
        has_energy = power > 10 ** (SILENCE_DB / 10)
        vectors = np.zeros((len(spans), VOICE_SIZE), np.float32)
        for length in np.unique(frames[has_energy]):
            (same,) = np.nonzero(has_energy & (frames == length))
            for begin in range(0, len(same), _BATCH):
                batch = same[begin : begin + _BATCH]
                stack = np.stack([mel[first_frame[i] : first_frame[i] + length] for i in batch])
                stack *= gain[batch, None, None].astype(np.float32)
                (vectors[batch],) = self._session.run(None, {"mel": stack})
        return np.asarray(np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0), np.float32)


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Vectors [..., d] scaled to length one; raises `InputError` for one that has no direction."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.all(np.isfinite(length) & (length > 1e-9)):
        raise InputError("a voice vector is zero or not finite")
    return np.asarray(vectors / length)


def windows_over(regions: Iterable[Span], window_ms: int, hop_ms: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the windows over each region, in milliseconds; see `SpeakerEncoder.embed_regions`."""
    for name, value in (("window_ms", window_ms), ("hop_ms", hop_ms)):
        if value < 1:
            raise UsageError(f"{name} is {value}", hint="it must be at least 1")
    for region in regions:
        latest = region.end_ms - window_ms
        if latest <= region.start_ms:
            if region.duration_ms:
                yield region.start_ms, region.end_ms
            continue
        count = 1 + -(-(latest - region.start_ms) // hop_ms)
        for start in np.linspace(region.start_ms, latest, count).round().astype(int).tolist():
            yield start, start + window_ms


def _mel_between(
    recording: Recording, start_ms: int, end_ms: int, channel: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Samples of a stretch and its mel frames, the first frame centred on the first sample, with true context."""
    context_ms = -(-_MEL.context // SAMPLES_PER_MS)
    before = min(context_ms, start_ms)
    samples = recording.read(start_ms - before, end_ms + context_ms, channel)
    wanted = (end_ms - start_ms) * SAMPLES_PER_MS
    lead = context_ms * SAMPLES_PER_MS
    padded = np.zeros(wanted + 2 * lead, np.float32)
    offset = lead - before * SAMPLES_PER_MS
    padded[offset : offset + len(samples)] = samples[: len(padded) - offset]
    skip = lead - _MEL.context
    mel = power_mel(padded[skip : len(padded) - skip], _MEL, padded=False)
    return padded[lead : lead + wanted], mel


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin would take the core away from the recogniser.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
