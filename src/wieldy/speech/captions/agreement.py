"""Which words of a recogniser that was not made for streams can be trusted: those it hears twice.

The recogniser hears the same stretch of sound again and again, each time with a little more at the end. What two
successive hypotheses have in common at their beginning is committed and never changes; the rest is a guess. Use it for
recognisers that need to hear what comes next, such as Whisper; a streaming model commits by itself.

Low-Latency Sequence-to-Sequence Speech Recognition and Translation by Partial Hypothesis Selection, Danni Liu et al.
2020, arXiv:2005.11185 (the policy, there "local agreement"); Turning Whisper into Real-Time Transcription System,
Dominik Macháček et al. 2023, arXiv:2307.14743 (with Whisper, cutting at the ends of sentences). Here the committed
words are found again in a new hypothesis by their text, where the latter goes by their times.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from wieldy.speech.recognize import folded
from wieldy.speech.transcript import Word

JOIN_WORDS = 5  # at a cut, as many words are looked at for having been heard on both sides of it; Macháček et al.
SAME_MS = 1000  # the same word in two hypotheses has times this close; a repeated word is rarely that quick
SENTENCE_ENDS = (".", "?", "!")
JOIN_MS = 300  # ... if the second hearing starts no later than this after the first ends; word times are that exact


class LocalAgreement:
    """Hypotheses of one growing stretch of sound in, committed words out. All times are on the stream's clock.

    `kept` are the committed words that are still in the sound, `pending` those of the last hypothesis after them.
    """

    def __init__(self) -> None:
        self.kept: list[Word] = []
        self.pending: list[Word] = []
        self._last: list[Word] = []  # committed, the last JOIN_WORDS of the stream

    def update(self, hypothesis: Sequence[Word], stable_ms: int) -> list[Word]:
        """Take the next hypothesis of the sound; give the words that are committed by it.

        A word that ends after `stable_ms` is not committed: more sound could make another of it.
        """
        rest = self._news(hypothesis)
        agreed = 0
        for before, word in zip(self.pending, rest, strict=False):
            if folded(before.text) != folded(word.text) or word.end_ms > stable_ms:
                break
            previous = rest[agreed - 1] if agreed else self._last[-1] if self._last else None
            rest[agreed] = _cased(word, before, begins=previous is None or previous.text.endswith(SENTENCE_ENDS))
            agreed += 1
        self.pending = rest
        return self._commit(agreed)

    def replace(self, hypothesis: Sequence[Word]) -> None:
        """Take a hypothesis that is better than the one before, without asking whether they agree."""
        self.pending = self._news(hypothesis)

    def commit_until(self, end_ms: int) -> list[Word]:
        """Commit the pending words that end by `end_ms`, agreed or not."""
        return self._commit(sum(1 for _ in itertools.takewhile(lambda word: word.end_ms <= end_ms, self.pending)))

    def commit_all(self) -> list[Word]:
        """Commit all pending words, agreed or not."""
        return self._commit(len(self.pending))

    def forget_until(self, cut_ms: int) -> None:
        """The sound before `cut_ms` is gone: later hypotheses will not have the words in it."""
        self.kept = [word for word in self.kept if _middle(word) >= cut_ms]
        self.pending = [word for word in self.pending if _middle(word) >= cut_ms]

    def _commit(self, count: int) -> list[Word]:
        words, self.pending = self.pending[:count], self.pending[count:]
        self.kept += words
        self._last = [*self._last, *words][-JOIN_WORDS:]
        return words

    def _news(self, hypothesis: Sequence[Word]) -> list[Word]:
        """The words of `hypothesis` that come after the committed ones, none starting before those end."""
        rest = hypothesis[_split(self.kept, hypothesis) :]
        rest = rest[self._heard_before(rest) :]
        words: list[Word] = []
        earliest = self._last[-1].end_ms if self._last else 0
        for word in rest:
            start = max(word.start_ms, earliest)
            words.append(dataclasses.replace(word, start_ms=start, end_ms=max(word.end_ms, start)))
            earliest = start
        return words

    def _heard_before(self, rest: Sequence[Word]) -> int:
        """How many of the first words of `rest` are the last committed ones, heard once more at a cut."""
        if not rest or not self._last or self.kept or rest[0].start_ms > self._last[-1].end_ms + JOIN_MS:
            return 0
        last, first = ([folded(word.text) for word in words] for words in (self._last, rest[:JOIN_WORDS]))
        lengths = range(min(len(last), len(first)), 0, -1)
        return next((length for length in lengths if last[-length:] == first[:length]), 0)


def _split(committed: Sequence[Word], hypothesis: Sequence[Word]) -> int:
    """How many of the first words of `hypothesis` are the committed ones.

    That many which the fewest edits make of theirs (Levenshtein); of several, those that end closest in time.
    """
    if not committed:
        return 0
    edits = list(range(len(hypothesis) + 1))  # from the committed words so far to the first j of the hypothesis
    for word in committed:
        diagonal = edits[0]
        edits[0] += 1
        for j, heard in enumerate(hypothesis, 1):
            diagonal, edits[j] = edits[j], min(diagonal + _distance(word, heard), edits[j] + 1, edits[j - 1] + 1)
    end_ms = committed[-1].end_ms
    ends = [committed[0].start_ms, *(word.end_ms for word in hypothesis)]
    return min(range(len(edits)), key=lambda j: (edits[j], abs(ends[j] - end_ms)))


def _distance(word: Word, heard: Word) -> int:
    """Edits between two words: none if it is the same, one if it is another hearing of it, two if it is another."""
    if folded(word.text) == folded(heard.text):
        return 0 if abs(_middle(word) - _middle(heard)) <= SAME_MS else 2
    return 1 if 2 * word.overlap_ms(heard) > min(word.duration_ms, heard.duration_ms) else 2


def _cased(word: Word, before: Word, begins: bool) -> Word:
    """`word` with a capital or not, as `before`, another hearing of it, if that suits a word that `begins` a sentence.

    Where one hearing has a full stop and the other a comma, the word after it has a capital in only one of them.
    """
    first, other = word.text[0], before.text[0]
    if first.casefold() == other.casefold() and other.isupper() == begins != first.isupper():
        return dataclasses.replace(word, text=other + word.text[1:])
    return word


def _middle(word: Word) -> int:
    return (word.start_ms + word.end_ms) // 2
