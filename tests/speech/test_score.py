"""Every word measure against brute force on tiny alphabets, and the corners: nothing heard, too many speakers."""

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.metrics.text import WordErrors
from wieldy.report import Report
from wieldy.speech import score as score_module
from wieldy.speech.score import Score, score, split_references
from wieldy.speech.transcript import UNKNOWN, Transcript, Turn, Word


def transcript(*spoken: tuple[str, str], name: str = "meeting", pace_ms: int = 1000) -> Transcript:
    """One (speaker, text) per word or utterance, one word every `pace_ms`; each entry is a turn."""
    words, turns, clock = [], [], 0
    for speaker, text in spoken:
        start = clock
        for word in text.split():
            words.append(Word(clock, clock + pace_ms, word, speaker=speaker))
            clock += pace_ms
        turns.append(Turn(start, clock, speaker))
    return Transcript(name, tuple(words), tuple(turns), duration_ms=clock)


Timed = tuple[str, int]  # word, start in seconds


def levenshtein(reference: Sequence[Timed], hypothesis: Sequence[Timed], collar: float = 1e9) -> int:
    """Edit distance of one-second words; two may meet if the reference second touches [middle - collar, + collar]."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if not (i and j):
            return i + j
        best = min(distance(i - 1, j) + 1, distance(i, j - 1) + 1)
        (ref, at), (hyp, heard_at) = reference[i - 1], hypothesis[j - 1]
        if at < heard_at + 0.5 + collar and heard_at + 0.5 - collar < at + 1:
            best = min(best, distance(i - 1, j - 1) + (ref != hyp))
        return best

    return distance(len(reference), len(hypothesis))


def by_speaker(side: Transcript) -> list[list[Timed]]:
    speakers = dict.fromkeys(word.speaker for word in side.words)
    return [[(word.text, word.start_ms // 1000) for word in side.words if word.speaker == name] for name in speakers]


def naive_cp(hypothesis: Transcript, reference: Transcript, collar: float = 1e9) -> int:
    """The fewest errors over all one-to-one matches of speakers."""
    ref, hyp = by_speaker(reference), by_speaker(hypothesis)
    size = max(len(ref), len(hyp))
    ref += [[]] * (size - len(ref))
    hyp += [[]] * (size - len(hyp))
    return min(
        sum(levenshtein(r, h, collar) for r, h in zip(ref, order, strict=True)) for order in itertools.permutations(hyp)
    )


def naive_orc(hypothesis: Transcript, utterances: Sequence[str]) -> int:
    """The fewest errors over all ways to give each utterance to a hypothesis speaker."""
    streams = [[word for word, _ in stream] for stream in by_speaker(hypothesis)]
    if not streams:
        return sum(len(utterance.split()) for utterance in utterances)
    best = 10**9
    for choice in itertools.product(range(len(streams)), repeat=len(utterances)):
        given_to = [" ".join(u for u, k in zip(utterances, choice, strict=True) if k == s) for s in range(len(streams))]
        errors = sum(
            levenshtein(tuple((w, 0) for w in text.split()), tuple((w, 0) for w in stream))
            for text, stream in zip(given_to, streams, strict=True)
        )
        best = min(best, errors)
    return best


TEXT = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(" ".join)
SPOKEN = st.lists(st.tuples(st.sampled_from("XYZ"), TEXT), max_size=4).map(lambda spoken: transcript(*spoken))


@settings(max_examples=100, deadline=None)
@given(SPOKEN, SPOKEN.filter(lambda side: bool(side.words)))
def test_measures_are_the_brute_force_ones(hypothesis: Transcript, reference: Transcript) -> None:
    found = score(hypothesis, reference, tcp_collar_s=2.0)
    everyone = [[(word.text, 0) for word in side.words] for side in (reference, hypothesis)]
    assert found.wer.errors == levenshtein(tuple(everyone[0]), tuple(everyone[1]))
    assert found.cpwer.errors == naive_cp(hypothesis, reference)
    assert found.tcpwer.errors == naive_cp(hypothesis, reference, collar=2.0)
    # Neighbouring entries of one speaker are turns of their own, so each entry is an utterance.
    texts = [" ".join(word.text for word in reference.words if turn.overlap_ms(word)) for turn in reference.turns]
    assert found.orcwer.errors == naive_orc(hypothesis, texts)
    assert found.orcwer.errors <= found.cpwer.errors <= found.tcpwer.errors
    assert {errors.words for errors in (found.wer, found.cpwer, found.tcpwer, found.orcwer)} == {len(reference.words)}


@settings(max_examples=50, deadline=None)
@given(SPOKEN, SPOKEN.filter(lambda side: bool(side.words)))
def test_errors_agree_with_meeteval_and_minutes_add_up(hypothesis: Transcript, reference: Transcript) -> None:
    import meeteval

    def seglst(side: Transcript) -> meeteval.io.SegLST:
        return meeteval.io.SegLST(
            [
                {
                    "session_id": "s",
                    "speaker": word.speaker,
                    "words": word.text,
                    "start_time": word.start,
                    "end_time": word.end,
                }
                for word in side.words
            ]
        )

    found = score(hypothesis, reference)
    if hypothesis.words:
        sides = seglst(reference), seglst(hypothesis)
        assert found.cpwer.errors == meeteval.wer.cp_word_error_rate(*sides).errors
        timed = meeteval.wer.time_constrained_minimum_permutation_word_error_rate(*sides, collar=5)
        assert found.tcpwer.errors == timed.errors
    assert sum((minute.errors for minute in found.minutes), WordErrors()) == found.cpwer


def test_a_word_given_to_the_wrong_person_is_two_cp_errors_and_no_word_error() -> None:
    reference = transcript(("Ann", "one two three"), ("Bob", "four five six"))
    hypothesis = transcript(("S1", "one two"), ("S2", "three four five six"))
    found = score(hypothesis, reference)
    assert found.wer == WordErrors(words=6)
    assert found.cpwer == WordErrors(words=6, insertions=1, deletions=1)
    assert found.speakers == {"Ann": "S1", "Bob": "S2"}


def test_worst_minutes_are_where_the_errors_are() -> None:
    reference = transcript(*[("A", "yes no maybe")] * 60)
    words = [word for word in reference.words if not 60_000 <= word.start_ms < 70_000]
    found = score(dataclasses.replace(reference, words=tuple(words)), reference)
    assert [minute.errors.errors for minute in found.minutes] == [0, 10, 0]
    worst = found.report.tables[-1]
    assert worst.title == "Worst minutes"
    assert worst.rows[0] == ("0:01:00", "60", "10", "0", "10", "0")


def test_normalisers_change_the_figure_and_are_named_with_it() -> None:
    reference = transcript(("A", "Well, I won't pay $21!"))
    hypothesis = transcript(("A", "well I won't pay twenty one dollars"))
    errors = {}
    for name in ("none", "basic", "whisper"):
        found = score(hypothesis, reference, normalize=name)
        errors[name] = found.wer.errors
        assert found.report.metric(f"WER ({name})").count == found.wer.words
    assert errors == {"none": 4, "basic": 3, "whisper": 0}


def test_words_a_normaliser_makes_have_times_from_where_they_came() -> None:
    # "twenty one" meets "21" eight seconds later: within a collar of 12 s, not within 2 s.
    reference = transcript(("A", "he paid twenty one dollars"))
    hypothesis = transcript(("A", "he paid"))
    late = Word(10_000, 11_000, "$21", speaker="A")
    hypothesis = dataclasses.replace(hypothesis, words=(*hypothesis.words, late))
    near, far = (score(hypothesis, reference, normalize="whisper", tcp_collar_s=collar) for collar in (2.0, 12.0))
    assert near.tcpwer.errors == 2
    assert far.tcpwer.errors == 0


def test_nothing_heard() -> None:
    reference = transcript(("A", "one two"), ("B", "three"))
    found = score(Transcript("silence"), reference)
    lost = WordErrors(words=3, deletions=3)
    assert (found.wer, found.cpwer, found.tcpwer, found.orcwer) == (lost, lost, lost, lost)
    assert found.der.rate == 1.0
    assert found.speakers == {"A": None, "B": None}


def test_words_from_nowhere() -> None:
    """A reference whose text is all punctuation has no words: errors are counted, a rate is not made up."""
    found = score(transcript(("A", "so what")), Transcript("r", (Word(0, 10, "...", speaker="A"),)))
    assert found.wer is None
    assert found.notes[0] == "WER, cpWER, tcpWER and ORC-WER not computed: the reference has no words"


def test_a_reference_of_turns_only_and_one_of_words_only() -> None:
    both = transcript(("A", "one two"), ("B", "three"))
    turns_only = score(both, dataclasses.replace(both, words=()))
    assert turns_only.wer is None
    assert turns_only.der.rate == 0.0
    words_only = score(both, dataclasses.replace(both, turns=()))
    assert words_only.cpwer.errors == 0
    assert words_only.der is None
    assert words_only.notes == ("DER and JER not computed: the reference has no turns",)


def test_words_and_turns_may_come_from_two_files() -> None:
    both = transcript(("A", "one two"), ("B", "three"))
    words, turns = dataclasses.replace(both, turns=()), dataclasses.replace(both, words=())
    reference, reference_turns = split_references([turns, words])
    found = score(both, reference, reference_turns=reference_turns)
    assert found.cpwer.errors == 0
    assert found.der.rate == 0.0
    assert split_references([both]) == (both, both.turns)
    with pytest.raises(UsageError, match="2 of 2 references have words: give one file, or one with words and one"):
        split_references([both, words])


def test_a_reference_without_speakers_has_no_cpwer() -> None:
    hypothesis = transcript(("A", "one two"), ("B", "three"))
    words = tuple(dataclasses.replace(word, speaker=UNKNOWN) for word in hypothesis.words)
    found = score(hypothesis, Transcript("ctm", words))
    assert found.wer == WordErrors(words=3)
    assert found.cpwer is None
    assert "cpWER and tcpWER not computed: the words of the reference have no speakers" in found.notes


@pytest.mark.parametrize(("speakers", "measures"), [(9, {"cpwer", "orcwer"}), (12, {"cpwer"}), (25, set())])
def test_many_speakers_say_what_was_left_out(speakers: int, measures: set[str]) -> None:
    side = transcript(*((f"S{k}", f"one two three four w{k}") for k in range(speakers)))
    found = score(side, side)
    assert {name for name in ("cpwer", "orcwer") if getattr(found, name) is not None} == measures
    if "orcwer" in measures:
        assert found.orcwer_is_bound
        assert found.orcwer == WordErrors(words=5 * speakers)
    assert found.notes


def test_a_greedy_orc_is_an_upper_bound_and_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = transcript(("A", "c"), ("B", "b"), ("C", "a"))
    hypothesis = transcript(("S1", "c"), ("S2", "a c b"))
    exact = score(hypothesis, reference)
    monkeypatch.setattr(score_module, "MAX_ORC_CELLS", 1)
    greedy = score(hypothesis, reference)
    assert not exact.orcwer_is_bound
    assert greedy.orcwer_is_bound
    assert exact.orcwer.errors == naive_orc(hypothesis, ["c", "b", "a"]) == 2
    assert greedy.orcwer.errors == 3
    assert greedy.report.metric("ORC-WER, upper bound (basic)")


def test_speakers_who_interject_do_not_cut_an_utterance() -> None:
    """Ann's sentence around Bob's "mhm" stays one utterance, so ORC-WER gives it to one person."""
    words = [("Ann", "we"), ("Ann", "should"), ("Bob", "mhm"), ("Ann", "go"), ("Ann", "home")]
    reference = Transcript("r", tuple(Word(i * 500, i * 500 + 400, t, speaker=s) for i, (s, t) in enumerate(words)))
    split = [("S1", "we"), ("S1", "should"), ("S2", "mhm"), ("S2", "go"), ("S2", "home")]
    hypothesis = Transcript("h", tuple(Word(i * 500, i * 500 + 400, t, speaker=s) for i, (s, t) in enumerate(split)))
    found = score(hypothesis, reference)
    assert found.orcwer.errors == 4


def test_shares_of_words_without_speaker_or_own_time() -> None:
    words = (
        Word(0, 10, "a", speaker="S1"),
        Word(10, 20, "b"),
        Word(20, 30, "2", speaker="S1", source="interpolated"),
        Word(30, 40, "c", speaker="S1"),
    )
    found = score(Transcript("h", words), transcript(("A", "a b 2 c")))
    assert (found.words, found.words_without_speaker, found.words_interpolated) == (4, 1, 1)
    assert found.report.metric("words without a speaker").median == 0.25


def test_the_report_round_trips_and_carries_counts_and_intervals() -> None:
    reference = transcript(("A", "one two three"), ("B", "four five"), ("A", "six"))
    hypothesis = transcript(("S1", "one two too"), ("S2", "four five"), ("S1", "six"))
    report = score(hypothesis, reference).report
    metric = report.metric("cpWER (basic)")
    assert metric.count == 6
    assert metric.interval is not None
    assert metric.interval[0] <= metric.median <= metric.interval[1]
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_only_the_measures_asked_for_are_computed() -> None:
    reference = transcript(("A", "one two three"), ("B", "four five"))
    hypothesis = transcript(("S1", "one two too"), ("S2", "four five"))
    whole = score(hypothesis, reference)
    for measure in score_module.MEASURES:
        found = score(hypothesis, reference, measures=[measure])
        for name in score_module.MEASURES:
            assert getattr(found, name) == (getattr(whole, name) if name == measure else None)
        assert not found.notes
    with pytest.raises(UsageError, match="there is no measure 'cer': choose from wer, cpwer"):
        score(hypothesis, reference, measures=["cer"])


def test_same_seed_same_score() -> None:
    reference = transcript(("A", "one two three"), ("B", "four five"), ("A", "six seven"))
    hypothesis = transcript(("S1", "one two too"), ("S2", "four five"), ("S1", "six"))
    assert score(hypothesis, reference, seed=3) == score(hypothesis, reference, seed=3)
    assert isinstance(score(hypothesis, reference), Score)


def test_the_scorers_log_stays_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        score(transcript(("A", "one")), transcript(("B", "two")))
    assert not caplog.records


@pytest.mark.parametrize("option", [{"tcp_collar_s": 0.0}, {"tcp_collar_s": float("nan")}, {"der_collar_s": -0.25}])
def test_collars_that_cannot_be_meant_are_refused(option: dict[str, float]) -> None:
    side = transcript(("A", "one"))
    with pytest.raises(UsageError, match="collar is"):
        score(side, side, **option)
