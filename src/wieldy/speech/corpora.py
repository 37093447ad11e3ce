"""Corpora for experiments: sentences of a grammar spoken by synthetic voices, and recordings named by what is said.

`spoken` makes cuts whose words and phones have exact times, for claims, tests and a first recogniser without any
recordings. `digits_corpus` and `joined` read isolated recordings of people and join them to longer utterances.
Error rates on synthetic voices are no forecast of those on people: voices are few, clean and alike.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import lhotse
import numpy as np
import soundfile
import soxr
from lhotse.cut import Cut, CutSet
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.cache import Cache, cache_root, digest, replacing, sha256_of
from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech import corpus, script, synthesize
from wieldy.speech.augment import AugmentConfig, Range, augmented
from wieldy.speech.noise import NoiseKind

Domain = Literal["general", "target", "rephrased"]
VOICES = ("slt", "rms", "awb")  # flite's natural voices, to train on
HELD_OUT_VOICE = "kal16"  # to test on
SAMPLE_RATE = corpus.SAMPLE_RATE
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LEVEL = 10 ** (-26 / 20)  # of active speech re full scale, the nominal level of ITU-T P.56 test material


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """How sentences are spoken. A pair is the lowest and highest value, drawn evenly for each utterance."""

    pace: Range = (0.9, 1.1)  # of the voice's own, 0.5 to 2; pitch stays
    noise_snr_db: Range | None = (20.0, 30.0)  # speech to noise; None: no noise
    noise: tuple[NoiseKind, ...] = ("white", "pink", "babble")
    room_rt60_s: Range | None = None  # time in which the room's echo falls by 60 dB; None: no room
    level_db: Range | None = (-3.0, 3.0)  # around -26 dB re full scale
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 <= self.pace[0] <= self.pace[1] <= 2.0:
            raise UsageError(f"pace is {self.pace}", hint="it is the lowest and highest value, 0.5 to 2")
        _ = self.surroundings  # which checks the rest

    @property
    def surroundings(self) -> AugmentConfig:
        return AugmentConfig(
            speed=None,
            noise_snr_db=self.noise_snr_db,
            noise=self.noise,
            room_rt60_s=self.room_rt60_s,
            level_db=self.level_db,
        )


def sentences(domain: Domain, count: int, seed: int = 0) -> list[str]:
    """So many different sentences of a domain, lower case without punctuation. More sentences with the same seed begin
    with these, so training and test sets are parts of one list.

    "general" has commands, orders and numbers (134 words), "target" medical orders (60 words more), "rephrased" other
    patterns of which at least 70 % of the words are those of general.
    """
    if domain not in get_args(Domain):
        raise UsageError(f"there is no domain {domain!r}", hint=f"choose {', '.join(get_args(Domain))}")
    grammar = {"templates": _grammars()[domain]["templates"], "lists": _grammars()["lists"]}
    return list(itertools.islice(script.sentences(np.random.default_rng(seed), grammar), count))


@functools.cache
def _grammars() -> dict[str, Any]:
    return tomllib.loads(resources.files("wieldy.speech").joinpath("corpora.toml").read_text(encoding="utf-8"))


# --- synthetic voices ------------------------------------------------------------------------------------------------


def spoken(sentences: Sequence[str], voices: Sequence[str] = VOICES, config: CorpusConfig = CorpusConfig()) -> CutSet:
    """The sentences spoken in turn by `voices` (names of `synthesize.voices()`), one cut each, in order.

    Supervisions have the text, the voice as speaker and, where the engine knows the times, the alignments "word" and
    "phone". Sound lies in the cache as 16 kHz FLAC; a corpus made before is only read. Raises `MissingError` where a
    voice's engine is not installed.
    """
    if not (sentences and voices):
        raise UsageError("a corpus needs at least one sentence and one voice")
    known = [synthesize.voice_named(name) for name in voices]
    # Another version of an engine or of this code makes another corpus.
    versions = [(voice, synthesize.engine_version(voice.engine)) for voice in known]
    code = [sha256_of(Path(__file__).with_name(name)) for name in _MADE_BY]
    folder = Cache(cache_root()).path("corpora", digest(list(sentences), versions, config, code), "")
    manifest = folder / "cuts.jsonl.gz"
    if not manifest.exists():
        # The engines are child processes, or release the lock of the interpreter themselves.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            say = functools.partial(_said, folder, config)
            cuts = list(pool.map(say, itertools.count(), sentences, itertools.cycle(known)))
        with replacing(manifest) as temporary:
            CutSet.from_cuts(cuts).to_file(temporary)
    return corpus.read_manifest(manifest)


_MADE_BY = ("corpora.py", "synthesize.py", "augment.py", "noise.py")


def _said(folder: Path, config: CorpusConfig, index: int, sentence: str, voice: synthesize.Voice) -> Cut:
    rng = np.random.default_rng([config.seed, index])
    speech = synthesize.say(sentence, voice, seed=index, speed=float(rng.uniform(*config.pace)))
    samples = speech.samples
    if speech.sample_rate != SAMPLE_RATE:
        samples = soxr.resample(samples, speech.sample_rate, SAMPLE_RATE)
    samples, _ = augmented(_levelled(samples), rng, config.surroundings, SAMPLE_RATE)
    name = f"{voice.name}-{index:05}"
    with replacing(folder / f"{name}.flac") as temporary:
        soundfile.write(temporary, np.clip(samples, -1.0, 1.0), SAMPLE_RATE, subtype="PCM_16")
    recording = lhotse.Recording(
        id=name,
        sources=[lhotse.AudioSource(type="file", channels=[0], source=f"{name}.flac")],
        sampling_rate=SAMPLE_RATE,
        num_samples=samples.size,
        duration=samples.size / SAMPLE_RATE,
    )
    alignment = {"word": _items(speech.words), "phone": _items(speech.phones)} if speech.source == "aligned" else None
    return corpus.cut_of(recording, sentence, speaker=voice.name, alignment=alignment)


def _items(timed: Sequence[tuple[str, float, float]]) -> list[AlignmentItem]:
    return [AlignmentItem(name, round(start, 5), round(end - start, 5)) for name, start, end in timed]


def _levelled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """At the common level of active speech: 20 ms frames within 35 dB of the loudest."""
    powers = _powers(samples)
    active = powers[powers > powers.max(initial=0.0) * 10**-3.5]
    return samples * np.float32(_LEVEL / active.mean() ** 0.5) if active.size else samples


def _powers(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean power of each 20 ms."""
    hop = SAMPLE_RATE // 50
    whole = samples[: samples.size // hop * hop].reshape(-1, hop)
    return np.asarray(np.square(whole, dtype=np.float64).mean(axis=1))


def said_by_voices(phrases: Sequence[str], count: int, lengths: tuple[int, int] = (1, 7), seed: int = 0) -> CutSet:
    """About `count` utterances of phrases in a row, to learn from: half in natural voices (hibari, flite), half in
    espeak-ng's, as far as they are installed, may be handed on and know when their words are spoken."""
    rng = np.random.default_rng(seed)
    chosen = sorted(set(phrases))
    texts = [" ".join(rng.choice(chosen, rng.integers(lengths[0], lengths[1] + 1))) for _ in range(count)]
    known = [voice for voice in synthesize.voices() if voice.shippable]
    kinds = [[voice.name for voice in known if (voice.engine == "espeak-ng") == many] for many in (False, True)]
    kinds = [names for names in kinds if names]
    if not kinds:
        raise MissingError("no synthetic voice is installed", hint="pip install 'wieldy[speech]' brings one")
    turns = [kinds[i % len(kinds)][i // len(kinds) % len(kinds[i % len(kinds)])] for i in range(count)]
    cuts = spoken(texts, turns, CorpusConfig(pace=(0.8, 1.25), noise_snr_db=None, seed=seed))
    return CutSet.from_cuts(cut for cut in cuts if cut.supervisions[0].alignment)


# --- recordings of people --------------------------------------------------------------------------------------------


def digits_corpus(folder: Path | str) -> CutSet:
    """Recordings of single digits by name, `{digit}_{speaker}_{index}.wav`, as the Free Spoken Digit Dataset has them;
    the digit is a number or a word."""
    return named_corpus(folder, {str(digit): word for digit, word in enumerate(DIGITS)})


def named_corpus(folder: Path | str, words: Mapping[str, str] = {}) -> CutSet:
    """Recordings named by what is said, `{said}_{speaker}_{index}`, in order of their names.

    What is said is `words[said]` where that is known, else `said` itself with blanks for hyphens: `turn-on_anna_3.wav`
    is "turn on" by anna. A name of one part has no speaker. Damaged and empty files are found by `corpus.checked`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="name the one with the recordings")
    cuts = []
    for path in sorted(file for file in folder.iterdir() if file.suffix.lower() in corpus.SOUNDS):
        said, *rest = path.stem.split("_")
        text = words.get(said, said.replace("-", " ").lower())
        cuts.append(corpus.recorded(path, text, speaker=rest[0] if rest else None))
    if not cuts:
        raise InputError(f"{folder} has no recordings", hint="their names are like 7_anna_0.wav")
    return CutSet.from_cuts(cuts)


def joined(
    cuts: CutSet,
    rng: np.random.Generator,
    count: int,
    *,
    lengths: tuple[int, int] = (1, 7),
    pause_s: Range = (0.02, 0.3),
    repeats: float = 0.0,
) -> CutSet:
    """`count` utterances, each of some recordings of one speaker in a row, as if said at once.

    `lengths` is the fewest and most recordings in an utterance, `pause_s` the pauses between, before and after them,
    `repeats` the share of recordings that say again what the one before them says, more than by chance.
    Recordings are brought to one level, and the pauses have the noise of the quietest. Every recording of a speaker is
    used before one is used again, and speakers take turns. Sound is in memory at 16 kHz; alignments "word" have the
    place of each recording.
    """
    fewest, most = lengths
    if not 1 <= fewest <= most:
        raise UsageError(f"lengths is {lengths}", hint="it is the fewest and most recordings, at least 1")
    if not 0 <= pause_s[0] <= pause_s[1]:
        raise UsageError(f"pause_s is {pause_s}", hint="it is the shortest and longest pause in seconds, not negative")
    by_speaker: dict[str, list[Cut]] = {}
    for cut in cuts:
        by_speaker.setdefault(cut.supervisions[0].speaker or "unknown", []).append(cut)
    if not by_speaker:
        raise InputError("there are no recordings to make strings of")
    if not 0 <= repeats <= 1:
        raise UsageError(f"repeats is {repeats}", hint="it is a share, 0 to 1")
    decks = {speaker: _Deck(own, rng, repeats) for speaker, own in sorted(by_speaker.items())}
    turns = itertools.cycle(decks.items())
    strings = []
    for index, (speaker, deck) in enumerate(itertools.islice(turns, count)):
        chosen = deck.draw(int(rng.integers(fewest, most + 1)))
        strings.append(_string(f"{speaker}-{index:05}", speaker, chosen, rng, pause_s))
    return CutSet.from_cuts(strings)


class _Deck:
    """Recordings in random order, shuffled again when all have been drawn."""

    def __init__(self, cuts: Sequence[Cut], rng: np.random.Generator, repeats: float) -> None:
        self._cuts, self._rng, self._repeats = cuts, rng, repeats
        self._texts = [corpus.text_of(cut) for cut in cuts]
        self._order: list[int] = []
        self._sounds: dict[int, NDArray[np.float32]] = {}

    def draw(self, count: int) -> list[tuple[str, NDArray[np.float32]]]:
        """What is said in so many recordings, and their sound."""
        drawn: list[tuple[str, NDArray[np.float32]]] = []
        for _ in range(count):
            again = drawn[-1][0] if drawn and self._rng.random() < self._repeats else None
            index = self._next(again)
            drawn.append((self._texts[index], self._sound(index)))
        return drawn

    def _next(self, text: str | None) -> int:
        """The next recording, or the next one of `text` if there is one left."""
        if not self._order:
            self._order = self._rng.permutation(len(self._cuts)).tolist()
        places = range(len(self._order) - 1, -1, -1)
        fitting = (place for place in places if text is None or self._texts[self._order[place]] == text)
        return self._order.pop(next(fitting, -1))

    def _sound(self, index: int) -> NDArray[np.float32]:
        if index not in self._sounds:
            self._sounds[index] = _levelled(corpus.samples_of(self._cuts[index], SAMPLE_RATE))
        return self._sounds[index]


def _string(
    name: str,
    speaker: str,
    chosen: Sequence[tuple[str, NDArray[np.float32]]],
    rng: np.random.Generator,
    pause_s: Range,
) -> Cut:
    pauses = np.rint(rng.uniform(*pause_s, len(chosen) + 1) * SAMPLE_RATE).astype(int).tolist()
    length = sum(pauses) + sum(samples.size for _, samples in chosen)
    whole = rng.standard_normal(length, np.float32) * np.float32(min(_quiet(samples) for _, samples in chosen))
    items, begin = [], 0
    for pause, (text, samples) in zip(pauses, chosen, strict=False):
        begin += pause
        whole[begin : begin + samples.size] += samples * _fades(samples.size)
        items.append(AlignmentItem(text, begin / SAMPLE_RATE, samples.size / SAMPLE_RATE))
        begin += samples.size
    file = io.BytesIO()
    soundfile.write(file, np.clip(whole, -1.0, 1.0), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    recording = lhotse.Recording(
        id=name,
        sources=[lhotse.AudioSource(type="memory", channels=[0], source=file.getvalue())],
        sampling_rate=SAMPLE_RATE,
        num_samples=length,
        duration=length / SAMPLE_RATE,
    )
    text = " ".join(text for text, _ in chosen)
    return corpus.cut_of(recording, text, speaker=speaker, alignment={"word": items})


def _quiet(samples: NDArray[np.float32]) -> float:
    """Level of the quietest tenth of a recording: its noise."""
    powers = _powers(samples)
    return float(np.quantile(powers, 0.1) ** 0.5) if powers.size else 0.0


def _fades(length: int) -> NDArray[np.float32]:
    """1, but up and down over 5 ms at the ends, so that recordings cut in the middle of a sound do not click."""
    ramp = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / (SAMPLE_RATE // 200)
    return np.minimum(ramp, 1.0).astype(np.float32)
