"""Words that a recogniser is to expect: a list of names, or a language model of your text, for any engine that can
search with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wieldy.errors import UsageError

if TYPE_CHECKING:
    from wieldy.speech.decode import PrefixScorer
    from wieldy.speech.decode.lm.words import Spelling


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    words: tuple[str, ...] = ()  # names and phrases, written as they are to come out
    bonus: float = 1.5  # in nats, for every token of them, >= 0
    lm: Path | None = None  # an ARPA file of words, without punctuation, in lower case
    lm_weight: float = 0.3  # of its log-probabilities, >= 0; ilme's

    def __post_init__(self) -> None:
        for name in ("bonus", "lm_weight"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must not be negative")
        if not all(word.strip() for word in self.words):
            raise UsageError("a word of --words is empty", hint="separate them by one comma")

    def __bool__(self) -> bool:
        return bool(self.words or self.lm)

    def scorer(self, spelling: Spelling) -> PrefixScorer:
        """For a recogniser with these tokens. Raises `InputError` where the file is no ARPA file."""
        from wieldy.speech.decode.lm.backoff import BackoffModel
        from wieldy.speech.decode.lm.fusion import Together
        from wieldy.speech.decode.lm.words import ArpaWords, PhraseScorer, WordScorer
        from wieldy.speech.recognize import folded

        scorers: list[PrefixScorer] = []
        if self.words:
            scorers.append(PhraseScorer(self.words, spelling, self.bonus))
        if self.lm:
            scorers.append(WordScorer(ArpaWords(BackoffModel.read(self.lm)), spelling, self.lm_weight, folded))
        return Together(scorers)
