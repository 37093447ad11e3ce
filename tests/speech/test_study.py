"""Comparing encoders: frames get the phone in their middle, sizes are equal, and tones, whose letters are their phones,
are learnt, or a run diverges and the report says so."""

import math

import pytest

torch = pytest.importorskip("torch")

from lhotse.cut import CutSet  # noqa: E402
from lhotse.supervision import AlignmentItem  # noqa: E402

from tests.speech.adapt import tones  # noqa: E402
from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.metrics.text import WordErrors  # noqa: E402
from wieldy.speech.corpus import text_of  # noqa: E402
from wieldy.speech.networks.acoustic_model import UNKNOWN, AcousticModel, collapsed, parameters  # noqa: E402
from wieldy.speech.networks.bilstm import BlstmConfig  # noqa: E402
from wieldy.speech.networks.layer_trajectory import LayerTrajectoryConfig  # noqa: E402
from wieldy.speech.networks.lstm import LstmConfig  # noqa: E402
from wieldy.speech.networks.streaming_config import StreamingConfig  # noqa: E402
from wieldy.speech.study import (  # noqa: E402
    Candidate,
    PhoneTask,
    StudyConfig,
    Trial,
    pareto,
    sized,
    study,
    study_report,
    trial,
)
from wieldy.speech.tokens import Tokenizer  # noqa: E402
from wieldy.training.schedules import Schedule  # noqa: E402

LETTER_S = tones.LETTER / tones.RATE
SMALL = StreamingConfig(mode="chunk", chunk=4, left=8, layers=1, size=16, heads=2, feed_forward=32, dropout=0.0)


def letters(lines: list[str], name: str) -> CutSet:
    """Tones whose letters are phones."""
    cuts = list(tones.spoken(lines, name))
    for cut in cuts:
        items = [
            AlignmentItem(letter, round((1 + place) * LETTER_S, 5), LETTER_S)
            for place, letter in enumerate(text_of(cut))
            if letter != " "
        ]
        cut.supervisions[0].alignment["phone"] = items
    return CutSet.from_cuts(cuts)


@pytest.fixture(scope="module")
def task() -> PhoneTask:
    return PhoneTask(
        letters(tones.SOURCE, "a"), letters(["ab b", "ccb a", "abc"], "b"), Tokenizer.train(tones.SOURCE, "char"),
        tones.FEATURES,
    )  # fmt: skip


def test_frames_have_the_phone_of_their_middle(task: PhoneTask) -> None:
    batch = task.test[0]
    row = [text_of(cut) for cut in batch.cuts].index("ab b")
    assert task.symbols == ("<silence>", "a", "b", "c")
    labels = task.labels(batch, batch.feature_lens, 1)[row]
    # Three frames a letter, of which the last of the utterance has no window of its own any more.
    expected = [number for number in (0, 1, 2, 0, 2, 0) for _ in range(3)][: int(batch.feature_lens[row])]
    assert labels[: len(expected)].tolist() == expected
    assert (labels[len(expected) :] == UNKNOWN).all()
    joined = task.labels(batch, (batch.feature_lens + 2) // 3, 3)[row]
    assert joined[:6].tolist() == [0, 1, 2, 0, 2, 0]


def test_runs_are_one_and_blanks_none() -> None:
    assert collapsed([0, 1, 1, 0, 1, 2, 2, 0]) == [1, 1, 2]
    assert collapsed([]) == []


@pytest.mark.parametrize(
    "encoder",
    [
        StreamingConfig(layers=2, size=32, heads=2),
        BlstmConfig(layers=2, chunk=4, right=2),
        LstmConfig(layers=2, projection=0),
        LstmConfig(layers=2),
        LayerTrajectoryConfig(),
    ],
    ids=lambda encoder: encoder.kind,
)
def test_encoders_are_brought_to_a_size(encoder: object) -> None:
    found = sized(encoder, 80_000, 60)
    assert abs(parameters(60, found) - 80_000) <= 0.05 * 80_000
    with pytest.raises(UsageError, match="weights at the nearest, not 100: within 5%"):
        sized(encoder, 100, 60)


def test_the_loss_has_no_part_of_frames_without_phone_and_of_pieces_without_weight() -> None:
    torch.manual_seed(0)
    model = AcousticModel(6, SMALL, 3, 5).eval()
    x, lens = torch.randn(1, 8, 6), torch.tensor([8])
    targets, target_lens = torch.tensor([[1, 2]]), torch.tensor([2])
    phones = torch.full((1, 8), UNKNOWN)
    phones[0, 2] = 1
    loss = model.loss(x, lens, phones, targets, target_lens, ctc_weight=0.0)
    torch.testing.assert_close(loss, -model(x, lens)[0][0, 2].log_softmax(-1)[1])
    assert model.loss(x, lens, phones, targets, target_lens, ctc_weight=1.0) > loss


def test_candidates_are_compared_and_divergence_is_a_result(task: PhoneTask) -> None:
    said: list[str] = []
    candidates = {
        "blstm": Candidate(encoder=BlstmConfig(layers=1, hidden=8), schedule=Schedule(peak=1e-2)),
        "chunk": Candidate(encoder=SMALL, schedule=Schedule(peak=1e-2)),
    }
    trials, report = study(candidates, task, StudyConfig(steps=60), progress=said.append)
    blstm, chunk = trials
    assert (blstm.candidate, chunk.candidate) == ("blstm", "chunk")
    assert chunk.frame_error < 0.1
    assert len(chunk.words) == 3
    assert blstm.look_ahead_ms == math.inf
    assert chunk.look_ahead_ms == pytest.approx(3 * 30)
    assert abs(chunk.parameters - blstm.parameters) <= 0.05 * blstm.parameters
    rows = {row[0]: row for row in report.tables[0].rows}
    assert rows["chunk"][3] == "converged"
    assert ("chunk",) in [row[:1] for row in report.tables[1].rows]
    assert said[1].startswith("chunk, seed 0: ")
    broken = trial(
        "broken", Candidate(encoder=SMALL, schedule=Schedule(peak=1e30, shape="constant", warmup=0)), task,
        StudyConfig(steps=60), 0,
    )  # fmt: skip
    assert broken.diverged_at is not None
    assert study_report([broken]).tables[0].rows[0][3] == "1 of 1 diverged"
    assert study_report([broken]).tables[1].rows == ()


def test_time_instead_of_steps(task: PhoneTask) -> None:
    few = trial("few", Candidate(encoder=SMALL), task, StudyConfig(seconds=1e-6), 0)
    assert few.steps == 1


def test_the_best_for_their_look_ahead() -> None:
    points = {
        "slow": (0.1, 800.0),
        "middle": (0.3, 240.0),
        "worse": (0.3, 480.0),
        "quick": (0.5, 0.0),
        "same": (0.5, 0.0),
    }
    assert pareto(points) == ("slow", "middle", "quick", "same")


def test_what_cannot_be_meant(task: PhoneTask) -> None:
    for settings, message in (
        ({"tolerance": -1}, "tolerance is -1: it must be at least 0"),
        ({"steps": 0}, "steps 0, seeds"),
        ({"seeds": ()}, "there is at least one of each"),
        ({"seconds": 0}, "seconds is 0"),
    ):
        with pytest.raises(UsageError, match=message):
            StudyConfig(**settings)
    with pytest.raises(UsageError, match="there is no candidate"):
        study({}, task)
    silent = tones.spoken(["a"], "silent")
    with pytest.raises(InputError, match="has no phone times"):
        PhoneTask(silent, silent, task.tokenizer, tones.FEATURES)


def test_the_loss_at_the_end_is_not_that_of_one_batch() -> None:
    frames = (WordErrors(10, substitutions=1),)
    made = Trial(
        candidate="x", seed=0, parameters=1, steps=40, seconds=1.0, diverged_at=None, losses=(5.0,) * 38 + (1.0, 3.0),
        frames=frames, phones=frames, words=frames, look_ahead_ms=0.0, rtf=0.1,
    )  # fmt: skip
    assert made.final_loss == 2.0
    assert made.frame_error == 0.1
