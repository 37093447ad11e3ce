"""The channel policy on generated stereo whose making is known: who is on which channel, and how much leaks."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from wieldy.errors import UsageError
from wieldy.speech.audio import SAMPLE_RATE, Recording
from wieldy.speech.channels import (
    ChannelPlan,
    active_turns_per_channel,
    choose_channels,
    without_crosstalk,
)
from wieldy.speech.transcript import Span, Turn
from wieldy.speech.vad import FRAME_MS, FRAME_SAMPLES

SYLLABLE = SAMPLE_RATE // 5


def voice(seed: int, syllables: int) -> np.ndarray:
    """Babble: glottal pulses of a wandering pitch through three formants that change with every syllable."""
    rng = np.random.default_rng(seed)
    pitch = rng.uniform(90, 220)
    parts = []
    for _ in range(syllables):
        periods = np.cumsum(np.full(SYLLABLE, pitch * rng.uniform(0.85, 1.15) / SAMPLE_RATE))
        sound = np.diff(np.floor(periods), prepend=0) + 0.02 * rng.standard_normal(SYLLABLE)
        for low, high in ((300, 800), (900, 2200), (2300, 3200)):
            b, a = scipy.signal.iirpeak(rng.uniform(low, high), 5, fs=SAMPLE_RATE)
            sound = sound + 3 * scipy.signal.lfilter(b, a, sound)
        parts.append(sound * np.hanning(SYLLABLE))
    speech = np.concatenate(parts)
    return 0.08 * speech / np.sqrt(np.mean(speech**2))


def tracks(turns: list[tuple[int, float, float]], seconds: float, people: int) -> np.ndarray:
    """Each person alone [people, n], speaking in `turns` (person, start, end in seconds)."""
    alone = np.zeros((people, round(seconds * SAMPLE_RATE)))
    for number, (person, start, end) in enumerate(turns):
        syllables = round((end - start) * SAMPLE_RATE) // SYLLABLE
        at = round(start * SAMPLE_RATE)
        # The same pitch for the same person, other words in every turn.
        alone[person, at : at + syllables * SYLLABLE] += voice(100 * person + number, syllables)
    return alone


TURNS = [(0, 0.5, 4.5), (1, 5.0, 9.0), (0, 9.4, 12.0), (1, 11.6, 15.0), (0, 15.4, 19.4), (1, 19.8, 23.4)]
A, B = tracks(TURNS, 24.0, 2)
BOTH = A + B


def echoing(sound: np.ndarray, seed: int, delay: int = 60, direct_db: float = 0.0) -> np.ndarray:
    """`sound` after its way through a room of 0.4 s reverberation, which is `direct_db` below the direct sound."""
    length = 2 * SAMPLE_RATE // 5
    tail = np.random.default_rng(seed).standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail[: delay + 20] = 0
    tail /= np.linalg.norm(tail) * 10 ** (direct_db / 20)
    tail[delay] = 1
    return scipy.signal.fftconvolve(sound, tail / np.linalg.norm(tail))[: len(sound)]


def recorded(*channels: np.ndarray, noise_db: float = -65.0) -> Recording:
    samples = np.stack(channels)
    hiss = 10 ** (noise_db / 20) * np.random.default_rng(0).standard_normal(samples.shape)
    return Recording.from_array(np.clip(samples + hiss, -1, 1), SAMPLE_RATE)


def leaking(decibels: float) -> tuple[np.ndarray, np.ndarray]:
    gain = 10 ** (decibels / 20)
    return A + gain * B, B + gain * A


SPLIT = {
    "apart": (A, B),
    "leak -30 dB": leaking(-30),
    "leak -20 dB": leaking(-20),
    "leak -15 dB": leaking(-15),
    "leak -20 dB with an echo": (A + 0.1 * echoing(B, 1), B + 0.1 * echoing(A, 2)),
    "leak -14 dB with an echo": (A + 0.2 * echoing(B, 1), B + 0.2 * echoing(A, 2)),
    "leak -20 dB, one microphone 15 dB down": (A + 0.1 * B, 0.18 * (B + 0.1 * A)),
    "one inverted": (A, -B),
}
MONO = {
    "the same twice": (BOTH, BOTH),
    "one inverted": (BOTH, -BOTH),
    "one 5 ms late": (BOTH, np.roll(BOTH, 80)),
    "one person panned": (A, 0.3 * A),
    "both panned by 6 dB": (A + 0.5 * B, B + 0.5 * A),
    "second hears only the leak": (BOTH, 0.1 * BOTH),
    "second dead": (BOTH, 0 * BOTH),
    "second hums": (BOTH, 0.02 * np.sin(2 * np.pi * 50 / SAMPLE_RATE * np.arange(len(BOTH)))),
    "two microphones in a room": tuple(
        echoing(A, 3 + side, 100 + 50 * side, -6) + echoing(B, 5 + side, 180 - 70 * side, -6) for side in (0, 1)
    ),
    "each nearer to one of two microphones": (
        echoing(A, 3, 100) + 0.7 * echoing(B, 5, 180, -6),
        0.7 * echoing(A, 4, 180, -6) + echoing(B, 6, 100),
    ),
}


class TestPolicy:
    @pytest.mark.parametrize("case", SPLIT)
    def test_one_speaker_per_channel(self, case):
        recording = recorded(*SPLIT[case])
        plan = choose_channels(recording)
        assert plan == ChannelPlan("split", (0, 1))
        assert plan.channels == (0, 1)
        assert plan.view(recording) is recording

    @pytest.mark.parametrize("case", MONO)
    def test_one_conversation_on_several_channels(self, case):
        recording = recorded(*MONO[case])
        plan = choose_channels(recording)
        assert (plan.kind, plan.channels) == ("mono", (0,))
        (channel,) = plan.heard
        assert channel == 0 or "two microphones" in case  # there either is as good
        np.testing.assert_array_equal(plan.view(recording).read(0, 9000), recording.read(0, 9000, channel))

    @pytest.mark.parametrize("noise_db", [-70, -50, -40])
    def test_noise_does_not_decide(self, noise_db):
        assert choose_channels(recorded(*leaking(-20), noise_db=noise_db)).kind == "split"
        assert choose_channels(recorded(BOTH, -BOTH, noise_db=noise_db)).kind == "mono"

    def test_the_clearest_channel_is_taken(self):
        hiss = 0.02 * np.random.default_rng(1).standard_normal((2, len(BOTH)))
        recording = recorded(BOTH + hiss[0], 0 * BOTH, BOTH, 0.8 * BOTH + hiss[1])
        assert choose_channels(recording) == ChannelPlan("mono", (2,))

    def test_somebody_who_only_listens_has_no_channel(self):
        """The third microphone hears nothing but leaks: two speakers, not three."""
        assert choose_channels(recorded(A + 0.1 * B, B + 0.1 * A, 0.1 * BOTH)) == ChannelPlan("split", (0, 1))

    def test_a_dead_channel_beside_split_ones(self):
        assert choose_channels(recorded(0 * A, *leaking(-20))) == ChannelPlan("split", (1, 2))

    def test_mono_on_request_loses_nobody(self):
        recording = recorded(A, B)
        plan = choose_channels(recording, "mono")
        assert plan == ChannelPlan("mono", (0, 1))
        view = plan.view(recording)
        assert view.channels == 1
        np.testing.assert_allclose(view.read(0, 9000), recording.read_channels(0, 9000).mean(axis=0), atol=1e-7)

    def test_mono_on_request_does_not_cancel_inverted_channels(self):
        recording = recorded(BOTH, -BOTH)
        view = choose_channels(recording, "mono").view(recording)
        assert np.std(view.read(0, 24_000)) == pytest.approx(np.std(BOTH), rel=0.01)

    def test_split_on_request(self):
        assert choose_channels(recorded(BOTH, -BOTH), "split") == ChannelPlan("split", (0, 1))
        assert choose_channels(recorded(BOTH, 0 * BOTH), "split") == ChannelPlan("split", (0,))
        plan = choose_channels(recorded(BOTH), "split")
        assert plan.kind == "mono"
        assert plan.warnings == ("--channels split has no effect: the recording has one channel",)

    def test_many_channels_are_not_one_speaker_each(self):
        plan = choose_channels(recorded(*(BOTH for _ in range(9))))
        assert (plan.kind, plan.heard) == ("mono", (0,))
        assert plan.warnings == ("9 channels have sound, too many to be one speaker each: channel 1 is used",)

    def test_silence(self):
        silent = Recording.from_array(np.zeros((2, SAMPLE_RATE)), SAMPLE_RATE)
        assert choose_channels(silent) == ChannelPlan("mono", (0,))

    def test_one_channel(self):
        recording = recorded(BOTH)
        plan = choose_channels(recording)
        assert plan == ChannelPlan("mono", (0,))
        assert plan.view(recording) is recording

    def test_unknown_policy(self):
        with pytest.raises(UsageError, match="--channels is 'array': choose auto, mono or split"):
            choose_channels(recorded(A, B), "array")

    @pytest.mark.parametrize("ms", [33, 100, 20_001])
    def test_any_length(self, ms):
        recording = Recording.from_array(np.stack([A, B])[:, 8000:][:, : ms * 16], SAMPLE_RATE)
        assert choose_channels(recording).kind in ("mono", "split")

    def test_a_long_recording_is_looked_at_in_places(self, monkeypatch):
        monkeypatch.setattr("wieldy.speech.channels.LOOK_MS", 3008)
        monkeypatch.setattr("wieldy.speech.channels.MAX_LOOKS", 4)
        read: list[tuple[int, int]] = []
        recording = recorded(*leaking(-20))
        plain = recording.read_channels

        def watched(start_ms, end_ms):
            read.append((start_ms, end_ms))
            return plain(start_ms, end_ms)

        monkeypatch.setattr(recording, "read_channels", watched)
        assert choose_channels(recording).kind == "split"
        assert sorted(set(read)) == [(0, 3008), (6997, 10_005), (13_994, 17_002), (20_992, 24_000)]


def heard(spans, frames: int) -> np.ndarray:
    inside = np.zeros(frames, bool)
    for span in spans:
        inside[round(span.start_ms / FRAME_MS) : round(span.end_ms / FRAME_MS)] = True
    return inside


def speaking(track: np.ndarray) -> np.ndarray:
    """Frames in which a person really speaks; the troughs between syllables count."""
    power = np.square(track[: len(track) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)).mean(axis=1)
    return scipy.ndimage.binary_closing(power > 1e-6, iterations=5)


class TestCrosstalk:
    # A detector that listens to each channel alone hears the leaks too: somebody speaks all the time.
    ALL = (Span(500, 12_000), Span(12_000, 23_400))

    @pytest.mark.parametrize("case", [case for case in SPLIT if "leak" in case])
    def test_leaks_are_nobodys_words(self, case):
        own = without_crosstalk(recorded(*SPLIT[case]), {0: self.ALL, 1: self.ALL})
        for channel, track in enumerate((A, B)):
            truth = speaking(track)
            found = heard(own[channel], len(truth))
            others = speaking((B, A)[channel]) & ~truth
            assert found[truth].mean() > 0.95
            assert found[others].mean() < 0.1

    def test_without_leaks_nothing_is_taken(self):
        own = without_crosstalk(recorded(A, B), {0: self.ALL, 1: self.ALL})
        assert own == {0: self.ALL, 1: self.ALL}

    def test_quiet_words_under_a_louder_talker_stay(self):
        """A back-channel, 9 dB below the person who has the floor, without and with the leak beneath it."""
        aside = np.zeros_like(A)
        aside[16 * SAMPLE_RATE : 16 * SAMPLE_RATE + 3 * SYLLABLE] = 0.35 * voice(77, 3)
        span = Span(16_000, 16_600)
        for leak in (0.0, 0.05):
            recording = recorded(A + leak * B, B + aside + leak * A)
            own = without_crosstalk(recording, {0: self.ALL, 1: self.ALL})
            kept = sum(piece.overlap_ms(span) for piece in own[1])
            assert kept > 500

    def test_channels_keep_their_numbers(self):
        recording = recorded(0 * A, *leaking(-20))
        own = without_crosstalk(recording, {1: self.ALL, 2: self.ALL})
        assert list(own) == [1, 2]
        assert heard(own[1], 750)[speaking(A)].mean() > 0.95

    def test_somebody_who_only_listens_says_nothing(self):
        """Told to split, the third microphone has nobody's words but leaks, and a low level of its own."""
        recording = recorded(A + 0.1 * B, B + 0.1 * A, 0.1 * BOTH)
        own = without_crosstalk(recording, dict.fromkeys(range(3), self.ALL))
        assert heard(own[2], 750).mean() < 0.1
        assert heard(own[1], 750)[speaking(B)].mean() > 0.95

    def test_one_channel_is_left_alone(self):
        assert without_crosstalk(recorded(A), {0: self.ALL}) == {0: self.ALL}

    def test_block_edges_do_not_matter(self, monkeypatch):
        recording = recorded(*leaking(-20))
        whole = without_crosstalk(recording, {0: self.ALL, 1: self.ALL})
        monkeypatch.setattr("wieldy.speech.channels.BLOCK_FRAMES", 200)
        monkeypatch.setattr("wieldy.speech.channels.BLOCK_S", 6.4)
        blockwise = without_crosstalk(recording, {0: self.ALL, 1: self.ALL})
        for channel in whole:
            assert np.mean(heard(whole[channel], 750) != heard(blockwise[channel], 750)) < 0.03


def test_turns_of_split_channels():
    speech = {0: (Span(0, 1000), Span(1000, 1500)), 2: (Span(1200, 2000),), 5: ()}
    assert active_turns_per_channel(speech) == (
        Turn(0, 1500, "S1", overlap=True, stream=0),
        Turn(1200, 2000, "S2", overlap=True, stream=2),
    )
