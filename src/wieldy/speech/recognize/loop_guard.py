"""Catches a recogniser that has stopped listening: loops, text faster than speech, text that compresses too well.

Whisper-like decoders repeat themselves on silence, music and noise. A hypothesis that looks so is decoded again with
repetition forbidden; if that is not believed either, the loop is cut out. Either way the transcript carries a warning.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wieldy.speech.recognize import Hypothesis, folded


@dataclass(frozen=True, kw_only=True)
class LoopGuardConfig:
    """When a hypothesis is not believed. Defaults: the specification of `speech-pipeline`."""

    max_compression: float = 2.4  # bytes of text / bytes after zlib; Whisper's own threshold
    max_repeats: int = 4  # the same 1- to 4-gram this often in a row is a loop
    max_words_per_s: float = 8.0  # nobody speaks faster for long; checked from 5 words on


LONGEST_LOOP = 4  # words in the longest n-gram that is checked for repetition
_FEW = 5  # words below which their rate says nothing


def find_loop(words: Sequence[str], max_repeats: int) -> tuple[int, int, int] | None:
    """First `(start, length, repeats)` of an n-gram that stands `max_repeats` times in a row or more, else None."""
    texts = [folded(word) for word in words]
    for start in range(len(texts)):
        for length in range(1, LONGEST_LOOP + 1):
            gram, repeats = texts[start : start + length], 1
            while len(gram) == length and texts[start + repeats * length : start + (repeats + 1) * length] == gram:
                repeats += 1
            if repeats >= max_repeats:
                return start, length, repeats
    return None


def suspicion(hypothesis: Hypothesis, audio_s: float, config: LoopGuardConfig = LoopGuardConfig()) -> str | None:
    """Why the hypothesis is not believed, in words for a warning; None if it is."""
    words = [word.text for word in hypothesis.words]
    if loop := find_loop(words, config.max_repeats):
        start, length, repeats = loop
        return f"{' '.join(words[start : start + length])!r} repeated {repeats} times"
    if len(words) >= _FEW and len(words) > config.max_words_per_s * audio_s:
        return f"{len(words)} words in {audio_s:.1f} s"
    text = hypothesis.text.encode()
    if (ratio := len(text) / len(zlib.compress(text))) > config.max_compression:
        return f"compression ratio {ratio:.1f}"
    return None


def guarded(
    hypothesis: Hypothesis,
    audio_s: float,
    decode_again: Callable[[], Hypothesis] | None,
    config: LoopGuardConfig = LoopGuardConfig(),
) -> Hypothesis:
    """The hypothesis if it is believed, else what `decode_again()`, without repetition, gives if that is.

    Where it is not (or `decode_again` is None), the loops are cut to one repetition, and text that is too much for
    the audio is dropped whole. What was done is in the result's `warnings`.
    """
    reason = suspicion(hypothesis, audio_s, config)
    if reason is None:
        return hypothesis
    if decode_again is not None:
        other = decode_again()
        if suspicion(other, audio_s, config) is None:
            return _warned(other, f"{reason}: decoded again without repetition")
    words = list(hypothesis.words)
    while loop := find_loop([word.text for word in words], config.max_repeats):
        start, length, repeats = loop
        del words[start + length : start + repeats * length]
    cut = dataclasses.replace(hypothesis, words=tuple(words), speaker_changes=())  # indices moved
    if suspicion(cut, audio_s, config) is None:
        return _warned(cut, f"{reason}: repetitions removed, {len(words)} of {len(hypothesis.words)} words kept")
    nothing = dataclasses.replace(hypothesis, words=(), speaker_changes=())
    return _warned(nothing, f"{reason}: {len(hypothesis.words)} words dropped")


def _warned(hypothesis: Hypothesis, warning: str) -> Hypothesis:
    return dataclasses.replace(hypothesis, warnings=(*hypothesis.warnings, warning))
