"""Simulated meetings: what the transcript says is what the samples hold, to the millisecond."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech import synthesize
from wieldy.speech.simulate import (
    SAMPLE_RATE,
    MeetingRecipe,
    SimulatedMeeting,
    _clip,
    _compose,
    _Said,
    conversation_from_clips,
    meeting,
    overlap_ratio,
)
from wieldy.speech.synthesize import Speech
from wieldy.speech.transcript import Turn

QUIET = MeetingRecipe(noise_db=None, level_spread_db=0.0)


def tone(frequency: float, seconds: float, text: str = "la la") -> Speech:
    """A `seconds` long tone between silences, as if someone had said `text`; the higher the quieter."""
    sound = 100 / frequency * np.sin(2 * np.pi * frequency * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)
    return Speech.from_recording(np.pad(sound, 3000), SAMPLE_RATE, text)


def tones(seconds: dict[float, list[float]]) -> dict[str, list[Speech]]:
    """Speakers named by the frequency of their tone in Hz."""
    return {str(int(f)): [tone(f, length) for length in lengths] for f, lengths in seconds.items()}


def active(turns, duration_ms: int) -> np.ndarray:
    """How many turns are going on in each millisecond, counted one by one."""
    count = np.zeros(duration_ms, int)
    for turn in turns:
        count[turn.start_ms : turn.end_ms] += 1
    return count


@settings(max_examples=25, deadline=None)
@given(
    overlap=st.sampled_from([0.0, 0.05, 0.1, 0.2]),
    speakers=st.integers(2, 4),
    seed=st.integers(0, 2**32 - 1),
    per_turn=st.sampled_from([(1, 1), (1, 3)]),
)
def test_overlap_is_what_was_asked_for(overlap, speakers, seed, per_turn):
    lengths = np.random.default_rng(seed).uniform(1.0, 3.0, (speakers, 12))
    clips = tones({300.0 * (1 + i): list(row) for i, row in enumerate(lengths)})
    recipe = dataclasses.replace(QUIET, overlap=overlap, seed=seed, turn_sentences=per_turn, minutes=0.5)
    made = conversation_from_clips(clips, recipe)
    transcript = made.transcript
    count = active(transcript.turns, transcript.duration_ms)
    assert count.max() <= 2
    assert (count >= 2).sum() / (count >= 1).sum() == pytest.approx(overlap, abs=1e-4)
    assert made.overlap == pytest.approx(overlap, abs=1e-4)
    assert made.samples.size == transcript.duration_ms * SAMPLE_RATE // 1000
    for first, second in itertools.pairwise(transcript.turns):
        assert first.speaker != second.speaker
    for word in transcript.words:
        assert any(
            turn.speaker == word.speaker and turn.start_ms <= word.start_ms and word.end_ms <= turn.end_ms
            for turn in transcript.turns
        )


@pytest.mark.parametrize("seed", range(10))
def test_backchannels_leave_room_for_two_at_most(seed):
    lengths = np.random.default_rng(seed).uniform(2.0, 8.0, 12)
    turns = [_Said("abc"[i % 3], _clip(tone(500.0, length))) for i, length in enumerate(lengths)]
    recipe = dataclasses.replace(QUIET, voices=("a", "b", "c"), overlap=0.2, backchannels=0.4, seed=seed)
    transcript = _compose(recipe, turns, lambda voice: _clip(tone(900.0, 0.5))).transcript
    assert len(transcript.turns) > len(turns)
    assert active(transcript.turns, transcript.duration_ms).max() == 2
    assert overlap_ratio(transcript.turns) == pytest.approx(0.2, abs=1e-4)


def test_each_speaker_sounds_in_their_turns_and_nowhere_else():
    made = conversation_from_clips(
        tones({500.0: [1.5, 2.0, 1.0], 2000.0: [1.2, 1.8, 2.0]}), dataclasses.replace(QUIET, overlap=0.1, minutes=1)
    )
    frames = made.samples[: made.samples.size // 320 * 320].reshape(-1, 320)  # 20 ms: 50 Hz apart
    power = np.abs(np.fft.rfft(frames * np.hanning(320))) ** 2
    middles = np.arange(len(frames)) * 20 + 10
    for speaker, line in (("500", 10), ("2000", 40)):
        heard = power[:, line] > 0.01 * power[:, line].max()
        spoken = np.zeros(len(frames), bool)
        edge = np.zeros(len(frames), bool)  # within 80 ms of an end: the faded margin
        for turn in made.transcript.turns:
            if turn.speaker == speaker:
                spoken |= (middles > turn.start_ms) & (middles < turn.end_ms)
                edge |= (abs(middles - turn.start_ms) < 80) | (abs(middles - turn.end_ms) < 80)
        # Clips of one turn are up to 0.3 s apart.
        pauses = spoken & ~heard & ~edge
        assert not (heard & ~spoken & ~edge).any()
        assert pauses.sum() <= 15 * 6
        assert (heard & spoken).sum() > 0.8 * spoken.sum()


def test_too_much_overlap_says_how_much_would_fit():
    clips = tones({300.0: [8.0] * 4, 900.0: [1.0] * 4})
    recipe = dataclasses.replace(QUIET, overlap=0.3, turn_sentences=(1, 1))
    with pytest.raises(UsageError, match=r"an overlap of 0\.3 does not fit these turns; at most 0\.\d+ does") as caught:
        conversation_from_clips(clips, recipe)
    most = float(str(caught.value).split("at most ")[1].split()[0])
    made = conversation_from_clips(clips, dataclasses.replace(recipe, overlap=most - 0.01))
    assert made.overlap == pytest.approx(most - 0.01, abs=1e-3)


@pytest.mark.parametrize("telephone", [False, True])
@pytest.mark.parametrize("noise", ["white", "pink", "babble"])
def test_noise_is_as_loud_as_asked(noise, telephone):
    clips = tones({500.0: [2.0, 1.5], 1100.0: [2.0, 1.0]})
    recipe = dataclasses.replace(QUIET, telephone=telephone)
    clean = conversation_from_clips(clips, recipe)
    noisy = conversation_from_clips(clips, dataclasses.replace(recipe, noise=noise, noise_db=15.0))
    assert noisy.transcript.words == clean.transcript.words
    difference = noisy.samples - clean.samples
    speaking = np.repeat(active(clean.transcript.turns, clean.transcript.duration_ms) > 0, SAMPLE_RATE // 1000)
    ratio = np.mean(clean.samples[speaking] ** 2) / np.mean(difference**2)
    assert 10 * np.log10(ratio) == pytest.approx(15.0, abs=0.1)


def test_pink_noise_falls_by_three_decibels_per_octave():
    clips = tones({500.0: [8.0], 700.0: [8.0]})
    clean = conversation_from_clips(clips, QUIET)
    noisy = conversation_from_clips(clips, dataclasses.replace(QUIET, noise="pink", noise_db=10.0))
    power = np.abs(np.fft.rfft(noisy.samples - clean.samples)) ** 2
    hertz = np.fft.rfftfreq(clean.samples.size, 1 / SAMPLE_RATE)
    octaves = [10 * np.log10(power[(hertz >= f) & (hertz < 2 * f)].mean()) for f in (125, 250, 500, 1000, 2000)]
    assert np.diff(octaves) == pytest.approx(-3.0, abs=1.0)


def test_a_telephone_leaves_its_band_and_no_delay():
    clips = tones({1000.0: [1.0, 1.0], 100.0: [1.0, 1.0], 6000.0: [1.0, 1.0]})
    wide = conversation_from_clips(clips, QUIET)
    narrow = conversation_from_clips(clips, dataclasses.replace(QUIET, telephone=True))
    assert narrow.transcript.turns == wide.transcript.turns
    for turn in wide.transcript.turns:
        stretch = slice((turn.start_ms + 100) * 16, (turn.end_ms - 100) * 16)
        before, after = wide.samples[stretch], narrow.samples[stretch]
        kept_db = 10 * np.log10((np.mean(after**2) + 1e-12) / np.mean(before**2))
        if turn.speaker == "1000":
            assert kept_db == pytest.approx(0, abs=0.5)
            np.testing.assert_allclose(after, before, atol=0.003)  # of 0.07
        else:
            assert kept_db < -15


def test_levels_are_equal_unless_spread():
    def levels(spread: float) -> list[float]:
        made = conversation_from_clips(
            tones({500.0: [1.0, 1.0], 900.0: [1.5, 1.0], 1700.0: [1.0, 1.0]}),
            dataclasses.replace(QUIET, level_spread_db=spread),
        )
        by_speaker = {}
        for turn in made.transcript.turns:
            part = made.samples[turn.start_ms * 16 : turn.end_ms * 16]
            by_speaker[turn.speaker] = 10 * np.log10(np.mean(part[np.abs(part) > 0] ** 2))
        return list(by_speaker.values())

    assert np.ptp(levels(0.0)) < 1.0
    assert np.ptp(levels(6.0)) > 2.0


def test_real_recordings(shared_data):
    import soundfile

    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    clips = {
        speaker: [
            Speech.from_recording(*soundfile.read(shared_data / "fsdd" / f"{digit}_{speaker}_{n}.wav"), digits[digit])
            for n in range(3)
            for digit in range(10)
        ]
        for speaker in ("george", "lucas")
    }
    made = conversation_from_clips(clips, MeetingRecipe(overlap=0.1, turn_sentences=(3, 6), minutes=0.3))
    assert made.overlap == pytest.approx(0.1, abs=1e-3)
    assert set(made.transcript.speakers) == {"george", "lucas"}
    said = {speaker: [w.text for w in made.transcript.words if w.speaker == speaker] for speaker in clips}
    assert all(words == (digits * 3)[: len(words)] for words in said.values())


SMALL = MeetingRecipe(voices=("heart", "heart-lowered"), minutes=0.3, overlap=0.12, backchannels=0.5, seed=1)


@pytest.fixture(scope="module")
def small() -> SimulatedMeeting:
    return meeting(SMALL, cached=False)


def test_a_meeting_of_voices(small):
    transcript = small.transcript
    assert small.overlap == pytest.approx(0.12, abs=1e-3)
    assert 0.25 < transcript.duration_ms / 60_000 < 0.5
    assert set(transcript.speakers) == set(SMALL.voices)
    assert small.samples.dtype == np.float32
    assert 0.05 < np.abs(small.samples).max() <= 0.98
    assert transcript.meta["recipe"]["seed"] == 1
    assert {word.source for word in transcript.words} == {"aligned"}


def test_backchannels_lie_inside_another_turn(small):
    inner = [
        (outer, turn)
        for outer, turn in itertools.permutations(small.transcript.turns, 2)
        if outer.start_ms < turn.start_ms and turn.end_ms < outer.end_ms
    ]
    assert inner
    for outer, turn in inner:
        assert turn.speaker != outer.speaker
        assert turn.duration_ms < 1500


def test_the_same_recipe_is_made_once(fresh_cache, monkeypatch, small):
    first = meeting(SMALL)
    monkeypatch.setattr(synthesize, "say", lambda *args, **kwargs: pytest.fail("spoken again"))
    again = meeting(SMALL)
    for made in (first, again):
        np.testing.assert_array_equal(made.samples, small.samples)
        assert made.transcript == small.transcript
    with pytest.raises(pytest.fail.Exception, match="spoken again"):
        meeting(dataclasses.replace(SMALL, seed=2))


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_save_and_load(small, tmp_path, suffix):
    small.save(tmp_path / f"m{suffix}")
    back = SimulatedMeeting.load(tmp_path / f"m{suffix}")
    np.testing.assert_array_equal(back.samples, small.samples)
    assert back.transcript == small.transcript
    with pytest.raises(UsageError, match=r"cannot save sound as m\.mp3"):
        small.save(tmp_path / "m.mp3")


def test_a_script_is_said_word_for_word():
    script = (("heart", "Good morning. Shall we start?"), ("heart-lowered", "Yes, please."), ("heart", "Fine."))
    made = meeting(MeetingRecipe(voices=("heart", "heart-lowered"), script=script), cached=False)
    spoken = [(utterance.speaker, utterance.text) for utterance in made.transcript.utterances()]
    assert spoken == list(script)


def test_no_sentence_is_said_twice():
    recipe = MeetingRecipe(voices=("heart", "heart-raised"), minutes=1, backchannels=0.0)
    words = [word.text for word in meeting(recipe, cached=False).transcript.words]
    sentences = re.findall(r".+?[.?](?: |$)", " ".join(words))
    assert len(sentences) == len(set(sentences)) > 6


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("voices", (), "different names"),
        ("voices", ("heart", "heart"), "different names"),
        ("minutes", 0, "above 0"),
        ("overlap", 0.9, "from 0 to 0.35"),
        ("overlap", float("nan"), "from 0 to 0.35"),
        ("backchannels", -0.1, "from 0 to 1"),
        ("pause_s", 0.0, "above 0.1"),
        ("turn_sentences", (2, 1), "two numbers"),
        ("noise_db", 300.0, "from -20 to 100"),
        ("noise", "brown", "white, pink or babble"),
        ("level_spread_db", -1.0, "from 0 to 10"),
        ("script", (("nobody", "Hi."),), "nobody"),
    ],
)
def test_impossible_recipes(field, value, rule):
    with pytest.raises(UsageError, match=rule):
        MeetingRecipe(**{field: value})


def test_nobody_to_speak():
    with pytest.raises(InputError, match="at least one clip per speaker"):
        conversation_from_clips({"a": []}, QUIET)
    with pytest.raises(InputError, match="nobody says anything"):
        meeting(MeetingRecipe(voices=("heart",), script=()), cached=False)
    silent = Speech(np.zeros(8000, np.float32), 8000, (synthesize.SpokenWord("hm", 0.1, 0.5),))
    with pytest.raises(InputError, match="'hm' is silent"):
        conversation_from_clips({"a": [silent]}, QUIET)


def test_a_missing_voice_is_told_before_anything_is_spoken(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(synthesize, "say", lambda *args, **kwargs: pytest.fail("spoken"))
    with pytest.raises(MissingError, match="apt install flite"):
        meeting(MeetingRecipe(voices=("heart", "slt")), cached=False)


def test_overlap_ratio_counts_time_not_turns():
    turns = [Turn(0, 1000, "a"), Turn(500, 1500, "b"), Turn(700, 800, "c"), Turn(3000, 3500, "a")]
    assert overlap_ratio(turns) == pytest.approx(500 / 2000)
    assert overlap_ratio([]) == 0.0
