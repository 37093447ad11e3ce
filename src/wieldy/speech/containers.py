"""Samples out of files, at the rate and with the channels they were stored with.

libsndfile is asked first (WAV, FLAC, Ogg, AIFF, ...), then libav (MP3, M4A, MP4, MKV, WebM, ...); no ffmpeg program is
needed. A header is never believed: only what decodes counts. `wieldy.speech.audio` is the only caller.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soundfile

from wieldy.errors import InputError

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream

BLOCK_SAMPLES = 1 << 19  # samples of all channels decoded at once: 2 MB
MAX_DAMAGED_PACKETS = 10_000  # about four minutes of a lossy track; beyond that the rest is noise
MIN_GAP_S, MAX_GAP_S = 0.05, 60.0  # silence is put where time stamps skip this much; a longer skip is a broken stamp
UNCOMPRESSED = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # of WAV
UNKNOWN_FRAMES = 2**63 - 1  # what libsndfile says of a stream whose header gives no length
UNKNOWN_WAV_SIZE = 0x7FFF0000  # programs that write to a pipe put a data size from here up to 0xFFFFFFFF

# Containers that hold their own audio. Playlists and manifests are not among them: those name further files and
# addresses, which a recording from a stranger must not be able to open.
LIBAV_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mp3,aac,ac3,eac3,asf,avi,flv,mpeg,mpegts,ogg,wav,w64,aiff,au,caf,flac,amr,"
    "amrnb,amrwb,ape,wv,tta,dsf,gsm,opus,rm,voc,gxf,mxf,nut,loas,truehd,dts"
)


class Source(Protocol):
    """Something that yields samples once, from start to end."""

    rate: int  # Hz
    channels: int
    warnings: list[str]  # complete once `blocks` is exhausted
    seekable: Path | None  # the file, where libsndfile can read any part of it by seeking, damaged or not

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples in order as fresh float32 arrays [n, channels], about `BLOCK_SAMPLES` at a time."""
        ...

    def close(self) -> None: ...


class _Libsndfile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._sound = open_sound(path)
        self.rate, self.channels = self._sound.samplerate, self._sound.channels
        self.warnings: list[str] = []
        plain = self._sound.format in ("WAV", "WAVEX", "RF64") and self._sound.subtype in UNCOMPRESSED
        self.seekable = path if plain else None

    @property
    def is_empty(self) -> bool:
        """Whether the header speaks of no samples at all, as that of a recorder that was switched off does."""
        return bool(self._sound.frames == 0)

    def blocks(self) -> Iterator[np.ndarray]:
        step = max(1, BLOCK_SAMPLES // self.channels)
        decoded = 0
        fault = None
        try:
            while True:
                block = self._sound.read(out=np.empty((step, self.channels), np.float32))
                decoded += len(block)
                yield block
                if len(block) < step:
                    break
        except soundfile.LibsndfileError:
            fault = decoded
            for block in self._as_libav_goes_on(fault):
                decoded += len(block)
                yield block
        claimed = self._claimed_frames(decoded)
        if claimed > decoded:
            self.warnings.append(_cut_short(claimed / self.rate, decoded / self.rate))
        elif fault is not None:
            self.warnings.append(f"the file is damaged somewhere after {_clock(fault / self.rate)}")

    def _as_libav_goes_on(self, done: int) -> Iterator[np.ndarray]:
        """The samples after the first `done`, from libav, which finds its way again after a fault."""
        with contextlib.suppress(_UnusableError), contextlib.closing(_Libav(self._path)) as source:
            if (source.rate, source.channels) == (self.rate, self.channels):
                for block in source.blocks():
                    yield block[done:]
                    done = max(0, done - len(block))

    def _claimed_frames(self, decoded: int) -> int:
        """How many frames the header speaks of. libsndfile corrects a WAV header silently but logs both sizes."""
        if sizes := re.search(r"^data : (\d+) \(should be (\d+)\)", self._sound.extra_info, re.MULTILINE):
            claimed, found = map(int, sizes.groups())
            return round(decoded * claimed / found) if found and claimed < UNKNOWN_WAV_SIZE else decoded
        frames: int = self._sound.frames
        return frames if frames != UNKNOWN_FRAMES else decoded

    def close(self) -> None:
        self._sound.close()


class _UnusableError(Exception):
    """Why libav finds nothing to decode, for the end of a sentence about the file."""


class _Libav:
    """The best audio track of a media file."""

    def __init__(self, path: Path) -> None:
        import av

        # An open file, because libav takes a path such as "concat:a|b" for a protocol of that name.
        self._file = path.open("rb")
        try:
            self._container = av.open(
                self._file,
                "r",
                container_options={"format_whitelist": LIBAV_FORMATS, "protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except av.FFmpegError:
            self._file.close()
            raise _UnusableError("it is not audio in a known format") from None
        self.warnings: list[str] = []
        self.seekable: Path | None = None
        self._damaged = 0  # packets
        try:
            self._track = self._best_track()
            self._frames = self._decoded_frames()
            first = next(self._frames, None)
            if first is None:
                raise _UnusableError("its audio track cannot be decoded (damaged or encrypted)")
        except BaseException:
            self.close()
            raise
        self.rate: int = first.sample_rate
        self.channels: int = first.layout.nb_channels
        self._first = first

    def _best_track(self) -> AudioStream:
        tracks = self._container.streams.audio
        if not tracks:
            raise _UnusableError("it has no audio track")
        best = self._container.streams.best("audio")
        number = next((number for number, track in enumerate(tracks) if track is best), 0)
        if len(tracks) > 1:
            self.warnings.append(f"the file has {len(tracks)} audio tracks; number {number + 1} is used")
        return tracks[number]

    def _decoded_frames(self) -> Iterator[AudioFrame]:
        import av

        packets = self._container.demux(self._track)
        while self._damaged <= MAX_DAMAGED_PACKETS:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.has_sidedata("encryption_info"):
                    raise _UnusableError("its audio track is encrypted")
                yield from (frame for frame in packet.decode() if isinstance(frame, av.AudioFrame))
            except av.FFmpegError:
                self._damaged += 1

    def blocks(self) -> Iterator[np.ndarray]:
        import av

        layout = self._first.layout
        convert, accepted = None, None
        waiting: list[np.ndarray] = []
        waiting_samples = 0
        position = 0  # samples since the start of the file
        started = (self._container.start_time or 0) / av.time_base
        for frame in itertools.chain([self._first], self._frames):
            # A track may change its format; everything is brought to that of its first frame.
            if accepted != (frame.format.name, frame.layout.name, frame.sample_rate):
                accepted = (frame.format.name, frame.layout.name, frame.sample_rate)
                convert = av.AudioResampler(format="flt", layout=layout, rate=self.rate)
            assert convert is not None
            gap = 0 if frame.time is None else round((frame.time - started) * self.rate) - position
            if MIN_GAP_S * self.rate < gap <= MAX_GAP_S * self.rate:
                waiting.append(np.zeros((gap, self.channels), np.float32))
                position += gap
            frame.pts = None  # the converter would fill gaps in a way of its own
            try:
                converted = convert.resample(frame)
            except (av.FFmpegError, ValueError):
                self._damaged += 1
                continue
            for part in converted:
                waiting.append(part.to_ndarray().reshape(-1, self.channels))
                position += len(waiting[-1])
            waiting_samples += frame.samples * self.channels
            if waiting_samples >= BLOCK_SAMPLES:
                yield np.concatenate(waiting)
                waiting.clear()
                waiting_samples = 0
        if waiting:
            yield np.concatenate(waiting)
        if self._damaged:
            self.warnings.append(f"{self._damaged} packets of the audio track are damaged and were left out")
        # Only MP4 and its kin have a table of every sample; elsewhere the length is a guess or that of the video.
        if "mov" in self._container.format.name and self._track.duration and self._track.time_base:
            claimed_s, found_s = float(self._track.duration * self._track.time_base), position / self.rate
            if claimed_s > found_s + MIN_GAP_S:
                self.warnings.append(_cut_short(claimed_s, found_s))

    def close(self) -> None:
        self._container.close()
        self._file.close()


def open_sound(path: Path) -> soundfile.SoundFile:
    """The file in libsndfile, by its content alone: given a path, soundfile goes by the ending of some names."""
    return soundfile.SoundFile(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))


def open_source(path: Path) -> Source:
    """libsndfile where it can read the file, else libav."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise InputError(f"{path} is empty (0 bytes)")
    if not _holds_mpeg_audio(head):
        with contextlib.suppress(soundfile.LibsndfileError):
            sound = _Libsndfile(path)
            if not sound.is_empty:
                return sound
            sound.close()
    try:
        return _Libav(path)
    except _UnusableError as reason:
        raise InputError(f"{path} cannot be used: {reason}") from None


def _holds_mpeg_audio(head: bytes) -> bool:
    """MP3, bare or in a WAV: for libav, because libsndfile's decoder writes its complaints to standard error."""
    bare = head.startswith(b"ID3") or (head[0] == 0xFF and head[1:2] >= b"\xe0")
    format_chunk = head.find(b"fmt ")
    in_wav = head.startswith(b"RIFF") and head[format_chunk + 8 : format_chunk + 10] in (b"\x50\0", b"\x55\0")
    return bare or in_wav


def _cut_short(claimed_s: float, found_s: float) -> str:
    return f"the file is cut short: its header says {_clock(claimed_s)}, {_clock(found_s)} are there"


def _clock(seconds: float) -> str:
    """A length or a moment for a message: "2.50 s" or "1:02:03"."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02} min"
