import os
import threading

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.errors import InputError, OutputError
from wieldy.speech import audio
from wieldy.speech.audio import SAMPLE_RATE, Recording


def chirp(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    """[n, channels]; each channel sweeps from 100 Hz to a different end up to 3 kHz."""
    time = np.arange(round(rate * seconds)) / rate
    ends = 3000 - 400 * np.arange(channels)
    return 0.4 * np.sin(2 * np.pi * (100 + (ends - 100) * time[:, None] / (2 * seconds)) * time[:, None])


def saved(path, samples, rate, **options):
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.fixture
def small_memory(monkeypatch):
    """Recordings beyond a quarter of a second do not fit."""
    monkeypatch.setattr(audio, "MEMORY_SAMPLES", SAMPLE_RATE // 4)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100, 48_000, 96_000, 192_000])
def test_resampling_gives_what_would_have_been_recorded_at_16_khz(tmp_path, rate):
    recording = Recording.open(saved(tmp_path / "a.wav", chirp(rate, 2.0), rate, subtype="PCM_24"))
    found = recording.read(0, 2000)
    assert recording.duration_ms == 2000
    assert found.dtype == np.float32
    inner = slice(200, -200)  # at the edges the filter rings
    np.testing.assert_allclose(found[inner], chirp(SAMPLE_RATE, 2.0)[inner, 0], atol=2e-5)


def test_24_bits_survive(tmp_path):
    """A tone 110 dB below full scale, far below the last of 16 bits, comes through the working copy."""
    gain = 10 ** (-110 / 20)
    path = saved(tmp_path / "a.wav", chirp(96_000, 1.0) * gain, 96_000, subtype="PCM_24")
    expected = chirp(SAMPLE_RATE, 1.0)[:, 0] * gain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "MEMORY_SAMPLES", SAMPLE_RATE // 4)
        patch.setenv("WIELDY_CACHE", str(tmp_path / "cache"))
        found = Recording.open(path).read(0, 1000)
    assert np.corrcoef(found[200:-200], expected[200:-200])[0, 1] > 0.99


def test_block_size_does_not_matter(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.wav", chirp(44_100, 1.0, 2), 44_100)
    whole = Recording.open(path).read_channels(0, 1000)
    monkeypatch.setattr("wieldy.speech.containers.BLOCK_SAMPLES", 998)
    np.testing.assert_allclose(Recording.open(path).read_channels(0, 1000), whole, atol=1e-6)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same samples in memory, and in the three other places they may be read from."""
    folder = tmp_path_factory.mktemp("stores")
    samples = (chirp(SAMPLE_RATE, 1.5, 3) * 32_767).astype(np.int16)
    paths = [saved(folder / f"a.{kind}", samples, SAMPLE_RATE) for kind in ("wav", "flac", "aiff")]
    in_memory = Recording.open(paths[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "MEMORY_SAMPLES", SAMPLE_RATE // 4)
        patch.setenv("WIELDY_CACHE", str(folder / "cache"))
        others = [Recording.open(path) for path in paths]
    kinds = [type(recording._store).__name__ for recording in (in_memory, *others)]
    assert kinds == ["_InMemory", "_Original", "_WorkingCopy", "_WorkingCopy"]
    return in_memory, others


class TestStores:
    """Memory, working copy and the original file give the same samples."""

    @given(start=st.integers(0, 1600), length=st.integers(0, 1600), channel=st.integers(0, 2))
    @settings(max_examples=60)
    def test_any_read_is_the_same(self, stores, start, length, channel):
        in_memory, others = stores
        expected = in_memory.read(start, start + length, channel)
        assert len(expected) == max(0, min(start + length, 1500) - min(start, 1500)) * 16
        for other in others:
            np.testing.assert_array_equal(other.read(start, start + length, channel), expected)

    def test_blocks_cover_everything_once(self, stores):
        in_memory, others = stores
        for recording in (in_memory, *others):
            blocks = list(recording.blocks(0.4))
            assert [block.shape for block in blocks] == [(3, 6400)] * 3 + [(3, 4800)]
            np.testing.assert_array_equal(np.concatenate(blocks, axis=1), in_memory.read_channels(0, 1500))

    def test_several_threads_may_read(self, stores):
        in_memory, others = stores
        wrong = []

        def read_often(recording, seed):
            for start in np.random.default_rng(seed).integers(0, 1400, 200).tolist():
                if not np.array_equal(recording.read(start, start + 50), in_memory.read(start, start + 50)):
                    wrong.append((recording, start))

        threads = [
            threading.Thread(target=read_often, args=(recording, seed)) for recording in others for seed in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_what_is_read_is_the_readers_own(self, stores):
        in_memory, others = stores
        for recording in (in_memory, *others):
            for array in (recording.read(0, 10), recording.read_channels(0, 10), next(recording.blocks())):
                array[...] = 9.0
            assert recording.read(0, 10).max() < 1

    def test_views(self, stores):
        in_memory, others = stores
        all_channels = in_memory.read_channels(0, 1500)
        for recording in (in_memory, *others):
            second, mean = recording.channel(1), recording.mean((0, 2))
            np.testing.assert_array_equal(second.read(100, 900), all_channels[1, 1600:14_400])
            np.testing.assert_allclose(mean.read(0, 1500), all_channels[[0, 2]].mean(axis=0), atol=1e-7)
            assert [block.shape for block in second.blocks(1.0)] == [(1, 16_000), (1, 8000)]
            assert len({recording.digest, second.digest, mean.digest}) == 3
            with pytest.raises(InputError, match="no channel 3: its channels are 0 to 2"):
                recording.channel(3)
            with pytest.raises(InputError, match="no channel 1: its channels are 0 to 0"):
                second.read(0, 10, channel=1)


def test_working_copy_has_no_name_and_does_not_outlive_the_recording(tmp_path, small_memory, monkeypatch):
    monkeypatch.setenv("WIELDY_CACHE", str(tmp_path / "cache"))
    with Recording.open(saved(tmp_path / "a.wav", chirp(8000, 1.0), 8000)) as recording:
        assert recording.read(0, 1000).any()
        assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        recording.read(0, 10)


def test_no_room_for_the_working_copy(tmp_path, small_memory, monkeypatch):
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the cache should be")
    monkeypatch.setenv("WIELDY_CACHE", str(blocked))
    path = saved(tmp_path / "a.wav", chirp(8000, 1.0), 8000)
    with pytest.raises(
        OutputError, match=r"cannot keep the sound of .*a\.wav in .*cache: .*set WIELDY_CACHE"
    ) as raised:
        Recording.open(path)
    assert raised.value.exit_status == 1


def test_nothing_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "MAX_SECONDS", 1)
    with pytest.raises(InputError, match="more than 0 h of audio: cut it into parts"):
        Recording.open(saved(tmp_path / "a.flac", np.zeros(20_000), SAMPLE_RATE))


class TestFromArray:
    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", "int16", "uint8"])
    def test_every_type_has_its_full_scale(self, dtype):
        wave = chirp(SAMPLE_RATE, 0.5)[:, 0]
        scale, offset = {"int32": (2**31, 0), "int16": (2**15, 0), "uint8": (2**7, 128)}.get(dtype, (1, 0))
        recording = Recording.from_array((wave * scale + offset).astype(dtype), SAMPLE_RATE, name="tone")
        np.testing.assert_allclose(recording.read(0, 500), wave, atol=0.01 if dtype == "uint8" else 5e-4)
        assert (recording.name, recording.channels, recording.warnings) == ("tone", 1, ())

    def test_the_array_is_left_alone(self):
        samples = np.array([[np.nan, 1.5, 0.1] * 400], np.float32)
        before = samples.copy()
        recording = Recording.from_array(samples, SAMPLE_RATE)
        recording.read_channels(0, 70)[...] = 7
        np.testing.assert_array_equal(samples, before)
        assert recording.read(0, 70).max() == 1.0

    def test_file_and_array_agree(self, tmp_path):
        samples = (chirp(44_100, 1.0, 2) * 32_767).astype(np.int16)
        from_file = Recording.open(saved(tmp_path / "a.wav", samples, 44_100))
        from_array = Recording.from_array(samples.T, 44_100)
        np.testing.assert_array_equal(from_file.read_channels(0, 1000), from_array.read_channels(0, 1000))

    @pytest.mark.parametrize(
        ("samples", "rate", "message"),
        [
            (np.zeros((2, 3, 4)), 16_000, r"has shape \(2, 3, 4\): samples are \[n\] or \[channels, n\]"),
            (np.float32(1), 16_000, r"has shape \(\)"),
            (np.zeros((16_000, 2)), 16_000, r"has shape \(16000, 2\): samples are \[channels, n\]: transpose"),
            (np.zeros((65, 1000)), 16_000, "has 65 channels: 1 to 64 channels work"),
            (np.zeros((0, 1000)), 16_000, "has 0 channels"),
            (np.zeros(0), 16_000, r"holds no samples \(0 s of audio\)"),
            (np.zeros(1), 16_000, "holds 0.0625 ms of audio: 32 ms is the least that can hold speech"),
            (np.zeros(4000, bool), 16_000, "has samples of type bool: use float, int16, int32 or uint8"),
            (np.zeros(4000, np.int64), 16_000, "has samples of type int64"),
            (np.zeros(4000, complex), 16_000, "has samples of type complex128"),
            (np.array(["a"] * 4000), 16_000, "has samples of type <U1"),
            (np.full(4000, 20_000.0), 16_000, r"has samples up to 20000: float samples lie in \[-1, 1\]"),
            (np.full(4000, np.nan), 16_000, "holds no numbers: all 4,000 samples are NaN or infinite"),
            (np.zeros(4000), 0, "has a sample rate of 0 Hz: rates from 1,000 to 768,000 Hz work"),
            (np.zeros(4000), 999, "has a sample rate of 999 Hz"),
            (np.zeros(4000), 10**9, "has a sample rate of 1,000,000,000 Hz"),
        ],
    )
    def test_refused(self, samples, rate, message):
        with pytest.raises(InputError, match="^clip " + message) as raised:
            Recording.from_array(samples, rate, name="clip")
        assert raised.value.exit_status == 3

    @pytest.mark.parametrize("rate", [1000, 768_000])
    def test_outermost_rates(self, rate):
        assert Recording.from_array(np.zeros((4, rate // 2)), rate).duration_ms == 500


class TestFaultsAreNamed:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, SAMPLE_RATE))

    def warnings(self, samples, rate=SAMPLE_RATE):
        return Recording.from_array(samples, rate).warnings

    def test_a_clean_recording_has_none(self):
        assert self.warnings(self.noise) == ()

    def test_not_a_number(self):
        samples = self.noise.copy()
        samples[0, 5:12] = np.nan
        samples[1, 100] = -np.inf
        recording = Recording.from_array(samples, SAMPLE_RATE)
        assert recording.warnings == ("8 samples are not numbers (NaN or infinite) and were set to 0",)
        assert not recording.read(0, 1)[5:12].any()

    def test_clipped(self):
        assert self.warnings(np.clip(self.noise * 8, -1, 1)) == (
            "20.8% of the samples are clipped; record at a lower level",
        )
        peak_normalised = self.noise / np.abs(self.noise).max()
        assert self.warnings(peak_normalised) == ()

    def test_dead_channel(self):
        for level in (0.0, 1e-5):
            samples = self.noise * [[1.0], [level]]
            assert self.warnings(samples) == ("channel 2 of 2 is dead",)
        assert self.warnings(self.noise * [[1.0], [0.01]]) == ()
        assert self.warnings(np.concatenate([self.noise, np.zeros((2, SAMPLE_RATE))])) == (
            "channels 3, 4 of 4 are dead",
        )

    def test_silent(self):
        assert self.warnings(np.zeros((2, 4000))) == ("the recording is silent",)

    def test_low_rate(self):
        (warning,) = self.warnings(self.noise[0], 4000)
        assert warning.startswith("a sample rate of 4,000 Hz leaves out most consonants")
        assert self.warnings(self.noise[0], 8000) == ()


def test_digest_is_that_of_the_content(tmp_path):
    one = saved(tmp_path / "one.wav", chirp(8000, 0.2), 8000)
    same = saved(tmp_path / "same.wav", chirp(8000, 0.2), 8000)
    other = saved(tmp_path / "other.wav", chirp(8000, 0.3), 8000)
    digests = [Recording.open(path).digest for path in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    samples = np.ones((2, 1000), np.float32) / 2
    variants = [samples, samples.reshape(1, 2000), samples[:, :999]]
    assert len({Recording.from_array(each, 8000).digest for each in variants}) == 3
    assert Recording.from_array(samples, 8000).digest != Recording.from_array(samples, 16_000).digest


class TestFilesThatCannotBeUsed:
    def refuse(self, path, message):
        with pytest.raises(InputError, match=message) as raised:
            Recording.open(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)
        assert raised.value.exit_status == 3

    def test_missing(self, tmp_path):
        self.refuse(tmp_path / "nothing.wav", "nothing.wav does not exist")

    def test_folder(self, tmp_path):
        self.refuse(tmp_path, "is a folder: name the recordings in it")

    def test_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.wav")
        self.refuse(tmp_path / "pipe.wav", "is not a regular file")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_forbidden(self, tmp_path):
        path = saved(tmp_path / "a.wav", chirp(8000, 0.2), 8000)
        path.chmod(0)
        self.refuse(path, "cannot be read: Permission denied")

    def test_impossible_name(self, tmp_path):
        self.refuse(f"{tmp_path}/a\0.wav", "cannot be read: embedded null byte")

    def test_empty(self, tmp_path):
        (tmp_path / "a.wav").touch()
        self.refuse(tmp_path / "a.wav", r"is empty \(0 bytes\)")

    def test_no_samples(self, tmp_path):
        self.refuse(saved(tmp_path / "a.flac", np.zeros((0, 1)), 16_000), "a.flac")

    def test_one_sample(self, tmp_path):
        self.refuse(saved(tmp_path / "a.wav", np.zeros((1, 1)), 16_000), "holds 0.0625 ms of audio")

    def test_only_nan(self, tmp_path):
        path = saved(tmp_path / "a.wav", np.full(4000, np.nan), 16_000, subtype="FLOAT")
        self.refuse(path, "holds no numbers: all 4,000 samples are NaN")

    def test_too_many_channels(self, tmp_path):
        self.refuse(saved(tmp_path / "a.wav", np.zeros((4000, 65)), 16_000), "has 65 channels")

    @pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
    def test_absurd_rate(self, tmp_path, rate):
        path = saved(tmp_path / "a.wav", np.zeros(4000), 16_000)
        content = bytearray(path.read_bytes())
        content[24:28] = rate.to_bytes(4, "little")
        path.write_bytes(content)
        self.refuse(path, f"has a sample rate of {rate:,} Hz: rates from 1,000 to 768,000 Hz work")
