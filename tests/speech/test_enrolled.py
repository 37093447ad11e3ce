"""Enrolled voices: what is kept of a person, who is refused, and whose name a speaker gets."""

import itertools
import json
import os
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file, save_file

from wieldy import cli
from wieldy.errors import InputError, OutputError, UsageError, WieldyError
from wieldy.speech import formats
from wieldy.speech.audio import Recording
from wieldy.speech.diarize import SpeakerCount
from wieldy.speech.meeting import MeetingConfig, Transcriber, diarize
from wieldy.speech.recognize import Capabilities, HeardWord, Hypothesis
from wieldy.speech.transcript import Span, Transcript, Turn
from wieldy.speech.voices import SpeakerEncoder, enrolled, unit
from wieldy.speech.voices.enrolled import EnrolledVoice, EnrolledVoices, Likeness, assign, checked_name, enroll

RATE = 16_000
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# The example meeting before this point gives the samples, what comes after is the meeting to be named.
CUT_MS = 38_300
TALKERS = ["Maya", "Ruth", "Neil"]  # after it, in order of appearance


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return SpeakerEncoder()


@pytest.fixture(scope="module")
def meeting() -> tuple[np.ndarray, Transcript]:
    samples, _ = soundfile.read(EXAMPLES / "meeting.flac", dtype="float32")
    return samples, formats.read(EXAMPLES / "meeting.seglst.json")


def spoken(meeting: tuple[np.ndarray, Transcript], who: str, start_ms: int, end_ms: int) -> np.ndarray:
    """What one person of the example says in between, cut together."""
    samples, transcript = meeting
    own = [turn for turn in transcript.turns if turn.speaker == who and start_ms <= turn.start_ms < end_ms]
    return np.concatenate([samples[turn.start_ms * 16 : turn.end_ms * 16] for turn in own])


@pytest.fixture(scope="module")
def sample(meeting: tuple[np.ndarray, Transcript], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ruth.wav and tom.wav, more than ten seconds of each."""
    folder = tmp_path_factory.mktemp("samples")
    for who in ("Ruth", "Tom"):
        soundfile.write(folder / f"{who.lower()}.wav", spoken(meeting, who, 0, CUT_MS), RATE)
    return folder


@pytest.fixture(scope="module")
def people(sample: Path, encoder: SpeakerEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Ruth and Tom are enrolled."""
    folder = tmp_path_factory.mktemp("people")
    enroll("Ruth", [sample / "ruth.wav"], folder, encoder=encoder)
    enroll("Tom", [sample / "tom.wav"], folder, encoder=encoder)
    return folder


@pytest.fixture(scope="module")
def later(meeting: tuple[np.ndarray, Transcript]) -> tuple[Recording, Transcript]:
    """The rest of the meeting with its true turns: Ruth speaks, Tom does not, Maya and Neil are nobody enrolled."""
    samples, transcript = meeting
    turns = tuple(
        Turn(turn.start_ms - CUT_MS, turn.end_ms - CUT_MS, f"Speaker {TALKERS.index(turn.speaker) + 1}")
        for turn in transcript.turns
        if turn.start_ms >= CUT_MS
    )
    return Recording.from_array(samples[CUT_MS * 16 :], RATE, name="later"), Transcript("later", turns=turns)


def person(name: str, vector: np.ndarray, encoder: str = "e") -> EnrolledVoice:
    return EnrolledVoice(name, encoder, ("0",), np.array([1000]), vector[None].astype(np.float32))


def axis(index: int) -> np.ndarray:
    return np.eye(256)[index]


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Ada", "Zoë Ángström", "山田　太郎", "محمد", "O'Neil-Smith Jr.", "نیم\u200cفاصله", "..", "NUL", "😀"]
)
def test_names_of_all_scripts_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    enrolled_name = checked_name(name)
    path = tmp_path / enrolled._file_name(enrolled_name)
    person(enrolled_name, axis(3)).save(path)
    assert path.parent == tmp_path
    assert path.name.isascii()
    (found,) = enrolled.read_folder(tmp_path).values()
    assert found.name == enrolled_name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("\u200d", "empty"),
        ("a/b", "path separator"),
        ("a\\b", "path separator"),
        ("a\nb", "U\\+000A"),
        ("\x1b[31mred", "U\\+001B"),
        ("\u202eadA", "U\\+202E"),
        ("\udce9", "U\\+DCE9"),
        ("x" * 101, "101 characters"),
        ("Unknown", "speakers without a name"),
        ("Speaker 2", "speakers without a name"),
        ("s1", "speakers without a name"),
    ],
)
def test_bad_names_are_refused(name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        checked_name(name)


def test_one_name_written_in_two_ways_is_one_name() -> None:
    assert checked_name(" Zoe\u0308   B ") == checked_name("Zo\u00eb B") == "Zo\u00eb B"
    assert enrolled._file_name("Zoë") != enrolled._file_name("Zoe")


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_person_is_the_mean_over_all_their_speech(tmp_path: Path) -> None:
    voice = EnrolledVoice(
        "Ada", "e", ("1", "2"), np.array([3000, 1000]), np.stack([axis(0), axis(1)]).astype(np.float32)
    )
    np.testing.assert_allclose(voice.vector, unit(0.75 * axis(0) + 0.25 * axis(1)))
    voice.save(tmp_path / "ada.safetensors")
    found = EnrolledVoice.load(tmp_path / "ada.safetensors")
    assert (found.name, found.encoder, found.recordings) == ("Ada", "e", ("1", "2"))
    np.testing.assert_array_equal(found.vector, voice.vector)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps permissions in access lists")
def test_only_the_owner_may_read_a_voice_print(tmp_path: Path) -> None:
    path = tmp_path / "people" / "ada.safetensors"
    before = os.umask(0)
    try:
        person("Ada", axis(0)).save(path)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        path.chmod(0o644)
        person("Ada", axis(1)).save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def damaged(path: Path, metadata: dict[str, str] | None = None, **changed: np.ndarray) -> Path:
    person("Ada", axis(0)).save(path)
    whole = {"schema": "wieldy.voice", "name": "Ada", "encoder": "e", "recordings": '["0"]'}
    save_file(load_file(path) | changed, path, whole | (metadata or {}))
    return path


@pytest.mark.parametrize(
    ("metadata", "changed", "why"),
    [
        ({"schema": "other"}, {}, "schema is 'other'"),
        ({"name": "a/b"}, {}, "path separator"),
        ({"name": "\x1b[2J"}, {}, r"U\+001B"),
        ({"recordings": "["}, {}, "Expecting value"),
        ({"recordings": "3"}, {}, "not iterable"),
        ({}, {"means": np.ones((1, 3), np.float32)}, r"means of shape \(1, 3\)"),
        ({}, {"means": np.full((1, 256), np.nan, np.float32)}, "zero or not finite"),
        ({}, {"means": np.zeros((1, 256), np.float32)}, "zero or not finite"),
        ({}, {"speech_ms": np.array([0])}, "without speech"),
        ({}, {"speech_ms": np.array([1, 2])}, "times"),
    ],
)
def test_a_file_that_is_no_voice_is_refused_by_name(
    metadata: dict[str, str], changed: dict[str, np.ndarray], why: str, tmp_path: Path
) -> None:
    path = damaged(tmp_path / "x.safetensors", metadata, **changed)
    with pytest.raises(InputError, match=rf"x\.safetensors is no enrolled voice: .*{why}"):
        enrolled.read_folder(tmp_path)
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04\x95rest of a pickle", b"\xff" * 64])
def test_a_broken_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors is"):
        EnrolledVoices.load(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    person("Ada", axis(0)).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            EnrolledVoice.load(path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    person("Ada", axis(0)).save(tmp_path / "a.safetensors")
    person("Ada", axis(1)).save(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors and .*b\.safetensors are both Ada"):
        enrolled.read_folder(tmp_path)


def test_people_of_another_encoder_are_refused_by_name(tmp_path: Path, encoder: SpeakerEncoder) -> None:
    person("Ada", axis(0), encoder=encoder.fingerprint).save(tmp_path / "a.safetensors")
    person("Bob", axis(0), encoder="abc").save(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"Bob was enrolled with another encoder \(abc\).*--replace"):
        EnrolledVoices.load(tmp_path)


@pytest.mark.parametrize(
    ("made", "why"), [("nothing", "does not exist"), ("folder", "is empty"), ("file", "not a folder")]
)
def test_a_folder_without_voices_is_refused_before_any_work(made: str, why: str, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    if made == "folder":
        folder.mkdir()
    elif made == "file":
        folder.write_text("x")
    for work in (
        lambda: Transcriber(MeetingConfig(voices=folder)),
        lambda: diarize("no.wav", MeetingConfig(voices=folder)),
    ):
        with pytest.raises(InputError, match=why):
            work()


@pytest.mark.parametrize("words", [["list"], ["remove", "Ada"], ["enroll", "Ada", "no.wav"]])
def test_a_file_is_no_folder_of_voices(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "people").write_text("x")
    assert run(*words, "--voices", tmp_path / "people") == 3
    assert "people is not a folder: --voices takes the folder" in capsys.readouterr().err


def test_the_users_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WIELDY_VOICES", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert enrolled.folder_of(None) == enrolled.folder_of("enrolled") == tmp_path / "wieldy/voices"
    monkeypatch.setenv("WIELDY_VOICES", str(tmp_path / "mine"))
    assert enrolled.folder_of(Path("enrolled")) == tmp_path / "mine"
    assert enrolled.folder_of("else") == Path("else")


# Matching ------------------------------------------------------------------------------------------------------------


def best_gain(scores: np.ndarray, threshold: float) -> float:
    """The largest sum of score - threshold over all ways to pair speakers with people, by trying them all."""
    speakers, people = scores.shape
    best = 0.0
    for count in range(1, min(speakers, people) + 1):
        for rows in itertools.combinations(range(speakers), count):
            for columns in itertools.permutations(range(people), count):
                pairs = scores[list(rows), list(columns)]
                if (pairs > threshold).all():
                    best = max(best, float((pairs - threshold).sum()))
    return best


@settings(max_examples=50)
@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(-1, 1)),
    st.floats(-1, 1),
)
def test_the_assignment_is_the_best_of_all(scores: np.ndarray, threshold: float) -> None:
    pairs = assign(scores, threshold)
    assert len(set(pairs.values())) == len(pairs)
    assert all(scores[pair] > threshold for pair in pairs.items())
    assert sum(scores[pair] - threshold for pair in pairs.items()) == pytest.approx(
        best_gain(scores, threshold), abs=1e-9
    )


def test_an_unlikely_pair_does_not_take_a_person_away() -> None:
    """The largest sum of scores alone would call speaker 0 the second person, to give the first to speaker 1."""
    assert assign(np.array([[0.9, 0.7], [0.89, 0.1]]), 0.8) == {0: 0}


def test_the_score_ignores_what_is_no_voice() -> None:
    likeness = Likeness(axis(9), axis(0)[:, None])
    ada, other = axis(9) + axis(1), axis(9) + axis(2)
    scores = likeness.scores(np.stack([ada, ada + 5 * axis(0), other]), ada[None])
    np.testing.assert_allclose(scores[:, 0], [1, 1, 0], atol=1e-12)


def test_the_constants_are_those_of_the_calibration(encoder: SpeakerEncoder) -> None:
    text = (files("wieldy.speech.voices") / "enrolment_calibration.json").read_text(encoding="utf-8")
    figures = json.loads(text)
    assert figures["encoder"] == encoder.fingerprint
    assert figures["constants"] == {
        "threshold": enrolled.THRESHOLD,
        "other_person": enrolled.OTHER_PERSON,
    }
    likeness = Likeness.of(encoder)
    assert likeness.mean.shape == (256,)
    np.testing.assert_allclose(likeness.nuisance.T @ likeness.nuisance, np.eye(likeness.nuisance.shape[1]), atol=1e-5)


def test_the_guide_has_the_figures_of_the_calibration() -> None:
    text = (files("wieldy.speech.voices") / "enrolment_calibration.json").read_text(encoding="utf-8")
    figures = json.loads(text)
    guide = " ".join((EXAMPLES.parent / "docs/voices.md").read_text(encoding="utf-8").split())
    talk, named = figures["talk"], figures["conversations"]
    alike, other = talk["same condition"], talk["other condition"]
    usual, longer = (talk["by seconds enrolled, tried"][key]["at"] for key in ("20 s, 10 s", "40 s, 20 s"))
    letters, digits = (figures["by source"][source]["at"] for source in ("klettres", "fsdd"))
    enrolled_people = named["enrolled named"] + named["enrolled not named"]
    for said in (
        f"{figures['constants']['threshold']} needed",
        f"| {alike['missed'] * alike['same']:.0f} of {alike['same']} |"
        f" {alike['false_accepts']:.1%} of {alike['different']:,} |",
        f"| {other['missed']:.0%} of {other['same']} | {other['false_accepts']:.2%} of {other['different']:,} |",
        f"{longer['missed']:.0%} instead of {usual['missed']:.0%} are missed",
        f"({letters['false_accepts']:.0%} of others for spelled letters, {digits['false_accepts']:.0%} for digits)",
        f"{named['enrolled named']} of {enrolled_people} got their names; {named['wrong names']} names were wrong",
    ):
        assert said.replace("%", " %") in guide


def test_an_encoder_without_a_calibration_is_refused(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    network = onnx.load(encoder.path)
    network.doc_string = "the same network in another file"
    onnx.save(network, other)
    with pytest.raises(UsageError, match=r"the encoder .*other\.onnx: only the bundled one is calibrated"):
        enroll("Ada", ["no.wav"], tmp_path, encoder=SpeakerEncoder(other))


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.integers(0, 40), st.integers(1, 20), st.integers(0, 1)),
        min_size=1,
        max_size=6,
    )
)
def test_pieces_are_heard_where_one_person_talks_on_a_channel(turns: list[tuple[str, int, int, int]]) -> None:
    made = [Turn(start, start + length, who, stream=channel) for who, start, length, channel in turns]
    found = {
        (who, channel, ms) for who, channel, span in enrolled._alone(made) for ms in range(span.start_ms, span.end_ms)
    }
    expected = set()
    for channel, ms in itertools.product((0, 1), range(60)):
        talking = [turn.speaker for turn in made if turn.stream == channel and turn.start_ms <= ms < turn.end_ms]
        if len(talking) == 1:
            expected.add((talking[0], channel, ms))
    assert found == expected


def test_each_speaker_is_heard_for_a_minute_at_most(monkeypatch: pytest.MonkeyPatch, encoder: SpeakerEncoder) -> None:
    asked: list[Span] = []
    embed = SpeakerEncoder.embed_regions

    def watch(self, recording, regions, **options):
        asked.extend(regions := list(regions))
        return embed(self, recording, regions, **options)

    monkeypatch.setattr(SpeakerEncoder, "embed_regions", watch)
    monkeypatch.setattr(enrolled, "HEARD_MS", 3000)
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    turns = [Turn(0, 400, "S1"), Turn(1000, 2000, "S1"), Turn(5000, 7500, "S1"), Turn(9000, 9400, "S2")]
    heard = enrolled.hear_speakers(encoder, Recording.from_array(noise, RATE), turns)
    assert asked == [Span(1000, 1500), Span(5000, 7500)]
    assert set(heard) == {"S1"}


# From one recording to another ---------------------------------------------------------------------------------------


def test_the_enrolled_are_named_and_the_others_are_not(people: Path, later: tuple[Recording, Transcript]) -> None:
    recording, transcript = later
    named = EnrolledVoices.load(people).name(transcript, recording)
    assert set(named.speakers) == {"Speaker 1", "Ruth", "Speaker 3"}
    found = {entry["speaker"]: entry for entry in named.meta["voices"]["speakers"]}
    assert found["Speaker 2"]["person"] == "Ruth"
    assert found["Speaker 2"]["score"] > enrolled.THRESHOLD > found["Speaker 1"]["score"]
    assert found["Speaker 1"]["person"] is None
    lines = enrolled.describe(named.meta["voices"])
    assert any("Speaker 2 is Ruth (score 0." in line for line in lines)
    assert any("Speaker 1 is nobody enrolled; nearest is " in line for line in lines)


def test_a_speaker_split_in_two_gives_one_the_name_and_says_so(
    people: Path, later: tuple[Recording, Transcript]
) -> None:
    recording, _ = later
    turns = (Turn(4300, 6700, "Speaker 1"), Turn(6700, 9500, "Speaker 2"), Turn(9700, 9900, "Speaker 3"))
    named = EnrolledVoices.load(people).name(Transcript("later", turns=turns), recording)
    assert sorted(named.speakers).count("Ruth") == 1
    text = " ".join(enrolled.describe(named.meta["voices"]))
    assert "sounds like Ruth too" in text
    assert "Speaker 3: too little speech" in text


def test_names_from_the_command_line_in_turns_and_on_channels(
    people: Path, meeting: tuple[np.ndarray, Transcript], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One speaker per channel: Ruth and Maya, who talk one after the other."""
    ruth, maya = (spoken(meeting, who, CUT_MS, 60_000) for who in ("Ruth", "Maya"))
    channels = np.zeros((len(ruth) + len(maya), 2), np.float32)
    channels[: len(maya), 0] = maya
    channels[len(maya) :, 1] = ruth
    soundfile.write(tmp_path / "call.wav", channels, RATE)
    words = ["diarize", str(tmp_path / "call.wav"), "--channels", "split", "--out", str(tmp_path)]
    assert cli.main([*words, "--voices", str(people)]) == 0
    printed = capsys.readouterr()
    assert "Ruth: " in printed.out
    assert "Speaker 1: " in printed.out
    assert "call: Speaker 2 is Ruth (score 0." in printed.err
    assert set(formats.read(tmp_path / "call.rttm").speakers) == {"Speaker_1", "Ruth"}


class OneWord:
    """An engine that hears the same word in everything, and counts how often it is asked."""

    name = "one-word"
    model_id = "one-word"
    model_files: dict[str, str] = {}  # noqa: RUF012
    capabilities = Capabilities(word_times=False, token_scores=False, written_form=True, avoids_repeats=False)

    def __init__(self) -> None:
        self.asked = 0

    def transcribe(self, audio, *, avoid_repeats=False):
        for _samples in audio:
            self.asked += 1
            yield Hypothesis((HeardWord("word"),))


def test_a_resumed_run_takes_the_voices_of_now_and_recognises_nothing_again(
    people: Path,
    sample: Path,
    later: tuple[Recording, Transcript],
    fresh_cache: Path,
    tmp_path: Path,
    encoder: SpeakerEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enroll("Dr. Ruth", [sample / "ruth.wav"], tmp_path, encoder=encoder)
    samples = spoken((later[0].read(0, 60_000), later[1]), "Speaker 2", 0, 60_000)
    recording = Recording.from_array(samples, RATE, name="alone")
    engine, one = OneWord(), SpeakerCount(exactly=1)
    first = Transcriber(MeetingConfig(voices=people, count=one), recognizer=engine)
    name = EnrolledVoices.name

    def interrupted(*_args: object) -> Transcript:
        raise KeyboardInterrupt

    monkeypatch.setattr(EnrolledVoices, "name", interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.run(recording, keep_stages=True)
    asked = engine.asked
    assert asked > 0
    monkeypatch.setattr(EnrolledVoices, "name", name)
    second = Transcriber(MeetingConfig(voices=tmp_path, count=one), recognizer=engine, diarizer=first.diarizer)
    transcript = second.run(recording, resume=True)
    assert engine.asked == asked
    assert transcript.speakers == ("Dr. Ruth",)
    assert {word.speaker for word in transcript.words} == {"Dr. Ruth"}
    stored = json.loads(formats.FORMATS["json"].writer(transcript))
    assert stored["meta"]["voices"]["speakers"][0]["person"] == "Dr. Ruth"
    assert stored["meta"]["options"]["voices"] == str(tmp_path)


# Enrolling -----------------------------------------------------------------------------------------------------------


def run(*words: object) -> int:
    return cli.main(["voices", *map(str, words)])


def test_enroll_list_and_remove(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "people"
    assert run("list", "--voices", folder) == 0
    assert "nobody is enrolled" in capsys.readouterr().err
    assert run("enroll", "Rüth", sample / "ruth.wav", "--voices", folder) == 0
    assert "Rüth is enrolled with 1" in capsys.readouterr().out
    (file,) = folder.iterdir()
    assert b"ruth.wav" not in file.read_bytes()
    assert run("list", "--voices", folder, "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["name"], entry["recordings"], entry["usable"], entry["file"]) == ("Rüth", 1, True, str(file))
    assert 9 < entry["speech_s"] < 13
    assert run("list", "--voices", folder) == 0
    assert "Rüth" in capsys.readouterr().out
    assert run("remove", "Ruth", "--voices", folder) == 2
    assert "did you mean Rüth?" in capsys.readouterr().err
    assert run("remove", "Ru\u0308th", "--voices", folder) == 0
    assert list(folder.iterdir()) == []


def test_a_person_gains_recordings_and_replace_forgets_them(
    sample: Path, meeting: tuple[np.ndarray, Transcript], encoder: SpeakerEncoder, tmp_path: Path
) -> None:
    first = enroll("Ruth", [sample / "ruth.wav"], tmp_path, encoder=encoder)
    more = Recording.from_array(spoken(meeting, "Ruth", 42_500, 60_000), RATE, name="more")
    both = enroll("Ruth", [more], tmp_path, encoder=encoder)
    assert len(both.recordings) == 2
    assert more.read(0, 10).size, "the caller's recording stays open"
    np.testing.assert_array_equal(both.means[0], first.means[0])
    (stored,) = enrolled.read_folder(tmp_path).values()
    np.testing.assert_array_equal(stored.vector, both.vector)
    with pytest.raises(InputError, match="Ruth is enrolled from more already"):
        enroll("Ruth", [more], tmp_path, encoder=encoder)
    assert len(enroll("Ruth", [sample / "ruth.wav"], tmp_path, replace=True, encoder=encoder).recordings) == 1
    assert len(list(tmp_path.iterdir())) == 1


def wav(folder: Path, name: str, samples: np.ndarray) -> Path:
    soundfile.write(folder / f"{name}.wav", samples, RATE)
    return folder / f"{name}.wav"


def test_what_cannot_be_enrolled_is_refused_in_one_line_and_nothing_is_kept(
    sample: Path, meeting: tuple[np.ndarray, Transcript], tmp_path: Path, encoder: SpeakerEncoder
) -> None:
    ruth, tom = (soundfile.read(sample / f"{who}.wav", dtype="float32")[0] for who in ("ruth", "tom"))
    on_channels = np.zeros((len(ruth) + len(tom), 2), np.float32)
    on_channels[: len(ruth), 0], on_channels[len(ruth) :, 1] = ruth, tom
    short = wav(tmp_path, "short", ruth[: 6 * RATE])
    (tmp_path / "text.wav").write_text("not a recording")
    for path, why in (
        (short, r"\d\.\d s of speech are too little to know Tom by: give at least 10 s"),
        (wav(tmp_path, "silent", np.zeros(15 * RATE)), r"no speech found in .*silent\.wav"),
        (wav(tmp_path, "call", on_channels), r"call\.wav has a speaker on each of the channels 1 and 2"),
        (tmp_path / "text.wav", r"text\.wav"),
        (tmp_path / "no.wav", r"no\.wav does not exist"),
    ):
        with pytest.raises(InputError, match=why) as caught:
            enroll("Tom", [path] if path == short else [sample / "tom.wav", path], tmp_path / "people", encoder=encoder)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "people").exists()


def test_a_recording_of_somebody_else_is_refused_and_changes_nothing(
    sample: Path, meeting: tuple[np.ndarray, Transcript], tmp_path: Path, encoder: SpeakerEncoder
) -> None:
    enroll("Tom", [sample / "tom.wav"], tmp_path, encoder=encoder)
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    maya = Recording.from_array(spoken(meeting, "Maya", 0, CUT_MS), RATE, name="maya")
    with pytest.raises(InputError, match=r"maya does not sound like the other recordings of Tom \(score -?0\.[012]"):
        enroll("Tom", [maya], tmp_path, encoder=encoder)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["enroll", "a/b", "x.wav"], 2, "path separator"),
        (["enroll", "Ada"], 2, "no recording given: wieldy voices enroll NAME FILE"),
        (["enroll", "Ada", "no-such.wav"], 3, "no-such.wav does not exist"),
        (["remove", "Ada"], 2, "nobody called 'Ada' is enrolled in"),
    ],
)
def test_bad_requests_end_in_one_line(
    words: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WIELDY_VOICES", str(tmp_path))
    assert run(*words) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err.splitlines()[-1]


def test_a_voice_that_cannot_be_deleted_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person("Ada", axis(0)).save(tmp_path / "a.safetensors")

    def refuse(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"cannot delete .*a\.safetensors: Permission denied") as caught:
        enrolled.remove("Ada", tmp_path)
    assert isinstance(caught.value, WieldyError)
