"""Enrolled voices: people who gave a sample of their speech, and whose names a transcript may then carry.

`enroll` keeps what a person sounds like in one small file; `EnrolledVoices.load(folder).name(transcript, recording)`
gives the speakers of a transcript the names of the people they sound like, and leaves the others as they are. Do not
use it to prove who somebody is: a recording of a voice passes as the voice.

Score. With m the mean voice of many people and U the directions in which the voice of one person moves between
recordings (another room, noise, a telephone), two voices x and y have

    s(x, y) = cos(P (x - m), P (y - m)),    P = I - U U^T        in [-1, 1]

after Solomonoff et al., Advances in channel compensation for SVM speaker recognition (ICASSP 2005). Speakers and people
are paired one to one so that the sum of s - threshold over the pairs is largest; no pair below the threshold is made.

m, U, and the constants below are measured by `scripts/calibrate_enrolment.py`; its figures lie in
`enrolment_calibration.json` beside this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wieldy.cache import replacing
from wieldy.errors import InputError, OutputError, UsageError
from wieldy.speech.audio import Recording
from wieldy.speech.channels import choose_channels, without_crosstalk
from wieldy.speech.transcript import UNKNOWN, Span, Transcript, Turn
from wieldy.speech.vad import detect_speech
from wieldy.speech.voices import VOICE_SIZE, SpeakerEncoder, unit

Floats = NDArray[np.floating[Any]]

THRESHOLD = 0.61  # score from which on a speaker gets a name
MIN_SPEECH_MS = 10_000  # of a person in all
ADVISED_SPEECH_MS = 40_000  # more than 10 s are recognised much more surely: see the calibration
OTHER_PERSON = 0.30  # a recording that scores less than this with a person's earlier ones is of somebody else
HEARD_MS = 60_000  # of each speaker of a transcript; the calibration has no more
MIN_PIECE_MS = 500  # shorter pieces say little about who speaks
MAX_NAME = 100  # characters

ENROLLED = "enrolled"  # as a folder: the user's own
_SCHEMA = "wieldy.voice"
_SUFFIX = ".safetensors"
# Control characters, format characters, lone surrogates, line ends. Zero-width joiners are format characters that
# belong to the spelling of names in several scripts.
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


def voices_root() -> Path:
    """`$WIELDY_VOICES`, else `$XDG_DATA_HOME/wieldy/voices`, else `~/.local/share/wieldy/voices`. Not created here."""
    if chosen := os.environ.get("WIELDY_VOICES"):
        return Path(chosen)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "wieldy/voices"


def folder_of(voices: Path | str | None) -> Path:
    """The folder an option `--voices` means: itself, or the user's own for "enrolled" and for None."""
    return voices_root() if voices is None or str(voices) == ENROLLED else Path(voices)


def checked_name(name: str) -> str:
    """The name as it is stored (Unicode NFC, single spaces); raises `UsageError` for one that cannot be a name."""
    if bad := [c for c in name if unicodedata.category(c) in _INVISIBLE and c not in _JOINERS]:
        raise UsageError(f"the name {name!r} has the character U+{ord(bad[0]):04X}", hint="write it without")
    spaced = " ".join(unicodedata.normalize("NFC", name).split())
    if not spaced.strip(_JOINERS):
        raise UsageError("the name is empty", hint="wieldy voices enroll NAME FILE")
    if "/" in spaced or "\\" in spaced:
        raise UsageError(f"the name {spaced!r} has a path separator", hint="is it a file? The name comes first")
    if len(spaced) > MAX_NAME:
        raise UsageError(f"the name has {len(spaced)} characters", hint=f"at most {MAX_NAME}")
    if spaced.casefold() == UNKNOWN or re.fullmatch(r"(speaker |s)\d+", spaced.casefold()):
        raise UsageError(f"{spaced!r} is what speakers without a name are called", hint="choose another name")
    return spaced


@dataclass(frozen=True)
class EnrolledVoice:
    """One person. `means` float32 [recordings, 256] are the mean voices of the recordings, `speech_ms` int64
    [recordings] their speech, `recordings` their SHA-256, `encoder` the fingerprint of the network that heard them."""

    name: str
    encoder: str
    recordings: tuple[str, ...]
    speech_ms: NDArray[np.int64]
    means: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.recordings)
        if not count or self.means.shape != (count, VOICE_SIZE) or self.speech_ms.shape != (count,):
            raise InputError(f"{count} recordings, means of shape {self.means.shape}, times {self.speech_ms.shape}")
        if not (self.speech_ms > 0).all():
            raise InputError("a recording without speech")
        unit(self.means)  # each has a direction

    @property
    def vector(self) -> Floats:
        """The person's voice, float64 [256] of unit length: the mean over all their speech."""
        return unit(np.average(self.means.astype(np.float64), axis=0, weights=self.speech_ms))

    def save(self, path: Path) -> None:
        """Write it as safetensors, whole or not at all, for the owner's eyes only."""
        from safetensors.numpy import save_file

        metadata = {
            "schema": _SCHEMA,
            "name": self.name,
            "encoder": self.encoder,
            "recordings": json.dumps(self.recordings),
        }
        with replacing(path, private=True) as temporary:
            save_file({"means": self.means, "speech_ms": self.speech_ms}, temporary, metadata)

    @classmethod
    def load(cls, path: Path) -> EnrolledVoice:
        """Read a file that may come from anybody; `InputError` names it where it is no enrolled voice."""
        from safetensors import safe_open

        from wieldy.weights import load_safetensors

        try:
            arrays = load_safetensors(path, "numpy")
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        try:
            if metadata["schema"] != _SCHEMA:
                raise InputError(f"its schema is {metadata['schema']!r}")
            return cls(
                checked_name(metadata["name"]),
                metadata["encoder"],
                tuple(map(str, json.loads(metadata["recordings"]))),
                arrays["speech_ms"].astype(np.int64),
                arrays["means"].astype(np.float32),
            )
        except KeyError as error:
            raise InputError(f"{path} is no enrolled voice: it has no {error}") from error
        except (InputError, UsageError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no enrolled voice: {error}") from error


def read_folder(folder: Path) -> dict[Path, EnrolledVoice]:
    """Everybody enrolled in `folder`, by file, in order of name; nobody where there is no such folder."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="--voices takes the folder the voices are in")
    found = {path: EnrolledVoice.load(path) for path in sorted(folder.glob(f"*{_SUFFIX}"))}
    paths: dict[str, Path] = {}
    for path, voice in found.items():
        if voice.name in paths:
            raise InputError(f"{paths[voice.name]} and {path} are both {voice.name}", hint="delete one of them")
        paths[voice.name] = path
    return {paths[name]: found[paths[name]] for name in sorted(paths)}


def enroll(
    name: str,
    recordings: Sequence[Path | str | Recording],
    folder: Path | str | None = None,
    *,
    replace: bool = False,
    encoder: SpeakerEncoder | None = None,
) -> EnrolledVoice:
    """Learn a person's voice from recordings in which nobody else speaks, and keep it in `folder` (`voices_root()`).

    A person who is there already gains the recordings; with `replace` the earlier ones are forgotten. All recordings
    are used or, where one cannot be (`InputError` names it), nothing changes.
    """
    name = checked_name(name)
    folder = folder_of(folder)
    encoder = encoder or SpeakerEncoder()
    likeness = Likeness.of(encoder)
    known = {voice.name: (path, voice) for path, voice in read_folder(folder).items()}
    path, voice = known.get(name, (folder / _file_name(name), None))
    if replace:
        voice = None
    elif voice is not None and voice.encoder != encoder.fingerprint:
        raise InputError(f"{name} was enrolled with another encoder", hint="enroll all recordings anew with --replace")
    for given in recordings:
        if isinstance(given, Recording):
            voice = _with_recording(voice, name, given, given.name, encoder, likeness)
            continue
        with Recording.open(given) as recording:
            voice = _with_recording(voice, name, recording, str(given), encoder, likeness)
    if voice is None:
        raise UsageError("no recording given", hint="wieldy voices enroll NAME FILE")
    if (total_ms := int(voice.speech_ms.sum())) < MIN_SPEECH_MS:
        raise InputError(
            f"{total_ms / 1000:.1f} s of speech are too little to know {name} by",
            hint=f"give at least {MIN_SPEECH_MS // 1000} s, better {ADVISED_SPEECH_MS // 1000} s",
        )
    voice.save(path)
    return voice


def remove(name: str, folder: Path | str | None = None) -> Path:
    """Delete a person's file and say which it was; `UsageError` with the nearest name where there is none."""
    folder = folder_of(folder)
    name = checked_name(name)
    paths = {voice.name: path for path, voice in read_folder(folder).items()}
    if name not in paths:
        near = difflib.get_close_matches(name, paths, n=1)
        hint = f"did you mean {near[0]}?" if near else f"wieldy voices list --voices {folder}"
        raise UsageError(f"nobody called {name!r} is enrolled in {folder}", hint=hint)
    try:
        paths[name].unlink()
    except OSError as error:
        raise OutputError(f"cannot delete {paths[name]}: {error.strerror}", hint="delete it by hand") from error
    return paths[name]


class Likeness:
    """The score of the module's docstring. `mean` is m, float32 [256]; `nuisance` is U, float32 [256, directions]."""

    def __init__(self, mean: Floats, nuisance: Floats) -> None:
        self.mean, self.nuisance = mean.astype(np.float64), nuisance.astype(np.float64)

    @classmethod
    def of(cls, encoder: SpeakerEncoder) -> Likeness:
        """The one that was measured for `encoder`; `UsageError` for an encoder without."""
        from wieldy.weights import load_safetensors

        figures = json.loads((Path(__file__).parent / "enrolment_calibration.json").read_text(encoding="utf-8"))
        if encoder.fingerprint != figures["encoder"]:
            raise UsageError(
                f"no voices can be enrolled with the encoder {encoder.path}", hint="only the bundled one is calibrated"
            )
        arrays = load_safetensors(Path(__file__).parent / "likeness.safetensors", "numpy")
        return cls(arrays["mean"], arrays["nuisance"])

    def scores(self, voices: Floats, others: Floats) -> Floats:
        """s of each of `voices` [n, 256] with each of `others` [m, 256]: float64 [n, m]."""
        return np.asarray(self._direction(voices) @ self._direction(others).T)

    def _direction(self, voices: Floats) -> Floats:
        centred = voices - self.mean
        return unit(centred - centred @ self.nuisance @ self.nuisance.T)


def assign(scores: Floats, threshold: float) -> dict[int, int]:
    """Speaker to person, by index, one to one, from scores [speakers, people]; pairs not above the threshold are none.

    The sum of score - threshold over the pairs is the largest there is.
    """
    from scipy.optimize import linear_sum_assignment

    gain = np.maximum(scores - threshold, 0)
    pairs = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    return {int(speaker): int(person) for speaker, person in pairs if gain[speaker, person] > 0}


class EnrolledVoices:
    """The people a transcript's speakers are compared with."""

    def __init__(
        self,
        people: Sequence[EnrolledVoice],
        encoder: SpeakerEncoder,
        *,
        likeness: Likeness | None = None,
        threshold: float = THRESHOLD,
    ) -> None:
        for person in people:
            if person.encoder != encoder.fingerprint:
                raise InputError(
                    f"{person.name} was enrolled with another encoder ({person.encoder[:12]})",
                    hint=f"wieldy voices enroll '{person.name}' FILE --replace",
                )
        self.people = tuple(people)
        self._encoder = encoder
        self._likeness = likeness or Likeness.of(encoder)
        self._threshold = threshold

    @classmethod
    def load(cls, folder: Path | str, *, threads: int = 1) -> EnrolledVoices:
        """Everybody in `folder` ("enrolled": `voices_root()`). `InputError` where it is missing or nobody is in it."""
        folder = folder_of(folder)
        people = list(read_folder(folder).values())
        if not people:
            why = "is empty of voices" if folder.exists() else "does not exist"
            raise InputError(f"the folder {folder} {why}", hint=f"wieldy voices enroll NAME FILE --voices {folder}")
        return cls(people, SpeakerEncoder(threads=threads))

    def name(self, transcript: Transcript, recording: Recording) -> Transcript:
        """`transcript` with the names of the people its speakers sound like; each speaker's score is in its meta.

        `meta["voices"]` is {"threshold": t, "speakers": [{"speaker": as named before, "person": name or None,
        "nearest": name, "score": with the nearest}, ...]}; nearest and score are None where too little was heard.
        """
        heard = hear_speakers(self._encoder, recording, transcript.turns)
        speakers = [speaker for speaker in transcript.speakers if speaker in heard]
        names: dict[str, str] = {}
        entries = {
            speaker: dict[str, Any](speaker=speaker, person=None, nearest=None, score=None)
            for speaker in transcript.speakers
        }
        if speakers:
            voices = np.stack([heard[speaker] for speaker in speakers])
            scores = self._likeness.scores(voices, np.stack([person.vector for person in self.people]))
            pairs = assign(scores, self._threshold)
            for row, speaker in enumerate(speakers):
                nearest = pairs.get(row, int(scores[row].argmax()))
                person, score = self.people[nearest].name, round(float(scores[row, nearest]), 3)
                entries[speaker] |= {"nearest": person, "score": score}
                if row in pairs:
                    names[speaker] = entries[speaker]["person"] = person
        found = {"threshold": self._threshold, "speakers": list(entries.values())}
        return dataclasses.replace(transcript.renamed(names), meta={**transcript.meta, "voices": found})


def describe(found: Mapping[str, Any]) -> list[str]:
    """A line for each speaker from a transcript's `meta["voices"]`, for a person to read."""
    lines = []
    for entry in found["speakers"]:
        if entry["score"] is None:
            lines.append(f"{entry['speaker']}: too little speech to compare with the enrolled voices")
            continue
        score = f"score {entry['score']:.2f}, {found['threshold']:.2f} needed"
        if entry["person"] is not None:
            lines.append(f"{entry['speaker']} is {entry['person']} ({score})")
        elif entry["score"] > found["threshold"]:
            lines.append(f"{entry['speaker']} sounds like {entry['nearest']} too, whom another fits better ({score})")
        else:
            lines.append(f"{entry['speaker']} is nobody enrolled; nearest is {entry['nearest']} ({score})")
    return lines


def hear_speakers(encoder: SpeakerEncoder, recording: Recording, turns: Sequence[Turn]) -> dict[str, Floats]:
    """The mean voice [256] of each speaker over up to `HEARD_MS`: their longest stretches without anybody else on the
    same channel. Speakers who have none, or only silence in them, are left out."""
    voices: dict[str, Floats] = {}
    alone = _alone(turns)
    for speaker in dict.fromkeys(turn.speaker for turn in turns):
        chosen: dict[int, list[Span]] = {}
        left_ms = HEARD_MS
        own = [(channel, piece) for who, channel, piece in alone if who == speaker]
        for channel, piece in sorted(own, key=lambda entry: -entry[1].duration_ms):
            if left_ms < MIN_PIECE_MS or piece.duration_ms < MIN_PIECE_MS:
                break
            used = Span(piece.start_ms, min(piece.end_ms, piece.start_ms + left_ms))
            chosen.setdefault(channel, []).append(used)
            left_ms -= used.duration_ms
        heard = [
            encoder.embed_regions(recording, sorted(spans, key=lambda span: span.start_ms), channel=channel).vectors
            for channel, spans in chosen.items()
        ]
        if sum(map(len, heard)):
            voices[speaker] = np.concatenate(heard).mean(axis=0)
    return voices


def _alone(turns: Sequence[Turn]) -> list[tuple[str, int, Span]]:
    """Speaker, channel and time of the pieces of turns in which nobody else talks on that channel."""
    pieces = []
    for channel in {turn.stream for turn in turns}:
        here = [turn for turn in turns if turn.stream == channel]
        edges = np.unique([(turn.start_ms, turn.end_ms) for turn in here])
        firsts = np.searchsorted(edges, [turn.start_ms for turn in here])
        lasts = np.searchsorted(edges, [turn.end_ms for turn in here])
        steps = np.zeros(len(edges), np.int64)
        np.add.at(steps, firsts, 1)
        np.add.at(steps, lasts, -1)
        talking = np.cumsum(steps)
        for turn, first, last in zip(here, firsts.tolist(), lasts.tolist(), strict=True):
            for index in range(first, last):
                if talking[index] == 1:
                    pieces.append((turn.speaker, channel, Span(int(edges[index]), int(edges[index + 1]))))
    return pieces


def _with_recording(
    voice: EnrolledVoice | None,
    name: str,
    recording: Recording,
    where: str,
    encoder: SpeakerEncoder,
    likeness: Likeness,
) -> EnrolledVoice:
    """The person with one more recording, which `where` names in errors."""
    if voice is not None and recording.digest in voice.recordings:
        raise InputError(f"{name} is enrolled from {where} already", hint="leave it out, or begin anew with --replace")
    view, channel, speech = _only_speaker(recording, where)
    windows = encoder.embed_regions(view, speech, channel=channel)
    if not len(windows):
        raise InputError(f"no speech found in {where}", hint="enroll a recording in which the person talks")
    mean = windows.vectors.mean(axis=0)
    if voice is not None:
        (score,) = likeness.scores(mean[None], voice.vector[None])[0].tolist()
        if score < OTHER_PERSON:
            raise InputError(
                f"{where} does not sound like the other recordings of {name} (score {score:.2f})",
                hint="enroll each person under a name of their own; --replace forgets the earlier recordings",
            )
    speech_ms = sum(span.duration_ms for span in speech)
    return EnrolledVoice(
        name,
        encoder.fingerprint,
        (*(voice.recordings if voice else ()), recording.digest),
        np.append(voice.speech_ms if voice else np.empty(0, np.int64), speech_ms),
        np.concatenate([voice.means if voice else np.empty((0, VOICE_SIZE), np.float32), mean[None]]),
    )


def _only_speaker(recording: Recording, where: str) -> tuple[Recording, int, Sequence[Span]]:
    """What to listen to, on which channel, and where there is speech."""
    plan = choose_channels(recording)
    view = plan.view(recording)
    speech: dict[int, tuple[Span, ...]] = {channel: detect_speech(view, channel=channel) for channel in plan.channels}
    if plan.kind == "split":
        speech = without_crosstalk(view, speech)
    talking = [channel for channel, spans in speech.items() if spans]
    if not talking:
        raise InputError(f"no speech found in {where}", hint="enroll a recording in which the person talks")
    if len(talking) > 1:
        numbers = " and ".join(str(channel + 1) for channel in talking)
        raise InputError(f"{where} has a speaker on each of the channels {numbers}", hint="enroll one channel of it")
    return view, talking[0], speech[talking[0]]


def _file_name(name: str) -> str:
    """Readable where the name has letters that every file system takes, and different for different names."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40]
    return "-".join(filter(None, [readable, hashlib.sha256(name.encode()).hexdigest()[:12]])) + _SUFFIX
