"""CMU PocketSphinx: a small GMM-HMM recogniser whose English model is inside its package.

Use it where nothing else can run, or as a hybrid first pass. It is far less accurate than Whisper on conversation and
writes no punctuation, case or digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import numpy as np

from wieldy.errors import MissingError
from wieldy.speech.recognize import Capabilities, HeardWord, Hypothesis

_FRAMES_PER_S = 100  # PocketSphinx's own frame rate


class PocketSphinx:
    """The English model inside the `pocketsphinx` package, one decoder, reused for every stretch."""

    name = "pocketsphinx"
    model_id = "pocketsphinx-en-us"
    model_files: Mapping[str, str] = MappingProxyType({})  # inside its package, whose version says which they are
    capabilities = Capabilities(
        word_times=True,
        token_scores=False,
        written_form=False,
        avoids_repeats=False,
        languages=("en",),
        max_audio_s=math.inf,
    )

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise MissingError("engine pocketsphinx is not installed", hint="pip install 'wieldy[speech]'") from error
        self._decoder = Decoder(samprate=16_000, loglevel="FATAL")

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        """One hypothesis per stretch of audio, in order. `avoid_repeats` changes nothing: its search does not loop."""
        del avoid_repeats
        for samples in audio:
            yield self._decode(samples)

    def _decode(self, samples: np.ndarray) -> Hypothesis:
        if not len(samples):  # the decoder fails on an empty buffer
            return Hypothesis(())
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        words = []
        for segment in self._decoder.seg() or ():
            if segment.word.startswith(("<", "[", "+")):  # silence and noise models
                continue
            words.append(
                HeardWord(
                    segment.word.split("(")[0],  # "read(2)" is the second pronunciation of "read"
                    segment.start_frame / _FRAMES_PER_S,
                    (segment.end_frame + 1) / _FRAMES_PER_S,
                    segment.prob,
                )
            )
        return Hypothesis(tuple(words))
