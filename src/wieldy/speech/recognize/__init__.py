"""Recognition: stretches of speech in, words out, whichever engine does it.

An engine is anything with this module's `Recognizer` shape; it declares what it can do in `Capabilities`, and the
pipeline asks that before it asks the engine. Engines live beside this file, one module each, and import their
package only when they are built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

SAMPLE_RATE = 16_000  # Hz, what every recogniser is fed
NO_REPEAT = 3  # tokens: with `avoid_repeats`, a sequence this long comes at most once per stretch of audio


@dataclass(frozen=True)
class HeardWord:
    """A word as an engine heard it; times in seconds from the start of the audio it was given.

    `start` and `end` are None where the engine gives no times; `confidence` is a probability in [0, 1] or None.
    """

    text: str
    start: float | None = None
    end: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Hypothesis:
    """What an engine heard in one stretch of audio.

    `log_probability` is the mean natural-log probability per token. `speaker_changes` are indices into `words` at
    which another voice begins, for engines that mark them. `stream` numbers the talkers of multi-talker engines.
    """

    words: tuple[HeardWord, ...]
    language: str = "en"
    log_probability: float | None = None
    stream: int = 0
    speaker_changes: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Hypothesis:
        """The inverse of `to_json`."""
        lists = {key: tuple(data[key]) for key in ("speaker_changes", "warnings")}
        return cls(**{**data, **lists, "words": tuple(HeardWord(**word) for word in data["words"])})


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do. `languages` is None where it is multilingual without a fixed list."""

    word_times: bool
    token_scores: bool
    written_form: bool  # punctuation, case and digits: no inverse text normalisation needed
    avoids_repeats: bool  # can decode again with repeated n-grams forbidden, when a first result loops
    languages: tuple[str, ...] | None = ("en",)
    max_audio_s: float = 30.0


@runtime_checkable
class Recognizer(Protocol):
    """The shape every engine has. Results come in the order of the audio and as soon as they are ready."""

    name: str
    model_id: str
    model_files: Mapping[str, str]  # SHA-256 of each file of weights, by file name
    capabilities: Capabilities

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        """Recognise float32 mono stretches at `SAMPLE_RATE`, each at most `capabilities.max_audio_s` long.

        The same audio gives the same words. `avoid_repeats` forbids the same `NO_REPEAT` words or tokens in a row
        from coming twice, at some cost in accuracy.
        """
        ...


def begins_word(piece: str) -> bool:
    """Whether a piece of decoded text begins a new word: after a space, or in a script that is written without."""
    return piece[:1].isspace() or "\u2e80" <= piece[:1] <= "\u9fff"


def folded(word: str) -> str:
    """A word as it is compared with another hearing of it: without case and the punctuation around it."""
    return word.strip(".,;:!?\"'()").casefold()


RECOGNIZER_FILE = "recognizer.json"  # what tells the folder of a recogniser of `wieldy train asr` from others

EngineName = Literal["auto", "faster-whisper", "transformers", "pocketsphinx"]
