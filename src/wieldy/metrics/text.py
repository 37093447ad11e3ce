"""Word errors: what is compared (normalisers), how it is counted (`WordErrors`) and where the errors lie (`align`).

A word error rate means nothing without its normaliser, so every figure in wieldy names it:

- "basic": lower case, punctuation and symbols stripped, apostrophes inside words kept. Any language.
- "whisper": the English normaliser of OpenAI's Whisper (Radford et al., 2022, arXiv 2212.04356, appendix C): also
  expands contractions, writes numbers as digits, and drops fillers such as "uh". English only.
- "none": the text as it is.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from wieldy.errors import UsageError

NormalizerName = Literal["basic", "whisper", "none"]

# Kept by "basic": an apostrophe inside a word (don't) and a point inside a number (3.5).
_KEPT = re.compile(r"(?<=\w)'(?=\w)|(?<=\d)\.(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def basic(text: str) -> str:
    """Lower case; punctuation and symbols become spaces, except apostrophes inside words and decimal points."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = _THOUSANDS.sub("", text)
    kept = {match.start() for match in _KEPT.finditer(text)}
    letters = (
        character if index in kept or unicodedata.category(character)[0] not in "PS" else " "
        for index, character in enumerate(text)
    )
    return " ".join("".join(letters).split())


def normalizer(name: NormalizerName) -> Callable[[str], str]:
    """The normaliser called `name`: text in, words separated by single spaces out."""
    if name == "basic":
        return basic
    if name == "none":
        return lambda text: " ".join(text.split())
    if name == "whisper":
        whisper = _whisper()
        return lambda text: whisper(text).strip()
    raise UsageError(f"unknown normaliser {name!r}", hint=f"choose from {', '.join(get_args(NormalizerName))}")


@functools.cache
def _whisper() -> Callable[[str], str]:
    from whisper_normalization.english import EnglishTextNormalizer

    with warnings.catch_warnings():
        # The package leaves its spelling table open until it is collected.
        warnings.simplefilter("ignore", ResourceWarning)
        normalize: Callable[[str], str] = EnglishTextNormalizer()
    return normalize


@dataclass(frozen=True)
class WordErrors:
    """Errors against `words` reference words. Adds up over utterances and recordings."""

    words: int = 0
    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0

    def __post_init__(self) -> None:
        for name in ("words", "insertions", "deletions", "substitutions"):
            if getattr(self, name) < 0:
                raise UsageError(f"WordErrors.{name} is {getattr(self, name)}, a count cannot be negative")
        if self.deletions + self.substitutions > self.words:
            raise UsageError(
                f"{self.deletions} deletions and {self.substitutions} substitutions in {self.words} reference words"
            )

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.words + other.words,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
        )

    @property
    def errors(self) -> int:
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float | None:
        """Errors per reference word; above 1 where words were invented. None without a reference word."""
        return self.errors / self.words if self.words else None


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """A least-cost alignment (insertion, deletion and substitution cost 1) as pairs of indices, None for a gap."""
    from rapidfuzz.distance import Levenshtein

    pairs: list[tuple[int | None, int | None]] = []
    for step in Levenshtein.opcodes(reference, hypothesis):
        ref, hyp = range(step.src_start, step.src_end), range(step.dest_start, step.dest_end)
        if step.tag == "delete":
            pairs += [(index, None) for index in ref]
        elif step.tag == "insert":
            pairs += [(None, index) for index in hyp]
        else:
            pairs += zip(ref, hyp, strict=True)
    return pairs


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    """The errors of a least-cost alignment of two word sequences."""
    pairs = align(reference, hypothesis)
    return WordErrors(
        words=len(reference),
        insertions=sum(ref is None for ref, _ in pairs),
        deletions=sum(hyp is None for _, hyp in pairs),
        substitutions=sum(
            ref is not None and hyp is not None and reference[ref] != hypothesis[hyp] for ref, hyp in pairs
        ),
    )
