import pytest
import torch

from wieldy.errors import InputError
from wieldy.speech.networks.transducer import Transducer, TransducerConfig


def transducer():
    torch.manual_seed(0)
    return Transducer(TransducerConfig.preset("small", 5, 6)).eval()


def test_features_are_measured_without_what_lies_beyond_the_lengths():
    x = 3 + 2 * torch.randn(4, 50, 6)
    lens = torch.tensor([50, 20, 1, 0])
    frames = torch.cat([row[:n] for row, n in zip(x, lens.tolist(), strict=True)])
    garbage = x.clone()
    garbage[1, 20:] = 1e6
    model = transducer()
    model.measure_features_([(garbage[:2], lens[:2]), (garbage[2:], lens[2:])])
    normalized = model.normalized(frames)
    assert torch.allclose(normalized.mean(0), torch.zeros(6), atol=1e-5)
    assert torch.allclose(normalized.std(0, correction=0), torch.ones(6), atol=1e-5)


def test_a_stream_is_normalized_as_the_whole_is():
    model = transducer()
    x, lens = 3 + 2 * torch.randn(2, 11, 6), torch.tensor([11, 11])
    model.measure_features_([(x, lens)])
    state, parts = model.init_state(2), []
    for part in x.split(4, dim=1):
        f, state = model.step(part, state)
        parts.append(f)
    whole, _ = model.encode(x, lens)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)
    assert not torch.allclose(whole, transducer().encode(x, lens)[0], atol=1e-4)


def test_a_silent_band_and_no_frames():
    model = transducer()
    model.measure_features_([(torch.full((1, 3, 6), 7.0), torch.tensor([3]))])
    assert torch.isfinite(model.normalized(torch.full((1, 6), 7.5))).all()
    with pytest.raises(InputError, match="no frames to take a mean of"):
        model.measure_features_([])
