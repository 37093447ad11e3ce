"""Damaged recordings by the thousand, each made from its seed alone; run as a program, it reads them.

    python mutate.py FIRST LAST FOLDER

reads the recordings of seeds FIRST to LAST - 1 and prints how many were audio and how many were refused. It is a
program so that a crash or a hang of a native decoder takes down a child and not the test run; the last line of
`FOLDER/in-flight` then names the seed.
"""

import faulthandler
import functools
import io
import os
import random
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 16_000
SECONDS_PER_FILE = 20  # none takes a tenth of that; a decoder that takes longer hangs
BYTES_OF_MEMORY = 3 << 30  # address space, of which the libraries take 1 GB
ABSURD = (0, 1, 2, 3, 64, 65, 255, 1000, 65_535, 768_000, 2**31 - 1, 2**31, 2**32 - 1)
SOUNDFILE_KINDS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "wavex.wav": ("WAVEX", "PCM_24"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "aiff": ("AIFF", "PCM_16"),
}
LIBAV_KINDS = {"m4a": ("mp4", "aac"), "mkv": ("matroska", "libopus")}
KINDS = (*SOUNDFILE_KINDS, *LIBAV_KINDS)


def mutated(seed: int, whole: Callable[[str], bytes] | None = None) -> tuple[str, bytes]:
    """A file's ending and its damaged bytes; `whole` gives the undamaged ones of a kind, by default `intact`."""
    rng = random.Random(seed)
    kind = rng.choice(KINDS)
    content = bytearray((whole or intact)(kind))
    for _ in range(rng.choice((1, 1, 1, 3))):
        damage = rng.choice((_flip_header, _flip_anywhere, _absurd_number, _absurd_number, _cut, _repeat))
        damage(content, rng)
    if rng.random() < 0.05:  # nothing but the first bytes is left of the file
        content[rng.choice((4, 12, 40)) :] = rng.randbytes(rng.choice((0, 1, 100, 4000)))
    return kind.split(".")[-1], bytes(content)


@functools.cache
def intact(kind: str) -> bytes:
    """A second and a half of a chirp over noise, in two channels."""
    time = np.arange(RATE * 3 // 2) / RATE
    chirp = 0.3 * np.sin(2 * np.pi * (200 + 800 * time) * time)
    samples = np.stack([chirp, 0.1 * np.random.default_rng(0).standard_normal(len(time))], axis=1).astype(np.float32)
    return encoded(samples, RATE, kind)


def encoded(samples: np.ndarray, rate: int, kind: str) -> bytes:
    """`samples` [n, channels] as the bytes of a file of one of `KINDS`."""
    file = io.BytesIO()
    if kind in SOUNDFILE_KINDS:
        container, subtype = SOUNDFILE_KINDS[kind]
        soundfile.write(file, samples, rate, subtype=subtype, format=container)
        return file.getvalue()
    container, codec = LIBAV_KINDS[kind]
    with av.open(file, "w", format=container) as output:
        layout = "mono" if samples.shape[1] == 1 else "stereo"
        stream = output.add_stream(codec, rate=rate if codec == "aac" else 48_000, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.format, stream.layout, stream.rate, frame_size=stream.frame_size)
        for converted in (*resampler.resample(frame), *resampler.resample(None), None):
            output.mux(stream.encode(converted))
    return file.getvalue()


def _flip_header(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        content[rng.randrange(min(len(content), 128))] = rng.randrange(256)


def _flip_anywhere(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 10, 200))):
        content[rng.randrange(len(content))] = rng.randrange(256)


def _absurd_number(content: bytearray, rng: random.Random) -> None:
    """Sizes, sample rates and channel counts lie in the first bytes, at even offsets, in either byte order."""
    number, form = rng.choice(ABSURD), rng.choice(("<I", ">I", "<H", ">H"))
    at = 2 * rng.randrange(min(len(content) - 4, 64) // 2)
    struct.pack_into(form, content, at, number & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))


def _cut(content: bytearray, rng: random.Random) -> None:
    keep = rng.choice((rng.randint(4, 100), rng.randint(4, len(content))))
    del content[max(8, keep) :]


def _repeat(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    part = content[start : start + rng.choice((1, 7, 1000))]
    at = rng.randrange(len(content))
    content[at:at] = part * rng.choice((1, 3))


def read_all(first: int, last: int, folder: Path) -> None:
    """Read the recordings of seeds `first` to `last` - 1, every sample of each."""
    from wieldy.errors import InputError
    from wieldy.speech.audio import Recording

    audio = refused = 0
    with (folder / "in-flight").open("w") as in_flight:
        for seed in range(first, last):
            print(seed, file=in_flight, flush=True)
            faulthandler.dump_traceback_later(SECONDS_PER_FILE, exit=True)
            ending, content = mutated(seed)
            path = folder / f"{seed}.{ending}"
            path.write_bytes(content)
            try:
                with Recording.open(path) as recording:
                    count = 0
                    for block in recording.blocks(0.7):
                        if not (np.isfinite(block).all() and np.abs(block).max() <= 1):
                            raise ValueError(f"samples out of range in {path}")
                        count += block.shape[1]
                    if count != recording.sample_count:
                        raise ValueError(f"{count} samples in {path}, {recording.sample_count} promised")
                audio += 1
            except InputError as error:
                if str(path) not in str(error) or "\n" in str(error):
                    raise
                refused += 1
            path.unlink()
    print(f"{audio} audio, {refused} refused")


if __name__ == "__main__":
    os.environ["WIELDY_CACHE"] = str(Path(sys.argv[3]) / "cache")
    resource.setrlimit(resource.RLIMIT_AS, (BYTES_OF_MEMORY, BYTES_OF_MEMORY))
    read_all(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
