"""Which parts of a recording are speech.

The detector is Silero's network as it ships inside faster-whisper, run block by block with its state carried on, so
that memory does not grow with length. Cutting long silence out of a recogniser's input is the best cure for invented
words. Without onnxruntime or the network, energy and spectral flatness serve; they are fooled by music and clatter.

Notation: a frame is 512 samples (32 ms); p[i] is the probability of speech in frame i.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wieldy.errors import MissingError, UsageError
from wieldy.speech.audio import SAMPLE_RATE, SAMPLES_PER_MS, Recording
from wieldy.speech.transcript import Span

if TYPE_CHECKING:
    import onnxruntime

Detector = Literal["auto", "silero", "energy"]

FRAME_SAMPLES = 512  # what the network is trained on at 16 kHz
FRAME_MS = FRAME_SAMPLES // SAMPLES_PER_MS
CONTEXT_SAMPLES = 64  # of the frame before, put in front of each frame
STATE_SHAPE = (1, 1, 128)  # the network's recurrent state, twice
SPEECH_BAND = slice(5, 128)  # bins of 31.25 Hz: 156 to 3969 Hz, above mains hum, as far as a telephone carries
SILENCE_DB = -60.0  # of a frame's mean band power: about -90 dBFS, below the noise of a 16-bit recording
# Chosen from 6-15 dB and 0.3-0.6 for agreement with Silero: 93 % of the frames of a telephone conversation, also with
# white noise 20 dB below it (10 dB: 83 %, 5 dB: 66 %); white noise has a flatness of 0.56, voiced speech below 0.1.
SPEECH_ABOVE_FLOOR_DB, SPEECH_FLATNESS = 6.0, 0.45
SMOOTHING_FRAMES = 5
BLOCK_FRAMES = 1875  # one minute: 10 MB of intermediate values, and no slower than longer blocks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VadConfig:
    """How probabilities of speech become spans. The defaults are Silero's, with segments that fit a recogniser."""

    on: float = 0.5  # speech begins at a frame with at least this probability, (0, 1)
    off: float = 0.35  # ... and ends at a frame with less than this one, (0, on]; the distance keeps it from flickering
    min_speech_ms: int = 250  # shorter speech is dropped (a cough, a click), >= 0
    min_silence_ms: int = 100  # a shorter pause is part of the speech around it, >= 0
    pad_ms: int = 100  # added to both sides, as far as the neighbour allows, so that soft consonants stay, >= 0
    max_segment_ms: int = 28_000  # a longer segment is cut where speech is least likely; Whisper hears 30 s, >= 1000
    detector: Detector = "auto"  # auto: silero, or energy where onnxruntime or the network is missing

    def __post_init__(self) -> None:
        if not 0 < self.on < 1:
            raise UsageError(f"on is {self.on}", hint="a probability between 0 and 1")
        if not 0 < self.off <= self.on:
            raise UsageError(f"off is {self.off}", hint=f"above 0 and no higher than on, {self.on}")
        for name in ("min_speech_ms", "min_silence_ms", "pad_ms"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="a number of milliseconds, 0 or more")
        if self.max_segment_ms < 1000:
            raise UsageError(f"max_segment_ms is {self.max_segment_ms}", hint="at least 1000 ms")
        if self.min_speech_ms > self.max_segment_ms // 4:
            raise UsageError(
                f"min_speech_ms is {self.min_speech_ms}",
                hint=f"at most a quarter of max_segment_ms, {self.max_segment_ms}",
            )
        if self.detector not in ("auto", "silero", "energy"):
            raise UsageError(f"detector is {self.detector!r}", hint="auto, silero or energy")


def detect_speech(recording: Recording, config: VadConfig = VadConfig(), channel: int = 0) -> tuple[Span, ...]:
    """The stretches of speech on one channel, in order; none overlap, none is longer than `config.max_segment_ms`."""
    probabilities = speech_probability(recording, channel, detector=config.detector)
    return segment(probabilities, recording.duration_ms, config)


def speech_probability(
    recording: Recording, channel: int = 0, *, detector: Detector = "auto", threads: int = 1
) -> np.ndarray:
    """The probability of speech in every frame of `FRAME_MS`, float32 [frames]; the last frame is filled with silence.

    More than one of onnxruntime's `threads` does not pay for a network this small (measured: 530x real time with one,
    500x with two). Raises `MissingError` where `detector` is "silero" and cannot run.
    """
    session = _session(detector, threads)
    frames = _frames(recording.channel(channel))
    if session is None:
        return _energy_probabilities(frames)
    network = _Silero(session)
    return np.concatenate([network.push(block) for block in frames])


class SpeechMonitor:
    """The probability of speech in sound that is still coming in; its memory does not grow.

    Silero's values are those of `speech_probability`. By energy, a frame is compared with the noise floor of the last
    minute and smoothed with the frames before it. Raises `MissingError` as `speech_probability` does.
    """

    def __init__(self, detector: Detector = "auto", *, threads: int = 1) -> None:
        session = _session(detector, threads)
        self._network = _Energy() if session is None else _Silero(session)
        self._rest = np.zeros(0, np.float32)  # the beginning of a frame that is not complete yet

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples float32 [n]; give the probability of every frame they complete, float32 [frames]."""
        waiting = np.concatenate([self._rest, samples])
        complete = len(waiting) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = waiting[complete:]
        if not complete:
            return np.zeros(0, np.float32)
        return self._network.push(waiting[:complete].reshape(-1, FRAME_SAMPLES))


def segment(probabilities: np.ndarray, duration_ms: int, config: VadConfig = VadConfig()) -> tuple[Span, ...]:
    """Spans of speech from probabilities [frames] of a recording that lasts `duration_ms`."""
    runs = _hysteresis(probabilities, config.on, config.off)
    starts, ends = runs[:, 0] * FRAME_MS, np.minimum(runs[:, 1] * FRAME_MS, duration_ms)
    is_pause = starts[1:] - ends[:-1] >= config.min_silence_ms
    starts, ends = starts[np.append(True, is_pause)[: len(starts)]], ends[np.append(is_pause, True)[: len(ends)]]
    long_enough = ends - starts >= config.min_speech_ms
    spans = _padded(starts[long_enough].tolist(), ends[long_enough].tolist(), duration_ms, config.pad_ms)
    return tuple(piece for span in spans for piece in _pieces(span, probabilities, config))


def _hysteresis(probabilities: np.ndarray, on: float, off: float) -> np.ndarray:
    """Runs [n, 2] of frames (first, end) that begin with p >= on and go on until p < off."""
    decided = np.where(probabilities >= on, 1, np.where(probabilities < off, 0, -1))
    # A frame between the thresholds keeps the state of the last decided frame; before all of them there is silence.
    last_decided = np.maximum.accumulate(np.where(decided >= 0, np.arange(len(decided)), -1))
    speech = np.where(last_decided >= 0, decided[last_decided], 0)
    edges = np.flatnonzero(np.diff(speech, prepend=0, append=0))
    return edges.reshape(-1, 2)


def _padded(starts: list[int], ends: list[int], duration_ms: int, pad_ms: int) -> list[Span]:
    """Each span wider by `pad_ms` on both sides; where there is less room than that, neighbours meet in the middle."""
    middles = [(end + start) // 2 for end, start in zip(ends, starts[1:], strict=False)]
    limits = itertools.pairwise([0, *middles, duration_ms])
    return [
        Span(max(start - pad_ms, lowest), min(end + pad_ms, highest))
        for start, end, (lowest, highest) in zip(starts, ends, limits, strict=False)
    ]


def _pieces(span: Span, probabilities: np.ndarray, config: VadConfig) -> Iterator[Span]:
    """`span` cut in the middle of its least speech-like frames until no piece is longer than allowed.

    A cut lies in the second half of what fits, so that pieces are long, and leaves at least `min_speech_ms` after it.
    """
    start = span.start_ms
    while span.end_ms - start > config.max_segment_ms:
        earliest = start + config.max_segment_ms // 2
        latest = min(start + config.max_segment_ms, span.end_ms - config.min_speech_ms)
        # The frames whose middle lies between the two.
        first, end = (-(-(edge - FRAME_MS // 2) // FRAME_MS) for edge in (earliest, latest + 1))
        cut = (first + int(np.argmin(probabilities[first:end]))) * FRAME_MS + FRAME_MS // 2
        yield Span(start, cut)
        start = cut
    yield Span(start, span.end_ms)


def _frames(mono: Recording) -> Iterator[np.ndarray]:
    """The only channel of `mono` in blocks [frames, FRAME_SAMPLES]; the end is filled with zeros."""
    for block in mono.blocks(BLOCK_FRAMES * FRAME_SAMPLES / SAMPLE_RATE):
        missing = -block.shape[1] % FRAME_SAMPLES
        yield np.pad(block[0], (0, missing)).reshape(-1, FRAME_SAMPLES)


class _Silero:
    """Silero's network with the state it carries from block to block."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._h = self._c = np.zeros(STATE_SHAPE, np.float32)
        self._before = np.zeros((1, CONTEXT_SAMPLES), np.float32)

    def push(self, frames: np.ndarray) -> np.ndarray:
        """Probabilities of the next frames, [n, FRAME_SAMPLES]."""
        tails = np.concatenate([self._before, frames[:, -CONTEXT_SAMPLES:]])
        self._before = tails[-1:]
        inputs = {"input": np.hstack([tails[:-1], frames]), "h": self._h, "c": self._c}
        probabilities: np.ndarray
        probabilities, self._h, self._c = self._session.run(None, inputs)
        return probabilities


class _Energy:
    """Energy and flatness against the noise floor so far."""

    def __init__(self) -> None:
        self._levels: deque[float] = deque(maxlen=BLOCK_FRAMES)
        self._evidence: deque[float] = deque([0.0] * SMOOTHING_FRAMES, maxlen=SMOOTHING_FRAMES)

    def push(self, frames: np.ndarray) -> np.ndarray:
        """Probabilities of the next frames, [n, FRAME_SAMPLES]."""
        level, flatness = _level_and_flatness(frames)
        self._levels.extend(level.tolist())
        smoothed = []
        for value in _evidence(level, flatness, np.percentile(self._levels, 10)):
            self._evidence.append(float(value))
            smoothed.append(sum(self._evidence) / SMOOTHING_FRAMES)
        return np.array(smoothed, np.float32)


def _energy_probabilities(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Loud and tonal against the recording's own noise floor, as a number in (0, 1)."""
    level, flatness = (np.concatenate(values) for values in zip(*map(_level_and_flatness, blocks), strict=True))
    evidence = _evidence(level, flatness, np.percentile(level, 10))
    padded = np.pad(evidence, SMOOTHING_FRAMES // 2, mode="edge")
    smoothed = np.convolve(padded, np.full(SMOOTHING_FRAMES, 1 / SMOOTHING_FRAMES), mode="valid")
    return smoothed.astype(np.float32)


def _evidence(level: np.ndarray, flatness: np.ndarray, floor: float) -> np.ndarray:
    """How loud and tonal each frame is, in (0, 1)."""
    loud = 1 / (1 + np.exp((max(floor, SILENCE_DB) + SPEECH_ABOVE_FLOOR_DB - level) / 2))
    tonal = 1 / (1 + np.exp((flatness - SPEECH_FLATNESS) / 0.05))
    return loud * tonal


def _level_and_flatness(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean power in dB and spectral flatness (geometric over arithmetic mean) of each frame, in the speech band."""
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(FRAME_SAMPLES))) ** 2
    band = spectrum[:, SPEECH_BAND] + 1e-12
    mean = band.mean(axis=1)
    return 10 * np.log10(mean), np.exp(np.log(band).mean(axis=1)) / mean


def _session(detector: Detector, threads: int) -> onnxruntime.InferenceSession | None:
    """The network that `detector` means, None for energy."""
    session = None if detector == "energy" else _silero(threads)
    if session is None and detector == "silero":
        raise MissingError("Silero's speech detector cannot run", hint="pip install onnxruntime faster-whisper")
    if session is None and detector == "auto":
        _log.warning("onnxruntime or Silero's network is missing: speech is detected by energy, which is less certain")
    return session


@functools.lru_cache(maxsize=2)
def _silero(threads: int) -> onnxruntime.InferenceSession | None:
    """The network, or None where it or onnxruntime is not installed. Its package is found, not imported."""
    package = importlib.util.find_spec("faster_whisper")
    folders = [Path(folder) for folder in package.submodule_search_locations or ()] if package else []
    networks = [path for folder in folders for path in folder.glob("assets/silero_vad*.onnx")]
    try:
        import onnxruntime
    except ImportError:
        return None
    if not networks:
        return None
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # Idle threads that spin would take the core away from the recogniser.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(networks[-1], options, providers=["CPUExecutionProvider"])
