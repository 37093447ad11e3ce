"""A session: what it says for what an engine hears, and how it keeps up."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import InputError, UsageError
from wieldy.speech.captions import CaptionSession, Final, Heard, Partial, Pause, Warned, to_json
from wieldy.speech.captions.pace import Pace, PaceConfig
from wieldy.speech.transcript import Word

BLOCK = np.zeros(1600, np.float32)  # 100 ms


class Engine:
    """Hears what it was told, one thing per push; the clock goes on by `work_s` each time."""

    name, model_id, model_files = "told", "told", {"weights": "0" * 64}
    steps_ms = (100, 400)

    def __init__(self, *told: Heard, work_s: float = 0.0) -> None:
        self.told, self.work_s, self.now = list(told), work_s, 0.0
        self.pushed: list[np.ndarray] = []
        self.steps: list[int] = []

    def push(self, samples: np.ndarray, step_ms: int) -> Heard:
        self.pushed.append(samples)
        self.steps.append(step_ms)
        self.now += self.work_s
        return self.told.pop(0) if self.told else Heard()

    def flush(self) -> Heard:
        return Heard(tuple(word for heard in self.told for word in heard.committed), pause=True)


ONE, TWO, THREE = (Word(1000 * i, 1000 * i + 500, text, 0.5) for i, text in enumerate(["one", "two", "three"]))


def test_events_follow_what_was_heard():
    told = (Heard(partial=(ONE,)), Heard(partial=(ONE,)), Heard((ONE,), (TWO,)), Heard((TWO,), pause=True))
    session = CaptionSession(Engine(*told))
    assert session.push(BLOCK) == [Partial((ONE,))]
    assert session.push(BLOCK) == []
    assert session.push(BLOCK) == [Final((ONE,)), Partial((TWO,))]
    assert session.push(BLOCK) == [Final((TWO,)), Partial(()), Pause(400)]
    transcript = session.finish()
    assert transcript.words == (ONE, TWO)
    assert transcript.duration_ms == session.now_ms == 400
    assert transcript.meta["model_files"] == Engine.model_files


def test_finish_has_the_words_that_were_not_final_yet():
    session = CaptionSession(Engine(Heard((ONE,)), Heard((TWO,)), Heard((THREE,))))
    session.push(BLOCK)
    assert session.finish().words == (ONE, TWO, THREE)
    for act in (lambda: session.push(BLOCK), session.flush, session.finish):
        with pytest.raises(UsageError, match="the session is finished: begin a new one"):
            act()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_final_words_are_the_transcript(counts):
    words = iter([Word(i, i + 1, f"w{i}") for i in range(200)])
    told = [Heard(tuple(next(words) for _ in range(n)), (ONE,) * partial) for n, partial in counts]
    session = CaptionSession(Engine(*told))
    events = [event for _ in counts for event in session.push(BLOCK)] + session.flush()
    assert sum((event.words for event in events if isinstance(event, Final)), ()) == session.finish().words
    assert all(event.words for event in events if isinstance(event, Final))


def test_samples_that_are_not_numbers_are_silence():
    engine = Engine()
    CaptionSession(engine).push(np.array([np.nan, np.inf, -np.inf, 3.0, -0.5], np.float32))
    assert engine.pushed[0].tolist() == [0.0, 0.0, 0.0, 1.0, -0.5]


@pytest.mark.parametrize(
    ("samples", "got"),
    [
        (np.zeros((2, 5), np.float32), r"float32 \[2, 5\]"),
        (np.zeros(5, np.int16), r"int16 \[5\]"),
        (np.zeros(5), r"float64 \[5\]"),
        (b"12", "bytes"),
    ],
)
def test_other_samples_are_refused(samples, got):
    with pytest.raises(InputError, match=rf"captions: samples are .*{got}.*: push float32 \[n\], mono at 16000 Hz"):
        CaptionSession(Engine()).push(samples)


def test_nothing_pushed_nothing_said():
    session = CaptionSession(Engine())
    assert session.push(BLOCK[:0]) == []
    transcript = session.finish()
    assert (transcript.words, transcript.duration_ms, session.load) == ((), 0, 0.0)


def test_events_as_plain_values():
    events = (Final((ONE,)), Partial(()), Pause(70), Warned(80, "late"))
    assert [json.loads(json.dumps(to_json(event))) for event in events] == [
        {"event": "final", "words": [{"text": "one", "start": 0.0, "end": 0.5, "confidence": 0.5}]},
        {"event": "partial", "words": []},
        {"event": "pause", "at_ms": 70},
        {"event": "warning", "at_ms": 80, "text": "late"},
    ]


class TestPace:
    def run(self, work_s: float, pushes: int, **options):
        engine = Engine(work_s=work_s)
        session = CaptionSession(engine, clock=lambda: engine.now, **options)
        events = [event for _ in range(pushes) for event in session.push(BLOCK)]
        return engine, session, events

    def test_an_engine_that_keeps_up_has_the_shortest_step(self):
        engine, session, events = self.run(0.079, 300)
        assert set(engine.steps) == {100}
        assert events == []
        assert session.load == pytest.approx(0.79)

    def test_one_that_falls_behind_gets_longer_steps_and_then_it_is_said_once(self):
        engine, session, events = self.run(0.12, 600)
        assert sorted(set(engine.steps)) == [100, 150, 225, 338, 400]
        assert engine.steps == sorted(engine.steps)
        assert [(round(event.at_ms, -3), event.text) for event in events] == [
            (26_000, "degraded: 1.2 s of work for each second of sound, so captions come late")
        ]
        assert session.finish().warnings[0].startswith("00:00:25 degraded: 1.2 s")

    def test_a_recording_can_wait(self):
        engine, _, events = self.run(0.5, 300, adapt=False)
        assert set(engine.steps) == {100}
        assert events == []

    def test_when_there_is_time_again_the_step_is_short_again(self):
        pace = Pace((100, 400))
        for _ in range(10):
            pace.note(5.0, 4.5)
        assert pace.step_ms == 400
        pace.note(5.0, 2.5)  # neither much nor little
        assert pace.step_ms == 400
        for _ in range(4):
            pace.note(5.0, 1.0)
        assert pace.step_ms == 100

    @given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 30)), max_size=50))
    def test_the_step_stays_between_its_ends(self, work):
        pace = Pace((300, 1000))
        for audio_s, work_s in work:
            pace.note(audio_s, work_s)
            assert 300 <= pace.step_ms <= 1000

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window_s": 0}, "window_s is 0"),
            ({"low": 0.9}, "low is 0.9 and high 0.8: 0 < low < high <= 1"),
            ({"high": 1.5}, "high 1.5"),
            ({"factor": 1.0}, "factor is 1.0"),
        ],
    )
    def test_impossible_options(self, options, message):
        with pytest.raises(UsageError, match=message):
            PaceConfig(**options)

    def test_impossible_steps(self):
        with pytest.raises(UsageError, match=r"steps_ms is \(500, 100\)"):
            Pace((500, 100))
