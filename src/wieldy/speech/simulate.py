"""Make a meeting whose every word, time and speaker is known: for tests, claims and calibration.

`meeting` lets synthetic voices talk; `conversation_from_clips` arranges recordings of real people the same way. Who
overlaps whom, how much, how long people pause and how noisy it is follow a `MeetingRecipe`; the same recipe gives the
same samples. No room acoustics: everyone is close to one microphone.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import soundfile

from wieldy.cache import Cache, cache_root, digest, replacing, sha256_of
from wieldy.errors import InputError, UsageError
from wieldy.speech import formats, script, synthesize
from wieldy.speech.noise import NoiseKind, noise
from wieldy.speech.synthesize import Speech
from wieldy.speech.transcript import Transcript, Turn, Word, merge_turns

SAMPLE_RATE = 16_000  # Hz
_PER_MS = SAMPLE_RATE // 1000


@dataclass(frozen=True, kw_only=True)
class MeetingRecipe:
    """How to make a meeting.

    voices: names of `synthesize.voices()`, one per speaker; they become the speaker labels.
    minutes: about how long, above 0, at most 600: turns are added until they are expected to fill it, and never cut
        off (180 s asked gave 174 to 190 s).
    script: what is said, as (voice, text) turns in order; None generates sentences about work. With a script
        `minutes` is not used.
    overlap: time in which two people speak, as a share of the time in which anybody does, [0, 0.35]; met to the
        millisecond. Never three at once.
    backchannels: share of the overlapped time that consists of short words ("Right.") inside another's turn, [0, 1].
        As many as fit are used; the rest of the overlap is at the ends of turns.
    pause_s: mean pause between turns that do not overlap, in seconds; pauses are 0.1 s plus a gamma distribution of
        shape 2.
    turn_sentences: fewest and most sentences in a turn; between them people pause 0.1 to 0.3 s.
    noise_db: signal-to-noise ratio over active speech in dB; None adds no noise.
    noise: "white", "pink", or "babble" (a dozen of the meeting's voices at once, backwards).
    telephone: limit the whole to 300-3400 Hz at 8 kHz, as a telephone does.
    level_spread_db: standard deviation of the speakers' levels around the same loudness, in dB.
    seed: draws everything that is left to chance.
    """

    voices: tuple[str, ...] = ("heart", "slt", "rms")
    minutes: float = 3.0
    script: tuple[tuple[str, str], ...] | None = None
    overlap: float = 0.0
    backchannels: float = 0.2
    pause_s: float = 0.5
    turn_sentences: tuple[int, int] = (1, 2)
    noise_db: float | None = 20.0
    noise: NoiseKind = "pink"
    telephone: bool = False
    level_spread_db: float = 2.0
    seed: int = 0
    name: str = "meeting"

    def __post_init__(self) -> None:
        fewest, most = self.turn_sentences
        for field, value, holds, rule in (
            ("voices", self.voices, bool(self.voices) and len(set(self.voices)) == len(self.voices), "different names"),
            ("minutes", self.minutes, 0 < self.minutes <= 600, "above 0, at most 600"),
            ("overlap", self.overlap, 0 <= self.overlap <= 0.35, "from 0 to 0.35"),
            ("backchannels", self.backchannels, 0 <= self.backchannels <= 1, "from 0 to 1"),
            ("pause_s", self.pause_s, 0.1 < self.pause_s <= 60, "above 0.1, at most 60"),
            ("noise", self.noise, self.noise in get_args(NoiseKind), "white, pink or babble"),
            ("turn_sentences", self.turn_sentences, 1 <= fewest <= most, "two numbers, the first at least 1"),
            ("noise_db", self.noise_db, self.noise_db is None or -20 <= self.noise_db <= 100, "from -20 to 100"),
            ("level_spread_db", self.level_spread_db, 0 <= self.level_spread_db <= 10, "from 0 to 10"),
        ):
            if not holds:
                raise UsageError(f"{field} of a meeting is {value}", hint=f"it must be {rule}")
        for speaker, _ in self.script or ():
            if speaker not in self.voices:
                raise UsageError(f"the script has a line for {speaker!r}, who is not among the voices {self.voices}")


@dataclass(frozen=True)
class SimulatedMeeting:
    """A meeting and the truth about it. `samples` is float32 [n] at `sample_rate`, on the grid of 16 bits; `overlap`
    the measured share of speech time in which two people speak."""

    samples: np.ndarray
    sample_rate: int
    transcript: Transcript

    @property
    def overlap(self) -> float:
        return overlap_ratio(self.transcript.turns)

    def save(self, path: Path | str) -> tuple[Path, Path]:
        """Write the sound to `path` (.wav or .flac, 16 bits, nothing lost) and the transcript beside it as `.json`."""
        path = Path(path)
        if path.suffix not in (".wav", ".flac"):
            raise UsageError(f"cannot save sound as {path.name}", hint="the name must end in .wav or .flac")
        with replacing(path) as temporary:
            soundfile.write(temporary, self.samples, self.sample_rate, subtype="PCM_16")
        formats.write(self.transcript, path.with_suffix(".json"), "json", overwrite=True)
        return path, path.with_suffix(".json")

    @classmethod
    def load(cls, path: Path | str) -> SimulatedMeeting:
        """What `save` wrote to `path`."""
        samples, sample_rate = soundfile.read(path, dtype="float32")
        return cls(samples, sample_rate, formats.read(Path(path).with_suffix(".json")))


def overlap_ratio(turns: Sequence[Turn]) -> float:
    """Time with two or more speakers over time with at least one; 0.0 where nobody speaks."""
    edges = sorted([(turn.start_ms, 1) for turn in turns] + [(turn.end_ms, -1) for turn in turns])
    anyone = several = active = 0
    for (before, change), (after, _) in itertools.pairwise(edges):
        active += change
        anyone += (after - before) * (active >= 1)
        several += (after - before) * (active >= 2)
    return several / anyone if anyone else 0.0


def meeting(recipe: MeetingRecipe, *, cached: bool = True) -> SimulatedMeeting:
    """Let the recipe's voices talk; a meeting made before comes out of the cache if `cached`.

    Raises `MissingError` where a voice's engine is not installed, `UsageError` where the recipe cannot be met.
    """
    if not cached:
        return _held(recipe)
    engines = sorted({synthesize.voice_named(name).engine for name in recipe.voices})
    # Another version of an engine or of this code makes another meeting.
    code = [sha256_of(Path(__file__).with_name(name)) for name in _MADE_BY]
    key = digest(recipe, [(engine, synthesize.engine_version(engine)) for engine in engines], code)
    path = Cache(cache_root()).path("meetings", key, ".flac")
    if not (path.exists() and path.with_suffix(".json").exists()):
        _held(recipe).save(path)
    return SimulatedMeeting.load(path)


_MADE_BY = ("simulate.py", "synthesize.py", "script.py", "script.toml", "noise.py")


def _held(recipe: MeetingRecipe) -> SimulatedMeeting:
    rng = np.random.default_rng([recipe.seed, 0])
    voices = {name: synthesize.voice_named(name) for name in recipe.voices}

    def speak(voice: str, text: str) -> _Clip:
        return _clip(synthesize.say(text, voices[voice], seed=int(rng.integers(2**31))))

    turns: Sequence[_Said]
    if recipe.script is not None:
        turns = [
            _Said(voice, _joined([speak(voice, sentence) for sentence in re.split(r"(?<=[.?!])\s+", text)], rng))
            for voice, text in recipe.script
        ]
    else:
        texts = script.sentences(rng)
        turns = _take_turns(recipe, rng, lambda voice: speak(voice, next(texts)))
    return _compose(recipe, turns, lambda voice: speak(voice, script.backchannel(rng)))


def conversation_from_clips(clips: Mapping[str, Sequence[Speech]], recipe: MeetingRecipe) -> SimulatedMeeting:
    """Arrange recordings of single people as a conversation: one speaker per key, each clip used once, in order.

    `turn_sentences` of the recipe counts clips; its voices and script are not used, and there are no back-channels.
    The conversation ends when `minutes` are reached or the next speaker has nothing left to say. Make the clips with
    `Speech.from_recording`.
    """
    if not clips or not all(clips.values()):
        raise InputError("a conversation needs at least one clip per speaker")
    rng = np.random.default_rng([recipe.seed, 0])
    left = {speaker: map(_clip, said) for speaker, said in clips.items()}
    recipe = dataclasses.replace(recipe, voices=tuple(clips), script=None)
    turns = _take_turns(recipe, rng, lambda speaker: next(left[speaker], None))
    return _compose(recipe, turns)


# --- clips and turns --------------------------------------------------------------------------------------------------

_LEVEL_DB = -26.0  # active speech level re full scale, the nominal level of ITU-T P.56 test material
_MARGIN_MS = 60  # audio kept around the first and last word, faded: releases and breath, not counted as speech
_EDGE_MS = 500  # before the first and after the last turn


@dataclass(frozen=True)
class _Clip:
    """Speech of one person at `SAMPLE_RATE` and at the common level; time 0 is the start of the first word."""

    samples: np.ndarray  # begins at -lead_ms
    lead_ms: int
    words: tuple[Word, ...]

    @property
    def duration_ms(self) -> int:
        return self.words[-1].end_ms


@dataclass(frozen=True)
class _Said:
    """A turn: who, what and when."""

    speaker: str
    clip: _Clip
    start_ms: int = 0


def _clip(speech: Speech) -> _Clip:
    import soxr

    samples = speech.samples.astype(np.float32)
    if speech.sample_rate != SAMPLE_RATE:
        samples = soxr.resample(samples, speech.sample_rate, SAMPLE_RATE)
    start_ms, end_ms = round(speech.words[0].start_s * 1000), round(speech.words[-1].end_s * 1000)
    lead_ms = min(_MARGIN_MS, start_ms)
    samples = samples[(start_ms - lead_ms) * _PER_MS : (end_ms + _MARGIN_MS) * _PER_MS].copy()
    power = float(np.mean(np.square(samples[lead_ms * _PER_MS :], dtype=np.float64))) if samples.size else 0.0
    if power == 0.0:
        raise InputError(f"the speech of {' '.join(word.text for word in speech.words)!r} is silent")
    samples *= 10 ** (_LEVEL_DB / 20) / power**0.5
    fade = np.linspace(0, 1, min(_MARGIN_MS * _PER_MS // 2, samples.size), dtype=np.float32)
    samples[: fade.size] *= fade
    samples[-fade.size :] *= fade[::-1]
    words = []
    for word in speech.words:
        start, end = round(word.start_s * 1000) - start_ms, round(word.end_s * 1000) - start_ms
        words.append(Word(start, max(start, end), word.text, source=speech.source))
    return _Clip(samples, lead_ms, tuple(words))


def _joined(clips: Sequence[_Clip], rng: np.random.Generator) -> _Clip:
    """Clips of one person one after the other, 0.1 to 0.3 s apart: short enough to count as one turn (NIST's
    diarisation rules bridge 0.3 s)."""
    starts = [0]
    for clip in clips[:-1]:
        starts.append(starts[-1] + clip.duration_ms + int(rng.integers(100, 301)))
    said = [_Said("", clip, start) for clip, start in zip(clips, starts, strict=True)]
    words = tuple(_moved(word, one.start_ms) for one in said for word in one.clip.words)
    samples = np.zeros((clips[0].lead_ms + words[-1].end_ms + _MARGIN_MS) * _PER_MS, np.float32)
    for one in said:
        _add(samples, one.clip, clips[0].lead_ms + one.start_ms)
    return _Clip(samples, clips[0].lead_ms, words)


def _take_turns(recipe: MeetingRecipe, rng: np.random.Generator, speak: Callable[[str], _Clip | None]) -> list[_Said]:
    """Turns until the recipe's minutes are reached or somebody has nothing left to say, evenly among the speakers."""
    spoken = dict.fromkeys(recipe.voices, 0)
    turns: list[_Said] = []
    elapsed = 2.0 * _EDGE_MS
    while elapsed < recipe.minutes * 60_000:
        # Whoever has spoken less is more likely to go on; nobody follows themselves.
        others = [name for name in spoken if not turns or len(spoken) == 1 or name != turns[-1].speaker]
        behind = np.array([max(spoken.values()) - spoken[name] + 1000.0 for name in others])
        speaker = others[rng.choice(len(others), p=behind / behind.sum())]
        fewest, most = recipe.turn_sentences
        clips = [speak(speaker) for _ in range(int(rng.integers(fewest, most + 1)))]
        there = [clip for clip in clips if clip is not None]
        if there:
            turns.append(_Said(speaker, _joined(there, rng)))
            spoken[speaker] += turns[-1].clip.duration_ms
            # Overlap shortens the whole, and replaces some of the pauses.
            elapsed += turns[-1].clip.duration_ms / (1 + recipe.overlap) + recipe.pause_s * 1000 * (1 - recipe.overlap)
        if len(there) < len(clips):
            break
    return turns


# --- the layout -------------------------------------------------------------------------------------------------------

# A turn shares at most this part of itself with the one before or after it, and at most _SHARED_BOTH with the two.
_SHARED = 0.6
_SHARED_BOTH = 0.9
# With a back-channel in its middle part a turn shares less at its ends, so that no three people speak at once.
_MIDDLE = (0.3, 0.7)
_SHARED_BESIDE = 0.25
_SHORTEST_MS = 300  # no back-channel is shorter


def _compose(
    recipe: MeetingRecipe, turns: Sequence[_Said], listen: Callable[[str], _Clip] | None = None
) -> SimulatedMeeting:
    """Place the turns in time and mix them. `listen(voice)` speaks a back-channel; None leaves them out."""
    if not turns:
        raise InputError("nobody says anything in this meeting", hint="the script or every clip is empty")
    rng = np.random.default_rng([recipe.seed, 1])
    inside = _backchannels(recipe, turns, listen, rng) if listen else {}
    aside_ms = sum(said.clip.duration_ms for said in inside.values())
    speech_ms = sum(said.clip.duration_ms for said in turns) + aside_ms
    # overlap = both / (speech - both), solved for the time in which both speak.
    both_ms = round(recipe.overlap * speech_ms / (1 + recipe.overlap))
    overlaps = _overlaps(recipe, turns, set(inside), both_ms - aside_ms, rng)
    placed: list[_Said] = []
    start_ms = _EDGE_MS
    for index, said in enumerate(turns):
        placed.append(dataclasses.replace(said, start_ms=start_ms))
        if index in inside:
            placed.append(dataclasses.replace(inside[index], start_ms=start_ms + inside[index].start_ms))
        pause_s = 0.1 + rng.gamma(2.0, (recipe.pause_s - 0.1) / 2)
        start_ms += said.clip.duration_ms
        start_ms += round(pause_s * 1000) if overlaps[index] == 0 else -overlaps[index]
    return _mix(recipe, placed)


def _backchannels(
    recipe: MeetingRecipe, turns: Sequence[_Said], listen: Callable[[str], _Clip], rng: np.random.Generator
) -> dict[int, _Said]:
    """Short words by a listener inside long turns, by index of the turn; times relative to the turn's start."""
    speech_ms = sum(said.clip.duration_ms for said in turns)
    budget_ms = recipe.backchannels * recipe.overlap * speech_ms / (1 + recipe.overlap)
    inside: dict[int, _Said] = {}
    for index in map(int, rng.permutation(len(turns))):
        listeners = [name for name in recipe.voices if name != turns[index].speaker]
        if budget_ms < _SHORTEST_MS or not listeners:
            break
        listener = listeners[rng.integers(len(listeners))]
        clip = listen(listener)
        low, high = (round(part * turns[index].clip.duration_ms) for part in _MIDDLE)
        if clip.duration_ms <= min(high - low, budget_ms):
            inside[index] = _Said(listener, clip, int(rng.integers(low, high - clip.duration_ms + 1)))
            budget_ms -= clip.duration_ms
    return inside


def _overlaps(
    recipe: MeetingRecipe, turns: Sequence[_Said], beside: set[int], wanted_ms: int, rng: np.random.Generator
) -> list[int]:
    """For each turn, how long before its end the next one begins; the sum is exactly `wanted_ms`.

    A random choice of turns overlap by a random part of what they can; if that is not enough, each overlaps more.
    """
    durations = [said.clip.duration_ms for said in turns]
    share = [_SHARED_BESIDE if index in beside else _SHARED for index in range(len(turns))]
    overlaps = [0] * len(turns)

    def room(index: int) -> int:
        if turns[index].speaker == turns[index + 1].speaker:
            return 0
        before = overlaps[index - 1] if index else 0
        return int(
            min(
                share[index] * durations[index],
                share[index + 1] * durations[index + 1],
                _SHARED_BOTH * durations[index] - before,
                _SHARED_BOTH * durations[index + 1] - overlaps[index + 1],
            )
            - overlaps[index]
        )

    left = wanted_ms
    for part in (rng.uniform(0.3, 0.9, len(turns)), np.ones(len(turns))):
        for index in map(int, rng.permutation(len(turns) - 1)):
            more = min(left, round(part[index] * room(index)))
            overlaps[index] += more
            left -= more
    if left:
        most = (wanted_ms - left) / (sum(durations) - wanted_ms + left)
        raise UsageError(
            f"an overlap of {recipe.overlap} does not fit these turns; at most {most:.2f} does",
            hint="ask for less, or for longer or more turns",
        )
    return overlaps


# --- the sound --------------------------------------------------------------------------------------------------------


def _mix(recipe: MeetingRecipe, placed: Sequence[_Said]) -> SimulatedMeeting:
    rng = np.random.default_rng([recipe.seed, 2])
    spread = recipe.level_spread_db * np.clip(rng.standard_normal(len(recipe.voices)), -2, 2)
    gains = dict(zip(recipe.voices, 10 ** (spread / 20), strict=True))
    turns = merge_turns(Turn(said.start_ms, said.start_ms + said.clip.duration_ms, said.speaker) for said in placed)
    duration_ms = max(turn.end_ms for turn in turns) + _EDGE_MS
    samples = np.zeros(duration_ms * _PER_MS, np.float32)
    for said in placed:
        _add(samples, said.clip, said.start_ms, float(gains[said.speaker]))
    if recipe.telephone:
        samples = _telephone(samples)
    if recipe.noise_db is not None:
        added = noise(recipe.noise, samples, rng)
        if recipe.telephone:
            added = _telephone(added)
        active = np.zeros(duration_ms, bool)
        for turn in turns:
            active[turn.start_ms : turn.end_ms] = True
        speech_power = np.mean(np.square(samples.reshape(duration_ms, _PER_MS)[active], dtype=np.float64))
        noise_power = np.mean(np.square(added, dtype=np.float64))
        samples += added * np.float32((speech_power / noise_power) ** 0.5 * 10 ** (-recipe.noise_db / 20))
    peak = float(np.abs(samples).max())
    if peak > _PEAK:
        samples *= _PEAK / peak
    words = sorted(
        (
            dataclasses.replace(_moved(word, said.start_ms), speaker=said.speaker)
            for said in placed
            for word in said.clip.words
        ),
        key=lambda word: (word.start_ms, word.end_ms),
    )
    transcript = Transcript(
        name=recipe.name,
        words=tuple(words),
        turns=turns,
        duration_ms=duration_ms,
        # As JSON gives it back, so that a saved meeting equals the one that was made.
        meta={"recipe": json.loads(json.dumps(dataclasses.asdict(recipe))), "overlap": overlap_ratio(turns)},
    )
    return SimulatedMeeting(np.round(samples * 32768) / np.float32(32768), SAMPLE_RATE, transcript)


_PEAK = 0.98  # louder mixtures are turned down as a whole


def _add(samples: np.ndarray, clip: _Clip, start_ms: int, gain: float = 1.0) -> None:
    begin = (start_ms - clip.lead_ms) * _PER_MS
    samples[begin : begin + clip.samples.size] += gain * clip.samples[: samples.size - begin]


def _moved(word: Word, by_ms: int) -> Word:
    return dataclasses.replace(word, start_ms=word.start_ms + by_ms, end_ms=word.end_ms + by_ms)


def _telephone(samples: np.ndarray) -> np.ndarray:
    """What is left at 8 kHz between 300 and 3400 Hz, the band of ITU-T G.712."""
    import soxr
    from scipy.signal import butter, sosfiltfilt

    narrow = soxr.resample(samples, SAMPLE_RATE, 8000)
    band = butter(2, (300, 3400), "bandpass", fs=8000, output="sos")
    # Forwards and backwards: no delay, so that the words stay where they are.
    wide = soxr.resample(np.asarray(sosfiltfilt(band, narrow), np.float32), 8000, SAMPLE_RATE)
    return np.pad(wide, (0, max(0, samples.size - wide.size)))[: samples.size]
