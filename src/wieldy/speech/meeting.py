"""The main job: a recording in, an attributed transcript out.

    transcript = transcribe("meeting.wav")

reads any common container, finds the speech, recognises it, finds out who speaks when, and gives every word a speaker.
Nothing leaves the machine. Use `Transcriber` for several recordings: it loads its models once. For a single file whose
speaker does not matter, a plain recogniser is simpler.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wieldy import __version__
from wieldy.cache import sha256_of
from wieldy.devices import memory
from wieldy.errors import MissingError
from wieldy.report import Metric, Report, Table
from wieldy.speech.align import complete_times
from wieldy.speech.attribute import AttributionConfig, attribute, drop_ghosts, name_speakers
from wieldy.speech.audio import Recording
from wieldy.speech.channels import (
    ChannelPlan,
    ChannelPolicy,
    active_turns_per_channel,
    choose_channels,
    without_crosstalk,
)
from wieldy.speech.checkpoint import Checkpoint
from wieldy.speech.diarize import Diarization, Diarizer, SpeakerCount
from wieldy.speech.diarize.dvector import DVectorConfig, DVectorDiarizer
from wieldy.speech.itn import Itn, as_written
from wieldy.speech.recognize import Hypothesis, Recognizer
from wieldy.speech.recognize.chunks import ChunkConfig, cut, pack
from wieldy.speech.recognize.engines import RecognitionConfig, build, choose_engine
from wieldy.speech.recognize.language import HINT, LanguageCheck
from wieldy.speech.recognize.loop_guard import LoopGuardConfig, guarded
from wieldy.speech.transcript import Span, TimeMap, Transcript, Word
from wieldy.speech.vad import VadConfig, detect_speech
from wieldy.speech.voices.enrolled import EnrolledVoices

Progress = Callable[[str, float], None]  # stage, share of it that is done (0 to 1)


@dataclass(frozen=True, kw_only=True)
class MeetingConfig:
    """Everything `transcribe` can be told. Each stage's own options are in its config."""

    recognition: RecognitionConfig = field(default_factory=RecognitionConfig)
    channels: ChannelPolicy = "auto"  # mono: one microphone heard everyone; split: one speaker per channel
    count: SpeakerCount = field(default_factory=SpeakerCount)
    vad: VadConfig = field(default_factory=VadConfig)
    chunks: ChunkConfig = field(default_factory=ChunkConfig)
    loop_guard: LoopGuardConfig = field(default_factory=LoopGuardConfig)
    diarization: DVectorConfig = field(default_factory=DVectorConfig)
    attribution: AttributionConfig = field(default_factory=AttributionConfig)
    voices: Path | str | None = None  # folder of enrolled people whose speakers get their names; "enrolled": the user's
    offline: bool = False  # never download, not even a missing model


def transcribe(
    source: Path | str | Recording, config: MeetingConfig = MeetingConfig(), *, progress: Progress | None = None
) -> Transcript:
    """Who said what and when in one recording. Errors are `InputError` (the file) or `MissingError` (a model)."""
    return Transcriber(config).run(source, progress=progress)


def diarize(
    source: Path | str | Recording, config: MeetingConfig = MeetingConfig(), *, progress: Progress | None = None
) -> Transcript:
    """Who spoke when: a transcript that has turns and no words. Needs no recognition model."""
    clock, stages, enrolled = _Clock(progress), Checkpoint(), _enrolled(config)
    with clock.stage("read"):
        recording = source if isinstance(source, Recording) else Recording.open(source)
    heard = _listen(recording, config, clock, stages)
    with clock.stage("find speakers"):
        found = heard.find_speakers(config, DVectorDiarizer(config.diarization), stages)
    transcript = Transcript(
        name=heard.recording.name,
        turns=found.turns,
        duration_ms=heard.recording.duration_ms,
        warnings=(*heard.warnings, *found.warnings),
    )
    transcript = transcript.renamed(name_speakers((), found.turns))
    return enrolled.name(transcript, heard.recording) if enrolled else transcript


class Transcriber:
    """A pipeline with its models loaded. `recognizer` and `diarizer` may be your own; `itn` is used for engines that
    do not write punctuation and digits."""

    def __init__(
        self,
        config: MeetingConfig = MeetingConfig(),
        *,
        recognizer: Recognizer | None = None,
        diarizer: Diarizer | None = None,
        itn: Itn = as_written,
    ) -> None:
        self.config = config
        self.enrolled = _enrolled(config)
        self.recognizer = recognizer or build(config.recognition, offline=config.offline)
        self.diarizer = diarizer or DVectorDiarizer(config.diarization)
        self.itn = itn

    def run(
        self,
        source: Path | str | Recording,
        *,
        progress: Progress | None = None,
        resume: bool = False,
        keep_stages: bool = False,
    ) -> Transcript:
        """Transcribe one recording. An empty or silent one gives an empty transcript with a warning.

        `keep_stages` stores the result of each stage in the cache; `resume` then goes on where an earlier run of the
        same recording and options was stopped. What is kept is deleted at the end, or with `keep_stages` by `forget`,
        once the transcript is written.
        """
        clock, config = _Clock(progress), self.config
        with clock.stage("read"):
            original = source if isinstance(source, Recording) else Recording.open(source)
            keep = resume or keep_stages
            stages = Checkpoint.of_recording(original.digest, resume=resume) if keep else Checkpoint()
        heard = _listen(original, config, clock, stages)
        recording, warnings = heard.recording, list(heard.warnings)
        with clock.stage("recognise") as share:
            words, changes, language = self._recognise_all(heard, warnings, stages, share)
        with clock.stage("find speakers"):
            diarization = heard.find_speakers(config, self.diarizer, stages)
            warnings += diarization.warnings
        with clock.stage("attribute"):
            attributed = attribute(words, diarization.turns, config.attribution, changes)
            turns = diarization.turns
            if config.count.exactly is None and heard.plan.kind == "mono":
                attributed, turns, _ = drop_ghosts(attributed, turns, config.attribution, changes)
        transcript = Transcript(
            name=recording.name,
            words=attributed,
            turns=turns,
            language=language,
            duration_ms=recording.duration_ms,
            warnings=tuple(warnings),
        ).renamed(name_speakers(attributed, turns))
        if self.enrolled:
            with clock.stage("name speakers"):
                transcript = self.enrolled.name(transcript, recording)
        if not self.recognizer.capabilities.written_form:
            with clock.stage("write numbers"):
                rewritten = [self.itn(utterance.words) for utterance in transcript.utterances()]
                transcript = dataclasses.replace(transcript, words=tuple(word for turn in rewritten for word in turn))
        if not keep_stages:
            stages.clear()
        report = self._report(transcript, clock, diarization)
        return dataclasses.replace(transcript, meta=report.details, report=report)

    def forget(self, path: Path | str) -> None:
        """Delete the stages kept for the recording in this file."""
        Checkpoint.of_recording(sha256_of(path), resume=False).clear()

    def _recognise_all(
        self, heard: _Heard, warnings: list[str], stages: Checkpoint, share: Callable[[float], None]
    ) -> tuple[list[Word], set[int], str]:
        """Words of all channels in order of time, indices of those that begin another voice, and the language."""
        duration_ms = heard.recording.duration_ms
        chunks = {channel: pack(spans, duration_ms, self.config.chunks) for channel, spans in heard.speech.items()}
        total_ms, done_ms = sum(chunk.duration_ms for own in chunks.values() for chunk in own), 0
        words: list[Word] = []
        changes: set[int] = set()
        languages: list[str] = []
        language = LanguageCheck(self.recognizer, self.config.recognition.language)
        for channel, own in chunks.items():
            for chunk, found, hypothesis in self._recognise(heard.recording, channel, own, stages):
                changes.update(len(words) + change for change in hypothesis.speaker_changes)
                words += found
                languages.append(hypothesis.language)
                language.add(hypothesis)
                warnings += (f"{clock_time(chunk.pieces[0].start_ms)} {warning}" for warning in hypothesis.warnings)
                done_ms += chunk.duration_ms
                share(done_ms / total_ms)
        if language.fault:
            raise MissingError(language.fault, hint=HINT)
        order = sorted(range(len(words)), key=lambda index: words[index].start_ms)
        return (
            [words[index] for index in order],
            {new for new, old in enumerate(order) if old in changes},
            max(languages, key=languages.count, default=self.config.recognition.language or "en"),
        )

    def _recognise(
        self, recording: Recording, channel: int, chunks: Sequence[TimeMap], stages: Checkpoint
    ) -> Iterator[tuple[TimeMap, list[Word], Hypothesis]]:
        """Each chunk with its words on the recording's clock and the hypothesis they come from."""
        config = self.config
        engine = [self.recognizer.name, self.recognizer.model_id, dict(self.recognizer.model_files)]
        depends = [engine, config.recognition, config.loop_guard, channel]
        known = [stages.load("recognise", *depends, chunk) for chunk in chunks]
        missing = (chunk for chunk, stored in zip(chunks, known, strict=True) if stored is None)
        results = self.recognizer.transcribe(cut(recording, chunk, channel) for chunk in missing)
        for chunk, stored in zip(chunks, known, strict=True):
            seconds = chunk.duration_ms / 1000
            if stored is not None:
                checked = Hypothesis.from_json(stored)
            else:

                def decode_again(chunk: TimeMap = chunk) -> Hypothesis:
                    (other,) = self.recognizer.transcribe([cut(recording, chunk, channel)], avoid_repeats=True)
                    return other

                can_avoid = self.recognizer.capabilities.avoids_repeats
                checked = guarded(next(results), seconds, decode_again if can_avoid else None, config.loop_guard)
                stages.store("recognise", checked.to_json(), *depends, chunk)
            words = []
            for word in complete_times(checked.words, seconds, stream=channel):
                span = chunk.original(word)
                words.append(dataclasses.replace(word, start_ms=span.start_ms, end_ms=span.end_ms))
            yield chunk, words, checked

    def _report(self, transcript: Transcript, clock: _Clock, diarization: Diarization) -> Report:
        audio_s = transcript.duration_ms / 1000
        total_s = sum(clock.seconds.values())
        metrics = [
            Metric.of("audio", audio_s, "s"),
            Metric.of("time taken", total_s, "s"),
            Metric.of("real-time factor", total_s / audio_s if audio_s else 0.0),
            Metric.of("peak memory", memory.peak() / 2**20, "MiB"),
            Metric.of("words", len(transcript.words)),
            Metric.of("speakers", len(transcript.speakers)),
            Metric.of("confidence in the number of speakers", diarization.count_confidence),
        ]
        stages = Table("Stages", ("stage", "seconds"), tuple((k, f"{v:.2f}") for k, v in clock.seconds.items()))
        _, why = choose_engine(self.config.recognition)
        details: dict[str, Any] = {
            "wieldy": __version__,
            "engine": self.recognizer.name,
            "model": self.recognizer.model_id,
            "model_files": dict(self.recognizer.model_files),
            "diarizer": self.diarizer.name,
            "options": dataclasses.asdict(self.config) | {"voices": self.config.voices and str(self.config.voices)},
            **transcript.meta,
        }
        notes = (*transcript.warnings, *((why,) if why else ()))
        return Report(transcript.name, tuple(metrics), (stages,), notes=notes, details=details)


class _Clock:
    """Seconds per stage, and progress to whoever watches."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress or (lambda _stage, _share: None)
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        start = time.perf_counter()
        self.progress(name, 0.0)
        yield lambda share: self.progress(name, share)
        self.progress(name, 1.0)
        self.seconds[name] = time.perf_counter() - start


@dataclass(frozen=True)
class _Heard:
    """A recording as it is listened to: its channels and the speech on each."""

    recording: Recording
    plan: ChannelPlan
    speech: Mapping[int, Sequence[Span]]
    warnings: tuple[str, ...]

    def find_speakers(self, config: MeetingConfig, diarizer: Diarizer, stages: Checkpoint) -> Diarization:
        """One speaker per channel where the channels are split, else whoever the diariser hears on the only one."""
        if self.plan.kind == "split":
            return Diarization(active_turns_per_channel(self.speech))
        speech = self.speech[0]
        found = stages.once(
            "find speakers",
            lambda: diarizer.diarize(self.recording, speech, config.count).to_json(),
            *(diarizer.name, self.plan, speech, config.count, config.diarization),
        )
        return Diarization.from_json(found)


def _enrolled(config: MeetingConfig) -> EnrolledVoices | None:
    if config.voices is None:
        return None
    return EnrolledVoices.load(config.voices, threads=config.diarization.threads or os.cpu_count() or 1)


def _listen(recording: Recording, config: MeetingConfig, clock: _Clock, stages: Checkpoint) -> _Heard:
    """Choose the recording's channels and find the speech on them."""

    def look() -> list[list[Any]]:
        found = {channel: detect_speech(view, config.vad, channel=channel) for channel in plan.channels}
        if plan.kind == "split":
            found = without_crosstalk(view, found)
        return [[channel, [[span.start_ms, span.end_ms] for span in spans]] for channel, spans in found.items()]

    with clock.stage("choose channels"):
        plan = choose_channels(recording, config.channels)
        view = plan.view(recording)
    with clock.stage("find speech"):
        found = stages.once("find speech", look, plan, config.vad)
    speech = {channel: tuple(Span(*times) for times in spans) for channel, spans in found}
    warnings = [*recording.warnings, *plan.warnings]
    if not any(speech.values()):
        warnings.append("no speech found")
    return _Heard(view, plan, speech, tuple(warnings))


def clock_time(milliseconds: int) -> str:
    """ "0:01:02" for a point in a recording."""
    minutes, seconds = divmod(milliseconds // 1000, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
