"""Files as they come: every format, and the ones that are damaged, locked or after something else."""

import contextlib
import os
from pathlib import Path

import av
import mutate
import numpy as np
import pytest
import soundfile

from wieldy.errors import InputError
from wieldy.speech.audio import SAMPLE_RATE, Recording

RATE = 48_000


def tone(start_s: float, end_s: float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """1 kHz from `start_s` to `end_s` in silence, [n, 1]."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2000 * np.pi * time) * ((start_s <= time) & (time < end_s)))[:, None].astype(np.float32)


def sounding_ms(recording: Recording) -> list[tuple[int, int]]:
    """When something is heard, to the millisecond."""
    samples = np.concatenate(list(recording.blocks()), axis=1)[0]
    whole = samples[: len(samples) // 16 * 16].reshape(-1, 16)
    edges = np.flatnonzero(np.diff(np.square(whole).mean(axis=1) > 0.03, prepend=0, append=0))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def written(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", mutate.KINDS)
def test_every_format_keeps_its_times(tmp_path, kind):
    recording = Recording.open(written(tmp_path / f"a.{kind}", mutate.encoded(tone(1.0, 1.2), RATE, kind)))
    ((start, end),) = sounding_ms(recording)
    assert abs(start - 1000) <= 2
    assert abs(end - 1200) <= 2
    assert recording.warnings == ()
    assert 2000 <= recording.duration_ms <= 2050  # codecs that work in packets round up


@pytest.mark.parametrize("kind", ["mp3", "flac", "m4a", "ogg"])
def test_the_ending_does_not_matter(tmp_path, kind):
    content = mutate.encoded(tone(1.0, 1.2), RATE, kind)
    for name in ("a.wav", "a.raw", "a", "50% of a:b.mp4", "concat:a|b", os.fsdecode(b"Bespr\xe4che")):
        assert Recording.open(written(tmp_path / name, content)).duration_ms >= 2000


def test_a_long_wav_of_another_name_is_read_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr("wieldy.speech.audio.MEMORY_SAMPLES", SAMPLE_RATE)
    path = written(tmp_path / "a.raw", mutate.encoded(tone(1.0, 1.2, rate=SAMPLE_RATE), SAMPLE_RATE, "wav"))
    recording = Recording.open(path)
    path.unlink()
    assert sounding_ms(recording) == [(1000, 1200)]


def test_no_file_stays_open(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc on this system")
    contents = {kind: mutate.intact(kind) for kind in ("wav", "flac", "mp3", "m4a")}
    contents["txt"] = b"Minutes of the meeting\n" * 99
    paths = [written(tmp_path / f"a.{kind}", content) for kind, content in contents.items()]
    before = len(list(descriptors.iterdir()))
    for path in paths * 3:
        with contextlib.suppress(InputError):
            Recording.open(path)
    assert len(list(descriptors.iterdir())) == before


def test_libav_and_libsndfile_decode_the_same(tmp_path, monkeypatch):
    path = written(tmp_path / "a.flac", mutate.intact("flac"))
    expected = Recording.open(path).read_channels(0, 1500)
    monkeypatch.setattr("wieldy.speech.containers._holds_mpeg_audio", lambda head: True)
    np.testing.assert_allclose(Recording.open(path).read_channels(0, 1500), expected, atol=1e-6)


def video(path, *, options=None, audio_tracks=(), pictures=False, title=""):
    """An MP4 (AAC) or MKV (FLAC). Each audio track is a list of (time in seconds, samples [n, 1] at `RATE`)."""
    codec, form, scale = ("flac", "s16", 32_767) if path.suffix == ".mkv" else ("aac", "fltp", np.float32(1))
    with av.open(str(path), "w", options=options or {}) as output:
        output.metadata["title"] = title
        # Every track is declared before the first packet of any.
        screen = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p") if pictures else None
        tracks = [output.add_stream(codec, rate=RATE, layout="mono") for _ in audio_tracks]
        if screen is not None:
            black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            for frame in (black, None):
                output.mux(screen.encode(frame))
        for track, parts in zip(tracks, audio_tracks, strict=True):
            for start_s, samples in parts:
                for first in range(0, len(samples), 1024):
                    values = np.ascontiguousarray(samples[first : first + 1024].T) * scale
                    frame = av.AudioFrame.from_ndarray(values.astype(np.int16 if form == "s16" else "f4"), form, "mono")
                    frame.sample_rate, frame.pts = RATE, round(start_s * RATE) + first
                    output.mux(track.encode(frame))
            output.mux(track.encode(None))
    return path


def test_time_stamps_that_skip_become_silence(tmp_path):
    """A recorder that drops what it cannot keep up with must not pull the rest of the meeting forward."""
    track = [(0.0, tone(0.5, 0.7, 1.024)), (3.0, tone(0.5, 0.7, 1.024))]
    recording = Recording.open(video(tmp_path / "a.mkv", audio_tracks=[track]))
    (first, second) = sounding_ms(recording)
    assert abs(first[0] - 500) <= 2
    assert abs(second[0] - 3500) <= 2


def test_sound_that_starts_after_the_pictures(tmp_path):
    path = video(tmp_path / "a.mkv", audio_tracks=[[(2.0, tone(0.5, 0.7, 1.024))]], pictures=True)
    ((start, _),) = sounding_ms(Recording.open(path))
    assert abs(start - 2500) <= 2


def test_a_track_that_changes_its_format(tmp_path):
    """Two MP3 files one after the other, as some recorders and radio archives make them."""
    mono, stereo = tone(0.5, 0.7), np.repeat(tone(0.5, 0.7, rate=44_100), 2, axis=1)
    content = mutate.encoded(mono, RATE, "mp3") + mutate.encoded(stereo, 44_100, "mp3")
    recording = Recording.open(written(tmp_path / "a.mp3", content))
    first, second = sounding_ms(recording)
    assert abs(first[0] - 500) <= 2
    assert abs(second[0] - 2500) <= 100  # the second file's encoder delay is heard
    assert second[1] - second[0] == pytest.approx(200, abs=3)


def test_one_of_several_tracks_is_used(tmp_path):
    tracks = [[(0.0, tone(0.2, 0.4, 1.024))], [(0.0, tone(0.6, 0.8, 1.024))]]
    recording = Recording.open(video(tmp_path / "a.mkv", audio_tracks=tracks))
    assert recording.warnings == ("the file has 2 audio tracks; number 1 is used",)
    assert abs(sounding_ms(recording)[0][0] - 200) <= 2


class TestDamaged:
    def test_wav_cut_short(self, tmp_path):
        content = mutate.encoded(tone(0.0, 2.0), RATE, "wav")
        recording = Recording.open(written(tmp_path / "a.wav", content[: len(content) // 2]))
        assert recording.duration_ms == 999
        assert recording.warnings == ("the file is cut short: its header says 2.00 s, 1.00 s are there",)

    def test_wav_whose_recorder_was_switched_off(self, tmp_path):
        """The sizes are written last; until then they are zero."""
        content = bytearray(mutate.encoded(tone(0.5, 0.7), RATE, "wav"))
        content[4:8] = content[40:44] = bytes(4)
        recording = Recording.open(written(tmp_path / "a.wav", bytes(content)))
        assert abs(sounding_ms(recording)[0][0] - 500) <= 2
        assert recording.duration_ms == 2000

    def test_wav_from_a_pipe_has_no_length(self, tmp_path):
        content = bytearray(mutate.encoded(tone(0.5, 0.7), RATE, "wav"))
        content[4:8] = content[40:44] = b"\xff" * 4
        recording = Recording.open(written(tmp_path / "a.wav", bytes(content)))
        assert (recording.duration_ms, recording.warnings) == (2000, ())

    @pytest.mark.parametrize("size", [4, 12, 20, 36, 44])
    def test_wav_that_is_only_a_header(self, tmp_path, size):
        path = written(tmp_path / "a.wav", mutate.intact("wav")[:size])
        with pytest.raises(InputError, match=r"a\.wav (cannot be used: it is not audio|.*cannot be decoded|holds no)"):
            Recording.open(path)

    @pytest.mark.parametrize("kind", ["flac", "mp3", "ogg", "mkv"])
    def test_compressed_and_cut_short(self, tmp_path, kind, capfd):
        noise = 0.1 * np.random.default_rng(0).standard_normal((4 * RATE, 1)).astype(np.float32)
        content = mutate.encoded(noise, RATE, kind)
        recording = Recording.open(written(tmp_path / f"a.{kind}", content[: len(content) // 2]))
        assert 1000 < recording.duration_ms < 3000
        assert recording.read(0, 200).any()
        assert capfd.readouterr() == ("", "")

    def test_flac_that_claims_weeks(self, tmp_path):
        content = bytearray(mutate.encoded(tone(0.0, 2.0), RATE, "flac"))
        content[22:26] = b"\xff" * 4  # the low half of the number of samples
        recording = Recording.open(written(tmp_path / "a.flac", bytes(content)))
        assert recording.duration_ms == 2000
        assert recording.warnings == ("the file is cut short: its header says 24:51:18, 2.00 s are there",)

    @pytest.mark.parametrize("block_samples", [1 << 19, 50_000])
    def test_flac_with_a_broken_middle(self, tmp_path, monkeypatch, block_samples):
        """What follows the fault is kept, and kept in its place."""
        monkeypatch.setattr("wieldy.speech.containers.BLOCK_SAMPLES", block_samples)
        noise = 0.05 * np.random.default_rng(0).standard_normal((6 * RATE, 1)).astype(np.float32)
        content = bytearray(mutate.encoded(noise + tone(4.0, 4.2, 6.0), RATE, "flac"))
        content[len(content) // 2 : len(content) // 2 + 100] = bytes(100)
        recording = Recording.open(written(tmp_path / "a.flac", bytes(content)))
        fault_s = {1 << 19: 0.0, 50_000: 2.08}[block_samples]
        assert recording.warnings == (f"the file is damaged somewhere after {fault_s:.2f} s",)
        assert recording.duration_ms == 6000
        assert abs(sounding_ms(recording)[-1][0] - 4000) <= 2

    def test_mp4_whose_end_is_missing(self, tmp_path):
        track = [(0.0, tone(0.0, 2.0))]
        content = video(tmp_path / "a.mp4", audio_tracks=[track], options={"movflags": "faststart"}).read_bytes()
        recording = Recording.open(written(tmp_path / "b.mp4", content[: len(content) * 3 // 4]))
        assert any("the file is cut short: its header says 2.0" in warning for warning in recording.warnings)
        assert recording.read(100, 200).any()


def test_a_title_in_an_unknown_alphabet(tmp_path):
    path = video(tmp_path / "a.mkv", audio_tracks=[[(0.0, tone(0.2, 0.4, 1.024))]], title="Besprechung")
    content = path.read_bytes()
    assert b"Besprechung" in content
    recording = Recording.open(written(path, content.replace(b"Besprechung", b"Gespr\xe4ch am")))
    assert abs(sounding_ms(recording)[0][0] - 200) <= 2


class TestRefused:
    def refuse(self, path, message):
        with pytest.raises(InputError, match=message) as raised:
            Recording.open(path)
        assert str(path) in str(raised.value)
        assert raised.value.exit_status == 3

    @pytest.mark.parametrize(
        "content", [b"Minutes of the meeting\n" * 99, b"\x89PNG\r\n\x1a\n" + bytes(99), bytes(5000)]
    )
    def test_not_audio(self, tmp_path, content, capfd):
        self.refuse(written(tmp_path / "a.wav", content), "it is not audio in a known format")
        assert capfd.readouterr() == ("", "")

    def test_random_bytes(self, tmp_path):
        content = np.random.default_rng(0).bytes(20_000)
        self.refuse(written(tmp_path / "a.mp3", content), "cannot be used")

    def test_pictures_only(self, tmp_path):
        self.refuse(video(tmp_path / "a.mp4", pictures=True), "cannot be used: it has no audio track")

    def test_encrypted(self, tmp_path):
        options = {
            "encryption_scheme": "cenc-aes-ctr",
            "encryption_key": "00112233445566778899aabbccddeeff",
            "encryption_kid": "112233445566778899aabbccddeeff00",
        }
        path = video(tmp_path / "a.mp4", audio_tracks=[[(0.0, tone(0.0, 1.024, 1.024))]], options=options)
        self.refuse(path, "cannot be used: its audio track is encrypted")

    def test_playlists_open_nothing_else(self, tmp_path):
        """libav would follow them, to other files of the user and to the network."""
        soundfile.write(tmp_path / "secret.wav", tone(0.0, 1.0), RATE)
        playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.wav\n#EXT-X-ENDLIST\n"
        self.refuse(written(tmp_path / "a.m3u8", playlist.encode()), "it is not audio in a known format")
        script = "ffconcat version 1.0\nfile secret.wav\n"
        self.refuse(written(tmp_path / "a.mp3", script.encode()), "it is not audio in a known format")


def test_sample_rate_is_the_files_own(tmp_path):
    """The length in seconds is right, so the rate was read right: from a header that libav has to find out itself."""
    recording = Recording.open(written(tmp_path / "a.mp3", mutate.encoded(tone(0.5, 0.7, rate=22_050), 22_050, "mp3")))
    assert recording.sample_count == pytest.approx(2 * SAMPLE_RATE, abs=20)
