"""Weights that fit are taken, and what does not is named."""

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from wieldy.errors import InputError  # noqa: E402
from wieldy.speech.networks.acoustic_model import AcousticModel  # noqa: E402
from wieldy.speech.networks.streaming_config import StreamingConfig  # noqa: E402
from wieldy.speech.networks.streaming_transformer import StreamingEncoder  # noqa: E402
from wieldy.speech.networks.warm_start import start_from_  # noqa: E402

SMALL = {"size": 8, "heads": 2, "feed_forward": 8}


def test_an_encoder_starts_from_one_that_was_taught_phones(tmp_path) -> None:
    taught = AcousticModel(6, StreamingConfig(layers=1, **SMALL), 3)
    save_file(taught.state_dict(), tmp_path / "taught.safetensors")
    deeper = StreamingEncoder(6, StreamingConfig(layers=2, **SMALL | {"feed_forward": 9}))
    before = {name: value.clone() for name, value in deeper.state_dict().items()}
    report = start_from_(deeper, tmp_path / "taught.safetensors", source="encoder.")
    after, given = deeper.state_dict(), taught.encoder.state_dict()
    left = dict(report.tables[0].rows)
    for name, value in after.items():
        if name in left:
            assert torch.equal(value, before[name])
        else:
            assert torch.equal(value, given[name])
    assert left["layers.0.feed_forward.0.weight"] == "as it was: (9, 8), trained (8, 8)"
    assert left["layers.1.attention.query.weight"] == "as it was: not in what was trained"
    assert report.metric("tensors taken").median == len(after) - len(left)


def test_only_the_front_end_is_taken() -> None:
    one, other = (StreamingEncoder(6, StreamingConfig(layers=1, **SMALL)) for _ in range(2))
    query = other.layers[0].attention.query.weight.clone()
    report = start_from_(other, one.state_dict(), source="front.", target="front.")
    assert torch.equal(other.front.linear.weight, one.front.linear.weight)
    assert torch.equal(other.layers[0].attention.query.weight, query)
    assert report.metric("tensors taken").median == 2
    extra = {**one.state_dict(), "front.gate": torch.zeros(1)}
    assert ("front.gate", "not used: not in the network") in start_from_(other, extra).tables[0].rows


def test_a_start_from_nothing_is_refused() -> None:
    encoder = StreamingEncoder(6, StreamingConfig(layers=1, **SMALL))
    with pytest.raises(
        InputError, match=r"none of 1 tensors fits one of \d+: say by source and target .* 'other.weight'"
    ):
        start_from_(encoder, {"other.weight": torch.zeros(2)})
