"""Synthetic voices: every word said, when its time says it was."""

import itertools
import shutil

import numpy as np
import pytest

from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech import synthesize
from wieldy.speech.synthesize import Speech, Voice, say

TEXT = "We need seven tables of wood, and Anna's sister pays for it."


def ready(name: str) -> str:
    """The voice, or a skipped test where its program or model is not here."""
    try:
        synthesize.voice_named(name)
    except MissingError as error:
        pytest.skip(f"voice {name}: {error.message}")
    return name


def loudness(speech: Speech, start_s: float, end_s: float) -> float:
    """RMS of a stretch relative to that of the whole."""
    part = speech.samples[round(start_s * speech.sample_rate) : round(end_s * speech.sample_rate)]
    return float(np.sqrt(np.mean(part**2) / np.mean(speech.samples**2)))


def pitch(speech: Speech) -> float:
    """The strongest pitch period's frequency between 80 and 400 Hz, in Hz, over the whole."""
    spectrum = np.abs(np.fft.rfft(speech.samples, 2 * speech.samples.size)) ** 2
    correlation = np.fft.irfft(spectrum)
    shortest, longest = speech.sample_rate // 400, speech.sample_rate // 80
    return speech.sample_rate / (shortest + int(np.argmax(correlation[shortest:longest])))


@pytest.mark.parametrize(
    "name", ["heart", "slt", "kal16", "espeak-m3", "heart-lowered", pytest.param("joe", marks=pytest.mark.slow)]
)
def test_words_lie_where_the_sound_is(name):
    speech = say(TEXT, ready(name))
    assert speech.source == "aligned"
    assert [word.text for word in speech.words] == TEXT.split()
    assert speech.samples.dtype == np.float32
    assert 0 < np.abs(speech.samples).max() <= 1
    times = [time for word in speech.words for time in word[1:]]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= speech.samples.size / speech.sample_rate
    for word in speech.words:
        assert word.end_s - word.start_s > 0.02
        assert loudness(speech, word.start_s, word.end_s) > 0.2, word
    # Within a clause one word follows the other.
    gaps = [after.start_s - before.end_s for before, after in itertools.pairwise(speech.words)]
    assert max(gaps[:5] + gaps[6:]) < 0.2
    # Nothing is said before the first word, after the last, or in the pause at the comma.
    wood, following = speech.words[5:7]
    middle = (wood.end_s + following.start_s) / 2
    assert following.start_s - wood.end_s > 0.03
    assert loudness(speech, middle - 0.01, middle + 0.01) < 0.1
    for start, end in ((0, times[0] - 0.05), (times[-1] + 0.05, speech.samples.size / speech.sample_rate)):
        if end - start > 0.02:
            assert loudness(speech, start, end) < 0.1


@pytest.mark.parametrize("name", ["heart", "slt", "espeak-m3", "heart-lowered"])
def test_phones_lie_in_their_words(name):
    speech = say("Order seven apples.", ready(name))
    times = [time for phone in speech.phones for time in phone[1:]]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= speech.samples.size / speech.sample_rate
    # hibari's words end where a pause begins, which is inside the time of a phone.
    middles = [(phone.start_s + phone.end_s) / 2 for phone in speech.phones]
    inside = [[word.start_s <= middle <= word.end_s for middle in middles] for word in speech.words]
    assert [sum(row) for row in inside] == pytest.approx([4, 5, 5], abs=2)
    assert sum(map(any, zip(*inside, strict=True))) >= len(middles) - 2


def test_flite_names_the_phones_of_each_word():
    speech = say("Order seven apples.", ready("slt"))
    spelled = [
        [phone.symbol for phone in speech.phones if word.start_s <= phone.start_s < word.end_s] for word in speech.words
    ]
    assert spelled == [["ao", "r", "d", "er"], ["s", "eh", "v", "ax", "n"], ["ae", "p", "ax", "l", "z"]]


def test_an_echoing_voice_shares_its_time_out():
    speech = say(TEXT, ready("espeak-f2"))  # its echo fills the gaps that would tell the words' times
    assert speech.source == "interpolated"
    assert [word.text for word in speech.words] == TEXT.split()


def test_numbers_abbreviations_and_marks_standing_alone_keep_their_spelling():
    speech = say("We paid 42 euros — to Dr. Smith!", "heart")
    assert [word.text for word in speech.words] == ["We", "paid", "42", "euros—", "to", "Dr.", "Smith!"]
    assert speech.source == "aligned"
    spans = {word.text: word.end_s - word.start_s for word in speech.words}
    assert spans["42"] > spans["We"]


@pytest.mark.parametrize("name", ["heart", "slt", "espeak-m3"])
def test_same_arguments_same_samples(name):
    first, second = say("Good morning.", ready(name), seed=3), say("Good morning.", name, seed=3)
    np.testing.assert_array_equal(first.samples, second.samples)
    assert first.words == second.words


def test_the_seed_changes_the_breath_of_hibari():
    assert not np.array_equal(say("Yes.", "heart", seed=0).samples, say("Yes.", "heart", seed=1).samples)


@pytest.mark.parametrize("name", ["heart", "slt", "espeak-m3"])
def test_speed(name):
    def length(speed: float) -> float:
        words = say(TEXT, ready(name), speed=speed).words
        return words[-1].end_s - words[0].start_s

    assert length(1.4) < 0.85 * length(1.0) < 0.85 * 0.85 * length(0.7)


def test_a_raised_voice_is_higher_and_no_faster():
    plain, raised = (say(TEXT, Voice(name="v", engine="hibari", variant="heart", pitch=ratio)) for ratio in (1.0, 1.15))
    assert pitch(raised) / pitch(plain) == pytest.approx(1.15, abs=0.05)
    spans = [speech.words[-1].end_s - speech.words[0].start_s for speech in (plain, raised)]
    assert spans[1] / spans[0] == pytest.approx(1, abs=0.12)  # hibari's durations are in steps of 25 ms per sound


@pytest.mark.parametrize("name", ["slt", "espeak-m3"])
def test_text_is_never_an_option(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    speech = say("-o stolen.wav; touch stolen $(touch stolen)", ready(name))
    assert speech.samples.size
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "  ", "— ... !"])
def test_nothing_to_say(text):
    with pytest.raises(InputError, match="there is no word to say"):
        say(text, "heart")


def test_an_unknown_voice_names_the_nearest():
    with pytest.raises(UsageError, match=r"no voice 'hart': did you mean heart"):
        say("Yes.", "hart")


@pytest.mark.parametrize(("field", "value"), [("pitch", 2.0), ("name", "two words"), ("name", "")])
def test_impossible_voices(field, value):
    with pytest.raises(UsageError):
        Voice(**{"name": "v", "engine": "flite", "variant": "slt", field: value})


@pytest.mark.parametrize("speed", [0.4, 2.1, float("nan")])
def test_impossible_speeds(speed):
    with pytest.raises(UsageError, match="speed"):
        say("Yes.", "heart", speed=speed)


@pytest.mark.parametrize(("name", "package"), [("slt", "flite"), ("espeak-m3", "espeak-ng")])
def test_a_missing_program_names_its_package(name, package, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    synthesize._known_voices.cache_clear()
    try:
        with pytest.raises(MissingError, match=f"apt install {package}") as caught:
            say("Yes.", name)
        assert caught.value.exit_status == 4
        assert {voice.engine for voice in synthesize.voices()} == {"hibari"}
    finally:
        synthesize._known_voices.cache_clear()


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr(synthesize.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install 'wieldy\[speech\]'"):
        say("Yes.", "heart")


def test_only_joe_must_not_be_handed_on():
    shippable = {voice.name: voice.shippable for voice in synthesize._known_voices()}
    assert [name for name, allowed in shippable.items() if not allowed] == ["joe"]


def test_a_recording_has_its_words_inside_the_sound():
    rate = 8000
    tone = 0.3 * np.sin(np.arange(rate) * 0.3)
    samples = np.concatenate([np.zeros(rate // 2), tone, np.zeros(rate)])
    speech = Speech.from_recording(samples, rate, "one, fifteen!")
    assert speech.source == "interpolated"
    assert [word.text for word in speech.words] == ["one,", "fifteen!"]
    (_, start, middle), (_, following, end) = speech.words
    assert (start, end) == pytest.approx((0.5, 1.5), abs=0.01)
    assert middle == following == pytest.approx(0.5 + 4 / 12, abs=0.01)  # letters and the gap after them: 4 to 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heart", "joe", "slt", "rms", "awb", "kal16"])
def test_a_recogniser_understands(name, whisper_tiny):
    import soxr
    from faster_whisper import WhisperModel
    from rapidfuzz.distance import Levenshtein

    text = "we talked about the new contract before lunch and then we looked at the pictures from the warehouse"
    speech = say(f"{text.capitalize()}.", ready(name))
    model = WhisperModel(str(whisper_tiny), device="cpu", compute_type="int8")
    segments, _ = model.transcribe(soxr.resample(speech.samples, speech.sample_rate, 16_000))
    heard = "".join(segment.text for segment in segments).lower().replace(".", "").replace(",", "").split()
    assert Levenshtein.distance(heard, text.split()) <= 0.15 * len(text.split())


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="the program espeak-ng is missing")
def test_every_espeak_variant_is_a_distractor():
    variants = [voice for voice in synthesize.voices() if voice.engine == "espeak-ng"]
    assert len(variants) > 50
    assert all(voice.distractor for voice in variants)
