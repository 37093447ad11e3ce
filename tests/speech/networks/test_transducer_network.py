"""The transducer: label by label is all at once, stored is loaded, and its parts are what the equations say."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.losses.transducer import transducer_loss  # noqa: E402
from wieldy.speech.networks.lstm import LstmConfig  # noqa: E402
from wieldy.speech.networks.predictors import (  # noqa: E402
    LstmPredictorConfig,
    PredictorConfig,
    StatelessPredictorConfig,
)
from wieldy.speech.networks.transducer import Transducer, TransducerConfig  # noqa: E402
from wieldy.speech.networks.views import TransducerView  # noqa: E402

PREDICTORS: dict[str, PredictorConfig] = {
    "lstm": LstmPredictorConfig(embedding=5, layers=2, hidden=7, projection=6),
    "lstm with norms": LstmPredictorConfig(embedding=5, hidden=7, layer_norm=True),
    "stateless": StatelessPredictorConfig(embedding=5, context=3),
    "stateless of one label": StatelessPredictorConfig(embedding=5, context=1),
}


def tiny(**changes: object) -> Transducer:
    torch.manual_seed(0)
    encoder = LstmConfig(layers=1, hidden=6, projection=0)
    settings = {"encoder": encoder, "predictor": PREDICTORS["lstm"], "joint": 6, **changes}
    return Transducer(TransducerConfig(vocabulary=9, input_dim=4, **settings)).eval()


@pytest.mark.parametrize("predictor", PREDICTORS)
@torch.no_grad()
def test_label_by_label_is_all_at_once(predictor: str) -> None:
    model: TransducerView = (network := tiny(predictor=PREDICTORS[predictor]))
    targets = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2], [3, 1, 4, 1, 6]])
    whole = network.predict(targets)
    assert whole.shape == (3, 6, 6)
    torch.testing.assert_close(whole[0, :5], whole[2, :5])
    assert (whole[0, 5] != whole[2, 5]).any()
    g, state = model.start(3)
    order = [0, 1, 2]
    for u, shuffle in enumerate([[2, 1, 0], [0, 0, 1], [1, 2, 2], [0, 1, 2], [2, 1, 0]]):
        torch.testing.assert_close(g, whole[order, u])
        order = [order[i] for i in shuffle]
        g, state = model.advance(targets[order, u], model.select(state, torch.tensor(shuffle)))
    torch.testing.assert_close(g, whole[order, 5])


@torch.no_grad()
def test_a_stateless_predictor_sees_as_many_labels_as_it_says() -> None:
    model = tiny(predictor=PREDICTORS["stateless"])
    one, other = model.predict(torch.tensor([[1, 2, 3, 4, 5], [6, 2, 3, 4, 5]]))
    assert [torch.allclose(one[u], other[u], atol=1e-6) for u in range(6)] == [True, False, False, False, True, True]


@pytest.mark.parametrize("head", ["rnnt", "hat"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@torch.no_grad()
def test_the_joint_is_its_equation(head: str, activation: str) -> None:
    model = tiny(head=head, activation=activation)
    f, g = torch.randn(2, 3, 6).unbind()
    h = model.joint.output(getattr(torch, activation)(f + g))
    found = model.join(f, g)
    if head == "rnnt":
        torch.testing.assert_close(found, h)
        return
    p = found.exp()
    torch.testing.assert_close(p.sum(1), torch.ones(3))
    torch.testing.assert_close(p[:, 0], h[:, 0].sigmoid())
    torch.testing.assert_close(p[:, 1:], (1 - h[:, :1].sigmoid()) * h[:, 1:].softmax(1))


@torch.no_grad()
def test_the_internal_language_model_has_what_its_cut_leaves() -> None:
    g = torch.randn(4, 6)
    model = tiny()
    torch.testing.assert_close(model.join_internal(g), model.joint.output(g.tanh()))
    model = tiny(internal_lm="encoder_output")
    torch.testing.assert_close(model.join_internal(g), model.joint.output((g + model.encoder_projection.bias).tanh()))
    model = tiny(internal_lm="mean")
    with pytest.raises(UsageError, match="measure_mean_encoding_"):
        model.join_internal(g)
    x, lens = torch.randn(2, 5, 4), torch.tensor([5, 2])
    model.measure_mean_encoding_([(x[:1], lens[:1]), (x, lens)])
    f, _ = model.encode(x, lens)
    mean = (2 * f[0].sum(0) + f[1, :2].sum(0)) / 12
    torch.testing.assert_close(model.join_internal(g), model.join(mean.expand(4, -1), g))
    with pytest.raises(InputError, match="no frames"):
        model.measure_mean_encoding_([])


@pytest.mark.parametrize("head", ["rnnt", "hat"])
def test_the_loss_trains_every_parameter(head: str) -> None:
    model = tiny(head=head).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    x, lens = torch.randn(2, 8, 4), torch.tensor([8, 5])
    targets, target_lens = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    losses = []
    for _ in range(40):
        f, f_lens, g = model(x, lens, targets)
        loss = transducer_loss(f, g, model.joint, targets, f_lens, target_lens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert losses[-1] < losses[0] / 3


@torch.no_grad()
def test_a_stream_is_projected_like_the_whole() -> None:
    model = tiny()
    x = torch.randn(2, 7, 4)
    whole, _ = model.encode(x, torch.tensor([7, 7]))
    first, state = model.step(x[:, :3], model.init_state(2))
    second, _ = model.step(x[:, 3:], state, final=True)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    assert model.latency().worst == 0


@torch.no_grad()
def test_stored_is_loaded(tmp_path: Path) -> None:
    model = tiny(predictor=PREDICTORS["stateless"], head="hat")
    model.save(tmp_path / "model")
    again = Transducer.load(tmp_path / "model")
    assert again.config == model.config
    assert not again.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    tiny().save(tmp_path)
    whole: dict[str, object] = json.loads((tmp_path / "config.json").read_text())

    def rejected(message: str, **changes: object) -> None:
        (tmp_path / "config.json").write_text(json.dumps(whole | changes))
        with pytest.raises(InputError, match=message):
            Transducer.load(tmp_path)

    rejected("unknown key 'joints': did you mean joint?", joints=3)
    rejected("unknown key 'zzz': transducer has vocabulary, input_dim", zzz=1)
    rejected("encoder, has the kind 'gru': known are lstm", encoder={"kind": "gru"})
    rejected("encoder, has the unknown key 'hiden': did you mean hidden", encoder={"kind": "lstm", "hiden": 3})
    rejected(r"encoder, holds 3: it is an object", encoder=3)
    rejected("is no transducer configuration: vocabulary is 1", vocabulary=1)
    rejected("is no transducer configuration: '<' not supported", vocabulary="nine")
    rejected(r"joint.output.bias has shape \(9,\): config.json beside it asks for \(12,\)", vocabulary=12)
    rejected("holds predictor.lstm.plain", predictor={"kind": "stateless", "embedding": 5})
    rejected(
        "lacks encoder.lstm.normed",
        encoder={"kind": "lstm", "layers": 1, "hidden": 6, "projection": 0, "layer_norm": True},
    )
    del whole["kind"]
    rejected("has the kind None: known are transducer")


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_presets_build(preset: str) -> None:
    model = Transducer(TransducerConfig.preset(preset, vocabulary=40))
    f, f_lens = model.encode(torch.randn(1, 4, 240), torch.tensor([4]))
    assert f_lens.tolist() == [4 // model.encoder.subsampling]
    assert f.shape == (1, int(f_lens), model.config.joint)


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="preset 'huge': choose tiny, small, large"):
        TransducerConfig.preset("huge", vocabulary=40)
    with pytest.raises(UsageError, match="head 'ctc': choose rnnt, hat"):
        TransducerConfig(vocabulary=3, head="ctc")
    for config, settings in (
        (LstmConfig, {"projection": 256}),
        (LstmConfig, {"layers": 0}),
        (LstmConfig, {"dropout": 1.0}),
        (LstmPredictorConfig, {"projection": 128}),
        (LstmPredictorConfig, {"embedding": 0}),
        (StatelessPredictorConfig, {"context": 0}),
        (StatelessPredictorConfig, {"dropout": -0.1}),
        (TransducerConfig, {"vocabulary": 3, "joint": 0}),
    ):
        with pytest.raises(UsageError):
            config(**settings)


def total(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def test_the_large_preset_has_the_published_sizes() -> None:
    with torch.device("meta"):
        model = Transducer(TransducerConfig.preset("large", vocabulary=4001))
    assert len(model.encoder.state_dict()) == 6 * 5
    assert (model.encoder.output_dim, model.predictor.output_dim) == (640, 640)
    assert total(model.state_dict()) == pytest.approx(58e6, rel=0.5)
