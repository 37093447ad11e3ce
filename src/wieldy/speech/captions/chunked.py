"""Makes a streaming engine of a recogniser that hears stretches of sound, such as Whisper.

Sound is kept from where somebody begins to speak, heard again at every step, and dropped at the next pause, or at the
end of a sentence once there is much of it. What two successive hearings agree on is committed (`agreement`). Silence
is never heard at all, so no words are made up in it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wieldy.errors import UsageError
from wieldy.speech.align import complete_times
from wieldy.speech.audio import SAMPLE_RATE
from wieldy.speech.captions import Heard
from wieldy.speech.captions.agreement import SENTENCE_ENDS, LocalAgreement
from wieldy.speech.recognize import Hypothesis, Recognizer
from wieldy.speech.recognize.language import HINT, LanguageCheck
from wieldy.speech.recognize.loop_guard import LoopGuardConfig, guarded
from wieldy.speech.transcript import Word
from wieldy.speech.vad import FRAME_MS, FRAME_SAMPLES, Detector, SpeechMonitor, VadConfig


@dataclass(frozen=True, kw_only=True)
class ChunkedConfig:
    """When sound is heard, committed and dropped. All times in milliseconds."""

    first_ms: int = 600  # after somebody begins to speak, the first hearing
    step_ms: int = 1000  # from one hearing to the next
    max_step_ms: int = 4000  # ... where the machine cannot keep up
    hold_ms: int = 300  # a word that ends this close to the end of the sound may not be over
    pause_ms: int = 700  # silence that ends an utterance; a shorter one is part of it
    pad_ms: int = 300  # sound kept before somebody begins to speak
    cut_ms: int = 10_000  # longer sound is cut at the last committed end of a sentence
    max_ms: int = 20_000  # sound never gets longer, whatever that costs; Whisper hears 30 s
    # An utterance with less speech in it is dropped. A quiet "Hello?" has 128 ms; 24 sounds without speech gave no word
    # at 250 ms nor at 100.
    min_speech_ms: int = 100
    on: float = 0.5  # probability from which on a frame is speech, (0, 1)
    off: float = 0.35  # ... and below which it no longer is, (0, on]
    detector: Detector = "auto"  # of speech; as in VadConfig, like the two figures before

    def __post_init__(self) -> None:
        VadConfig(on=self.on, off=self.off, detector=self.detector)  # it knows what is possible
        for each in dataclasses.fields(self):
            if each.name.endswith("_ms") and getattr(self, each.name) < FRAME_MS:
                raise UsageError(f"{each.name} is {getattr(self, each.name)}", hint=f"at least {FRAME_MS} ms")
        if self.max_step_ms < self.step_ms:
            raise UsageError(f"max_step_ms is {self.max_step_ms}", hint=f"at least step_ms, {self.step_ms}")
        if not self.cut_ms <= self.max_ms <= 25_000:
            raise UsageError(f"max_ms is {self.max_ms}", hint=f"from cut_ms, {self.cut_ms}, to 25000")


@dataclass
class _Utterance:
    """Speech that is going on, in frames since the beginning of the stream."""

    begin: int  # its first frame
    speech_end: int  # after its last frame of speech
    next_ms: int  # when it is heard next
    speech: int = 0  # frames of speech
    heard: int = 0  # what it was heard to last time
    hypothesis: Hypothesis | None = None  # of that hearing


@dataclass
class _Found:
    """What one call has found so far."""

    committed: list[Word] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pause: bool = False


class ChunkedEngine:
    """One stream through `recognizer`, which may serve several. Without an utterance it costs the detector alone.

    `monitor` takes the place of the one that `config.detector` names. `language` is that of the stream, where named.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        config: ChunkedConfig = ChunkedConfig(),
        loop_guard: LoopGuardConfig = LoopGuardConfig(),
        *,
        language: str | None = None,
        monitor: SpeechMonitor | None = None,
    ) -> None:
        self.name, self.model_id = recognizer.name, recognizer.model_id
        self.model_files: Mapping[str, str] = recognizer.model_files
        self.steps_ms = (config.step_ms, config.max_step_ms)
        self.recognizer = recognizer
        self.config = config
        self.loop_guard = loop_guard
        self._monitor = monitor or SpeechMonitor(config.detector)
        self._language: LanguageCheck | None = LanguageCheck(recognizer, language)
        self._agreement = LocalAgreement()
        self._samples = np.zeros(0, np.float32)  # from frame _start on, to the end of the stream
        self._probabilities: list[float] = []  # of speech, from frame _start to _now
        self._start = self._now = 0
        self._speaking = False
        self._utterance: _Utterance | None = None

    def push(self, samples: np.ndarray, step_ms: int) -> Heard:
        """See `StreamingEngine.push`."""
        found = _Found()
        self._samples = np.concatenate([self._samples, samples])
        for probability in self._monitor.push(samples):
            self._next_frame(float(probability))
            if (utterance := self._utterance) is None:
                self._drop_until(self._now - self.config.pad_ms // FRAME_MS)
            elif (self._now - utterance.speech_end) * FRAME_MS >= self.config.pause_ms:
                self._end(utterance, found)
            elif self._now * FRAME_MS >= utterance.next_ms and utterance.speech_end > utterance.heard:
                self._update(utterance, step_ms, found)
        return self._heard(found)

    def flush(self) -> Heard:
        """See `StreamingEngine.flush`."""
        found = _Found()
        if self._utterance:
            self._end(self._utterance, found)
        return self._heard(found)

    def _heard(self, found: _Found) -> Heard:
        partial = tuple(self._agreement.pending)
        return Heard(tuple(found.committed), partial, found.pause and not self._utterance, tuple(found.warnings))

    def _next_frame(self, probability: float) -> None:
        """Begin an utterance, or note that it goes on."""
        self._now += 1
        self._probabilities.append(probability)
        self._speaking = probability >= (self.config.off if self._speaking else self.config.on)
        if not self._speaking:
            return
        if self._utterance is None:
            begin = self._now - 1
            self._utterance = _Utterance(begin, self._now, begin * FRAME_MS + self.config.first_ms)
        self._utterance.speech += 1
        self._utterance.speech_end = self._now

    def _update(self, utterance: _Utterance, step_ms: int, found: _Found) -> None:
        """Hear the utterance so far."""
        utterance.next_ms = self._now * FRAME_MS + step_ms
        if utterance.speech * FRAME_MS < self.config.min_speech_ms:
            return
        words = self._hear(utterance)
        unstable_ms = self.config.hold_ms if self._speaking else 0
        found.committed += self._agreement.update(words, self._now * FRAME_MS - unstable_ms)
        self._shorten(found)

    def _end(self, utterance: _Utterance, found: _Found) -> None:
        """Hear the utterance a last time, with some of the silence after it, and commit all of it."""
        if utterance.speech * FRAME_MS >= self.config.min_speech_ms:
            if utterance.heard < utterance.speech_end + self.config.hold_ms // FRAME_MS:
                self._agreement.replace(self._hear(utterance))
            found.committed += self._agreement.commit_all()
            found.warnings += self._warnings(utterance)
            found.pause = True
        self._utterance = None
        self._speaking = False
        self._drop_until(self._now - self.config.pad_ms // FRAME_MS)
        self._agreement.forget_until(self._now * FRAME_MS)

    def _warnings(self, utterance: _Utterance) -> tuple[str, ...]:
        """Of the last hearing; that of another language comes once, and then again only in another stream."""
        if utterance.hypothesis is None:
            return ()
        if self._language:
            self._language.add(utterance.hypothesis)
            if self._language.fault:
                foreign = f"{self._language.fault}; {HINT}"
                self._language = None
                return (*utterance.hypothesis.warnings, foreign)
        return utterance.hypothesis.warnings

    def _hear(self, utterance: _Utterance) -> list[Word]:
        """The words of all the sound that is kept, on the stream's clock."""
        samples = self._samples[: (self._now - self._start) * FRAME_SAMPLES]
        seconds = len(samples) / SAMPLE_RATE

        def hear(avoid_repeats: bool = False) -> Hypothesis:
            (hypothesis,) = self.recognizer.transcribe([samples], avoid_repeats=avoid_repeats)
            return hypothesis

        again = (lambda: hear(avoid_repeats=True)) if self.recognizer.capabilities.avoids_repeats else None
        hypothesis = guarded(hear(), seconds, again, self.loop_guard)
        utterance.heard = self._now
        utterance.hypothesis = hypothesis
        offset = self._start * FRAME_MS
        return [
            dataclasses.replace(word, start_ms=word.start_ms + offset, end_ms=word.end_ms + offset)
            for word in complete_times(hypothesis.words, seconds)
        ]

    def _shorten(self, found: _Found) -> None:
        """Drop sound whose words are committed once there is much of it."""
        if (self._now - self._start) * FRAME_MS <= self.config.cut_ms:
            return
        words = [*self._agreement.kept, *self._agreement.pending[:1]]
        ends = [pair for pair in itertools.pairwise(words) if pair[0].text.endswith(SENTENCE_ENDS)]
        if ends:
            self._cut(self._gap(*ends[-1]))
        length_ms = (self._now - self._start) * FRAME_MS
        if length_ms + self.config.max_step_ms > self.config.max_ms:
            middle_ms = self._now * FRAME_MS - length_ms // 2
            if not self._agreement.kept or self._agreement.kept[-1].end_ms < middle_ms:
                found.committed += self._agreement.commit_until(middle_ms + length_ms // 4)
            words = [*self._agreement.kept, *self._agreement.pending[:1]]
            gaps = [gap for gap in map(self._gap, words, words[1:]) if gap * FRAME_MS >= middle_ms]
            self._cut(min(gaps, key=self._probability, default=middle_ms // FRAME_MS))

    def _gap(self, before: Word, after: Word) -> int:
        """The frame with the least speech between the middles of two words; of several, that closest to their edges."""
        first, last = ((word.start_ms + word.end_ms) // 2 // FRAME_MS for word in (before, after))
        edge = (before.end_ms + after.start_ms) // 2 // FRAME_MS
        first = min(max(first, self._start), self._now - 1)
        frames = range(first, min(max(first, last), self._now - 1) + 1)
        return min(frames, key=lambda frame: (self._probability(frame), abs(frame - edge)))

    def _probability(self, frame: int) -> float:
        return self._probabilities[frame - self._start]

    def _cut(self, frame: int) -> None:
        self._drop_until(frame)
        self._agreement.forget_until(frame * FRAME_MS)

    def _drop_until(self, frame: int) -> None:
        """Forget the sound before `frame`."""
        if frame > self._start:
            self._samples = self._samples[(frame - self._start) * FRAME_SAMPLES :]
            del self._probabilities[: frame - self._start]
            self._start = frame
