"""How long a listener waits for a streaming recogniser: what the network must see before it can answer.

`AlgorithmicLatency` counts frames of sound, whatever the machine; `EmissionLatency` is how long after its end a word
came, which training decides. The time the machine needs comes on top of both.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from wieldy.errors import UsageError
from wieldy.metrics.text import align

if TYPE_CHECKING:
    from wieldy.speech.decode import TokenHypothesis
    from wieldy.speech.tokens import Tokenizer


@dataclass(frozen=True, kw_only=True)
class AlgorithmicLatency:
    """Look-ahead and look-back of an encoder, in input frames; infinite where it needs the whole utterance.

    Input frame i speaks through output frame i // subsampling. Its look-ahead is the last input frame which that output
    depends on, minus i; its look-back is i minus the first one.
    """

    worst: float  # largest look-ahead of any frame, >= 0
    mean: float  # look-ahead averaged over frames, >= 0
    past: float  # largest look-back, >= 0

    def __post_init__(self) -> None:
        if not 0 <= self.mean <= self.worst or not self.past >= 0:
            raise UsageError(
                f"latency worst {self.worst}, mean {self.mean}, past {self.past}", hint="0 <= mean <= worst, 0 <= past"
            )

    @classmethod
    def of_chunks(cls, chunk: float, right: float, subsampling: int, front: int, past: float) -> AlgorithmicLatency:
        """Of an encoder that answers for `chunk` of its frames at a time and sees `right` more (both in output frames)
        through a front end that sees `front` input frames beyond those an output stands for. Without chunks: 1."""
        worst = (chunk + right) * subsampling - 1 + front
        return cls(
            worst=worst, mean=worst - (chunk * subsampling - 1) / 2 if worst < float("inf") else worst, past=past
        )

    def in_seconds(self, frame_s: float) -> AlgorithmicLatency:
        """The same in seconds, for input frames `frame_s` apart."""
        return AlgorithmicLatency(worst=self.worst * frame_s, mean=self.mean * frame_s, past=self.past * frame_s)


class TimedWord(Protocol):
    """A reference word and when it ended, in seconds; lhotse's `AlignmentItem` is one."""

    @property
    def symbol(self) -> str: ...

    @property
    def end(self) -> float: ...


class EmittedWord(NamedTuple):
    """A recognised word, and the encoder frame that its last piece was emitted on."""

    text: str
    frame: int


@dataclass(frozen=True)
class EmissionLatency:
    """How much later than it ended each recognised word came, in seconds; below 0 where it came before its end.

    Over the words that were recognised right, and the same of those that begin an utterance. Adds up over utterances.
    """

    words: tuple[float, ...] = ()
    firsts: tuple[float, ...] = ()

    def __add__(self, other: EmissionLatency) -> EmissionLatency:
        return EmissionLatency(self.words + other.words, self.firsts + other.firsts)

    @property
    def mean_ms(self) -> float | None:
        """None without a word, as the others are."""
        return 1000 * statistics.fmean(self.words) if self.words else None

    @property
    def first_ms(self) -> float | None:
        """The mean over words that begin an utterance."""
        return 1000 * statistics.fmean(self.firsts) if self.firsts else None

    def quantile_ms(self, share: float) -> float | None:
        """What so many of the words, 0 to 1, stay below: 0.5 for the median."""
        return 1000 * float(np.quantile(self.words, share)) if self.words else None


def emission_latency(
    hypotheses: Sequence[Sequence[EmittedWord]],
    references: Sequence[Sequence[TimedWord]],
    *,
    frame_s: float,
    lookahead: float = 0,
) -> EmissionLatency:
    """Of the words of some utterances that a Levenshtein alignment finds right.

    A word is there when the encoder frame it was emitted on is, which is when the sound of that frame, `frame_s`
    seconds, and of the `lookahead` frames after it has been heard:  (frame + lookahead + 1) frame_s - end of the word.
    """
    found = EmissionLatency()
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        words = [word.symbol for word in reference]
        heard = [word.text for word in hypothesis]
        late = {
            r: (hypothesis[h].frame + lookahead + 1) * frame_s - reference[r].end
            for r, h in align(words, heard)
            if r is not None and h is not None and words[r] == heard[h]
        }
        found += EmissionLatency(tuple(late.values()), (late[0],) if 0 in late else ())
    return found


def emitted_words(hypothesis: TokenHypothesis, tokenizer: Tokenizer) -> list[EmittedWord]:
    """The words of a search's answer, each on the frame of its last piece."""
    tokens, frames = hypothesis.tokens, hypothesis.frames
    if len(frames) != len(tokens):
        raise UsageError(f"{len(tokens)} tokens with {len(frames)} frames", hint="take a search that has frames")
    starts = [u for u, token in enumerate(tokens) if tokenizer.begins_word(token) or not u]
    pieces = zip(starts, [*starts, len(tokens)][1:], strict=True)
    words = [EmittedWord(tokenizer.decode(tokens[first:after]).strip(), frames[after - 1]) for first, after in pieces]
    return [word for word in words if word.text]
