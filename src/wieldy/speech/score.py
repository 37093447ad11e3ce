"""How right a transcript is against a reference: words, who said them, and who spoke when.

| measure | what it counts |
|---|---|
| WER | word errors with the speakers ignored, both sides in order of time |
| cpWER | word errors per speaker, speakers matched one to one so that errors are fewest: a word given to the wrong
person is an error |
| tcpWER | cpWER where words may only match within 5 s of each other |
| ORC-WER | each reference utterance may go to any hypothesis speaker: what remains when attribution is forgiven |
| DER, JER | speaking time missed, invented or given to the wrong person (`wieldy.metrics.turns`) |

The matching of speakers, ORC-WER and alignment in time are meeteval's (von Neumann et al., "MeetEval", 2023, arXiv
2307.11394). Intervals are 95 % bootstrap intervals over reference utterances (words) or blocks of 10 s (time).
Within one recording these are not independent, so the true uncertainty is larger. A reference may have words only,
turns only, or both; what cannot be computed is None and a note says why.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from wieldy.errors import UsageError
from wieldy.metrics import stats, text, turns
from wieldy.metrics.text import NormalizerName, WordErrors
from wieldy.metrics.turns import JaccardErrors, TimeErrors
from wieldy.report import Metric, Report, Table
from wieldy.speech.transcript import UNKNOWN, Transcript, Turn, Word

if TYPE_CHECKING:
    from meeteval.io import SegLST

Interval = tuple[float, float]
Measure = Literal["wer", "cpwer", "tcpwer", "orcwer", "der"]  # "der" brings JER with it
MEASURES: tuple[Measure, ...] = get_args(Measure)

MINUTE_MS = 60_000
MAX_PAUSE_MS = 2_000  # a longer pause ends an utterance, as in `Transcript.utterances`
WORST_MINUTES = 5

# meeteval refuses more than this many speakers on one side.
MAX_CP_SPEAKERS = 20
MAX_ORC_SPEAKERS = 10
# Exact ORC-WER visits (reference words) x prod over speakers of (hypothesis words + 1) cells; meeteval does 2e8 in
# about 2.5 s and 450 MB on one core. Beyond, its greedy search gives an upper bound.
MAX_ORC_CELLS = 2e8


@dataclass(frozen=True)
class Minute:
    """The word errors of one minute of the recording."""

    start_ms: int
    errors: WordErrors


@dataclass(frozen=True, kw_only=True)
class Score:
    """What `score` found, as counts; None where a measure could not be computed (`notes` say why).

    `intervals` holds the bootstrap interval of a rate under its field's name. `orcwer_is_bound`: the exact ORC-WER
    was out of reach and `orcwer` is an upper bound. `speakers` maps each reference speaker to the hypothesis speaker
    that cpWER matched, or None. `minutes` are in order of time and add up to cpWER, or to WER where there is no
    cpWER. `words` counts the hypothesis words as written, of which `words_without_speaker` are "unknown" and
    `words_interpolated` have only a time between their neighbours'.
    """

    hypothesis: str
    reference: str
    normalize: NormalizerName
    tcp_collar_s: float
    der_collar_s: float
    skip_overlap: bool
    words: int
    words_without_speaker: int
    words_interpolated: int
    wer: WordErrors | None = None
    cpwer: WordErrors | None = None
    tcpwer: WordErrors | None = None
    orcwer: WordErrors | None = None
    orcwer_is_bound: bool = False
    der: TimeErrors | None = None
    jer: JaccardErrors | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    speakers: Mapping[str, str | None] = field(default_factory=dict)
    minutes: tuple[Minute, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def report(self) -> Report:
        """The figures with what they were counted over, the split of the errors, and the worst minutes."""
        return _report(self)


def score(
    hypothesis: Transcript,
    reference: Transcript,
    *,
    reference_turns: Sequence[Turn] | None = None,
    normalize: NormalizerName = "basic",
    tcp_collar_s: float = 5.0,
    der_collar_s: float = 0.0,
    skip_overlap: bool = False,
    seed: int = 0,
    measures: Collection[Measure] = MEASURES,
) -> Score:
    """Score `hypothesis` against `reference`.

    `reference_turns` are who really spoke when, where that comes from elsewhere than the words (`split_references`);
    by default the turns of `reference`. `tcp_collar_s` is how far apart in time two words may lie and still match
    (seconds, above 0). `der_collar_s` is left out of DER and JER on each side of every reference boundary: 0.0 is
    strict, 0.25 the habit of older evaluations. `skip_overlap` leaves out time in which several reference speakers
    talk. `seed` draws the bootstrap. `measures` are those wanted, all by default; the others are None without a note.
    """
    if not (math.isfinite(tcp_collar_s) and tcp_collar_s > 0):
        raise UsageError(f"the tcpWER collar is {tcp_collar_s} s", hint="give seconds above 0, such as 5")
    if not (math.isfinite(der_collar_s) and der_collar_s >= 0):
        raise UsageError(f"the DER collar is {der_collar_s} s", hint="give 0.0 or 0.25")
    for measure in measures:
        if measure not in MEASURES:
            raise UsageError(f"there is no measure {measure!r}", hint=f"choose from {', '.join(MEASURES)}")
    found = Score(
        hypothesis=hypothesis.name,
        reference=reference.name,
        normalize=normalize,
        tcp_collar_s=tcp_collar_s,
        der_collar_s=der_collar_s,
        skip_overlap=skip_overlap,
        words=len(hypothesis.words),
        words_without_speaker=sum(word.speaker == UNKNOWN for word in hypothesis.words),
        words_interpolated=sum(word.source == "interpolated" for word in hypothesis.words),
    )
    if set(measures) - {"der"}:
        found = _with_words(found, _tokens(reference, normalize), _tokens(hypothesis, normalize), measures, seed)
    if "der" not in measures:
        return found
    return _with_turns(found, reference.turns if reference_turns is None else reference_turns, hypothesis, seed)


def split_references(references: Sequence[Transcript]) -> tuple[Transcript, tuple[Turn, ...]]:
    """The transcript to score words against and the turns to score time against: of one file, or of one file with
    words and one with turns only (an STM file beside an RTTM file)."""
    if len(references) == 1:
        return references[0], references[0].turns
    with_words = [reference for reference in references if reference.words]
    with_turns = [reference for reference in references if reference.turns and not reference.words]
    if not (len(references) == 2 and len(with_words) == len(with_turns) == 1):
        counts = f"{len(with_words)} of {len(references)} references have words"
        raise UsageError(counts, hint="give one file, or one with words and one with turns only")
    return with_words[0], with_turns[0].turns


@dataclass(frozen=True)
class _Token:
    """One normalised word. `utterance` numbers the utterances of its transcript by start."""

    text: str
    start_ms: int
    end_ms: int
    speaker: str
    utterance: int


# A reference token and the hypothesis token it is aligned with; None is a gap.
_Pair = tuple[_Token | None, _Token | None]


def _with_words(
    found: Score,
    reference: Sequence[_Token],
    hypothesis: Sequence[_Token],
    measures: Collection[Measure],
    seed: int,
) -> Score:
    if not reference:
        note = "WER, cpWER, tcpWER and ORC-WER not computed: the reference has no words"
        return dataclasses.replace(found, notes=(*found.notes, note))
    measured: dict[str, list[_Pair]] = {}
    speakers: dict[str, str | None] = {}
    orcwer_is_bound = False
    notes = list(found.notes)
    ref_speakers, hyp_speakers = ({token.speaker for token in side} for side in (reference, hypothesis))

    if "wer" in measures:
        measured["wer"] = _aligned(reference, hypothesis)
    most = max(len(ref_speakers), len(hyp_speakers))
    if {"cpwer", "tcpwer"}.isdisjoint(measures):
        pass
    elif ref_speakers == {UNKNOWN}:
        notes.append("cpWER and tcpWER not computed: the words of the reference have no speakers")
    elif most > MAX_CP_SPEAKERS:
        notes.append(f"cpWER and tcpWER not computed: {most} speakers, and at most {MAX_CP_SPEAKERS} can be matched")
    else:
        if "cpwer" in measures:
            match = _matched_speakers(reference, hypothesis)
            speakers = {ref: hyp for ref, hyp in match if ref is not None}
            measured["cpwer"] = [
                pair for ref, hyp in match for pair in _aligned(_spoken_by(ref, reference), _spoken_by(hyp, hypothesis))
            ]
        if "tcpwer" in measures:
            collar_s = found.tcp_collar_s
            measured["tcpwer"] = [
                pair
                for ref, hyp in _matched_speakers(reference, hypothesis, collar_s)
                for pair in _aligned_in_time(_spoken_by(ref, reference), _spoken_by(hyp, hypothesis), collar_s)
            ]
    if "orcwer" in measures and len(hyp_speakers) > MAX_ORC_SPEAKERS:
        limit = f"at most {MAX_ORC_SPEAKERS} can be"
        notes.append(f"ORC-WER not computed: {len(hyp_speakers)} speakers in the hypothesis, and {limit}")
    elif "orcwer" in measures:
        streams, orcwer_is_bound = _matched_utterances(reference, hypothesis)
        measured["orcwer"] = [pair for spoken, heard in streams for pair in _aligned(spoken, heard)]
        if orcwer_is_bound:
            notes.append("ORC-WER is an upper bound from a greedy search: the exact search would take too long")

    utterances = {name: _by_utterance(pairs, reference) for name, pairs in measured.items()}
    totals = {name: sum(parts, WordErrors()) for name, parts in utterances.items()}
    intervals = {
        name: stats.bootstrap([part.errors for part in parts], [part.words for part in parts], seed=seed)
        for name, parts in utterances.items()
        if len(parts) > 1
    }
    return dataclasses.replace(
        found,
        wer=totals.get("wer"),
        cpwer=totals.get("cpwer"),
        tcpwer=totals.get("tcpwer"),
        orcwer=totals.get("orcwer"),
        orcwer_is_bound=orcwer_is_bound,
        intervals={**found.intervals, **intervals},
        speakers=speakers,
        minutes=_by_minute(measured.get("cpwer") or measured.get("wer") or ()),
        notes=tuple(notes),
    )


def _with_turns(found: Score, reference: Sequence[Turn], hypothesis: Transcript, seed: int) -> Score:
    missing = None
    if not reference:
        missing = "reference"
    elif not hypothesis.turns and hypothesis.words:
        # A hypothesis without words either is silence, and is scored as such.
        missing = "hypothesis"
    if missing:
        note = f"DER and JER not computed: the {missing} has no turns"
        return dataclasses.replace(found, notes=(*found.notes, note))
    blocks, jer = turns.turn_errors(
        reference, hypothesis.turns, collar_s=found.der_collar_s, skip_overlap=found.skip_overlap
    )
    intervals = dict(found.intervals)
    der = sum(blocks, TimeErrors())
    if len(blocks) > 1 and der.speech_ms:
        intervals["der"] = stats.bootstrap(
            [block.errors_ms for block in blocks], [block.speech_ms for block in blocks], seed=seed
        )
    return dataclasses.replace(found, der=der, jer=jer, intervals=intervals)


def _tokens(transcript: Transcript, normalize: NormalizerName) -> list[_Token]:
    """The normalised words of a transcript in order of time."""
    normalized = text.normalizer(normalize)
    return sorted(
        (
            _Token(token, start_ms, end_ms, words[0].speaker, utterance)
            for utterance, words in enumerate(_utterances(transcript))
            for token, start_ms, end_ms in _normalized(words, normalized)
        ),
        key=lambda token: token.start_ms,
    )


def _utterances(transcript: Transcript) -> list[list[Word]]:
    """Each speaker's words cut where another of the speaker's turns begins or the speaker pauses, sorted by start.

    Unlike `Transcript.utterances` this does not cut one speaker where another one interjects.
    """
    floor: dict[str, list[Turn]] = {}
    for turn in sorted(transcript.turns, key=lambda turn: turn.start_ms):
        floor.setdefault(turn.speaker, []).append(turn)

    def turn_index(word: Word) -> int:
        middle = (word.start_ms + word.end_ms) / 2
        return bisect.bisect_right(floor.get(word.speaker, []), middle, key=lambda turn: turn.start_ms)

    utterances: list[list[Word]] = []
    latest: dict[str, list[Word]] = {}
    for word in transcript.words:
        utterance = latest.get(word.speaker)
        if (
            utterance is None
            or word.start_ms - utterance[-1].end_ms > MAX_PAUSE_MS
            or turn_index(word) != turn_index(utterance[-1])
        ):
            utterance = latest[word.speaker] = []
            utterances.append(utterance)
        utterance.append(word)
    return utterances


def _normalized(words: Sequence[Word], normalized: Callable[[str], str]) -> list[tuple[str, int, int]]:
    """The words of one utterance after normalisation, each with start and end in milliseconds.

    A normaliser may look at several words ("twenty one" to "21"). A word it left alone keeps its time, one that it
    split shares the time by length, one that it joined or made takes the time of its neighbour.
    """
    pieces: list[tuple[str, int, int]] = []
    for word in words:
        parts = normalized(word.text).split()
        ends = list(itertools.accumulate(len(part) for part in parts))
        for part, end in zip(parts, ends, strict=True):
            start_ms, end_ms = (
                word.start_ms + round(word.duration_ms * length / ends[-1]) for length in (end - len(part), end)
            )
            pieces.append((part, start_ms, end_ms))
    whole = normalized(" ".join(word.text for word in words)).split()
    if [piece for piece, _, _ in pieces] == whole:
        return pieces
    tokens = []
    _, start_ms, end_ms = pieces[0] if pieces else ("", words[0].start_ms, words[-1].end_ms)
    for piece, token in text.align([piece for piece, _, _ in pieces], whole):
        if piece is not None:
            _, start_ms, end_ms = pieces[piece]
        if token is not None:
            tokens.append((whole[token], start_ms, end_ms))
    return tokens


def _spoken_by(speaker: str | None, tokens: Sequence[_Token]) -> list[_Token]:
    return [token for token in tokens if token.speaker == speaker]


def _aligned(reference: Sequence[_Token], hypothesis: Sequence[_Token]) -> list[_Pair]:
    """Least-cost alignment by text alone."""
    indices = text.align([token.text for token in reference], [token.text for token in hypothesis])
    return [(None if ref is None else reference[ref], None if hyp is None else hypothesis[hyp]) for ref, hyp in indices]


def _aligned_in_time(reference: Sequence[_Token], hypothesis: Sequence[_Token], collar_s: float) -> list[_Pair]:
    """Least-cost alignment in which two words only meet when their times are within the collar."""
    from meeteval.wer.wer.time_constrained import align

    # meeteval has no answer where one side is empty.
    if not (reference and hypothesis):
        return [(token, None) for token in reference] + [(None, token) for token in hypothesis]
    pairs = align(_words(reference), _words(hypothesis), collar=collar_s, style="seglst")
    return [(ref and ref["token"], hyp and hyp["token"]) for ref, hyp in pairs]


def _matched_speakers(
    reference: Sequence[_Token], hypothesis: Sequence[_Token], collar_s: float | None = None
) -> list[tuple[str | None, str | None]]:
    """The one-to-one match of speakers with the fewest errors; None for who stays alone. No collar: by text alone."""
    from meeteval.wer import cp_word_error_rate, time_constrained_minimum_permutation_word_error_rate

    if not hypothesis:
        return [(speaker, None) for speaker in dict.fromkeys(token.speaker for token in reference)]
    sides = _words(reference), _words(hypothesis)
    if collar_s is None:
        errors = cp_word_error_rate(*sides)
    else:
        errors = time_constrained_minimum_permutation_word_error_rate(*sides, collar=collar_s)
    return list(errors.assignment)


def _words(tokens: Iterable[_Token]) -> SegLST:
    """One meeteval segment per token; the token itself rides along."""
    from meeteval.io import SegLST

    return SegLST(
        [
            {
                "session_id": "",
                "speaker": token.speaker,
                "start_time": token.start_ms / 1000,
                "end_time": token.end_ms / 1000,
                "words": token.text,
                "token": token,
            }
            for token in tokens
        ]
    )


def _matched_utterances(
    reference: Sequence[_Token], hypothesis: Sequence[_Token]
) -> tuple[list[tuple[list[_Token], list[_Token]]], bool]:
    """Reference utterances spread over the hypothesis speakers with the fewest errors, in order of their starts.

    Returns what belongs to each hypothesis speaker and what was heard from that speaker; and whether the search was
    greedy, so that the errors are an upper bound.
    """
    from meeteval.wer import greedy_orc_word_error_rate, orc_word_error_rate

    streams: dict[str, list[_Token]] = {}
    for token in hypothesis:
        streams.setdefault(token.speaker, []).append(token)
    if not streams:
        return [(list(reference), [])], False
    utterances: dict[int, list[_Token]] = {}
    for token in reference:
        utterances.setdefault(token.utterance, []).append(token)
    cells = len(reference) * math.prod(len(stream) + 1 for stream in streams.values())
    search = orc_word_error_rate if cells <= MAX_ORC_CELLS else greedy_orc_word_error_rate
    errors = search(
        *([" ".join(token.text for token in tokens) for tokens in side.values()] for side in (utterances, streams)),
        reference_sort=False,
        hypothesis_sort=False,
    )
    spoken: list[list[_Token]] = [[] for _ in streams]
    for stream, tokens in zip(errors.assignment, utterances.values(), strict=True):
        spoken[stream] += tokens
    return list(zip(spoken, streams.values(), strict=True)), cells > MAX_ORC_CELLS


def _errors(pair: _Pair) -> WordErrors:
    ref, hyp = pair
    if ref is None:
        return WordErrors(insertions=1)
    if hyp is None:
        return WordErrors(words=1, deletions=1)
    return WordErrors(words=1, substitutions=int(ref.text != hyp.text))


def _by_utterance(pairs: Iterable[_Pair], reference: Sequence[_Token]) -> tuple[WordErrors, ...]:
    """Errors of each reference utterance; an insertion belongs to the last utterance that began before it."""
    starts: dict[int, int] = {}
    for token in reference:
        starts.setdefault(token.utterance, token.start_ms)
    order = sorted(starts, key=lambda utterance: starts[utterance])
    sorted_starts = [starts[utterance] for utterance in order]
    totals = dict.fromkeys(order, WordErrors())
    for pair in pairs:
        ref, hyp = pair
        if ref is not None:
            utterance = ref.utterance
        elif hyp is not None:
            utterance = order[max(0, bisect.bisect_right(sorted_starts, hyp.start_ms) - 1)]
        totals[utterance] += _errors(pair)
    return tuple(totals.values())


def _by_minute(pairs: Iterable[_Pair]) -> tuple[Minute, ...]:
    totals: dict[int, WordErrors] = {}
    for pair in pairs:
        token = pair[0] or pair[1]
        if token is not None:
            start_ms = token.start_ms // MINUTE_MS * MINUTE_MS
            totals[start_ms] = totals.get(start_ms, WordErrors()) + _errors(pair)
    return tuple(Minute(start_ms, totals[start_ms]) for start_ms in sorted(totals))


def _report(found: Score) -> Report:
    metrics, tables = [], []
    word_rows, minute_rows = [], []
    for name, title in (
        ("wer", "WER"),
        ("cpwer", "cpWER"),
        ("tcpwer", f"tcpWER within {found.tcp_collar_s:g} s"),
        ("orcwer", "ORC-WER, upper bound" if found.orcwer_is_bound else "ORC-WER"),
    ):
        errors: WordErrors | None = getattr(found, name)
        if errors is not None and errors.rate is not None:
            metrics.append(
                Metric.of(
                    f"{title} ({found.normalize})",
                    errors.rate,
                    count=errors.words,
                    interval=found.intervals.get(name),
                )
            )
            word_rows.append((title, *_counts(errors)))
    if found.der is not None and found.der.rate is not None:
        setting = f"collar {found.der_collar_s:g} s, overlap {'left out' if found.skip_overlap else 'counted'}"
        seconds = round(found.der.speech_ms / 1000)
        metrics.append(
            Metric.of(f"DER ({setting})", found.der.rate, count=seconds, interval=found.intervals.get("der"))
        )
        parts = (found.der.speech_ms, found.der.missed_ms, found.der.false_alarm_ms, found.der.confusion_ms)
        columns = ("measure", "speech s", "missed s", "invented s", "wrong speaker s")
        tables.append(Table("Time", columns, (("DER", *(f"{part / 1000:.1f}" for part in parts)),)))
    if found.jer is not None and found.jer.rate is not None:
        metrics.append(Metric.of("JER", found.jer.rate, count=found.jer.speakers))
    if found.words:
        for title, count in (
            ("words without a speaker", found.words_without_speaker),
            ("words with an interpolated time", found.words_interpolated),
        ):
            metrics.append(Metric.of(title, count / found.words, count=found.words))

    columns = ("reference words", "errors", "inserted", "deleted", "substituted")
    if word_rows:
        tables.append(Table(f"Words, normaliser {found.normalize}", ("measure", *columns), tuple(word_rows)))
    if len(found.minutes) > 1:
        worst = sorted(found.minutes, key=lambda minute: minute.errors.errors, reverse=True)[:WORST_MINUTES]
        for minute in worst:
            hours, minutes = divmod(minute.start_ms // MINUTE_MS, 60)
            minute_rows.append((f"{hours}:{minutes:02d}:00", *_counts(minute.errors)))
        tables.append(Table("Worst minutes", ("from", *columns), tuple(minute_rows)))
    return Report(
        title=f"{found.hypothesis} against {found.reference}",
        metrics=tuple(metrics),
        tables=tuple(tables),
        notes=found.notes,
        details={
            "normalize": found.normalize,
            "tcp_collar_s": found.tcp_collar_s,
            "der_collar_s": found.der_collar_s,
            "skip_overlap": found.skip_overlap,
            "speakers": dict(found.speakers),
        },
    )


def _counts(errors: WordErrors) -> tuple[str, ...]:
    counts = (errors.words, errors.errors, errors.insertions, errors.deletions, errors.substitutions)
    return tuple(map(str, counts))
