"""Inverse text normalisation: spoken words to written form ("twenty one" to "21").

Whisper-like engines already write digits and punctuation; for those, `as_written` passes the words through. An
engine that does not goes through an `Itn`, which must keep a time and a speaker on every word it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wieldy.speech.transcript import Word


class Itn(Protocol):
    """Rewrites the words of one turn; the result covers the same time and has the same speaker."""

    def __call__(self, words: Sequence[Word]) -> tuple[Word, ...]: ...


def as_written(words: Sequence[Word]) -> tuple[Word, ...]:
    """The words as they are: for engines whose output already has punctuation and digits."""
    return tuple(words)
