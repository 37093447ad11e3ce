"""The claim behind `wieldy transcribe`: giving words to speakers by the best path beats judging each word alone.

Baseline is the usual way: a word belongs to the turn that it overlaps most. Recogniser, its words, diariser and its
turns are the same in both arms, down to the byte; only `AttributionConfig.method` differs, and what follows from it
(ghost speakers, names). The meetings are generated, so every word's speaker is known.

Primary condition: on the meetings with 10 and 20 % overlap, pooled, the upper end of the 95 % paired-bootstrap
interval (over meetings) of cpWER(best path) - cpWER(most overlap) lies below 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wieldy import weights
from wieldy.claims.result import Arm, ClaimResult, Condition, Scale
from wieldy.metrics import stats
from wieldy.metrics.text import NormalizerName, WordErrors
from wieldy.report import Metric
from wieldy.speech import formats, simulate
from wieldy.speech.attribute import AttributionConfig
from wieldy.speech.audio import Recording
from wieldy.speech.diarize import Diarization, Diarizer, SpeakerCount
from wieldy.speech.meeting import MeetingConfig, Transcriber
from wieldy.speech.recognize import Hypothesis, Recognizer
from wieldy.speech.score import Score, score
from wieldy.speech.transcript import Span, Transcript

PACKAGES = ("ctranslate2", "faster-whisper", "hibari-tts", "meeteval", "numpy", "onnxruntime")

BEST_PATH, MOST_OVERLAP = "best path", "most overlap"
ARMS = {BEST_PATH: AttributionConfig(method="viterbi"), MOST_OVERLAP: AttributionConfig(method="max-overlap")}

OVERLAPS = (0.0, 0.1, 0.2)
DECIDING = (0.1, 0.2)
# Two to four people, a neural voice (heart, joe) in each cast and flite's beside them.
CASTS = (("heart", "joe"), ("heart", "slt", "rms"), ("joe", "awb", "slt"), ("heart", "joe", "rms", "awb"))
NORMALIZE: NormalizerName = "basic"
NOT_WORSE = 0.005  # cpWER that may be lost where nobody overlaps: half a point


@dataclass(frozen=True)
class Meeting:
    """One recording scored under every arm. `overlap` as its recipe asked for; how many people speak in truth, and how
    many the diariser heard."""

    overlap: float
    speakers: int
    heard_speakers: int
    scores: Mapping[str, Score]

    def cpwer(self, arm: str) -> WordErrors:
        return self.scores[arm].cpwer or WordErrors()


def run(scale: Scale, seed: int) -> ClaimResult:
    """`full`: 12 meetings of 3 minutes for each of 3 seeds. `smoke`: two of a few seconds."""
    if scale == "smoke":
        seeds: tuple[int, ...] = (seed,)
        recipes = [_recipe(("slt", "rms"), overlap, seed, minutes=0.3) for overlap in DECIDING]
    else:
        seeds = (seed, seed + 1, seed + 2)
        recipes = [_recipe(cast, overlap, s, minutes=3.0) for s in seeds for overlap in OVERLAPS for cast in CASTS]
    models = Transcriber()
    recognizer, diarizer = RecallingRecognizer(models.recognizer), RecallingDiarizer(models.diarizer)
    meetings = []
    for recipe in recipes:
        made = simulate.meeting(recipe)
        recording = Recording.from_array(made.samples, made.sample_rate, recipe.name)
        meetings.append(compare(recording, made.transcript, recipe.overlap, recognizer, diarizer))
    deciding = [meeting for meeting in meetings if meeting.overlap in DECIDING]
    apart = [meeting for meeting in meetings if meeting.overlap == 0]

    figures = {
        arm: [
            _figure("cpWER at 10 and 20 % overlap", arm, deciding, seed),
            *(
                _figure(
                    f"cpWER at {100 * overlap:.0f} % overlap", arm, [m for m in meetings if m.overlap == overlap], seed
                )
                for overlap in OVERLAPS
                if any(m.overlap == overlap for m in meetings)
            ),
        ]
        for arm in ARMS
    }
    data = [f"{len(recipes)} generated meetings of {recipes[0].minutes:g} min"]
    if scale != "smoke":
        folder = weights.locate("conversation")
        reference = formats.read(folder / "sample.stm")
        call = compare(Recording.open(folder / "sample.wav"), reference, 0.0, recognizer, diarizer)
        for arm, metrics in figures.items():
            metrics.append(_figure("cpWER, a real telephone call", arm, [call], seed))
        data.append("a real telephone call of 30 s, listed without a bar")

    words = sum(meeting.scores[BEST_PATH].words for meeting in meetings)
    without_speaker = sum(meeting.scores[BEST_PATH].words_without_speaker for meeting in meetings)
    difference, (low, high) = _difference(deciding, seed)
    return ClaimResult(
        slug="speech-pipeline",
        statement="Words given to speakers by the best path through all of them go to the wrong person less often "
        "than words that each go to the turn they overlap most.",
        scale=scale,
        baseline=MOST_OVERLAP,
        arms=tuple(Arm(arm, tuple(metrics)) for arm, metrics in figures.items()),
        primary=Condition(
            "10 and 20 % overlap: upper end of the 95 % interval of cpWER(best path) - cpWER(most overlap)",
            high,
            "<",
            0.0,
        ),
        secondary=(
            Condition(
                "no overlap: cpWER(best path) - cpWER(most overlap)",
                _difference(apart, seed)[0] if apart else None,
                "<=",
                NOT_WORSE,
                "" if apart else "a smoke run has no such meeting",
            ),
            Condition("share of words that have a speaker", 1 - without_speaker / words, ">=", 1.0),
        ),
        samples={
            "meetings": len(meetings),
            "meetings that decide": len(deciding),
            "reference words that decide": sum(meeting.cpwer(BEST_PATH).words for meeting in deciding),
        },
        seeds=seeds,
        data=tuple(data),
        notes=(
            f"normaliser {NORMALIZE}; intervals over meetings",
            f"difference at 10 and 20 % overlap: {difference:+.4f} [{low:+.4f}, {high:+.4f}]",
            *_shared_by_both_arms(meetings),
        ),
    )


def compare(
    recording: Recording, reference: Transcript, overlap: float, recognizer: Recognizer, diarizer: Diarizer
) -> Meeting:
    """Every arm on one recording, with the same words and turns."""
    transcripts = {
        arm: Transcriber(
            MeetingConfig(attribution=attribution, channels="mono"), recognizer=recognizer, diarizer=diarizer
        ).run(recording)
        for arm, attribution in ARMS.items()
    }
    return Meeting(
        overlap,
        len(reference.speakers),
        len(transcripts[MOST_OVERLAP].speakers),
        {
            arm: score(transcript, reference, normalize=NORMALIZE, measures=("wer", "cpwer"))
            for arm, transcript in transcripts.items()
        },
    )


class RecallingRecognizer:
    """A recogniser that answers from memory what it was asked before."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._heard: dict[tuple[bytes, bool], Hypothesis] = {}
        self.name = recognizer.name
        self.model_id = recognizer.model_id
        self.model_files = recognizer.model_files
        self.capabilities = recognizer.capabilities

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        stretches = list(audio)
        keys = [(hashlib.sha256(samples.tobytes()).digest(), avoid_repeats) for samples in stretches]
        new = {key: samples for key, samples in zip(keys, stretches, strict=True) if key not in self._heard}
        hypotheses = self._recognizer.transcribe(iter(new.values()), avoid_repeats=avoid_repeats)
        self._heard.update(zip(new, hypotheses, strict=True))
        return (self._heard[key] for key in keys)


class RecallingDiarizer:
    """A diariser that answers from memory for a recording that it has heard."""

    def __init__(self, diarizer: Diarizer) -> None:
        self._diarizer = diarizer
        self._found: dict[tuple[str, SpeakerCount], Diarization] = {}
        self.name = diarizer.name

    def diarize(
        self, recording: Recording, speech: Sequence[Span], count: SpeakerCount = SpeakerCount()
    ) -> Diarization:
        key = (recording.digest, count)
        if key not in self._found:
            self._found[key] = self._diarizer.diarize(recording, speech, count)
        return self._found[key]


def _recipe(cast: tuple[str, ...], overlap: float, seed: int, minutes: float) -> simulate.MeetingRecipe:
    name = f"{'-'.join(cast)}-{overlap:.0%}-{seed}"
    return simulate.MeetingRecipe(voices=cast, overlap=overlap, minutes=minutes, noise_db=20.0, seed=seed, name=name)


def _figure(name: str, arm: str, meetings: Sequence[Meeting], seed: int) -> Metric:
    counts = [meeting.cpwer(arm) for meeting in meetings]
    interval = None
    if len(counts) > 1:
        interval = stats.bootstrap([count.errors for count in counts], [count.words for count in counts], seed=seed)
    total = sum(counts, WordErrors())
    return Metric.of(name, total.errors / total.words, count=total.words, interval=interval)


def _difference(meetings: Sequence[Meeting], seed: int) -> tuple[float, tuple[float, float]]:
    """cpWER(best path) - cpWER(most overlap) over these meetings, with its interval."""
    ours, theirs = ([meeting.cpwer(arm) for meeting in meetings] for arm in (BEST_PATH, MOST_OVERLAP))
    words = [count.words for count in ours]
    errors, baseline_errors = ([count.errors for count in counts] for counts in (ours, theirs))
    difference = (sum(errors) - sum(baseline_errors)) / sum(words)
    return difference, stats.paired_bootstrap(errors, baseline_errors, words, seed=seed)


def _shared_by_both_arms(meetings: Sequence[Meeting]) -> Iterator[str]:
    """How good the words and the turns were that both arms were given."""
    scores = [meeting.scores[MOST_OVERLAP] for meeting in meetings]
    heard = sum((found.wer or WordErrors() for found in scores), WordErrors())
    yield f"words as recognised: WER {heard.errors / heard.words:.4f}, n = {heard.words}"
    right = sum(meeting.heard_speakers == meeting.speakers for meeting in meetings)
    yield f"the right number of speakers in {right} of {len(meetings)} meetings"
