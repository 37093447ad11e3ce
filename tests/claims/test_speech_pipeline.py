"""The claim's parts that decide: what both arms share, and the figures made from counts."""

import itertools
import types
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from wieldy.claims import reproduce, speech_pipeline
from wieldy.claims.speech_pipeline import (
    ARMS,
    GLUE,
    WIELDY,
    Meeting,
    RecallingDiarizer,
    RecallingRecognizer,
)
from wieldy.errors import MissingError
from wieldy.metrics.text import WordErrors
from wieldy.speech.audio import Recording
from wieldy.speech.diarize import Diarization
from wieldy.speech.recognize import Capabilities, HeardWord, Hypothesis
from wieldy.speech.score import Score
from wieldy.speech.transcript import Turn


def meeting(overlap: float, ours: int, theirs: int, words: int = 100) -> Meeting:
    def scored(errors: int) -> Score:
        return Score(
            hypothesis="h",
            reference="r",
            normalize="basic",
            tcp_collar_s=5.0,
            der_collar_s=0.0,
            skip_overlap=False,
            words=words,
            words_without_speaker=0,
            words_interpolated=0,
            cpwer=WordErrors(words, substitutions=errors),
        )

    return Meeting(overlap, 2, {WIELDY: 2, GLUE: 3}, {WIELDY: scored(ours), GLUE: scored(theirs)})


class CountingRecognizer:
    """An engine that numbers what it hears, so that asking it twice would show."""

    name, model_id, model_files = "counting", "none", types.MappingProxyType({})
    capabilities = Capabilities(word_times=True, token_scores=False, written_form=True, avoids_repeats=True)

    def __init__(self) -> None:
        self.count = itertools.count()

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        for _ in audio:
            yield Hypothesis((HeardWord(str(next(self.count)), 0.0, 0.5),))


class CountingDiarizer:
    """A diariser whose every answer differs."""

    name = "counting"

    def __init__(self) -> None:
        self.count = itertools.count()

    def diarize(self, recording, speech, count=None) -> Diarization:
        return Diarization((Turn(0, 1000, f"S{next(self.count)}"),))


def test_the_same_samples_are_recognised_once() -> None:
    recognizer = RecallingRecognizer(CountingRecognizer())
    first, second = (np.full(100, value, np.float32) for value in (0.1, 0.2))
    assert [h.text for h in recognizer.transcribe([first, second])] == ["0", "1"]
    assert [h.text for h in recognizer.transcribe(iter([second, first, first]))] == ["1", "0", "0"]
    assert [h.text for h in recognizer.transcribe([first], avoid_repeats=True)] == ["2"]


def test_a_recording_is_diarised_once() -> None:
    diarizer = RecallingDiarizer(CountingDiarizer())
    one, other = (Recording.from_array(np.full(1600, value, np.float32), 16_000) for value in (0.1, 0.2))
    found = [diarizer.diarize(recording, ()).turns[0].speaker for recording in (one, other, one)]
    assert found == ["S0", "S1", "S0"]


def test_the_difference_is_ours_minus_theirs_and_pools_counts() -> None:
    meetings = [meeting(0.1, 10, 12, words=100), meeting(0.2, 40, 60, words=300)]
    difference, (low, high) = speech_pipeline._difference(WIELDY, GLUE, meetings, seed=0)
    assert difference == pytest.approx(-22 / 400)
    assert low == pytest.approx(-20 / 300)
    assert high == pytest.approx(-2 / 100)
    figure = speech_pipeline._figure("cpWER", GLUE, meetings, seed=0)
    assert (figure.median, figure.count) == (72 / 400, 400)


@pytest.mark.slow
def test_a_smoke_run_executes_every_part(whisper_tiny) -> None:
    try:
        found = reproduce("speech-pipeline")
    except MissingError as error:
        pytest.skip(str(error))
    # Meetings of 15 s decide nothing; that every arm was heard and scored on the same words is what is looked at.
    assert found.exit_status in (0, 1)
    assert [arm.name for arm in found.arms] == list(ARMS)
    assert found.samples["meetings"] == 2
    assert len({arm.metrics[0].count for arm in found.arms}) == 1
    figures = {arm.name: {metric.name: metric.median for metric in arm.metrics} for arm in found.arms}
    assert figures[WIELDY]["WER"] < 0.5
    assert figures[GLUE]["WER"] < 0.5
