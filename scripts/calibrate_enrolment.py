"""Measure how alike two voices must be for one name: the score of `wieldy.speech.voices.enrolled` and its threshold.

    WIELDY_DATA=FOLDER python scripts/calibrate_enrolment.py [--share ROOT]

Prints the figures and writes `likeness.safetensors` and `enrolment_calibration.json` into
`src/wieldy/speech/voices/`; a test holds the constants of `enrolled.py` to them. The voices are those of
`calibrate_voices.py`, which says where they come from.

Each speaker's clips are dealt into two halves; a person is enrolled from the first T seconds of speech of one half and
tried with those of the other half, of the same speaker and of all others of the same source. Recordings are made under
the conditions below. In half of them what tells the speakers' long-term spectra apart is taken away, else microphones
would be told apart. Every figure of a source is of a score learned without that source.

Clips of `fsdd` and `klettres` are single digits and letters: two people who say "three" are more alike than two people
who talk. They take part in learning the score, and their figures are listed, but the threshold comes from the sources
of words and sentences.
"""

from __future__ import annotations

import datetime
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from calibrate_voices import folders, length_s, liken, read_voices
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy import signal
from scipy.cluster import hierarchy

from wieldy.cache import replacing, write_text
from wieldy.speech.audio import SAMPLE_RATE, Recording
from wieldy.speech.diarize.dvector import DVectorDiarizer
from wieldy.speech.simulate import MeetingRecipe, conversation_from_clips
from wieldy.speech.synthesize import Speech
from wieldy.speech.transcript import Transcript
from wieldy.speech.vad import detect_speech
from wieldy.speech.voices import SpeakerEncoder
from wieldy.speech.voices.enrolled import (
    OTHER_PERSON,
    THRESHOLD,
    EnrolledVoice,
    EnrolledVoices,
    Likeness,
)

TARGET = Path(__file__).parents[1] / "src/wieldy/speech/voices"
TALK = ("asterisk", "ktuberling")  # words and sentences, of enough speakers
FALSE_ACCEPTS = 0.001  # of pairs of different people: a wrong name is worse than none
NUISANCE = 16  # directions taken out; of 0, 2, 4, 8, 16, 32 the smallest EER within its spread
ENROLLED_S, TRIED_S = (5, 10, 20, 40), (5, 10, 20)
USUAL = 20, 10  # seconds enrolled and tried, for the threshold
TWO_VOICES, MIN_WINDOWS = 0.65, 60  # see two_voices
STRETCH_S, LEAST_S = 60, 8  # of a recording; of a speaker's clips
CONVERSATIONS = 8  # per source of talk


@dataclass(frozen=True)
class Condition:
    """How a recording sounds; `likened` as in `liken`."""

    likened: float
    noise_db: float
    telephone: bool = False
    room: bool = False


CONDITIONS = {
    "near": Condition(0, 40),
    "near, likened": Condition(1, 40),
    "room": Condition(0.5, 20, room=True),
    "noise": Condition(0.5, 12),
    "telephone": Condition(0, 25, telephone=True),
    "telephone, likened": Condition(1, 25, telephone=True),
}


@dataclass(frozen=True)
class Heard:
    """One made recording: whose, of which half of the clips, and the voices in its windows."""

    source: str
    speaker: str
    half: int
    condition: str
    speech_ms: NDArray[np.int64]  # speech up to the end of each window
    vectors: NDArray[np.float32]

    def first(self, seconds: float) -> NDArray[np.float32] | None:
        """Mean voice of the first seconds of speech; None where there are fewer."""
        enough = self.speech_ms <= seconds * 1000
        return None if enough.all() or not enough.any() else self.vectors[enough].mean(axis=0)


@dataclass(frozen=True)
class Trials:
    """Scores float64 [n], whether both are the same person, and what is compared with what."""

    scores: NDArray[np.float64]
    same: NDArray[np.bool_]
    source: NDArray[np.str_]
    conditions: NDArray[np.str_]  # [n, 2], enrolled and tried

    def where(self, chosen: NDArray[np.bool_]) -> Trials:
        return Trials(self.scores[chosen], self.same[chosen], self.source[chosen], self.conditions[chosen])

    def figures(self) -> dict[str, float]:
        """EER, and what is missed where 1 % of the others are accepted."""
        own, other = np.sort(self.scores[self.same]), np.sort(self.scores[~self.same])
        missed = np.searchsorted(own, own) / len(own)
        accepted = 1 - np.searchsorted(other, own) / len(other)
        nearest = np.abs(missed - accepted).argmin()
        return {
            "same": len(own),
            "different": len(other),
            "eer": round(float(missed[nearest] + accepted[nearest]) / 2, 4),
            "missed_at_1_percent": round(float((own < np.quantile(other, 0.99)).mean()), 4),
        }

    def at(self, threshold: float) -> dict[str, float]:
        return {
            "same": int(self.same.sum()),
            "different": int((~self.same).sum()),
            "missed": round(float((self.scores[self.same] <= threshold).mean()), 4),
            "false_accepts": round(float((self.scores[~self.same] > threshold).mean()), 5),
        }


def make(clips: list[Speech], condition: Condition, rng: np.random.Generator) -> Recording:
    """The clips one after the other, evenly loud, up to `STRETCH_S` of speech, as they sound under the condition."""
    pieces, seconds = [], 0.0
    for clip in clips:
        first, last = (round(time * clip.sample_rate) for time in (clip.words[0].start_s, clip.words[-1].end_s))
        spoken = clip.samples[first:last]
        level = np.sqrt(np.mean(spoken**2))
        pieces += [spoken * (0.05 / max(level, 1e-6)), np.zeros(int(rng.uniform(0.1, 0.5) * SAMPLE_RATE), np.float32)]
        seconds += len(spoken) / SAMPLE_RATE
        if seconds >= STRETCH_S:
            break
    sound = np.concatenate(pieces)
    if condition.room:  # 0.4 s of diffuse decay by 60 dB, 3 dB below the direct sound
        count = int(0.4 * SAMPLE_RATE)
        decay = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
        decay *= np.sqrt(0.5 / (decay**2).sum())
        decay[0] = 1.0
        sound = signal.fftconvolve(sound, decay)[: len(sound)]
    if condition.telephone:
        band = signal.butter(4, (300, 3400), "bandpass", fs=SAMPLE_RATE, output="sos")
        sound = signal.sosfilt(band, sound)
    frequency = np.maximum(np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE), 20)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(sound))) / np.sqrt(frequency), len(sound))  # pink
    noise *= np.sqrt(np.mean(sound**2) / np.mean(noise**2)) * 10 ** (-condition.noise_db / 20)
    return Recording.from_array(np.clip(sound + noise, -1, 1).astype(np.float32), SAMPLE_RATE)


def hear(voices: Mapping[str, dict[str, list[Speech]]], encoder: SpeakerEncoder) -> Iterator[Heard]:
    rng = np.random.default_rng(0)
    for (name, condition), (source, everyone) in itertools.product(CONDITIONS.items(), voices.items()):
        able = {who: clips for who, clips in everyone.items() if sum(map(length_s, clips)) >= LEAST_S}
        for who, clips in liken(able, condition.likened).items():
            for half in (0, 1):
                recording = make(clips[half::2], condition, rng)
                speech = detect_speech(recording)
                windows = encoder.embed_regions(recording, speech)
                ends = windows.spans_ms[:, 1]
                before = [sum(min(span.end_ms, end) - span.start_ms for span in speech if span.start_ms < end)
                          for end in ends.tolist()]  # fmt: skip
                yield Heard(source, who, half, name, np.array(before, np.int64), windows.vectors)


def learn(heard: list[Heard], without: str = "") -> Likeness:
    """m is the mean voice; U are the main directions of what differs between recordings of one person."""
    means: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
    for one in heard:
        if one.source != without and (mean := one.first(10)) is not None:
            means.setdefault((one.source, one.speaker), []).append(mean)
    within = np.concatenate([np.stack(own) - np.mean(own, axis=0) for own in means.values()]).astype(np.float64)
    _, directions = np.linalg.eigh(within.T @ within)
    return Likeness(np.concatenate(list(means.values())).mean(axis=0), directions[:, -NUISANCE:])


def compare(heard: list[Heard], learned: Mapping[str, Likeness], enrolled_s: float, tried_s: float) -> Trials:
    """All trials of one length; a source's own likeness is in `learned`."""
    scores, same, sources, conditions = [], [], [], []
    for source, half in itertools.product(learned, (0, 1)):
        own = [one for one in heard if one.source == source]
        enrolled = [(one, mean) for one in own if one.half == half and (mean := one.first(enrolled_s)) is not None]
        tried = [(one, mean) for one in own if one.half != half and (mean := one.first(tried_s)) is not None]
        if not enrolled or not tried:
            continue
        table = learned[source].scores(*(np.stack([mean for _, mean in side]) for side in (enrolled, tried)))
        for (row, (a, _)), (column, (b, _)) in itertools.product(enumerate(enrolled), enumerate(tried)):
            scores.append(table[row, column])
            same.append(a.speaker == b.speaker)
            sources.append(source)
            conditions.append((a.condition, b.condition))
    return Trials(np.array(scores), np.array(same), np.array(sources), np.array(conditions))


def threshold_of(trials: Trials, sources: tuple[str, ...]) -> float:
    """Where `FALSE_ACCEPTS` of the different people are accepted, the sources counting alike; to two digits."""
    grid = np.arange(0, 1, 0.01)
    rates = [
        np.mean(trials.scores[~trials.same & (trials.source == source)][:, None] > grid, axis=0) for source in sources
    ]
    return float(grid[np.argmax(np.mean(rates, axis=0) <= FALSE_ACCEPTS)].round(2))


def halves_score(vectors: NDArray[np.float32], likeness: Likeness) -> float:
    """How much the two parts of a recording sound alike into which Ward's tree cuts its windows."""
    labels = hierarchy.fcluster(hierarchy.linkage(vectors.astype(np.float64), "ward"), 2, "maxclust")
    means = np.stack([vectors[labels == half].mean(axis=0) for half in (1, 2)])
    return float(likeness.scores(means[:1], means[1:])[0, 0])


def two_voices(heard: list[Heard], learned: Mapping[str, Likeness]) -> dict[str, Any]:
    """How many recordings of one person, and of two who talk equally long or one a fifth, would be refused if their
    parts had to score `TWO_VOICES`. More than half of the right ones would be, so `enroll` does not ask for it."""
    rng = np.random.default_rng(0)
    able = [one for one in heard if len(one.vectors) >= MIN_WINDOWS]
    found: dict[str, list[float]] = {"one": [], "two, half each": [], "two, a fifth and the rest": []}
    for one in able:
        found["one"].append(halves_score(one.vectors[:MIN_WINDOWS], learned[one.source]))
        others = [
            b for b in heard if (b.source, b.condition) == (one.source, one.condition) and b.speaker != one.speaker
        ]
        other = others[rng.integers(len(others))]
        for name, share in (("two, half each", 0.5), ("two, a fifth and the rest", 0.2)):
            count = round(MIN_WINDOWS * share)
            mixed = np.concatenate([one.vectors[: MIN_WINDOWS - count], other.vectors[:count]])
            if len(mixed) == MIN_WINDOWS:
                found[name].append(halves_score(mixed, learned[one.source]))
    return {
        name: {"recordings": len(scores), "refused": round(float(np.mean(np.array(scores) < TWO_VOICES)), 4)}
        for name, scores in found.items()
    }


def name_conversations(
    voices: Mapping[str, dict[str, list[Speech]]],
    heard: list[Heard],
    learned: Mapping[str, Likeness],
    encoder: SpeakerEncoder,
    threshold: float,
) -> dict[str, int]:
    """Whole conversations through the diariser: who of the enrolled and of the others is called what.

    Half of the speakers, and two absent people, are enrolled from `USUAL` seconds under a random condition; they talk
    with clips of the other half. A name is right that the person who talks most in its turns has.
    """
    counts = dict.fromkeys(("enrolled named", "enrolled not named", "others not named", "wrong names"), 0)
    diarizer = DVectorDiarizer()
    for source, index in itertools.product(TALK, range(CONVERSATIONS)):
        rng = np.random.default_rng([7, index])
        samples = [one for one in heard if one.source == source and one.half == 0 and one.first(USUAL[0]) is not None]
        able = sorted({one.speaker for one in samples})
        able = [who for who in able if sum(map(length_s, voices[source][who][1::2])) >= 20]
        talkers = 2 + index % 3
        chosen = rng.choice(able, min(len(able), talkers + 2), replace=False).tolist()
        present, absent = chosen[:talkers], chosen[talkers:]
        people = []
        for who in (*present[: (talkers + 1) // 2], *absent):
            own = [one for one in samples if one.speaker == who]
            mean = own[rng.integers(len(own))].first(USUAL[0])
            people.append(
                EnrolledVoice(who, encoder.fingerprint, ("0",), np.array([20_000]), np.asarray(mean)[None])
            )  # fmt: skip
        clips = liken({who: voices[source][who][1::2] for who in present}, 0.5)
        recipe = MeetingRecipe(minutes=1, noise_db=20, telephone=index % 2 == 1, turn_sentences=(1, 2), seed=index)
        made = conversation_from_clips(clips, recipe)
        recording = Recording.from_array(made.samples, made.sample_rate)
        turns = diarizer.diarize(recording, detect_speech(recording)).turns
        naming = EnrolledVoices(people, encoder, likeness=learned[source], threshold=threshold)
        named = naming.name(Transcript("", turns=turns), recording)
        credited = set()
        for speaker in named.speakers:
            own_turns = [turn for turn in named.turns if turn.speaker == speaker]
            talk = {
                who: sum(t.overlap_ms(u) for t in made.transcript.turns if t.speaker == who for u in own_turns)
                for who in present
            }
            if speaker in {person.name for person in people}:
                right = max(talk, key=lambda who: talk[who]) == speaker
                credited |= {speaker} if right else set()
                counts["wrong names"] += not right
        enrolled = set(present) & {person.name for person in people}
        counts["enrolled named"] += len(enrolled & credited)
        counts["enrolled not named"] += len(enrolled - credited)
        counts["others not named"] += len(set(present) - enrolled - set(named.speakers))
    return counts


def main(arguments: list[str]) -> None:
    voices = read_voices(*folders(arguments, __doc__))
    if missing := [source for source in TALK if source not in voices]:
        raise SystemExit(f"{' and '.join(missing)} are needed; scripts/calibrate_voices.py names the packages")
    encoder = SpeakerEncoder(threads=2)
    heard = list(hear(voices, encoder))
    likeness = learn(heard)
    learned = {source: learn(heard, without=source) for source in voices}
    plain = dict.fromkeys(voices, Likeness(np.zeros(256), np.zeros((256, 1))))

    usual = compare(heard, learned, *USUAL)
    talk = usual.where(np.isin(usual.source, TALK))
    threshold = threshold_of(talk, TALK)
    alike = usual.conditions[:, 0] == usual.conditions[:, 1]
    is_talk = np.isin(usual.source, TALK)
    left_out = {}
    for source in TALK:
        chosen = threshold_of(talk, tuple(other for other in TALK if other != source))
        left_out[source] = {"threshold": chosen} | usual.where(usual.source == source).at(chosen)
    lengths = {f"{a} s, {b} s": compare(heard, learned, a, b) for a, b in itertools.product(ENROLLED_S, TRIED_S)}
    lengths = {name: trials.where(np.isin(trials.source, TALK)) for name, trials in lengths.items()}
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "encoder": encoder.fingerprint,
        "sources": {source: len({one.speaker for one in heard if one.source == source}) for source in voices},
        "constants": {"threshold": threshold, "other_person": OTHER_PERSON},
        "wanted_false_accepts": FALSE_ACCEPTS,
        "talk": {
            "by seconds enrolled, tried": {k: v.figures() | {"at": v.at(threshold)} for k, v in lengths.items()},
            "same condition": talk.where(alike[is_talk]).at(threshold),
            "other condition": talk.where(~alike[is_talk]).at(threshold),
            "source left out of threshold and score": left_out,
        },
        "by source": {
            source: own.figures() | {"at": own.at(threshold)}
            for source in sorted(set(usual.source.tolist()))
            if (own := usual.where(usual.source == source)).same.any()
        },
        "all sources": {
            "score": usual.figures(),
            "plain cosine": compare(heard, plain, *USUAL).figures(),
        },
        "recordings of one person": talk.at(OTHER_PERSON),
        "two voices": two_voices(heard, learned),
        "conversations": name_conversations(voices, heard, learned, encoder, threshold),
    }
    if threshold != THRESHOLD:
        print(f"THRESHOLD in enrolled.py is {THRESHOLD}: set it to {threshold}")
    tensors = {"mean": likeness.mean.astype(np.float32), "nuisance": likeness.nuisance.astype(np.float32)}
    with replacing(TARGET / "likeness.safetensors") as temporary:
        save_file(tensors, temporary, {"encoder": encoder.fingerprint})
    write_text(TARGET / "enrolment_calibration.json", json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
