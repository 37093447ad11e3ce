"""Silence, noise and music have no words: not with the speech detector, and not where it lets everything through."""

from pathlib import Path

import noises
import numpy as np
import pytest
import soundfile

from wieldy.speech.audio import Recording
from wieldy.speech.meeting import MeetingConfig, Transcriber
from wieldy.speech.transcript import Transcript
from wieldy.speech.vad import VadConfig

# Every frame is "speech" for this one: what is left is what the recogniser makes of it, and what guards it.
DEAF = VadConfig(on=1e-9, off=1e-9)


@pytest.fixture(scope="module")
def transcriber(whisper_tiny: Path) -> Transcriber:
    return Transcriber(MeetingConfig(offline=True))


@pytest.fixture(scope="module")
def undetected(transcriber: Transcriber) -> Transcriber:
    """The same without a speech detector in front."""
    config = MeetingConfig(offline=True, vad=DEAF)
    return Transcriber(config, recognizer=transcriber.recognizer, diarizer=transcriber.diarizer)


def generated(name: str) -> Recording:
    return Recording.from_array(noises.clip(name), noises.RATE, name)


def repeated(path: Path) -> Recording:
    """A real sound, over and over until it is about as long as the generated ones."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    times = round(noises.SECONDS * rate / len(samples))
    return Recording.from_array(np.tile(samples.T, times), rate, path.stem)


PACKAGED = ("house_lo.ogg", "secosmic_lo.wav", "boom.wav")


def check_empty(found: Transcript) -> None:
    assert found.words == ()
    assert found.duration_ms > 0.8 * 1000 * noises.SECONDS


@pytest.mark.parametrize("name", noises.CLIPS)
def test_nothing_is_heard_where_nobody_speaks(transcriber: Transcriber, name: str) -> None:
    found = transcriber.run(generated(name))
    check_empty(found)
    assert "no speech found" in found.warnings


@pytest.mark.parametrize("name", PACKAGED)
def test_nothing_is_heard_in_real_music_and_effects(transcriber: Transcriber, real_sounds: Path, name: str) -> None:
    check_empty(transcriber.run(repeated(real_sounds / name)))


def test_what_was_heard_and_not_believed_is_told_with_its_time(undetected: Transcriber) -> None:
    """Whisper hears a word in silence and a loop in a siren, half a minute in."""
    samples = np.concatenate([np.zeros(28 * noises.RATE, np.float32), noises.clip("siren")])
    found = undetected.run(Recording.from_array(samples, noises.RATE))
    assert found.words == ()
    told = [tuple(warning.split(" ", 1)) for warning in found.warnings]
    assert {time for time, _ in told} == {"0:00:00", "0:00:27"}  # where the stretch begins that it was heard in
    assert told[0] == ("0:00:00", "'You' dropped: no speech there, probability 0.95")
    assert told[-1][1].endswith(": decoded again without repetition")


@pytest.mark.slow
@pytest.mark.parametrize("name", noises.CLIPS)
def test_nothing_is_believed_even_without_a_speech_detector(undetected: Transcriber, name: str) -> None:
    found = undetected.run(generated(name))
    check_empty(found)
    assert all(warning.startswith("0:00:00 ") for warning in found.warnings if warning != "the recording is silent")


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGED)
def test_nothing_is_believed_of_real_sounds_either(undetected: Transcriber, real_sounds: Path, name: str) -> None:
    check_empty(undetected.run(repeated(real_sounds / name)))
