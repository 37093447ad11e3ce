"""Pre-training: what is learnt, what is left alone, and what is refused."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse.cut import CutSet, MonoCut
from lhotse.supervision import AlignmentItem
from torch.nn import functional

from wieldy.errors import InputError, UsageError
from wieldy.speech import corpus
from wieldy.speech.aligners import Alignment, with_alignment
from wieldy.speech.batches import Batch, BatchConfig, Batches
from wieldy.speech.features import LogMelConfig
from wieldy.speech.networks.lstm import LstmConfig
from wieldy.speech.networks.predictors import LstmPredictorConfig
from wieldy.speech.networks.transducer import Transducer, TransducerConfig
from wieldy.speech.pretrain import _TASKS, AlignPretrainConfig, after_pretraining, pretrain
from wieldy.speech.pretrain.labels import Spanned, frame_labels, node_labels
from wieldy.speech.tokens import Tokenizer
from wieldy.training.schedules import Schedule

TEXTS = ["on", "off on", "on off off", "off", "on on", "off off"]
TOKENIZER = Tokenizer.train(TEXTS, "word")
FEATURES = LogMelConfig(mels=4)
SMALL = TransducerConfig(
    vocabulary=len(TOKENIZER),
    input_dim=FEATURES.dim,
    encoder=LstmConfig(layers=1, hidden=12, projection=0),
    predictor=LstmPredictorConfig(embedding=6, hidden=6),
    joint=8,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Batches:
    folder = tmp_path_factory.mktemp("sound")
    cuts = [chirped(folder / f"{i}.wav", text) for i, text in enumerate(TEXTS)]
    return Batches(CutSet.from_cuts(cuts), FEATURES, TOKENIZER, BatchConfig(max_utterances=3))


def chirped(path: Path, text: str) -> MonoCut:
    """A tone for each word, low for "on" and high for "off", with silence in between."""
    rng, words = np.random.default_rng(0), text.split()
    samples = rng.normal(0, 0.01, round(16_000 * (0.25 * len(words) + 0.1)))
    for n, word in enumerate(words):
        begin = round(16_000 * (0.25 * n + 0.05))
        samples[begin : begin + 3200] += np.sin(np.arange(3200) * (0.15 if word == "on" else 1.5))
    soundfile.write(path, samples * 0.5, 16_000)
    times = tuple(AlignmentItem(word, round(0.25 * n + 0.05, 2), 0.2) for n, word in enumerate(words))
    return with_alignment(corpus.recorded(path, text), Alignment(times))


def model(**changes) -> Transducer:
    torch.manual_seed(0)
    return Transducer(dataclasses.replace(SMALL, **changes))


def changed(before: Transducer, after: Transducer) -> set[str]:
    """The parts of the model whose weights differ."""
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name.split(".")[0] for (name, one), other in pairs if not torch.equal(one.nan_to_num(), other.nan_to_num())}


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"target": "encoder"}, {"encoder"}),
        ({"target": "encoder", "predictor_lm": True}, {"encoder", "predictor"}),
        ({"target": "encoder", "keep_fc": True}, {"encoder", "encoder_projection"}),
        ({"target": "ctc", "predictor_lm": True}, {"encoder", "predictor"}),
        ({"target": "whole"}, {"encoder", "predictor", "encoder_projection", "predictor_projection", "joint"}),
    ],
    ids=["encoder", "encoder and predictor", "keep_fc", "ctc and lm", "whole"],
)
def test_only_what_the_target_has_is_trained_and_the_given_model_is_left_as_it_was(data, config, parts):
    before = model()
    kept = copy.deepcopy(before)
    after, report = pretrain(before, data, TOKENIZER, config=AlignPretrainConfig(max_steps=2, **config))
    assert changed(before, kept) == set()
    assert changed(before, after) == parts
    assert all(parameter.requires_grad for parameter in after.parameters())
    assert report.metric("steps").median == 2


@pytest.mark.parametrize(
    "config", [{"target": "encoder"}, *({"target": "whole", "variant": v} for v in ("all", "path"))]
)
def test_labels_are_learnt(data, config):
    settings = AlignPretrainConfig(max_steps=60, lr=0.02, min_gain=0, cpu=True, **config)
    _, report = pretrain(model(), data, TOKENIZER, config=settings, dev=list(data.epoch(0)))
    (loss,), (accuracy,) = (plot.series for plot in report.plots)
    assert np.mean(loss.y[-5:]) < 0.6 * np.mean(loss.y[:5])
    assert accuracy.y[-1] > accuracy.y[0] + 10
    assert accuracy.x[-1] == 60
    assert report.metric("discarded").median == 0


def test_the_same_seed_gives_the_same_weights(data):
    config = AlignPretrainConfig(max_steps=3, keep_fc=True)
    one, other = (pretrain(model(), data, TOKENIZER, config=config).value for _ in range(2))
    assert changed(one, other) == set()
    elsewhere = pretrain(model(), data, TOKENIZER, config=dataclasses.replace(config, seed=1)).value
    assert "encoder" in changed(one, elsewhere)


def test_it_ends_when_an_epoch_gains_too_little(data):
    config = AlignPretrainConfig(max_steps=50, lr=1e-9)
    _, report = pretrain(model(), data, TOKENIZER, config=config, dev=list(data.epoch(0)))
    assert report.metric("steps").median == 2 * len(data.epoch(0))


def test_a_pretrained_model_saves_and_loads_bit_for_bit(data, tmp_path):
    after, _ = pretrain(model(), data, TOKENIZER, config=AlignPretrainConfig(max_steps=2, keep_fc=True))
    after.save(tmp_path)
    assert changed(after, Transducer.load(tmp_path)) == set()


# --- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True])
def test_the_encoder_loss_is_cross_entropy_of_frames_and_silence_counts_half_where_it_is_most(data, silent):
    batch = with_words_of(data.epoch(0)[0], seconds=0.06 if silent else 0.2)
    task = task_of("encoder", model())
    labels = frame_labels(batch, TOKENIZER, batch.feature_lens, 0.03)
    assert (2 * (labels == 0).sum() > (labels >= 0).sum()) == silent
    logits = task.layer(task.model.hear(batch.features, batch.feature_lens)[0])
    log_p = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    weight = torch.where(labels == 0, 0.5 if silent else 1.0, 1.0) * (labels >= 0)
    torch.testing.assert_close(task.loss(batch), -(weight * log_p).sum() / weight.sum())


@pytest.mark.parametrize("variant", ["all", "correct", "path"])
@pytest.mark.parametrize("blank_weight", ["auto", 0.3])
def test_the_whole_loss_is_cross_entropy_of_nodes_on_all_logits_at_once(data, variant, blank_weight):
    batch = data.epoch(0)[0]
    task = task_of("whole", model(), variant=variant, blank_weight=blank_weight)
    labels, weights = node_labels(batch, task.spanned(batch, batch.feature_lens), batch.feature_lens, variant, "end")
    blank, other = ((weights > 0) & (labels == 0)).sum(), ((weights > 0) & (labels > 0)).sum()
    share = min(1.0, float(other / blank)) if blank_weight == "auto" else blank_weight
    weights = weights * torch.where(labels == 0, share, 1.0)
    f, _, g = task.model(batch.features, batch.feature_lens, batch.targets)
    log_p = task.model.joint(f[:, :, None], g[:, None]).log_softmax(-1).gather(3, labels[..., None])[..., 0]
    expected, found = -(weights * log_p).sum() / weights.sum(), task.loss(batch)
    torch.testing.assert_close(found, expected)
    leaves = list(task.model.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(loss, leaves) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_the_ctc_loss_is_a_mean_over_utterances_and_one_too_short_counts_nothing(data):
    batch = data.epoch(0)[0]
    task = task_of("ctc", model())

    def expected(lens):
        log_p = task.layer(task.model.hear(batch.features, lens)[0]).log_softmax(-1)
        losses = [
            functional.ctc_loss(row[:frames, None], own[:symbols], frames[None], symbols[None], reduction="sum")
            for row, frames, own, symbols in zip(log_p, lens, batch.targets, batch.target_lens, strict=True)
        ]
        return torch.stack([loss if loss.isfinite() else torch.zeros(()) for loss in losses]).mean()

    torch.testing.assert_close(task.loss(batch), expected(batch.feature_lens))
    shorter = torch.cat([torch.tensor([0]), batch.feature_lens[1:]])
    batch = dataclasses.replace(batch, feature_lens=shorter)
    assert task.loss(batch).isfinite()


def test_the_predictor_learns_the_next_token(data):
    batch = data.epoch(0)[0]
    task = task_of("encoder", model(), predictor_lm=True)
    alone = task_of("encoder", task.model)
    alone.layer = task.layer
    logits = torch.cat(
        [
            task.language(task.model.predictor(own[None, :symbols])[0, :-1])
            for own, symbols in zip(batch.targets, batch.target_lens, strict=True)
        ]
    )
    said = torch.cat([own[:symbols] for own, symbols in zip(batch.targets, batch.target_lens, strict=True)])
    torch.testing.assert_close(task.loss(batch), alone.loss(batch) + functional.cross_entropy(logits, said))


def test_the_projection_starts_from_the_layer_by_which_it_was_trained(data):
    torch.manual_seed(0)
    trained = pretrain(model(), data, TOKENIZER, config=AlignPretrainConfig(max_steps=1, keep_fc=True)).value
    # Not more dimensions than the layer has outputs, one for each token and one for silence.
    assert torch.linalg.matrix_rank(trained.encoder_projection.weight) == min(len(TOKENIZER), SMALL.joint)


def task_of(target, network, **config):
    torch.manual_seed(1)
    return _TASKS[target](network, Spanned(TOKENIZER, 0.03), AlignPretrainConfig(target=target, **config))


def with_words_of(batch: Batch, seconds: float) -> Batch:
    """The batch with words so long."""

    def retimed(cut):
        (supervision,) = cut.supervisions
        words = [
            AlignmentItem(word, round(0.25 * n + 0.05, 2), seconds) for n, word in enumerate(supervision.text.split())
        ]
        return with_alignment(cut, Alignment(tuple(words)))

    return dataclasses.replace(batch, cuts=tuple(map(retimed, batch.cuts)))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_batch_of_discarded_utterances_teaches_nothing(data):
    batch = with_words_of(data.epoch(0)[0], seconds=0.2)
    for target in ("encoder", "whole"):
        task = task_of(target, model())
        task.spanned._spans = lambda *_: None
        loss = task.loss(batch)
        assert loss == 0
        loss.backward()


def test_many_discarded_utterances_are_an_error_and_some_a_note(data, monkeypatch):
    def spans(self, cut, tokens, frames):
        if cut.id in lost:
            self.discarded[cut.id] = "3 tokens in 2 frames"
            return None
        return unchanged(self, cut, tokens, frames)

    unchanged = Spanned._spans
    monkeypatch.setattr(Spanned, "_spans", spans)
    names = [cut.id for batch in data.epoch(0) for cut in batch.cuts]
    lost = set(names[:2])
    with pytest.raises(InputError) as caught:
        pretrain(model(), data, TOKENIZER, config=AlignPretrainConfig(max_steps=4))
    assert str(caught.value).startswith("2 of 6 utterances have more tokens than frames, such as ")
    assert str(caught.value).endswith(": 3 tokens in 2 frames: use larger word pieces or less sub-sampling")
    lost = set(names[:1])
    _, report = pretrain(model(), data, TOKENIZER, config=AlignPretrainConfig(max_steps=4))
    assert report.notes == ("1 of 6 utterances were discarded: more tokens than frames",)
    assert report.details["discarded"] == {names[0]: "3 tokens in 2 frames"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target": "joint"}, "target 'joint': choose encoder, whole, ctc"),
        ({"variant": "some"}, "variant 'some': choose all, correct, path"),
        ({"anchor": "late"}, "anchor 'late': choose start, mid, end"),
        ({"frame_shift_s": 0.0}, "frame_shift_s is 0.0: it must be above 0"),
        ({"lr": -1.0}, "lr is -1.0: it must be above 0"),
        ({"label_delay_frames": -1}, "label_delay_frames is -1: it must be at least 0"),
        ({"max_steps": 0}, "max_steps is 0: it must be at least 1"),
        ({"blank_weight": 0.0}, "blank_weight is 0.0: it is above 0, or auto"),
        (
            {"keep_fc": True, "target": "whole"},
            "keep_fc with target whole: only targets encoder and ctc have such a layer",
        ),
    ],
)
def test_options_out_of_range_are_refused(config, message):
    with pytest.raises(UsageError) as caught:
        AlignPretrainConfig(**config)
    assert str(caught.value) == message


def test_the_schedule_that_follows_is_half_as_high():
    schedule = Schedule(peak=0.004, shape="cosine", warmup=0.2)
    assert after_pretraining(schedule) == Schedule(peak=0.002, shape="cosine", warmup=0.05)
