"""Sound from a microphone as a stream of blocks, through PortAudio.

`Microphone.blocks` never waits long and never keeps more than a minute: where captions are slower than that, sound is
left out, as silence, and `lost_s` says how much.
"""

from __future__ import annotations

import queue
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

from wieldy.errors import InputError, MissingError
from wieldy.speech.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from types import ModuleType

BLOCK_S = 0.1  # sound per block: short beside the step of any engine
MOST_BLOCKS = 600  # a minute waits at most, 10 MB at 48 kHz


class Microphone:
    """An input device, found by its number or a part of its name; None: the system's default.

    Raises `MissingError` where sounddevice or PortAudio is not installed, `InputError` where there is no such device.
    """

    def __init__(self, device: str | None = None) -> None:
        self._library = _sounddevice()
        try:
            found = self._library.query_devices(int(device) if device and device.isdigit() else device, "input")
        except ValueError as error:
            raise InputError(f"no microphone {device!r}: {error}", hint=_those_there_are()) from None
        except self._library.PortAudioError as error:
            raise InputError(f"no microphone can be used: {error}", hint=_those_there_are()) from None
        self.name: str = found["name"]
        self.rate = int(found["default_samplerate"])
        self._index: int = found["index"]
        self._waiting: queue.Queue[np.ndarray] = queue.Queue(MOST_BLOCKS)
        self._lost = 0  # samples at `rate` that found no room
        self._silence = 0  # of them, those not yet made up for

    @property
    def lost_s(self) -> float:
        """Seconds of sound left out so far because nobody took it."""
        return self._lost / self.rate

    def blocks(self) -> Generator[np.ndarray]:
        """What is heard from now on, float32 [n] at 16 kHz, about every `BLOCK_S`, until the iterator is closed.

        A block may be empty: a device that gives no sound does not keep the caller waiting.
        """
        resampler = soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, "float32", "HQ")
        try:
            stream = self._library.InputStream(
                samplerate=self.rate,
                blocksize=round(self.rate * BLOCK_S),
                device=self._index,
                channels=1,
                dtype="float32",
                callback=self._take,
            )
        except self._library.PortAudioError as error:
            raise InputError(f"microphone {self.name!r} cannot be opened: {error}") from None
        with stream:
            while True:
                try:
                    block = self._waiting.get(timeout=5 * BLOCK_S)
                except queue.Empty:  # the caller may want to stop
                    block = np.zeros(0, np.float32)
                if self._silence:
                    silence, self._silence = self._silence, 0
                    block = np.concatenate([np.zeros(silence, np.float32), block])
                yield block if self.rate == SAMPLE_RATE else resampler.resample_chunk(block)

    def _take(self, samples: np.ndarray, frames: int, _time: Any, _status: Any) -> None:
        """PortAudio's thread hands over a block [frames, 1], which is its own again afterwards."""
        try:
            self._waiting.put_nowait(samples[:, 0].copy())
        except queue.Full:
            self._lost += frames
            self._silence += frames


def microphones() -> list[str]:
    """The input devices there are, one line each: number, name and channels."""
    devices = _sounddevice().query_devices()
    inputs = [device for device in devices if device["max_input_channels"]]
    return [f"{device['index']}: {device['name']} ({device['max_input_channels']} channels)" for device in inputs]


def _those_there_are() -> str:
    found = "; ".join(microphones())
    return f"there are {found}" if found else "no input device is connected"


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ImportError:
        raise MissingError("the package sounddevice is missing", hint="pip install sounddevice") from None
    except OSError:  # it looks for the library when it is imported
        raise MissingError(
            "the system library PortAudio is missing", hint="on Debian or Ubuntu: apt install libportaudio2"
        ) from None
    module: ModuleType = sounddevice
    return module
