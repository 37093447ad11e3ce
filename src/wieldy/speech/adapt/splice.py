"""New sentences out of the recordings one has: adaptation to text without any synthetic voice.

Words are cut out of old recordings and joined, so that a recogniser hears new word sequences in the voices, rooms and
microphones it is used with. Needs recordings with word times (`wieldy.speech.aligners`). Where half of the new words
were never said, let synthetic voices speak (`tts`).

Rui Zhao et al. 2021, On addressing practical challenges for RNN-Transducer, arXiv 2105.00858; the method is covered by
US patent 11,862,144. How pieces are chosen, cut and joined is ours: `cover`, `joining`.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lhotse
import numpy as np
import soundfile
import soxr
from lhotse.cut import Cut, CutSet
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.cache import replacing
from wieldy.errors import InputError
from wieldy.metrics.text import basic
from wieldy.report import Metric, Report, Result, Table
from wieldy.speech import synthesize
from wieldy.speech.adapt.config import SpliceConfig
from wieldy.speech.adapt.cover import Piece, covers
from wieldy.speech.adapt.joining import Clip, joined
from wieldy.speech.adapt.segments import SegmentStore, SegmentTable, build_store
from wieldy.speech.corpus import cut_of, samples_of
from wieldy.speech.lexicon import Lexicon

__all__ = ["SegmentStore", "SpliceConfig", "build_store", "splice"]

_PIECE, _FROM_PHONES = 1.0, 3.0  # costs of a run of words, and of a word put together from phones or spoken for it
_SOUNDS_KEPT = 512  # recordings in memory at a time


@dataclass(frozen=True)
class _Run:
    """Rows `first` to before `after` of a table."""

    table: SegmentTable
    first: int
    after: int

    @property
    def cut(self) -> int:
        return int(self.table.rows["cut"][self.first])


Runs = tuple[_Run, ...]  # of words: one; of phones: as many as make a word; of a synthetic voice: none


def splice(
    store: SegmentStore,
    texts: Iterable[str],
    *,
    config: SpliceConfig = SpliceConfig(),
    lexicon: Lexicon | None = None,
    folder: Path | str | None = None,
    progress: Callable[[float], None] | None = None,
) -> Result[CutSet]:
    """`config.variants` recordings of each sentence, cuts with exact word times, written as FLAC into `folder` or kept
    in memory.

    Words that are not in the store are made as `config.oov` says; `lexicon` pronounces them, by default the CMU
    dictionary. Sentences with a word that cannot be made are left out and listed in the report, which also has the
    share of words that came from runs of words, the mean length of a run and the joins per sentence. Raises
    `InputError` for oov error with all words that are missing, and where no sentence is left.
    """
    sentences = [line for line in (" ".join(text.split()) for text in texts) if line]
    if config.oov == "tts":
        synthesize.voice_named(config.voice)
    splicer = _Splicer(store, config, lexicon)
    missing = {line: splicer.missing(line) for line in dict.fromkeys(sentences)}
    if config.oov == "error" and (unheard := sorted({word for words in missing.values() for word in words})):
        raise InputError(
            f"no recording has {', '.join(map(repr, unheard))}", hint="leave out such text, or choose oov phones or tts"
        )
    usable = [line for line in sentences if not missing[line]]
    if not usable:
        words = sorted({word for own in missing.values() for word in own})
        raise InputError(
            f"none of {len(sentences)} sentences can be put together from the recordings",
            hint=f"the first words that cannot be made are {', '.join(map(repr, words[:5]))}" if words else "give some",
        )
    spliced = []
    for number, line in enumerate(usable):
        for variant in range(config.variants):
            rng = np.random.default_rng([config.seed, number, variant])
            name = f"spliced-{config.seed}-{number:05}-{variant}"
            spliced.append(splicer.recording(name, line, rng, None if folder is None else Path(folder)))
        if progress:
            progress((number + 1) / len(usable))
    return Result(CutSet.from_cuts(spliced), splicer.report(missing, len(spliced)))


class _Splicer:
    """Chooses and joins, and counts what it does."""

    def __init__(self, store: SegmentStore, config: SpliceConfig, lexicon: Lexicon | None) -> None:
        self.store, self.config = store, config
        self._given = lexicon
        self.counts = _Counts()
        self.resampled: set[str] = set()
        self.samples = functools.lru_cache(_SOUNDS_KEPT)(self._samples)
        self._sayable: dict[str, bool] = {}
        names = {name: number for number, name in enumerate(dict.fromkeys(store.speakers))}
        self._speaker = np.array([names[name] for name in store.speakers])  # of each cut

    # --- which pieces ---

    def missing(self, line: str) -> list[str]:
        """The words of a line that cannot be made."""
        return [word for word in line.split() if not self._can_say(word)]

    def _can_say(self, word: str) -> bool:
        plain = basic(word)
        if plain not in self._sayable:
            said = any(self._usable_rows(rows, self.store.words).size for rows in self.store.words.matches([plain]))
            made = self.config.oov == "tts" or (
                self.config.oov == "phones" and bool(self._from_phones(plain, 0, np.random.default_rng(0), 0))
            )
            self._sayable[plain] = bool(plain) and (said or made)
        return self._sayable[plain]

    def _usable_rows(self, rows: NDArray[np.uint32], table: SegmentTable) -> NDArray[np.uint32]:
        """Those of recordings that are clean enough."""
        least = self.config.min_snr_db
        return rows if least is None else rows[self.store.snr_db[table.rows["cut"][rows]] >= least]

    def _cover(self, line: str, rng: np.random.Generator) -> list[Piece[Runs]]:
        """One of the cheapest ways to say a line; the cheaper, the likelier."""
        words = [basic(word) for word in line.split()]
        lead = int(rng.choice(self._speaker))
        pieces: list[Piece[Runs]] = []
        for begin, word in enumerate(words):
            found = list(self.store.words.matches(words[begin : begin + self.config.longest]))
            own = [
                piece
                for length, rows in enumerate(found, 1)
                for piece in self._candidates(self.store.words, rows, begin, begin + length, rng, lead)
            ]
            if not any(piece.end == begin + 1 for piece in own):
                spoken = self.config.oov == "tts"
                own += [self._spoken(begin)] if spoken else self._from_phones(word, begin, rng, lead)
            pieces += own
        ways = covers(pieces, len(words), self.config.covers)
        return _drawn(ways, self.config.temperature, rng)

    def _candidates(
        self,
        table: SegmentTable,
        rows: NDArray[np.uint32],
        begin: int,
        end: int,
        rng: np.random.Generator,
        lead: int,
    ) -> list[Piece[Runs]]:
        """Some of the places where a run of words is said, half of them by the speaker `lead` if he says it."""
        rows = self._usable_rows(rows, table)
        most = self.config.candidates
        # In random order, of which the first of equals are taken; a few hundred have enough of a speaker.
        rows = rng.choice(rows, min(len(rows), 32 * most), replace=False)
        if len(rows) > most:
            own = self._speaker[table.rows["cut"][rows]] == lead
            rows = np.concatenate([rows[own][: (most + 1) // 2], rows[~own]])[:most]
        found: list[Piece[Runs]] = []
        for row in rows.tolist():
            last = row + end - begin - 1
            run = _Run(table, row, last + 1)
            levels = table.rows["level"]
            speaker = self.store.speakers[run.cut]
            found.append(Piece(begin, end, _PIECE, speaker, float(levels[row]), float(levels[last]), (run,)))
        return found

    def _from_phones(self, word: str, begin: int, rng: np.random.Generator, lead: int) -> list[Piece[Runs]]:
        """A word that nobody said, from runs of phones: the cheapest way for each of its pronunciations."""
        table = self.store.phones
        if table is None:
            return []
        made: list[Piece[Runs]] = []
        for phones in self._lexicon(word):
            pieces = [
                piece
                for first in range(len(phones))
                for length, rows in enumerate(table.matches(phones[first:]), 1)
                for piece in self._candidates(table, rows, first, first + length, rng, lead)
            ]
            for cost, way in covers(pieces, len(phones), 1):
                runs = tuple(run for piece in way for run in piece.source)
                first, last = way[0], way[-1]
                first, last, cost = way[0], way[-1], _FROM_PHONES + cost - _PIECE
                made.append(Piece(begin, begin + 1, cost, first.speaker, first.first_db, last.last_db, runs))
        return made

    def _spoken(self, begin: int) -> Piece[Runs]:
        """A word that nobody said, by a synthetic voice, as loud as words are."""
        rows = self.store.words.rows
        level = float(np.median(rows["level"][rows["symbol"] > 0]))
        return Piece(begin, begin + 1, _FROM_PHONES, self.config.voice, level, level, ())

    @property
    def _lexicon(self) -> Lexicon:
        if self._given is None:
            self._given = Lexicon.cmu()
        return self._given

    # --- their sound ---

    def recording(self, name: str, line: str, rng: np.random.Generator, folder: Path | None) -> Cut:
        cover, written = self._cover(line, rng), line.split()
        clips = [clip for piece in cover for clip in self._clips(piece, written)]
        # A sentence begins and ends as a recording does where its first and last words do.
        clips[0], clips[-1] = replace(clips[0], whole_start=clips[0].opens), clips[-1]
        clips[-1] = replace(clips[-1], whole_end=clips[-1].closes)
        self.counts.add(cover, len(clips))
        config = self.config
        samples, words = joined(clips, rng, crossfade_s=config.crossfade_ms / 1000, pause_s=config.pause_ms / 1000)
        return _cut(name, line, words, samples, config.sample_rate, folder)

    def _clips(self, piece: Piece[Runs], written: Sequence[str]) -> Iterator[Clip]:
        """The sound of a piece: of words, of phones that are all named by the word they make, or of a voice."""
        rate, words = self.config.sample_rate, self.store.words
        if not piece.source:
            yield _said(written[piece.begin], self.config.voice, rate)
        for number, run in enumerate(piece.source):
            rows, of_words = run.table.rows, run.table is words
            starts, ends = (rows[name][run.first : run.after].tolist() for name in ("start", "end"))
            if not of_words:
                starts, ends = starts[:1], ends[-1:]
            # Before the first row and where a sentinel stands, a run of the recording ends.
            before = rows["end"][run.first - 1] if run.first and rows["symbol"][run.first - 1] else None
            after = rows["start"][run.after] if rows["symbol"][run.after] else None
            yield Clip(
                self.samples(run.cut),
                rate,
                tuple(
                    AlignmentItem(word, start, end - start)
                    for word, start, end in zip(written[piece.begin :], starts, ends, strict=False)
                ),
                before_s=None if before is None else float(before),
                after_s=None if after is None else float(after),
                opens=of_words and before is None,
                closes=of_words and after is None,
                within_word=not of_words and number + 1 < len(piece.source),
            )

    def _samples(self, number: int) -> NDArray[np.float32]:
        cut = self.store.cuts[number]
        if cut.sampling_rate != self.config.sample_rate:
            self.resampled.add(cut.id)
        return samples_of(cut, self.config.sample_rate)

    def report(self, missing: Mapping[str, Sequence[str]], made: int) -> Report:
        """What was done, and which words and sentences could not be."""
        counts = self.counts
        left_out = [(line, ", ".join(words)) for line, words in missing.items() if words]
        unmade: dict[str, int] = {}
        for words in missing.values():
            for word in words:
                unmade[word] = unmade.get(word, 0) + 1
        tables = []
        if unmade:
            rows = tuple((word, str(count)) for word, count in sorted(unmade.items()))
            tables.append(Table("words that no recording has", ("word", "sentences"), rows))
            tables.append(Table("sentences left out", ("sentence", "words that cannot be made"), tuple(left_out)))
        table = self.store.words
        return Report(
            "sentences put together from recordings",
            (
                Metric.of("recordings made", made),
                Metric.of("sentences left out", len(left_out)),
                Metric.of(
                    "words from runs of words", 100 * counts.found / max(1, counts.words), "%", count=counts.words
                ),
                Metric.of("words in a run, mean", counts.found / max(1, counts.runs)),
                Metric.of("joins per sentence", (counts.clips - made) / max(1, made)),
                Metric.of("recordings resampled", len(self.resampled)),
                Metric.of("index, of a run of 1 to 4 words", table.nbytes / max(1, table.occurrences(4)), "bytes"),
            ),
            tuple(tables),
        )


@dataclass
class _Counts:
    words: int = 0
    found: int = 0  # of these, from runs of words
    runs: int = 0
    clips: int = 0

    def add(self, cover: Sequence[Piece[Runs]], clips: int) -> None:
        runs = [piece for piece in cover if piece.cost == _PIECE]
        self.words += cover[-1].end
        self.found += sum(piece.end - piece.begin for piece in runs)
        self.runs += len(runs)
        self.clips += clips


def _drawn(
    ways: Sequence[tuple[float, list[Piece[Runs]]]], temperature: float, rng: np.random.Generator
) -> list[Piece[Runs]]:
    """One of the ways with as many pieces as the cheapest; without temperature the cheapest."""
    ways = [way for way in ways if len(way[1]) == len(ways[0][1])]
    if not temperature:
        return ways[0][1]
    weights = np.exp((ways[0][0] - np.array([cost for cost, _ in ways])) / temperature)
    return ways[int(rng.choice(len(ways), p=weights / weights.sum()))][1]


def _said(word: str, voice: str, rate: int) -> Clip:
    """A word by a synthetic voice, at a level like any other."""
    speech = synthesize.say(word, voice)
    samples = soxr.resample(speech.samples, speech.sample_rate, rate) if speech.sample_rate != rate else speech.samples
    first, last = speech.words[0], speech.words[-1]
    return Clip(samples, rate, (AlignmentItem(word, first.start_s, last.end_s - first.start_s),))


def _cut(
    name: str, line: str, words: list[AlignmentItem], samples: NDArray[np.float32], rate: int, folder: Path | None
) -> Cut:
    """A recording in memory, or in a file of `folder`."""
    samples = np.clip(samples, -1.0, 1.0)
    if folder is None:
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
        source = lhotse.AudioSource(type="memory", channels=[0], source=file.getvalue())
    else:
        with replacing(folder / f"{name}.flac") as path:
            soundfile.write(path, samples, rate, subtype="PCM_16")
        source = lhotse.AudioSource(type="file", channels=[0], source=str(folder / f"{name}.flac"))
    recording = lhotse.Recording(
        id=name, sources=[source], sampling_rate=rate, num_samples=len(samples), duration=len(samples) / rate
    )
    return cut_of(recording, line, speaker="spliced", alignment={"word": words})
