"""Notices that an English-only model is given another language: it writes English words, but is unsure of them."""

from __future__ import annotations

from wieldy.speech.recognize import Hypothesis, Recognizer
from wieldy.speech.recognize.engines import MULTILINGUAL_MODEL

# Whisper tiny.en's mean log-probability per token: English read or spoken, down to 0 dB of noise, -0.16 to -0.70;
# German, French, Italian, Polish, Spanish (synthetic) -1.07 to -2.74. Fewer words than this say little either way.
_FOREIGN = -0.9
_ENOUGH_WORDS = 20

HINT = (
    f"run: wieldy models get {MULTILINGUAL_MODEL}, then use --model {MULTILINGUAL_MODEL}; if it is English, say "
    "--language en"
)


class LanguageCheck:
    """Of what `recognizer` heard so far. Never doubts a `language` that was named."""

    def __init__(self, recognizer: Recognizer, language: str | None) -> None:
        self._model = recognizer.model_id
        self._doubts = language is None and recognizer.capabilities.languages == ("en",)
        self._words, self._sum = 0, 0.0

    def add(self, hypothesis: Hypothesis) -> None:
        if hypothesis.log_probability is not None:
            self._words += len(hypothesis.words)
            self._sum += hypothesis.log_probability * len(hypothesis.words)

    @property
    def fault(self) -> str | None:
        """What is wrong, None where there is no reason for doubt."""
        if not self._doubts or self._words < _ENOUGH_WORDS or (mean := self._sum / self._words) >= _FOREIGN:
            return None
        return (
            f"this does not sound like English, the only language of model {self._model} "
            f"(mean log-probability {mean:.2f})"
        )
