"""The whole pipeline on real and made recordings: what a user gets, and what a bad file gives."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from wieldy import cli
from wieldy.errors import InputError, MissingError
from wieldy.speech import formats
from wieldy.speech.audio import Recording
from wieldy.speech.diarize import SpeakerCount
from wieldy.speech.meeting import MeetingConfig, Transcriber, clock_time, diarize
from wieldy.speech.recognize import Capabilities, HeardWord, Hypothesis
from wieldy.speech.recognize.engines import RecognitionConfig
from wieldy.speech.score import score
from wieldy.speech.transcript import UNKNOWN, Transcript

RATE = 16_000


@pytest.fixture(scope="module")
def transcriber(whisper_tiny: Path) -> Transcriber:
    return Transcriber(MeetingConfig(offline=True))


@pytest.fixture(scope="module")
def call(transcriber: Transcriber, conversation: Path) -> Transcript:
    """The real telephone call with the number of speakers left open."""
    return transcriber.run(conversation / "sample.wav")


def with_count(transcriber: Transcriber, **count: int) -> Transcriber:
    config = MeetingConfig(count=SpeakerCount(**count))
    return Transcriber(config, recognizer=transcriber.recognizer, diarizer=transcriber.diarizer)


def test_a_real_call_has_two_speakers_and_every_word_a_time_and_a_speaker(call: Transcript) -> None:
    assert call.speakers == ("Speaker 1", "Speaker 2")
    assert len(call.words) > 60
    assert all(word.speaker in call.speakers for word in call.words)
    assert all(0 <= word.start_ms <= word.end_ms <= call.duration_ms == 30_000 for word in call.words)


def test_a_real_call_with_two_speakers_given(transcriber: Transcriber, conversation: Path) -> None:
    """The bar of the issue: cpWER at most 0.40 and neither speaker swallowed by the other."""
    found = with_count(transcriber, exactly=2).run(conversation / "sample.wav")
    result = score(found, formats.read(conversation / "sample.stm"))
    assert result.cpwer.words == 81
    assert result.cpwer.rate <= 0.40
    for speaker in found.speakers:
        assert sum(word.speaker == speaker for word in found.words) >= 15


def test_the_same_recording_gives_the_same_transcript(
    transcriber: Transcriber, call: Transcript, conversation: Path
) -> None:
    assert transcriber.run(conversation / "sample.wav").words == call.words


@pytest.mark.parametrize("speakers", [1, 3])
def test_the_number_of_speakers_is_honoured(transcriber: Transcriber, conversation: Path, speakers: int) -> None:
    found = diarize(conversation / "sample.wav", MeetingConfig(count=SpeakerCount(exactly=speakers)))
    assert len(found.speakers) == speakers
    assert not found.words


def test_silence_is_an_empty_transcript_with_a_warning(transcriber: Transcriber) -> None:
    silent = Recording.from_array(np.zeros(RATE * 3, np.float32), RATE, name="silence")
    found = transcriber.run(silent)
    assert (found.words, found.turns, found.duration_ms) == ((), (), 3000)
    assert "no speech found" in found.warnings


def test_words_come_back_on_the_clock_of_the_recording(
    transcriber: Transcriber, call: Transcript, conversation: Path
) -> None:
    """Forty seconds of silence before and in the middle, cut out for the recogniser, shift the words by just that."""
    samples, _ = soundfile.read(conversation / "sample.wav", dtype="float32")
    silence = np.zeros(40 * RATE, np.float32)
    half = int(14.3 * RATE)  # between two turns
    longer = np.concatenate([silence, samples[:half], silence, samples[half:]])
    found = transcriber.run(Recording.from_array(longer, RATE, name="longer"))
    shifted = {word.text: word.start_ms for word in found.words}
    for word in call.words:
        if word.text in ("Diane", "Sheila", "Yankee"):
            assert shifted[word.text] - word.start_ms == pytest.approx(40_000 if word.end < 14.3 else 80_000, abs=300)


def test_one_speaker_per_channel(transcriber: Transcriber, conversation: Path) -> None:
    """The call with one person per channel: each channel is heard on its own and names its speaker."""
    samples, _ = soundfile.read(conversation / "sample.wav", dtype="float32")
    reference = formats.read(conversation / "sample.rttm")
    channels = np.zeros((2, len(samples)), np.float32)
    for turn in reference.turns:
        inside = slice(turn.start_ms * 16, turn.end_ms * 16)
        channels[reference.speakers.index(turn.speaker), inside] = samples[inside]
    found = transcriber.run(Recording.from_array(channels, RATE, name="split"))
    result = score(found, formats.read(conversation / "sample.stm"))
    assert result.cpwer.rate <= 0.30
    speaker_of = {(word.stream, word.speaker) for word in found.words}
    assert len(speaker_of) == len({stream for stream, _ in speaker_of}) == len(found.speakers) == 2


class Uncertain:
    """An engine that knows only English and is far from sure of anything."""

    name = "uncertain"
    model_id = "uncertain.en"
    model_files: ClassVar[dict[str, str]] = {}
    capabilities = Capabilities(word_times=False, token_scores=False, written_form=True, avoids_repeats=False)

    def transcribe(self, audio, *, avoid_repeats=False):
        for _samples in audio:
            words = "I am a lieutenant president of the united states and of all of the other good men"
            yield Hypothesis(tuple(HeardWord(word) for word in words.split()) * 2, log_probability=-1.4)


def test_another_language_is_refused_and_the_model_named(conversation: Path) -> None:
    with pytest.raises(
        MissingError, match=r"does not sound like English.*wieldy models get large-v3-turbo.*--language en"
    ):
        Transcriber(recognizer=Uncertain()).run(conversation / "sample.wav")
    insisted = MeetingConfig(recognition=RecognitionConfig(language="en"))
    found = Transcriber(insisted, recognizer=Uncertain()).run(conversation / "sample.wav")
    assert {word.source for word in found.words} == {"interpolated"}
    assert all(word.speaker != UNKNOWN or word.speaker_confidence is None for word in found.words)


def wav(folder: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    path = folder / "made.wav"
    soundfile.write(path, samples, rate, **options)
    return path


def not_audio(folder: Path) -> Path:
    path = folder / "made.wav"
    path.write_text("not a recording")
    return path


def truncated_header(folder: Path) -> Path:
    path = wav(folder, np.zeros(RATE))
    path.write_bytes(path.read_bytes()[:20])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing.wav", "missing.wav"),
        (lambda folder: folder, "folder"),
        (not_audio, "made.wav"),
        (truncated_header, "made.wav"),
        (lambda folder: wav(folder, np.zeros(0)), "made.wav"),
        (lambda folder: wav(folder, np.zeros(1)), "made.wav"),
        (lambda folder: wav(folder, np.full(RATE, np.nan), subtype="FLOAT"), "made.wav"),
    ],
    ids=["missing", "folder", "not audio", "truncated header", "no samples", "one sample", "all NaN"],
)
def test_what_is_no_recording_is_refused_in_one_line(
    transcriber: Transcriber, tmp_path: Path, make, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        transcriber.run(make(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_fails_leaves_nothing_and_exits_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], whisper_tiny: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["transcribe", str(not_audio(tmp_path)), "--out", "results", "--offline"]) == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith("wieldy: ")
    assert [path.name for path in tmp_path.iterdir()] == ["made.wav"]


def test_the_command_writes_what_the_library_returns(
    call: Transcript, conversation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "transcribe",
        str(conversation / "sample.wav"),
        "--out",
        str(tmp_path),
        "--offline",
        "--format",
        "json,srt",
    ]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "Speaker 1: " in printed
    assert "Sheila" in printed
    written = formats.read(tmp_path / "sample.json")
    assert written.words == call.words
    assert written.turns == call.turns
    assert cli.main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_json_goes_to_standard_output_and_nothing_is_written(
    conversation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["transcribe", str(conversation / "sample.wav"), "--json", "--offline"]) == 0
    (transcript,) = json.loads(capsys.readouterr().out)
    assert transcript["name"] == "sample"
    assert not list(tmp_path.iterdir())


def test_clock_time() -> None:
    assert clock_time(3_723_999) == "1:02:03"
