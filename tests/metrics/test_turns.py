"""DER and JER against cases worked out by hand and against a grid of milliseconds with every match of speakers."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.metrics.turns import BLOCK_MS, JaccardErrors, TimeErrors, turn_errors
from wieldy.speech.transcript import Turn, merge_turns


def turns(*spoken: tuple[int, int, str]) -> tuple[Turn, ...]:
    return tuple(Turn(start, end, speaker) for start, end, speaker in spoken)


def der(reference: tuple[Turn, ...], hypothesis: tuple[Turn, ...], **options: float | bool) -> TimeErrors:
    blocks, _ = turn_errors(reference, hypothesis, **options)
    return sum(blocks, TimeErrors())


def grid(spoken: tuple[Turn, ...], end_ms: int) -> np.ndarray:
    """Who is active in each 100 ms: bool [speakers, steps]."""
    speakers = sorted({turn.speaker for turn in spoken})
    active = np.zeros((len(speakers), end_ms // 100), bool)
    for turn in spoken:
        active[speakers.index(turn.speaker), turn.start_ms // 100 : turn.end_ms // 100] = True
    return active


def naive_errors_ms(reference: tuple[Turn, ...], hypothesis: tuple[Turn, ...]) -> int:
    """Sum over time of max(reference, hypothesis speakers) - correct ones, for the best of all matches."""
    end_ms = max(turn.end_ms for turn in (*reference, *hypothesis))
    ref, hyp = grid(reference, end_ms), grid(hypothesis, end_ms)
    size = max(len(ref), len(hyp))
    hyp = np.vstack([hyp, np.zeros((size - len(hyp), hyp.shape[1]), bool)])
    ref = np.vstack([ref, np.zeros((size - len(ref), ref.shape[1]), bool)])
    most = np.maximum(ref.sum(0), hyp.sum(0)).sum()
    correct = max((ref & hyp[list(order)]).sum() for order in itertools.permutations(range(size)))
    return int(most - correct) * 100


def test_by_hand() -> None:
    reference = turns((0, 4000, "A"), (4000, 10_000, "B"))
    hypothesis = turns((1000, 5000, "x"), (5000, 12_000, "y"))
    # A misses 1 s, x keeps the floor 1 s into B, y goes on 2 s after the end.
    found = der(reference, hypothesis)
    assert found == TimeErrors(speech_ms=10_000, missed_ms=1000, confusion_ms=1000, false_alarm_ms=2000)
    assert found.rate == 0.4


def test_overlap_counts_per_speaker_unless_left_out() -> None:
    reference = turns((0, 6000, "A"), (4000, 10_000, "B"))
    hypothesis = turns((0, 6000, "x"), (6000, 10_000, "y"))
    assert der(reference, hypothesis) == TimeErrors(speech_ms=12_000, missed_ms=2000)
    assert der(reference, hypothesis, skip_overlap=True) == TimeErrors(speech_ms=8000)


def test_the_collar_lies_on_each_side_of_a_boundary() -> None:
    reference, hypothesis = turns((1000, 5000, "A")), turns((1300, 5000, "x"))
    assert der(reference, hypothesis).missed_ms == 300
    assert der(reference, hypothesis, collar_s=0.25) == TimeErrors(speech_ms=3500, missed_ms=50)


def test_jaccard_by_hand() -> None:
    reference = turns((0, 4000, "A"), (4000, 8000, "B"))
    hypothesis = turns((0, 5000, "x"))
    # A and x share 4 s of 5 s; B has nobody: an error of 1.
    _, jer = turn_errors(reference, hypothesis)
    assert jer.speakers == 2
    assert jer.rate == pytest.approx((1 / 5 + 1) / 2)


def test_equal_names_on_both_sides_do_not_match_by_themselves() -> None:
    reference = turns((0, 4000, "S1"), (4000, 8000, "S2"))
    swapped = turns((0, 4000, "S2"), (4000, 8000, "S1"))
    assert der(reference, swapped).errors_ms == 0


def test_blocks_cut_the_recording_in_time() -> None:
    reference = turns((0, 25_000, "A"))
    blocks, _ = turn_errors(reference, turns((0, 12_000, "x")))
    assert [block.missed_ms for block in blocks] == [0, 8000, 5000]
    assert sum(blocks, TimeErrors()).speech_ms == 25_000
    assert BLOCK_MS == 10_000


def test_empty_hypothesis_is_all_missed() -> None:
    assert der(turns((0, 5000, "A")), ()) == TimeErrors(speech_ms=5000, missed_ms=5000)


@st.composite
def spoken(draw: st.DrawFn) -> tuple[Turn, ...]:
    times = st.tuples(st.integers(0, 300), st.integers(1, 60), st.sampled_from("ABC"))
    drawn = draw(st.lists(times, min_size=1, max_size=6))
    return merge_turns(Turn(start * 100, (start + length) * 100, speaker) for start, length, speaker in drawn)


@settings(max_examples=60, deadline=None)
@given(spoken(), spoken())
def test_errors_are_those_of_the_best_match_of_all(reference: tuple[Turn, ...], hypothesis: tuple[Turn, ...]) -> None:
    found = der(reference, hypothesis)
    assert found.errors_ms == naive_errors_ms(reference, hypothesis)
    assert found.speech_ms == sum(turn.duration_ms for turn in reference)


@settings(max_examples=30, deadline=None)
@given(spoken(), spoken(), st.sampled_from([0.0, 0.25]), st.booleans())
def test_blocks_add_up_to_the_library_figure(
    reference: tuple[Turn, ...], hypothesis: tuple[Turn, ...], collar_s: float, skip_overlap: bool
) -> None:
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotation(spoken: tuple[Turn, ...]) -> Annotation:
        result = Annotation()
        for index, turn in enumerate(spoken):
            result[Segment(turn.start, turn.end), index] = turn.speaker
        return result

    end = max(turn.end for turn in (*reference, *hypothesis))
    expected = DiarizationErrorRate(collar=2 * collar_s, skip_overlap=skip_overlap)(
        annotation(reference), annotation(hypothesis), uem=Timeline([Segment(0, end)]), detailed=True
    )
    found = der(reference, hypothesis, collar_s=collar_s, skip_overlap=skip_overlap)
    assert found.speech_ms == pytest.approx(1000 * expected["total"], abs=1)
    assert found.errors_ms == pytest.approx(
        1000 * (expected["missed detection"] + expected["false alarm"] + expected["confusion"]), abs=1
    )


def test_real_diarisation_of_a_real_meeting(shared_data: Path) -> None:
    def read(name: str) -> tuple[Turn, ...]:
        rows = (line.split() for line in (shared_data / "ami_rttm" / name).read_text().splitlines())
        # To 100 ms, the step of the naive grid.
        return merge_turns(
            Turn(round(float(row[3]) * 10) * 100, round(float(row[3]) * 10 + float(row[4]) * 10) * 100, row[7])
            for row in rows
            if row[1] == "EN2002a.Mix-Headset"
        )

    reference, hypothesis = read("ref_rttm_test.rttm"), read("rttm_test_vb.rttm")
    found = der(reference, hypothesis)
    assert found.errors_ms == naive_errors_ms(reference, hypothesis)
    assert 0.1 < (found.rate or 0) < 0.6


def test_counts_add_up_and_refuse_nonsense() -> None:
    assert TimeErrors(10, 1, 2, 3) + TimeErrors(10, 1, 0, 0) == TimeErrors(20, 2, 2, 3)
    assert TimeErrors(false_alarm_ms=5).rate is None
    assert (JaccardErrors(2, 0.5) + JaccardErrors(1, 0.4)).rate == pytest.approx(0.3)
    with pytest.raises(UsageError, match="6 ms missed and 5 ms confused in 10 ms"):
        TimeErrors(10, 6, 0, 5)
    with pytest.raises(UsageError, match="cannot be negative"):
        TimeErrors(10, -1)
    with pytest.raises(UsageError, match="Jaccard error of 3"):
        JaccardErrors(2, 3.0)
