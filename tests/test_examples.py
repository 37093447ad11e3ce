"""The example meeting is what its script and its reference say."""

import runpy
from pathlib import Path

import pytest
import soundfile

from wieldy.speech import formats, synthesize

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def made() -> dict:
    return runpy.run_path(str(EXAMPLES / "make_meeting.py"))


def test_the_sound_is_small_and_as_long_as_the_reference():
    sound = soundfile.info(EXAMPLES / "meeting.flac")
    assert (sound.samplerate, sound.channels, sound.subtype) == (16_000, 1, "PCM_16")
    assert (EXAMPLES / "meeting.flac").stat().st_size <= 1_000_000
    reference = formats.read(EXAMPLES / "meeting.seglst.json")
    assert 0 < sound.duration - reference.words[-1].end < 1


def test_everybody_says_their_lines(made):
    reference = formats.read(EXAMPLES / "meeting.seglst.json")
    for voice, person in made["PEOPLE"].items():
        left = iter(word.text for word in reference.words if word.speaker == person)
        lines = " ".join(text for speaker, text in made["SCRIPT"] if speaker == voice).split()
        # In this order; back-channels come on top.
        assert all(word in left for word in lines)


def test_only_voices_that_may_be_handed_on(made):
    shippable = {voice.name for voice in synthesize._known_voices() if voice.shippable}
    assert set(made["PEOPLE"]) <= shippable


@pytest.mark.slow
def test_a_recogniser_understands_it(whisper_tiny):
    from faster_whisper import WhisperModel

    from wieldy.metrics.text import normalizer, word_errors

    samples, _ = soundfile.read(EXAMPLES / "meeting.flac", dtype="float32")
    segments, _ = WhisperModel(str(whisper_tiny), device="cpu", compute_type="int8").transcribe(samples)
    heard = " ".join(segment.text for segment in segments)
    said = " ".join(word.text for word in formats.read(EXAMPLES / "meeting.seglst.json").words)
    errors = word_errors(*(normalizer("whisper")(text).split() for text in (said, heard)))
    assert errors.rate < 0.15
