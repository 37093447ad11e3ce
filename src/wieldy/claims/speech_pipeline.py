"""The claim behind `wieldy transcribe`: words go to the wrong person less often than with the usual parts put together.

The baseline is those parts (`wieldy.claims.glue`): the same recogniser model, speaker encoder and voice activity
detector, agglomerative clustering tuned on the same recordings with as many trials as our constants, and every word to
the turn it overlaps most. Both are also run with the number of speakers given. A further arm is ours with that way of
giving words to speakers, all else the same down to the byte; only `AttributionConfig.method` differs. The meetings are
generated, so every word's speaker is known.

Primary condition: on the meetings with 10 % overlap, and on those with 20 %, the upper end of the 95 % paired-bootstrap
interval (over meetings) of cpWER(wieldy) - cpWER(glue) lies below 0; without overlap ours is at most 0.5 points worse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wieldy import weights
from wieldy.claims.glue import Clustering, Glue, attributed
from wieldy.claims.result import Arm, ClaimResult, Condition, Scale
from wieldy.metrics import stats
from wieldy.metrics.text import NormalizerName, WordErrors
from wieldy.metrics.turns import TimeErrors
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

WIELDY, GLUE, MOST_OVERLAP = "wieldy", "typical glue", "wieldy, most overlap"
WIELDY_TOLD, GLUE_TOLD = "wieldy, number of speakers given", "typical glue, number of speakers given"
ARMS = (WIELDY, GLUE, MOST_OVERLAP, WIELDY_TOLD, GLUE_TOLD)

OVERLAPS = (0.0, 0.1, 0.2)
DECIDING = (0.1, 0.2)
# Two to four people, a neural voice (heart, joe) in each cast and flite's beside them.
CASTS = (("heart", "joe"), ("heart", "slt", "rms"), ("joe", "awb", "slt"), ("heart", "joe", "rms", "awb"))
NORMALIZE: NormalizerName = "basic"
CHANGE = "cpWER(wieldy) - cpWER(typical glue)"
NOT_WORSE = 0.005  # cpWER that may be lost where nobody overlaps: half a point


@dataclass(frozen=True)
class Meeting:
    """One recording scored under every arm. `overlap` as its recipe asked for; how many people speak in truth, and how
    many each arm heard."""

    overlap: float
    speakers: int
    heard_speakers: Mapping[str, int]
    scores: Mapping[str, Score]

    def cpwer(self, arm: str) -> WordErrors:
        return self.scores[arm].cpwer or WordErrors()


def run(scale: Scale, seed: int) -> ClaimResult:
    """`full`: 12 meetings of 3 minutes for each of 3 seeds. `smoke`: two of a few seconds, 10 % overlap."""
    seeds: tuple[int, ...]
    if scale == "smoke":
        seeds = (seed, seed + 1)
        recipes = [_recipe(("slt", "rms"), DECIDING[0], s, minutes=0.25) for s in seeds]
    else:
        seeds = (seed, seed + 1, seed + 2)
        recipes = [_recipe(cast, overlap, s, minutes=3.0) for s in seeds for overlap in OVERLAPS for cast in CASTS]
    contest = Contest()
    meetings = []
    for recipe in recipes:
        made = simulate.meeting(recipe)
        recording = Recording.from_array(made.samples, made.sample_rate, recipe.name)
        meetings.append(contest.meeting(recording, made.transcript, recipe.overlap))
    apart = [meeting for meeting in meetings if meeting.overlap == 0]
    deciding = [meeting for meeting in meetings if meeting.overlap in DECIDING]
    groups = {
        f"{overlap:.0%} overlap": [meeting for meeting in meetings if meeting.overlap == overlap]
        for overlap in sorted({meeting.overlap for meeting in deciding})
    }

    figures = {
        arm: [
            *(_figure(f"cpWER, {name}", arm, group, seed) for name, group in groups.items()),
            *([_figure("cpWER, no overlap", arm, apart, seed)] if apart else []),
            *_further_figures(arm, meetings),
        ]
        for arm in ARMS
    }
    data = [f"{len(recipes)} generated meetings of {recipes[0].minutes:g} min"]
    if scale != "smoke":
        folder = weights.locate("conversation")
        reference = formats.read(folder / "sample.stm")
        call = contest.meeting(Recording.open(folder / "sample.wav"), reference, 0.0)
        for arm, metrics in figures.items():
            metrics.append(_figure("cpWER, a real telephone call", arm, [call], seed))
        data.append("a real telephone call of 30 s, listed without a bar")

    differences = {name: _difference(WIELDY, GLUE, group, seed) for name, group in groups.items()}
    loss_apart = _difference(WIELDY, GLUE, apart, seed)[0] if apart else None
    told = _difference(WIELDY_TOLD, GLUE_TOLD, deciding, seed)
    path = _difference(WIELDY, MOST_OVERLAP, deciding, seed)
    words = sum(meeting.scores[WIELDY].words for meeting in meetings)
    without_speaker = sum(meeting.scores[WIELDY].words_without_speaker for meeting in meetings)
    without_time = sum(meeting.scores[WIELDY].words_interpolated for meeting in meetings)
    return ClaimResult(
        slug="speech-pipeline",
        statement="Words go to the wrong person less often than with faster-whisper, speaker vectors, agglomerative "
        "clustering and most overlap put together, where people talk over each other.",
        scale=scale,
        baseline=GLUE,
        arms=tuple(Arm(arm, tuple(metrics)) for arm, metrics in figures.items()),
        primary=Condition(
            f"the largest of the upper ends of the 95 % interval of {CHANGE} at 10 and at 20 % overlap, "
            f"and of {CHANGE} without overlap less {NOT_WORSE}",
            max(
                [high for _, (_, high) in differences.values()]
                + ([] if loss_apart is None else [loss_apart - NOT_WORSE])
            ),
            "<",
            0.0,
        ),
        secondary=(
            *(
                Condition(f"{name}: upper end of the interval of {CHANGE}", high, "<", 0.0)
                for name, (_, (_, high)) in differences.items()
            ),
            Condition(
                f"no overlap: {CHANGE}",
                loss_apart,
                "<=",
                NOT_WORSE,
                "" if apart else "a smoke run has no such meeting",
            ),
            Condition(
                f"10 and 20 % overlap, both told the number of speakers: upper end of the interval of {CHANGE}",
                told[1][1],
                "<",
                0.0,
            ),
            Condition(
                "10 and 20 % overlap: upper end of the interval of cpWER(best path) - cpWER(most overlap), all else "
                "the same",
                path[1][1],
                "<",
                0.0,
            ),
            Condition("share of words that have a speaker", 1 - without_speaker / words, ">=", 1.0),
            Condition("share of words that have a time of their own", 1 - without_time / words, ">=", 1.0),
        ),
        samples={
            "meetings": len(meetings),
            "meetings that decide": len(deciding),
            "reference words that decide": sum(meeting.cpwer(WIELDY).words for meeting in deciding),
        },
        seeds=seeds,
        data=tuple(data),
        notes=(
            f"normaliser {NORMALIZE}; intervals over meetings; DER without a collar, overlap counted",
            *(
                f"{name}: {difference:+.4f} [{low:+.4f}, {high:+.4f}]"
                for name, (difference, (low, high)) in {
                    **{f"{CHANGE}, {name}": found for name, found in differences.items()},
                    **({f"{CHANGE}, no overlap": _difference(WIELDY, GLUE, apart, seed)} if apart else {}),
                    "the same at 10 and 20 %, number of speakers given": told,
                    "cpWER(best path) - cpWER(most overlap), 10 and 20 % overlap": path,
                }.items()
            ),
        ),
    )


class Contest:
    """Every arm on one recording after the other; what two arms share is worked out once."""

    def __init__(self) -> None:
        models = Transcriber()
        self._recognizer = RecallingRecognizer(models.recognizer)
        self._diarizer = RecallingDiarizer(models.diarizer)
        model = weights.as_ctranslate2(weights.locate(MeetingConfig().recognition.model))
        self._glue = Glue(model, Clustering.calibrated())

    def meeting(self, recording: Recording, reference: Transcript, overlap: float) -> Meeting:
        told = SpeakerCount(exactly=len(reference.speakers))
        words = self._glue.words(recording)
        transcripts = {
            WIELDY: self._wieldy(recording, MeetingConfig(channels="mono")),
            GLUE: attributed(recording.name, words, self._glue.turns(recording)),
            MOST_OVERLAP: self._wieldy(
                recording, MeetingConfig(channels="mono", attribution=AttributionConfig(method="max-overlap"))
            ),
            WIELDY_TOLD: self._wieldy(recording, MeetingConfig(channels="mono", count=told)),
            GLUE_TOLD: attributed(recording.name, words, self._glue.turns(recording, told)),
        }
        return Meeting(
            overlap,
            len(reference.speakers),
            {arm: len(transcript.speakers) for arm, transcript in transcripts.items()},
            {
                arm: score(transcript, reference, normalize=NORMALIZE, measures=("wer", "cpwer", "tcpwer", "der"))
                for arm, transcript in transcripts.items()
            },
        )

    def _wieldy(self, recording: Recording, config: MeetingConfig) -> Transcript:
        return Transcriber(config, recognizer=self._recognizer, diarizer=self._diarizer).run(recording)


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


def _further_figures(arm: str, meetings: Sequence[Meeting]) -> Iterator[Metric]:
    """Over all meetings: how good the words, their speakers within 5 s, and the turns are; the number of speakers."""
    measures: Mapping[str, Callable[[Score], WordErrors | None]] = {
        "WER": lambda found: found.wer,
        "tcpWER": lambda found: found.tcpwer,
    }
    for name, measure in measures.items():
        total = sum((measure(meeting.scores[arm]) or WordErrors() for meeting in meetings), WordErrors())
        yield Metric.of(name, total.errors / total.words, count=total.words)
    time = sum((meeting.scores[arm].der or TimeErrors() for meeting in meetings), TimeErrors())
    yield Metric.of("DER", time.errors_ms / time.speech_ms)
    right = sum(meeting.heard_speakers[arm] == meeting.speakers for meeting in meetings)
    yield Metric.of("meetings with the right number of speakers", right / len(meetings), count=len(meetings))


def _difference(ours: str, theirs: str, meetings: Sequence[Meeting], seed: int) -> tuple[float, tuple[float, float]]:
    """cpWER(ours) - cpWER(theirs) over these meetings, with its interval."""
    our_counts, their_counts = ([meeting.cpwer(arm) for meeting in meetings] for arm in (ours, theirs))
    words = [count.words for count in our_counts]
    errors, baseline_errors = ([count.errors for count in counts] for counts in (our_counts, their_counts))
    difference = (sum(errors) - sum(baseline_errors)) / sum(words)
    return difference, stats.paired_bootstrap(errors, baseline_errors, words, seed=seed)
