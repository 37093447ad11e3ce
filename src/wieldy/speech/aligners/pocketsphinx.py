"""Forced alignment with CMU PocketSphinx, whose English model is inside its package: words and phones to 10 ms.

Needs no recogniser of one's own. Its dictionary has 135,000 words and it cannot align any other; on people its
boundaries are some tens of milliseconds off, which pre-training survives (see the claim of alignment-pretraining).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.errors import InputError, MissingError
from wieldy.metrics.text import basic
from wieldy.speech.aligners import Alignment

_FRAME_S = 0.01  # PocketSphinx's own
_MARKS = ("<", "[", "+")  # what the names of silence and noise begin with


class PocketSphinxAligner:
    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise MissingError("pocketsphinx is not installed", hint="pip install 'wieldy[speech]'") from error
        self._decoder = Decoder(samprate=16_000, loglevel="FATAL")

    def align(self, samples: NDArray[np.float32], text: str) -> Alignment:
        """As `Aligner.align`. The words keep their spelling, upper case and punctuation do not count."""
        written = text.split()
        words = [basic(word) for word in written]
        # The decoder crashes the process when it is started after a text it refused.
        unknown = [word for word, plain in zip(written, words, strict=True) if not self._decoder.lookup_word(plain)]
        if unknown or not words:
            raise InputError(
                f"the pronunciation of {', '.join(map(repr, unknown)) or 'nothing'} is not known to pocketsphinx",
                hint="spell numbers out, or align with a CTC model",
            )
        self._decoder.set_align_text(" ".join(words))
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        try:
            self._decode(pcm)
            if not list(self._decoder.seg() or ()):
                raise RuntimeError("no path through the words")
            self._decoder.set_alignment()  # a second pass, for the phones
            self._decode(pcm)
        except RuntimeError as error:  # the decoder's own, where the sound ends in the middle of the text
            raise InputError(f"{len(samples) / 16_000:g} s of sound cannot be aligned with {text!r}") from error
        names, found, phones = iter(written), [], []
        for word in self._decoder.get_alignment():  # an entry is gone, and crashes, once the loop has moved on
            if not word.name.startswith(_MARKS):
                found.append(_item(next(names), word))
                phones += [_item(phone.name, phone) for phone in word]
        return Alignment(tuple(found), tuple(phones))

    def _decode(self, pcm: bytes) -> None:
        if pcm:  # the decoder fails on an empty buffer
            self._decoder.start_utt()
            self._decoder.process_raw(pcm, full_utt=True)
            self._decoder.end_utt()


def _item(symbol: str, entry: Any) -> AlignmentItem:
    return AlignmentItem(symbol, round(entry.start * _FRAME_S, 2), round(entry.duration * _FRAME_S, 2))
