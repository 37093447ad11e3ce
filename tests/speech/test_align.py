"""Every word comes out with a time, and what was guessed is marked."""

import math

from hypothesis import given
from hypothesis import strategies as st

from wieldy.speech.align import complete_times
from wieldy.speech.recognize import HeardWord


def test_known_times_are_kept_and_gaps_are_shared_by_length() -> None:
    words = complete_times(
        [
            HeardWord("it", 0.0, 0.2),
            HeardWord("costs", 0.2, 0.6),
            HeardWord("$10"),
            HeardWord("a"),
            HeardWord("day", 1.0, 1.3),
        ],
        2.0,
    )
    assert [(w.start_ms, w.end_ms, w.source) for w in words] == [
        (0, 200, "asr"),
        (200, 600, "asr"),
        (600, 900, "interpolated"),
        (900, 1000, "interpolated"),
        (1000, 1300, "asr"),
    ]


def test_an_engine_without_times() -> None:
    words = complete_times([HeardWord("two"), HeardWord("words")], 1.6)
    assert [(w.start_ms, w.end_ms) for w in words] == [(0, 600), (600, 1600)]


times = st.one_of(st.none(), st.floats(-1, 12), st.just(math.nan), st.just(math.inf))


@given(st.lists(st.tuples(times, times), max_size=10), st.integers(0, 9000).map(lambda ms: ms / 1000))
def test_whatever_an_engine_says_the_times_are_sane(
    drawn: list[tuple[float | None, float | None]], length: float
) -> None:
    heard = [HeardWord("word", start, end) for start, end in drawn]
    words = complete_times(heard, length)
    assert len(words) == len(heard)
    assert all(0 <= w.start_ms <= w.end_ms <= round(length * 1000) for w in words)
    starts = [w.start_ms for w in words]
    assert starts == sorted(starts)
