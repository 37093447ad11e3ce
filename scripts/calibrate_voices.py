"""Choose the six calibrated constants of the default diariser on conversations made of real voices.

    WIELDY_DATA=FOLDER python scripts/calibrate_voices.py [--share ROOT]

Prints the figures and writes `src/wieldy/speech/diarize/dvector_calibration.json`; a test holds the defaults of
`DVectorConfig` to it. ROOT is /usr/share where nothing else is said. Sources of voices, absent ones left out by name:

    fsdd            WIELDY_DATA/fsdd                 Free Spoken Digit Dataset, files DIGIT_SPEAKER_TAKE.wav
    asterisk        ROOT/asterisk/sounds             Debian asterisk-core-sounds-{en,fr,it,ru}-g722,
                                                     asterisk-prompt-{es-co,fr-armelle,it-menardi-wav}
    klettres        ROOT/klettres                    Debian klettres-data
    ktuberling      ROOT/ktuberling/sounds           Debian ktuberling-data
    pocketsphinx    ROOT/pocketsphinx/test/data      Debian pocketsphinx-testdata

The speakers of a conversation come from one source, and a random part of what tells their long-term spectra apart is
taken away: else the microphones would be told apart, not the voices. Speech regions are the true ones with edges moved
by up to 0.1 s. The number of speakers is judged by the DER (collar 0.25 s) of the turns that follow from it, the turns
by their DER without a collar. The usual parts that the claim `speech-pipeline` compares with (`wieldy.claims.glue`) are
tuned here too, with as many trials.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import ndimage, signal

from wieldy.cache import write_text
from wieldy.claims import glue
from wieldy.errors import InputError
from wieldy.metrics.turns import TimeErrors, turn_errors
from wieldy.speech.audio import SAMPLE_RATE, Recording
from wieldy.speech.diarize import SpeakerCount
from wieldy.speech.diarize.dvector import (
    MAX_GUESS,
    DVectorConfig,
    Labels,
    cosines_of_voices,
    count_speakers,
    cut_turns,
    likest,
    partition,
    purest,
    ward,
)
from wieldy.speech.simulate import MeetingRecipe, conversation_from_clips
from wieldy.speech.synthesize import Speech
from wieldy.speech.transcript import Span, Turn
from wieldy.speech.voices import SpeakerEncoder, Windows

TARGET = Path(__file__).parents[1] / "src/wieldy/speech/diarize/dvector_calibration.json"
KEEP_WITHIN = 0.002  # of DER: the present constants stay where no others are better by more
PER_CONDITION = 5
CLIPS, LONGEST_S = 160, 8.0  # of a speaker, and of a clip
LEAST_VOICED = 0.5  # of a clip; in one that is mostly noise, whole windows hold no voice and look like a further person

# Folders of one voice each, as far as their names and formats tell; es_MX_f_Allison speaks as en_US_f_Allison too.
ASTERISK = ["en_US_f_Allison", "it_IT_m_Carlo", "it_IT_f_Menardi", "fr_CA_f_June", "ru_RU_f_IvrvoiceRU", "es", "fr"]
KLETTRES = [
    "cs",
    "en",
    "en_GB",
    "es",
    "fr",
    "he",
    "hu",
    "it",
    "lt",
    "nds",
    "nl",
    "uk",
    "nb/alpha",
    "de/syllab",
    "ru/syllab",
]
KTUBERLING = ["de", "el", "fr", "gl", "nn", "sl", "uk", "wa", "fi", "sv", "ro"]
# Folders of several voices, of which one is told by its (sample rate, channels).
KTUBERLING_FORMAT = {"fr": (8_000, 1)}
NOT_SPEECH = ("silence", "beep", "tone", "music")


@dataclass(frozen=True)
class Condition:
    """A kind of conversation; `turn_s` is the mean length of a turn."""

    speakers: int
    seconds: float
    turn_s: float
    overlap: float
    noise_db: float
    telephone: bool = False


CONDITIONS = {
    "1 wide, 40 s": Condition(1, 40, 4, 0.0, 25),
    "1 telephone, 30 s": Condition(1, 30, 2, 0.0, 25, telephone=True),
    "2 telephone, 30 s": Condition(2, 30, 2, 0.05, 25, telephone=True),
    "2 telephone, 60 s": Condition(2, 60, 2, 0.05, 25, telephone=True),
    "2 wide, 30 s": Condition(2, 30, 2, 0.0, 25),
    "2 noisy, 90 s": Condition(2, 90, 4, 0.05, 15),
    "3 telephone, 60 s": Condition(3, 60, 2, 0.0, 25, telephone=True),
    "3 meeting, 90 s": Condition(3, 90, 4, 0.05, 20),
    "4 meeting, 60 s": Condition(4, 60, 4, 0.0, 25),
    "4 overlapping, 120 s": Condition(4, 120, 4, 0.12, 20),
    "5 meeting, 180 s": Condition(5, 180, 4, 0.05, 20),
    "2 overlapping, 120 s": Condition(2, 120, 4, 0.2, 20),
    "3 overlapping, 240 s": Condition(3, 240, 4, 0.2, 20),
    "4 overlapping, 240 s": Condition(4, 240, 4, 0.2, 20),
    "1 wide, 300 s": Condition(1, 300, 8, 0.0, 25),
    "1 telephone, 300 s": Condition(1, 300, 3, 0.0, 25, telephone=True),
    "2 telephone, 400 s": Condition(2, 400, 3, 0.05, 25, telephone=True),
    "2 meeting, 600 s": Condition(2, 600, 5, 0.1, 20),
    "4 meeting, 600 s": Condition(4, 600, 5, 0.1, 20),
}


@dataclass(frozen=True)
class Conversation:
    """What the diariser hears of a conversation, and who really spoke."""

    condition: str
    source: str
    seconds: float
    truth: tuple[Turn, ...]
    speech: tuple[Span, ...]
    windows: Windows
    fine: Windows

    @property
    def speakers(self) -> int:
        return len({turn.speaker for turn in self.truth})


def voice_files(share: Path, data: Path | None) -> Iterator[tuple[str, str, Path]]:
    """(source, speaker, file) of every recording there is, in a fixed order."""
    for path in sorted((data / "fsdd").glob("*.wav")) if data else ():
        yield "fsdd", path.stem.split("_")[1], path
    for source, root, speakers in (
        ("asterisk", share / "asterisk/sounds", ASTERISK),
        ("klettres", share / "klettres", KLETTRES),
        ("ktuberling", share / "ktuberling/sounds", KTUBERLING),
        ("pocketsphinx", share / "pocketsphinx/test/data", ["librivox", "cards"]),
    ):
        for speaker in speakers:
            for path in sorted((root / speaker).rglob("*.*")):
                named_other = any(word in str(path.relative_to(root)) for word in NOT_SPEECH)
                if path.suffix not in (".g722", ".gsm", ".wav", ".ogg", ".opus") or named_other:
                    continue
                if source == "ktuberling" and speaker in KTUBERLING_FORMAT:
                    sound = soundfile.info(path)
                    if (sound.samplerate, sound.channels) != KTUBERLING_FORMAT[speaker]:
                        continue
                yield source, speaker, path


def read_clip(path: Path) -> Speech | None:
    """The recording, or None where it holds no speech or too much."""
    try:
        if path.suffix == ".g722":  # bare code words at 16 kHz, no container to tell
            with av.open(str(path), format="g722") as container:
                frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
            samples = np.concatenate(frames or [np.zeros(0)]).astype(np.float32) / 32768
        else:
            with Recording.open(path) as recording:
                samples = recording.read(0, recording.duration_ms)
        speech = Speech.from_recording(samples, SAMPLE_RATE, path.stem.split("_")[0] or "clip")
    except InputError:
        return None
    return speech if 0.2 <= length_s(speech) <= LONGEST_S and voiced_share(speech) >= LEAST_VOICED else None


def voiced_share(speech: Speech) -> float:
    """How much of the speech lies less than 25 dB below its loudest 10 ms."""
    begin, end = (round(time_s * SAMPLE_RATE) for time_s in (speech.words[0].start_s, speech.words[-1].end_s))
    frames = speech.samples[begin:end][: (end - begin) // 160 * 160].reshape(-1, 160)
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    return float((power > power.max() * 10**-2.5).mean())


def length_s(speech: Speech) -> float:
    return speech.words[-1].end_s - speech.words[0].start_s


def folders(arguments: list[str], usage: str | None) -> tuple[Path, Path | None]:
    """ROOT and WIELDY_DATA of a command line `[--share ROOT]`."""
    match arguments:
        case []:
            share = Path("/usr/share")
        case ["--share", root]:
            share = Path(root)
        case _:
            raise SystemExit(usage)
    data = os.environ.get("WIELDY_DATA")
    return share, Path(data) if data else None


def read_voices(share: Path, data: Path | None) -> dict[str, dict[str, list[Speech]]]:
    """Clips by source and speaker."""
    files: dict[str, dict[str, list[Path]]] = {}
    for source, speaker, path in voice_files(share, data):
        files.setdefault(source, {}).setdefault(speaker, []).append(path)
    for source in ("fsdd", "asterisk", "klettres", "ktuberling", "pocketsphinx"):
        if source not in files:
            print(f"{source} is not there and left out")
    rng = np.random.default_rng(0)
    return {
        source: {
            speaker: [clip for path in rng.permutation(np.array(paths, object))[:CLIPS] if (clip := read_clip(path))]
            for speaker, paths in speakers.items()
        }
        for source, speakers in files.items()
    }


def liken(chosen: dict[str, list[Speech]], part: float) -> dict[str, list[Speech]]:
    """The same clips with `part` of the difference between the speakers' long-term spectra taken away."""
    spectra = {}
    for speaker, clips in chosen.items():
        sound = np.concatenate([clip.samples for clip in clips])[: 60 * SAMPLE_RATE]
        power = signal.welch(sound, SAMPLE_RATE, nperseg=512)[1]
        spectra[speaker] = ndimage.gaussian_filter1d(10 * np.log10(power + 1e-12), 6)
    mean = np.mean(list(spectra.values()), axis=0)
    likened = {}
    for speaker, clips in chosen.items():
        gain = 10 ** (part * np.clip(mean - spectra[speaker], -25, 25) / 20)
        kernel = signal.firwin2(513, np.linspace(0, 1, len(gain)), gain).astype(np.float32)
        likened[speaker] = [
            replace(clip, samples=signal.fftconvolve(clip.samples, kernel, "same").astype(np.float32)) for clip in clips
        ]
    return likened


def converse(voices: dict[str, dict[str, list[Speech]]], encoder: SpeakerEncoder) -> Iterator[Conversation]:
    """The conversations, each source in turn among those with enough speakers who say enough."""
    config = DVectorConfig()
    for number, (name, condition) in enumerate(CONDITIONS.items()):
        needed = 0.5 * condition.seconds / condition.speakers
        able = {
            source: [who for who, clips in speakers.items() if sum(map(length_s, clips)) >= needed]
            for source, speakers in voices.items()
        }
        sources = sorted(source for source, speakers in able.items() if len(speakers) >= condition.speakers)
        for index in range(PER_CONDITION):
            rng = np.random.default_rng([1, number, index])
            source = sources[(index + number) % len(sources)]
            speakers = rng.choice(able[source], condition.speakers, replace=False).tolist()
            chosen = {
                who: [voices[source][who][i] for i in rng.permutation(len(voices[source][who]))] for who in speakers
            }
            median_s = np.median([length_s(clip) for clips in chosen.values() for clip in clips])
            recipe = MeetingRecipe(
                minutes=condition.seconds / 60,
                overlap=condition.overlap,
                turn_sentences=(1, max(1, round(2 * condition.turn_s / median_s) - 1)),
                noise_db=condition.noise_db,
                noise="pink" if index % 2 else "white",
                telephone=condition.telephone,
                seed=1000 * number + index,
            )
            made = conversation_from_clips(liken(chosen, rng.uniform(0, 1)), recipe)
            truth = made.transcript.turns
            speech = regions(truth, made.transcript.duration_ms, rng)
            recording = Recording.from_array(made.samples, made.sample_rate)
            windows = encoder.embed_regions(recording, speech, hop_ms=config.cluster_hop_ms)
            fine = encoder.embed_regions(recording, speech, window_ms=config.turn_window_ms, hop_ms=config.turn_hop_ms)
            yield Conversation(name, source, recording.duration_ms / 1000, truth, speech, windows, fine)


def regions(truth: Sequence[Turn], duration_ms: int, rng: np.random.Generator) -> tuple[Span, ...]:
    """Where anybody speaks, edges moved outwards by up to 100 ms; pauses shorter than that are closed."""
    found: list[Span] = []
    for turn in sorted(truth, key=lambda turn: turn.start_ms):
        start = max(0, turn.start_ms - int(rng.integers(101)))
        end = min(duration_ms, turn.end_ms + int(rng.integers(101)))
        if found and start - found[-1].end_ms < 100:
            found[-1] = Span(found[-1].start_ms, max(found[-1].end_ms, end))
        else:
            found.append(Span(start, end))
    return tuple(found)


def our_turns(one: Conversation, labels: Labels, config: DVectorConfig) -> tuple[Turn, ...]:
    return cut_turns(one.speech, one.windows, labels, one.fine, config)[0]


def error(one: Conversation, turns: Sequence[Turn], collar_s: float) -> float:
    """DER of the turns."""
    blocks, _ = turn_errors(one.truth, turns, collar_s=collar_s)
    return sum(blocks, TimeErrors()).rate or 0.0


def choose(errors: NDArray[np.float64], present: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """Where the mean of `errors` [conversations, ...grid] is smallest, and whether that is what is in use.

    Neighbours in the grid are averaged, so that a plateau wins against a lucky point.
    """
    mean = errors.mean(axis=0)
    if mean[present] <= mean.min() + KEEP_WITHIN:
        return present, True
    smooth = ndimage.uniform_filter(mean, 3, mode="nearest")
    return tuple(int(i) for i in np.unravel_index(smooth.argmin(), mean.shape)), False


def left_out(errors: NDArray[np.float64], conversations: Sequence[Conversation]) -> dict[str, float]:
    """Mean DER on each source with the constants that are best on the others; "all" is over conversations."""
    sources = np.array([one.source for one in conversations])
    held: dict[str, float] = {}
    flat = errors.reshape(len(errors), -1)
    total = 0.0
    for source in sorted(set(sources)):
        best = flat[sources != source].mean(axis=0).argmin()
        here = flat[sources == source, best]
        held[source] = round(float(here.mean()), 4)
        total += float(here.sum())
    return held | {"all": round(total / len(errors), 4)}


def labelled(one: Conversation, number: int) -> Labels:
    return partition(one.windows, np.ones(len(one.windows)), ward(one.windows), number)


def count_error(
    one: Conversation,
    enough: Sequence[int],
    shares: Sequence[float],
    kappas: Sequence[float],
    priors: Sequence[float],
) -> NDArray[np.float64]:
    """DER [enough, shares, kappas, priors] of the number of speakers that these constants find. The last share is 1."""
    config = DVectorConfig()
    der = np.array([
        error(one, our_turns(one, labelled(one, number), config), 0.25)
        for number in range(1, min(MAX_GUESS, len(one.windows)) + 1)
    ])  # fmt: skip
    errors = np.empty((len(shares), len(kappas), len(priors)))
    for row, share in enumerate(shares):
        pure = purest(one.windows, share)
        weights, tree = np.ones(len(pure)), ward(pure)
        partitions = [partition(pure, weights, tree, number) for number in range(1, min(MAX_GUESS, len(pure)) + 1)]
        near = [[likest(cosines_of_voices(pure, weights, labels, prior)) for prior in priors] for labels in partitions]
        differ = np.array(near)[:, None] <= np.array(kappas)[:, None]  # [numbers, kappas, priors]
        errors[row] = der[len(partitions) - 1 - differ[::-1].argmax(axis=0)]
    return np.stack(
        [errors if len(one.windows) >= least else np.repeat(errors[-1:], len(shares), 0) for least in enough]
    )


def turn_error(
    one: Conversation, config: DVectorConfig, sharpnesses: Sequence[float], stays: Sequence[float]
) -> NDArray[np.float64]:
    """DER without a collar [sharpnesses, stays] of the turns, with the number of speakers that is found."""
    labels = labelled(one, count_speakers(one.windows, SpeakerCount(), config)[0])
    return np.array([
        [error(one, our_turns(one, labels, replace(config, sharpness=a, stay=b)), 0.0) for b in stays]
        for a in sharpnesses
    ])  # fmt: skip


def glue_error(one: Conversation, candidates: Sequence[glue.Clustering]) -> NDArray[np.float64]:
    """DER [candidates] of the usual parts under each way of clustering."""
    known: dict[bytes, float] = {}
    errors = []
    for candidate in candidates:
        labels = glue.cluster(one.windows, candidate)
        if (key := labels.tobytes()) not in known:
            known[key] = error(one, glue.turns_of_windows(one.speech, one.windows, labels), 0.25)
        errors.append(known[key])
    return np.array(errors)


def for_each(
    conversations: Sequence[Conversation], work: Callable[..., NDArray[np.float64]], *settings: Any
) -> NDArray[np.float64]:
    """`work(conversation, *settings)` of all, on all cores."""
    with ProcessPoolExecutor() as pool:
        return np.array(list(pool.map(work, conversations, *map(itertools.repeat, settings))))


def row(
    conversations: Sequence[Conversation], turns: Callable[[Conversation], tuple[Turn, ...]]
) -> dict[str, dict[str, float]]:
    """Figures per condition and for all, under one way of finding turns."""
    results: dict[str, list[tuple[float, float, int]]] = {}
    for one in conversations:
        found = turns(one)
        wrong = abs(len({turn.speaker for turn in found}) - one.speakers)
        result = error(one, found, 0.0), error(one, found, 0.25), wrong
        results.setdefault(one.condition, []).append(result)
        results.setdefault("all", []).append(result)
    return {
        name: {
            "der": round(float(np.mean([der for der, _, _ in there])), 4),
            "der_collar": round(float(np.mean([der for _, der, _ in there])), 4),
            "count_right": round(float(np.mean([wrong == 0 for _, _, wrong in there])), 4),
            "count_error": round(float(np.mean([wrong for _, _, wrong in there])), 4),
        }
        for name, there in results.items()
    }


def trust(conversations: Sequence[Conversation], config: DVectorConfig) -> dict[str, dict[str, float]]:
    """How often the number of speakers is right where the diariser says that it is sure, and where it is not."""
    said = []
    for one in conversations:
        number, confidence = count_speakers(one.windows, SpeakerCount(), config)
        said.append((confidence, number == one.speakers))
    figures = {}
    for low, high in ((0.0, 0.5), (0.5, 0.8), (0.8, 1.0)):
        here = [right for confidence, right in said if low <= confidence < high]
        mean = float(np.mean([confidence for confidence, _ in said if low <= confidence < high] or [0.0]))
        figures[f"{low} to {high}"] = {
            "conversations": len(here),
            "mean_confidence": round(mean, 3),
            "count_right": round(float(np.mean(here or [False])), 3),
        }
    return figures


def main(arguments: list[str]) -> None:
    voices = read_voices(*folders(arguments, __doc__))
    if len(voices) < 2:
        raise SystemExit("at least two of the sources are needed; --help names them and the packages")
    conversations = list(converse(voices, SpeakerEncoder(threads=2)))
    seconds = sum(one.seconds for one in conversations)
    print(f"{len(conversations)} conversations, {seconds:.0f} s")

    present = DVectorConfig()
    enough = sorted({40, 80, 120, present.enough})
    shares = sorted({0.5, 0.6, 0.7, 0.8, 1.0, present.kept})
    kappas = sorted({0.91, 0.92, 0.925, 0.93, 0.935, 0.94, 0.95, present.max_likeness})
    priors = sorted({12.0, 24.0, 48.0, present.prior_pairs})
    by_count = for_each(conversations, count_error, enough, shares, kappas, priors)
    count_in_use = (
        enough.index(present.enough),
        shares.index(present.kept),
        kappas.index(present.max_likeness),
        priors.index(present.prior_pairs),
    )
    (g, h, i, j), count_kept = choose(by_count, count_in_use)
    config = replace(present, enough=enough[g], kept=shares[h], max_likeness=kappas[i], prior_pairs=priors[j])
    print("DER with a collar by enough, kept, max_likeness, prior_pairs", enough, shares, kappas, priors, sep="\n")
    print(by_count.mean(axis=0).round(4))

    def found(one: Conversation) -> Labels:
        return labelled(one, count_speakers(one.windows, SpeakerCount(), config)[0])

    sharpnesses = sorted({16.0, 24.0, 32.0, 64.0, present.sharpness})
    stays = sorted({0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, present.stay})
    by_turns = for_each(conversations, turn_error, config, sharpnesses, stays)
    turns_in_use = sharpnesses.index(present.sharpness), stays.index(present.stay)
    (i, j), turns_kept = choose(by_turns, turns_in_use)
    config = replace(config, sharpness=sharpnesses[i], stay=stays[j])
    print("DER without a collar by sharpness and stay", sharpnesses, stays, by_turns.mean(axis=0).round(4), sep="\n")

    # As many trials as for our own six constants, number of speakers and turns together.
    trials = (by_count[0].size + by_turns[0].size) // len(glue.LINKAGES)
    distances = {linkage: np.linspace(0.1, 0.7, trials) for linkage in glue.LINKAGES}
    distances["ward"] = np.geomspace(0.8, 12, trials)  # it grows with the size of the clusters
    candidates = [
        glue.Clustering(linkage, round(float(distance), 3)) for linkage, own in distances.items() for distance in own
    ]
    by_glue = for_each(conversations, glue_error, candidates)
    glued = candidates[int(by_glue.mean(axis=0).argmin())]

    def glue_turns(one: Conversation, how: glue.Clustering, count: SpeakerCount = SpeakerCount()) -> tuple[Turn, ...]:
        return glue.turns_of_windows(one.speech, one.windows, glue.cluster(one.windows, how, count))

    def glue_told(how: glue.Clustering) -> dict[str, dict[str, float]]:
        return row(conversations, lambda one: glue_turns(one, how, SpeakerCount(exactly=one.speakers)))

    # Told the number, another linkage may be best; the threshold plays no part.
    told = {linkage: glue_told(replace(glued, linkage_where_told=linkage)) for linkage in glue.LINKAGES}
    told_linkage = min(told, key=lambda linkage: told[linkage]["all"]["der_collar"])

    rows = {
        "product": row(conversations, lambda one: our_turns(one, found(one), config)),
        "product, number given": row(
            conversations,
            lambda one: our_turns(one, labelled(one, one.speakers), config),
        ),
        "glue": row(conversations, lambda one: glue_turns(one, glued)),
        "glue, number given": told[told_linkage],
    }
    print(f"{'':44s}     DER  collar  count right  count error")
    for condition in (*CONDITIONS, "all"):
        for name, figures in rows.items():
            der, collar, right, wrong = figures[condition].values()
            print(f"{condition:22s}{name:22s}{der:8.3f}{collar:8.3f}{right:13.2f}{wrong:13.2f}")
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "sources": {source: len(speakers) for source, speakers in voices.items()},
        "conversations": len(conversations),
        "seconds": round(seconds),
        "constants": {
            name: getattr(config, name)
            for name in ("enough", "kept", "max_likeness", "prior_pairs", "sharpness", "stay")
        },
        "glue": dataclasses.asdict(replace(glued, linkage_where_told=told_linkage)),
        "kept": {"enough, kept, max_likeness, prior_pairs": count_kept, "sharpness, stay": turns_kept},
        "der_before": {
            "count, collar 0.25 s": round(float(by_count.mean(axis=0)[count_in_use]), 4),
            "turns, no collar": round(float(by_turns.mean(axis=0)[turns_in_use]), 4),
        },
        "smallest_der_on_grid": {
            "count, collar 0.25 s": round(float(by_count.mean(axis=0).min()), 4),
            "turns, no collar": round(float(by_turns.mean(axis=0).min()), 4),
        },
        "confidence": trust(conversations, config),
        "figures": rows,
        "source_left_out": {
            "count, collar 0.25 s": left_out(by_count, conversations),
            "turns, no collar": left_out(by_turns, conversations),
            "glue, collar 0.25 s": left_out(by_glue, conversations),
        },
    }
    write_text(TARGET, json.dumps(report, indent=2) + "\n")
    print(
        json.dumps(
            {
                name: report[name]
                for name in (
                    "constants",
                    "glue",
                    "kept",
                    "confidence",
                    "der_before",
                    "smallest_der_on_grid",
                    "source_left_out",
                )
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
