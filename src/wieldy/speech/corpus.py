"""Recordings with transcripts, as lhotse cuts: read them, find what cannot be used, and look inside one.

`read_manifest` takes lhotse manifests and plain folders; `checked` lists the cuts that training would stumble over.
For a single recording without a transcript use `wieldy.speech.audio`.

A cut's transcript is the text of its supervisions in order of time. Times of words and phones, where known, lie in
`SupervisionSegment.alignment["word"]` and `["phone"]`, which lhotse counts from the start of the recording; `aligned`
gives them from the start of the cut.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lhotse
import numpy as np
import soundfile
import soxr
from lhotse.audio.utils import AudioLoadingError, DurationMismatchError
from lhotse.cut import Cut, CutSet, MixedCut, PaddingCut
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.errors import InputError
from wieldy.speech.features import LogMelConfig
from wieldy.speech.tokens import Tokenizer

SAMPLE_RATE = 16_000  # Hz, unless a caller says otherwise
TRANSCRIPTS = "transcripts.tsv"
SOUNDS = frozenset({".flac", ".mp3", ".ogg", ".opus", ".wav"})
_MANIFESTS = ("cuts.jsonl.gz", "cuts.jsonl", "recordings.jsonl.gz", "recordings.jsonl")


@dataclass(frozen=True)
class Checked:
    """Cuts that can be trained on, and (id, reason) of each that cannot. `resampled` counts those with a sampling rate
    of their own, which is changed when they are read."""

    cuts: CutSet
    skipped: tuple[tuple[str, str], ...]
    resampled: int


def read_manifest(path: Path | str) -> CutSet:
    """The cuts of a lhotse manifest or of a folder of recordings.

    - a manifest of cuts, or of recordings with `supervisions` for `recordings` in the name of the one beside it
      (one cut per supervision); .jsonl, .json or .yaml, with or without .gz. Relative paths of recordings count from
      the working folder or, where nothing is there, from the manifest's.
    - a folder with such a manifest, called `cuts.jsonl.gz` or `recordings.jsonl.gz`.
    - a folder with `transcripts.tsv`, one recording a line: name, text and, if known, speaker, separated by tabs.
    - a folder of recordings (.wav, .flac, .ogg, .opus, .mp3), the text of each in a .txt file of the same name.

    What is missing or empty is found by `checked`. Raises `InputError` where there is nothing of the kind.
    """
    path = Path(path)
    if path.is_file():
        return _manifest(path)
    if not path.is_dir():
        raise InputError(f"{path} does not exist")
    for name in _MANIFESTS:
        if (path / name).is_file():
            return _manifest(path / name)
    if (path / TRANSCRIPTS).is_file():
        return CutSet.from_cuts(_listed(path / TRANSCRIPTS))
    sounds = sorted(file for file in path.rglob("*") if file.suffix.lower() in SOUNDS)
    if not sounds:
        raise InputError(f"{path} has no recordings", hint="see wieldy.speech.corpus.read_manifest for what is read")
    return CutSet.from_cuts(recorded(file, _beside(file), name=str(file.relative_to(path))) for file in sounds)


def checked(
    cuts: CutSet,
    tokenizer: Tokenizer | None = None,
    *,
    strict: bool = False,
    features: LogMelConfig = LogMelConfig(),
) -> Checked:
    """Leave out cuts whose file is missing, that have no sound, less than one frame of it or less than they claim, no
    transcript, or one that `tokenizer` cannot encode. With `strict` the first of them is an `InputError`; so is
    nothing left.

    No audio is read: damage inside a file shows when `samples_of` reads it.
    """
    good, skipped, resampled = [], [], 0
    for cut in cuts:
        reason = next(_faults(cut, tokenizer, features), None)
        if reason is None:
            good.append(cut)
            resampled += cut.sampling_rate != features.sample_rate
        elif strict:
            raise InputError(f"{cut.id}: {reason}")
        else:
            skipped.append((cut.id, reason))
    if not good:
        first = f", the first, {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise InputError(f"none of {len(skipped)} cuts can be used{first}")
    return Checked(CutSet.from_cuts(good), tuple(skipped), resampled)


def text_of(cut: Cut) -> str:
    """Everything that is said in a cut, in order; empty where nothing is known."""
    spoken = sorted(cut.supervisions, key=lambda supervision: supervision.start)
    return " ".join(supervision.text.strip() for supervision in spoken if supervision.text).strip()


def aligned(cut: Cut, kind: str = "word") -> list[AlignmentItem]:
    """The words or phones of a cut with their times in seconds from its start, in order; what lies outside is left
    out. Raises `InputError` where a supervision has no such alignment."""
    items = []
    for offset, part in _parts(cut):
        for supervision in part.supervisions:
            if not (supervision.alignment and kind in supervision.alignment):
                raise InputError(f"{cut.id} has no {kind} times", hint=f'its supervisions need alignment["{kind}"]')
            moved = (item.with_offset(offset - part.start) for item in supervision.alignment[kind])
            items += [item for item in moved if item.end > offset and item.start < offset + part.duration]
    return sorted(items, key=lambda item: (item.start, item.end))


def samples_of(cut: Cut, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """The sound of a cut, float32 [n] at `sample_rate`, channels averaged. Raises `InputError` naming the cut."""
    try:
        channels = cut.load_audio()
    except (AudioLoadingError, DurationMismatchError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the sound of {cut.id} cannot be read: {reason}") from error
    samples = np.asarray(channels.mean(axis=0), np.float32)
    if cut.sampling_rate != sample_rate:
        samples = soxr.resample(samples, cut.sampling_rate, sample_rate)
    return samples


def recorded(path: Path, text: str, *, name: str | None = None, speaker: str | None = None) -> Cut:
    """A whole file as a cut, called `name` or as the file is; of length 0 where there is no sound in it."""
    try:
        found = soundfile.info(path)
        rate, length, channels = found.samplerate, found.frames, found.channels
    except (soundfile.LibsndfileError, OSError):
        rate, length, channels = SAMPLE_RATE, 0, 1
    name = name or path.stem
    recording = lhotse.Recording(
        id=name,
        sources=[lhotse.AudioSource(type="file", channels=list(range(channels)), source=str(path))],
        sampling_rate=rate,
        num_samples=length,
        duration=length / rate,
    )
    return cut_of(recording, text, speaker=speaker)


def cut_of(
    recording: lhotse.Recording,
    text: str,
    *,
    speaker: str | None = None,
    alignment: dict[str, list[AlignmentItem]] | None = None,
) -> Cut:
    """A whole recording in which `text` is said, as a cut with the recording's name."""
    cut: Cut = recording.to_cut()
    if text:
        cut.supervisions = [
            lhotse.SupervisionSegment(
                id=recording.id,
                recording_id=recording.id,
                start=0.0,
                duration=recording.duration,
                channel=recording.channel_ids if recording.num_channels > 1 else recording.channel_ids[0],
                text=text,
                speaker=speaker,
                alignment=alignment,
            )
        ]
    return cut


# --- reading ---------------------------------------------------------------------------------------------------------


def _manifest(path: Path) -> CutSet:
    found = _loaded(path)
    if isinstance(found, lhotse.RecordingSet):
        other = path.with_name(path.name.replace("recordings", "supervisions"))
        if other == path or not other.is_file():
            raise InputError(f"{path} has recordings only", hint="put their supervisions.jsonl.gz beside it")
        cuts = CutSet.from_manifests(recordings=found, supervisions=_loaded(other))
        found = cuts.trim_to_supervisions(keep_overlapping=False)
    if not isinstance(found, CutSet):
        raise InputError(f"{path} is a manifest of {type(found).__name__}", hint="name the cuts or the recordings")
    return CutSet.from_cuts(_found_from(path.parent, cut) for cut in found)


def _loaded(path: Path) -> object:
    try:
        return lhotse.load_manifest(path)
    except Exception as error:  # whatever the parser of the day raises on a file that is none of its own
        raise InputError(f"{path} is not a lhotse manifest ({type(error).__name__})") from error


def _found_from(folder: Path, cut: Cut) -> Cut:
    """The cut with the path of its recording as seen from `folder`, where it is not there seen from here."""
    files = (Path(source.source) for _, part in _parts(cut) for source in part.recording.sources if _is_file(source))
    here = all(file.is_absolute() or file.exists() for file in files)
    return cut if here else cut.with_recording_path_prefix(str(folder))


def _listed(table: Path) -> Iterator[Cut]:
    with open(table, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if not 2 <= len(row) <= 3:
                hint = "it is the name of a recording, a tab, its text and, if known, a tab and the speaker"
                raise InputError(f"line {number} of {table} has {len(row)} columns", hint=hint)
            name, text, *speaker = row
            yield recorded(table.parent / name, text.strip(), name=name, speaker=next(iter(speaker), None))


def _beside(sound: Path) -> str:
    """The text in the .txt file beside a recording; empty where there is none."""
    try:
        return " ".join(sound.with_suffix(".txt").read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{sound.with_suffix('.txt')} cannot be read as UTF-8 text: {error}") from None


# --- looking inside --------------------------------------------------------------------------------------------------


def _parts(cut: Cut) -> Iterable[tuple[float, Cut]]:
    """The cuts of single recordings that make a cut, each with its place in it in seconds."""
    if isinstance(cut, MixedCut):
        return [(track.offset, track.cut) for track in cut.tracks if not isinstance(track.cut, PaddingCut)]
    return [(0.0, cut)]


def _is_file(source: lhotse.AudioSource) -> bool:
    return bool(source.type == "file")


def _faults(cut: Cut, tokenizer: Tokenizer | None, features: LogMelConfig) -> Iterator[str]:
    """Why a cut cannot be trained on, the most basic reason first."""
    for _, part in _parts(cut):
        if not part.has_recording:
            yield "it has no recording"
            continue
        for source in filter(_is_file, part.recording.sources):
            if not Path(source.source).is_file():
                yield f"{source.source} does not exist"
        if part.duration <= 0:
            yield f"there is no sound in it ({part.duration:g} s)"
        elif part.end > part.recording.duration + _TOLERANCE_S:
            yield f"it ends at {part.end:g} s, its recording at {part.recording.duration:g} s"
    if not features.frames(round(cut.duration * features.sample_rate)):
        yield f"{cut.duration:g} s are less than one frame"
    text = text_of(cut)
    if not text:
        yield "it has no transcript"
    elif tokenizer is not None:
        try:
            tokenizer.encode(text)
        except InputError as error:
            yield str(error)


_TOLERANCE_S = 0.01  # times in manifests are rounded
