"""Words to cues a viewer can read: how much text, for how long, and where a line breaks.

The limits cannot all hold when people talk fast or at the same time. They give way in this order, the last first:

1. a cue has one speaker, and in SRT no two cues share a moment;
2. at most 2 lines of 42 characters (a longer word has a line of its own);
3. at most 7 s (of a word that lasts longer, the first 7 s);
4. a cue never starts before its first word, nor more than 1 s after it while the one before is still being read;
5. at least 1 s, also when the last word is over sooner;
6. at most 17 characters a second, by staying through the pause that follows.

So 6 fails where people speak faster than that, and 5 only where cues crowd so closely that it would break 4. Where
even 4 leaves a cue no time at all (several people starting at one moment), it starts later still. 42 characters, 2
lines, 7 s and 17 characters a second are Netflix's (English template timed text style guide); its least, 5/6 s, is
rounded up. Characters are code points. `page/exports.js` does the same in the browser, so all is integer arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from wieldy.speech.formats.fields import units
from wieldy.speech.transcript import UNKNOWN, Span, Transcript, Word

MAX_LINE = 42  # characters
MAX_LINES = 2
MIN_MS = 1000
MAX_MS = 7000
MAX_PER_SECOND = 17  # characters
MAX_LATE_MS = 1000
MAX_LABEL = 24  # characters of a name in front of the words
LONG_PAUSE_MS = 1000  # no cue spans a longer silence
SHORT_PAUSE_MS = 300  # about as good a place to break at as a comma

# What a break after a word is worth, in percent of a full cue: a sentence that fills 40 % of a cue is cut off there.
SENTENCE, PAUSE, CLAUSE, SCRAP = 60, 35, 25, -40

_SENTENCE_END = re.compile("[.?!…。？！][\"'”’»)\\]]*$")
_CLAUSE_END = re.compile("[,;:–—、，][\"'”’»)\\]]*$")
_LABEL = re.compile(f"([^:]{{1,{MAX_LABEL}}}): ")


@dataclass(frozen=True)
class Phrase(Span):
    """The words of one cue, spoken from `start_ms` to `end_ms`; none of them has white space in it."""

    words: tuple[Word, ...]

    @property
    def speaker(self) -> str:
        return self.words[0].speaker


@dataclass(frozen=True)
class Cue(Span):
    """What is on screen from `start_ms` to `end_ms`, and the phrase it shows."""

    lines: tuple[str, ...]
    phrase: Phrase


def cues(transcript: Transcript, labels: Mapping[str, str] | None = None, *, overlapping: bool = False) -> list[Cue]:
    """All cues by start. With `overlapping`, only those of one speaker wait for each other.

    `labels` are the speakers' names as they stand before the words, at most `MAX_LABEL` characters and no colon. One
    is set where the speaker changes, and where the text would otherwise read as if it began with one.
    """
    phrases = _phrases(transcript, labels or {})
    before = _labels(phrases, labels) if labels else [""] * len(phrases)
    rows = ["" if not overlapping else phrase.speaker for phrase in phrases]  # cues of one row never overlap
    starts = [phrase.start_ms for phrase in phrases]
    upcoming = [*starts, _NEVER][1:]
    successors = _successors(rows, starts)
    free: dict[str, int] = {}
    found = []
    for phrase, row, label, soon, successor in zip(phrases, rows, before, upcoming, successors, strict=True):
        lines = _lines([word.text for word in phrase.words], label)
        start = max(phrase.start_ms, free.get(row, 0))
        last = start + MAX_MS
        least = min(max(start + MIN_MS, phrase.end_ms), last)
        characters = sum(map(len, lines)) + len(lines) - 1
        wanted = min(start - (-characters * 1000 // MAX_PER_SECOND), last)
        waited_for = max(successor, min(least, successor + MAX_LATE_MS))
        end = max(start + 1, min(max(least, min(wanted, soon)), waited_for))
        free[row] = end
        found.append(Cue(start, end, lines, phrase))
    return found


def split_label(text: str) -> tuple[str, str]:
    """The label that `text` begins with (or "") and the rest."""
    match = _LABEL.match(text)
    return (match[1], text[match.end() :]) if match else ("", text)


def _labels(phrases: Sequence[Phrase], labels: Mapping[str, str]) -> list[str]:
    """The label of each phrase or "". Without one on the first there is none in the file, as readers know."""
    doubtful = [_LABEL.match(" ".join(word.text for word in phrase.words)) is not None for phrase in phrases]
    before = "" if any(doubtful) or any(phrase.speaker != UNKNOWN for phrase in phrases) else UNKNOWN
    found = []
    for phrase, doubt in zip(phrases, doubtful, strict=True):
        found.append(labels[phrase.speaker] if doubt or phrase.speaker != before else "")
        before = phrase.speaker
    return found


def _successors(rows: Sequence[str], starts: Sequence[int]) -> list[int]:
    """When the next phrase of the same row starts."""
    following: dict[str, int] = {}
    found = []
    for row, start in zip(reversed(rows), reversed(starts), strict=True):
        found.append(following.get(row, _NEVER))
        following[row] = start
    return found[::-1]


def _lines(words: list[str], label: str) -> tuple[str, ...]:
    """One line, or two of about the same length; a comma is worth 15 characters of difference, a full stop 36."""
    texts = [f"{label}:", *words] if label else words
    whole = " ".join(texts)
    if len(whole) <= MAX_LINE or len(texts) == 1:
        return (whole,)
    best, best_score, first = 1, -_NEVER, -1
    for index in range(1, len(texts)):
        first += len(texts[index - 1]) + 1
        second = len(whole) - first - 1
        fits = (first <= MAX_LINE or index == 1) and (second <= MAX_LINE or index == len(texts) - 1)
        score = _text_worth(texts[index - 1]) * 3 // 5 - abs(second - first)
        if label and index == 1:
            score = -_NEVER // 2  # a name alone on its line, only if nothing else fits
        if fits and score > best_score:
            best, best_score = index, score
    return " ".join(texts[:best]), " ".join(texts[best:])


_NEVER = 1 << 52  # ms; exact as a JavaScript number too


def _phrases(transcript: Transcript, labels: Mapping[str, str]) -> list[Phrase]:
    """The text of every cue, by the time it is spoken. Room is kept for labels where one may be wanted."""
    runs = _runs(transcript.words)
    ends = [max(word.end_ms for word in run) for run in runs]
    busy = [0, *accumulate(ends, max)]  # until when anyone has spoken before run i
    phrases = []
    for index, run in enumerate(runs):
        interrupted = index + 1 < len(runs) and runs[index + 1][0].start_ms < ends[index]
        crossed = interrupted or busy[index] > run[0].start_ms
        phrases += [
            Phrase(words[0].start_ms, max(word.end_ms for word in words), tuple(words))
            for words in _split(run, labels.get(run[0].speaker, ""), crossed)
        ]
    return sorted(phrases, key=lambda phrase: phrase.start_ms)


def _runs(words: Sequence[Word]) -> list[list[Word]]:
    """Each speaker's words until a long pause, or until somebody else speaks in a pause.

    Somebody who speaks during the words, not between them, does not end the run: that is overlap, not a new floor.
    """
    runs: list[list[Word]] = []
    current: dict[str, list[Word]] = {}
    ends: dict[str, int] = {}
    previous: Word | None = None
    pieces = [unit for word in words for unit in units(word)]
    for word in sorted(pieces, key=lambda unit: unit.start_ms):
        speaker, end = word.speaker, ends.get(word.speaker, 0)
        same_floor = previous is not None and (previous.speaker == speaker or previous.start_ms < end)
        if speaker in current and same_floor and word.start_ms - end <= LONG_PAUSE_MS:
            current[speaker].append(word)
            ends[speaker] = max(end, word.end_ms)
        else:
            current[speaker] = [word]
            runs.append(current[speaker])
            ends[speaker] = word.end_ms
        previous = word
    return runs


def _split(run: list[Word], label: str, crossed: bool) -> Iterator[list[Word]]:
    """Cut a run into cues' worth of words. A label comes first, after others' words (`crossed`), or when needed."""
    lengths = [len(word.text) for word in run]
    worth = _worth(run)
    start = 0
    while start < len(run):
        # 13 words suffice: a label has at most 24 characters, so at most 12 words before its colon's word ends.
        beginning = " ".join(word.text for word in run[start : start + 13])
        labelled = label and (start == 0 or crossed or _LABEL.match(beginning))
        stop = _reach(run, lengths, start, len(label) + 1 if labelled else 0)
        if stop < len(run):
            stop = _best_stop(run, lengths, worth, start, stop)
        yield run[start:stop]
        start = stop


def _worth(words: Sequence[Word]) -> list[int]:
    """How good a place for a new cue the end of each word is."""
    worth = []
    for word, following in pairwise((*words, words[-1])):
        pause = PAUSE if following.start_ms - word.end_ms >= SHORT_PAUSE_MS else 0
        worth.append(max(_text_worth(word.text), pause))
    return worth


def _text_worth(text: str) -> int:
    if _SENTENCE_END.search(text):
        return SENTENCE
    return CLAUSE if _CLAUSE_END.search(text) else 0


def _reach(run: Sequence[Word], lengths: Sequence[int], start: int, label: int) -> int:
    """The end of the longest stretch of words from `start` that fits a cue by its lines and its time."""
    lines, line = 1, label
    for index in range(start, len(run)):
        if line and line + 1 + lengths[index] > MAX_LINE:
            lines, line = lines + 1, 0
        line += lengths[index] + (1 if line else 0)
        too_long = run[index].end_ms - run[start].start_ms > MAX_MS
        if index > start and (lines > MAX_LINES or too_long):
            return index
    return len(run)


def _best_stop(run: Sequence[Word], lengths: Sequence[int], worth: Sequence[int], start: int, stop: int) -> int:
    """Where between `start` and `stop` to end the cue: late, but rather where speech pauses, and leaving no scraps."""
    full = sum(lengths[start:stop]) + stop - start - 1
    rest = sum(lengths[stop : stop + MAX_LINE]) + len(run[stop : stop + MAX_LINE])
    best, best_score, used = stop, -1000, -1
    for end in range(start + 1, stop + 1):
        used += lengths[end - 1] + 1
        score = 100 * used // full + worth[end - 1]
        if run[end - 1].end_ms - run[start].start_ms < MIN_MS:
            score += SCRAP
        if full - used + rest < MAX_LINE // 3:
            score += SCRAP
        if score >= best_score:
            best, best_score = end, score
    return best
