"""A trained transducer as the engine of live captions: every frame is worked through once, as it comes.

Words are committed when all hypotheses of the beam agree on them and the next word has begun, or when nothing was said
for a while; the search then begins afresh, so that what it remembers does not grow with the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import soxr
import torch
from torch import Tensor

from wieldy.errors import UsageError
from wieldy.speech.align import complete_times
from wieldy.speech.audio import SAMPLE_RATE
from wieldy.speech.captions import Heard
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.decode.frame_branch import Tap
from wieldy.speech.decode.transducer_beam import BeamSession
from wieldy.speech.decode.word_times import WordTimeStream
from wieldy.speech.features import LogMelStream
from wieldy.speech.networks.encoder import State
from wieldy.speech.recognize import HeardWord
from wieldy.speech.recognize.transducer import TransducerRecognizer
from wieldy.speech.transcript import Word


@dataclass(frozen=True, kw_only=True)
class TransducerEngineConfig:
    step_ms: int = 160  # sound that is worked through at a time, > 0: less costs more, more comes later
    pause_ms: int = 700  # without a token: what was said before is final; as for Whisper's captions
    longest_ms: int = 30_000  # of speech without a pause, after which the search begins afresh all the same

    def __post_init__(self) -> None:
        for name in ("step_ms", "pause_ms", "longest_ms"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must be at least 1")


class TransducerEngine:
    """One stream through `recognizer`, which may serve several. A `StreamingEngine`."""

    def __init__(
        self, recognizer: TransducerRecognizer, config: TransducerEngineConfig = TransducerEngineConfig()
    ) -> None:
        self.name, self.model_id, self.model_files = recognizer.name, recognizer.model_id, recognizer.model_files
        self.steps_ms = (config.step_ms, config.step_ms)
        self.recognizer, self.config = recognizer, config
        rate = recognizer.features.sample_rate
        latency = recognizer.network.latency().in_seconds(recognizer.features.frame_s)
        if latency.worst == float("inf"):
            raise UsageError(
                f"{recognizer.model_id} hears whole recordings only", hint="train it with an encoder that streams"
            )
        self._look_ahead_s = latency.worst
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(SAMPLE_RATE, rate, 1, dtype="float32")
        self._features = LogMelStream(recognizer.features)
        self._encoder = recognizer.network.init_state(1)
        timing = recognizer.timing
        phones = timing.phones if timing and timing.method == "phone" else None
        self._times = WordTimeStream(phones) if phones else None
        self._waiting = np.zeros(0, np.float32)  # sound of less than a step
        self._frames = 0  # of the encoder, so far
        self._begin()

    def push(self, samples: np.ndarray, step_ms: int) -> Heard:
        """See `StreamingEngine.push`."""
        self._waiting = np.concatenate([self._waiting, samples])
        if len(self._waiting) < step_ms * SAMPLE_RATE // 1000:
            return Heard(partial=self._partial)
        self._advance(self._waiting)
        self._waiting = self._waiting[:0]
        return self._heard()

    def flush(self) -> Heard:
        """See `StreamingEngine.flush`. The sound is heard out: what the network looks ahead to is silence."""
        held_back = self._resampler.delay() if self._resampler else 0.0
        features = self.recognizer.features
        silence = self._look_ahead_s + (features.window + held_back) / features.sample_rate
        self._advance(np.concatenate([self._waiting, np.zeros(round(silence * SAMPLE_RATE), np.float32)]))
        self._waiting = self._waiting[:0]
        return self._heard(final=True)

    def _begin(self) -> None:
        """A fresh search from the present frame on."""
        self._search: BeamSession = self.recognizer.beam.start(1)
        self._first = self._frames
        self._given = 0  # tokens of this search that are committed
        self._partial: tuple[Word, ...] = ()

    @torch.inference_mode()
    def _advance(self, samples: np.ndarray) -> None:
        if self._resampler:
            samples = self._resampler.resample_chunk(samples)
        frames = self._features.push(samples)
        if not len(frames):
            return
        f, self._encoder = self._stepped(torch.from_numpy(frames)[None])
        self._search.push(f, torch.tensor([f.shape[1]]))
        self._frames += f.shape[1]

    def _stepped(self, x: Tensor) -> tuple[Tensor, State]:
        network, timing = self.recognizer.network, self.recognizer.timing
        if self._times is None or timing is None:
            return network.step(x, self._encoder)
        with Tap(network, timing.tap) as tap:
            f, state = network.step(x, self._encoder)
        if tap.runs:
            self._times.push(tap.taken())
        return f, state

    def _heard(self, final: bool = False) -> Heard:
        best = self._search.partial()[0]
        frame_ms = self.recognizer.frame_s * 1000
        searched_ms = (self._frames - self._first) * frame_ms
        quiet_ms = searched_ms - (best.frames[-1] + 1) * frame_ms if best.frames else 0.0
        pause = bool(best.tokens) and (final or quiet_ms >= self.config.pause_ms)
        ended = pause or searched_ms >= self.config.longest_ms
        last = len(best.tokens) if ended else self._complete(best.tokens)
        offset = self._first * self.recognizer.frame_s
        partial = self.recognizer.words(best, last, None, offset)
        committed = self._words(self._final_words(best, last, offset, [word.text for word in partial]))
        self._given = last
        if ended:
            self._begin()
        else:
            self._partial = self._words(partial)
        return Heard(committed, self._partial, pause)

    def _final_words(self, best: TokenHypothesis, last: int, offset_s: float, following: list[str]) -> list[HeardWord]:
        """The words up to token `last` that were not given yet, with times and confidence as they were learnt."""
        before = self.recognizer.words(best, 0, self._given, offset_s)
        words = self.recognizer.words(best, self._given, last, offset_s)
        if self._times is not None and words:
            self._times.add([word.text for word in words])
            words = [
                word if time.start_s is None else replace(word, start=time.start_s, end=time.end_s)
                for word, time in zip(words, self._times.finished(following), strict=True)
            ]
        confidence = self.recognizer.confidence
        if confidence is None or not words:
            return words
        rest = self.recognizer.words(best, last, None, offset_s)
        features = confidence.seen(self.recognizer, [best], [*before, *words, *rest])
        return confidence.marked(words, features[len(before) : len(before) + len(words)])

    def _complete(self, tokens: tuple[int, ...]) -> int:
        """How many of the best hypothesis's tokens belong to words that are certain and over."""
        settled = self._search.settled()[0]
        begins = [i for i in range(self._given + 1, settled) if self.recognizer.tokenizer.begins_word(tokens[i])]
        return max(begins, default=self._given)

    def _words(self, words: list[HeardWord]) -> tuple[Word, ...]:
        return tuple(complete_times(words, (self._frames + 1) * self.recognizer.frame_s))
