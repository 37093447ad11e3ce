"""Whisper through `faster-whisper` (CTranslate2): the default engine, int8 on the CPU, no torch.

Speech chunks are independent once the voice activity detector has cut them, so they are decoded side by side: one
model, one worker of one thread per core. That decodes about twice the audio per second of one worker with all
threads, since a tiny model leaves little to share within one decode.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wieldy.speech.recognize import NO_REPEAT, Capabilities, HeardWord, Hypothesis, begins_word
from wieldy.speech.recognize.no_speech import why_dropped
from wieldy.weights import fingerprint

if TYPE_CHECKING:
    from faster_whisper import WhisperModel


class FasterWhisper:
    """A CTranslate2 Whisper from a local folder.

    `threads` are the cores it uses, by default all, and `workers` how many chunks are decoded at once, by default one
    per core. `language` is a code, or None to detect it per chunk with a multilingual model. `beam_size` 5 is Whisper's
    own default.
    """

    name = "faster-whisper"

    def __init__(
        self,
        folder: Path,
        *,
        model_id: str | None = None,
        language: str | None = None,
        beam_size: int = 5,
        threads: int | None = None,
        workers: int | None = None,
        compute_type: str = "int8",
    ) -> None:
        from faster_whisper import WhisperModel

        threads = threads or os.cpu_count() or 1
        self.workers = min(workers or threads, threads)
        self.model: WhisperModel = WhisperModel(
            str(folder),
            device="cpu",
            compute_type=compute_type,
            cpu_threads=threads // self.workers,
            num_workers=self.workers,
            local_files_only=True,
        )
        self.model_id = model_id or folder.name
        self.model_files: Mapping[str, str] = fingerprint(folder)
        self.language = language
        self.beam_size = beam_size
        self.capabilities = Capabilities(
            word_times=True,
            token_scores=False,
            written_form=True,
            avoids_repeats=True,
            languages=tuple(self.model.supported_languages),
        )

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        """One hypothesis per stretch of audio, in order, `workers` of them under way at a time."""
        with ThreadPoolExecutor(self.workers) as pool:
            under_way: deque[Future[Hypothesis]] = deque()
            try:
                for samples in audio:
                    under_way.append(pool.submit(self._decode, samples, avoid_repeats))
                    # Twice the workers: the reader stays ahead of them and never holds more than that.
                    while len(under_way) >= 2 * self.workers:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for future in under_way:
                    future.cancel()

    def _decode(self, samples: np.ndarray, avoid_repeats: bool) -> Hypothesis:
        segments, info = self.model.transcribe(
            samples,
            language=self.language,
            beam_size=self.beam_size,
            temperature=0.0,  # no sampling: CTranslate2's workers draw in no fixed order, and results must repeat
            no_repeat_ngram_size=NO_REPEAT if avoid_repeats else 0,
            condition_on_previous_text=False,  # chunks are decoded side by side; it also feeds loops
            no_speech_threshold=None,  # it would drop words without a word about it
            word_timestamps=True,
        )
        words: list[HeardWord] = []
        warnings: list[str] = []
        log_probability, tokens = 0.0, 0
        for segment in segments:
            if warning := why_dropped(segment.text, segment.no_speech_prob, segment.avg_logprob):
                warnings.append(warning)
                continue
            log_probability += segment.avg_logprob * len(segment.tokens)
            tokens += len(segment.tokens)
            for word in segment.words or ():
                heard = HeardWord(word.word.strip(), float(word.start), float(word.end), float(word.probability))
                if words and not begins_word(word.word):  # "$1" and ",000" are one word
                    words[-1] = _joined(words[-1], heard)
                elif heard.text:
                    words.append(heard)
        return Hypothesis(
            tuple(words),
            language=info.language,
            log_probability=log_probability / tokens if tokens else None,
            warnings=tuple(warnings),
        )


def _joined(first: HeardWord, rest: HeardWord) -> HeardWord:
    """One word from its two parts; as sure as the less sure of them."""
    confidence = min(first.confidence or 0.0, rest.confidence or 0.0)
    return HeardWord(first.text + rest.text, first.start, rest.end, confidence)
