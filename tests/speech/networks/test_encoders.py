"""Every encoder: a stream in any pieces gives what the whole gives, what lies beyond an utterance is never read, and
one frame of input changes exactly the outputs that `latency()` says it may."""

import math
import pickle

import hypothesis
import hypothesis.strategies as st
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.networks.bilstm import BlstmConfig  # noqa: E402
from wieldy.speech.networks.encoder import Encoder  # noqa: E402
from wieldy.speech.networks.encoders import EncoderConfig, build_encoder  # noqa: E402
from wieldy.speech.networks.layer_trajectory import LayerTrajectoryConfig  # noqa: E402
from wieldy.speech.networks.lstm import LstmConfig  # noqa: E402
from wieldy.speech.networks.streaming_config import StreamingConfig  # noqa: E402

FEATURES = 8
VGG = {"front": "vgg", "channels": (5, 6), "planes": 2}
LSTM = {"layers": 2, "hidden": 10, "projection": 6}


def streaming(mode: str, **settings: object) -> StreamingConfig:
    return StreamingConfig(mode=mode, **{"layers": 2, "size": 8, "heads": 2, "feed_forward": 12, **settings})


CONFIGS: dict[str, EncoderConfig] = {
    "lstm": LstmConfig(**LSTM),
    "lstm of pairs": LstmConfig(**LSTM, stack=2),
    "lstm with norms": LstmConfig(layers=2, hidden=10, projection=0, layer_norm=True),
    "layer trajectory": LayerTrajectoryConfig(look_ahead=(2, 0, 3), hidden=10, projection=6),
    "layer trajectory of pairs": LayerTrajectoryConfig(
        look_ahead=(1, 1), hidden=6, projection=0, stack=2, matrices=True
    ),
    "layer trajectory without look-ahead": LayerTrajectoryConfig(look_ahead=(0, 0), hidden=6, projection=0),
    "blstm": BlstmConfig(layers=2, hidden=6),
    "lc-blstm": BlstmConfig(layers=3, hidden=6, chunk=6, right=3),
    "lc-blstm of pairs": BlstmConfig(layers=2, hidden=6, chunk=4, right=6, stack=2),
    "full": streaming("full"),
    "mask": streaming("mask", left=3, right=2),
    "mask, layer by layer": streaming("mask", left=(2, 5), right=(0, 3), subsampling=2, norm="sandwich"),
    "mask with convolution": streaming("mask", left=3, right=1, convolution=3, positions="none"),
    "chunk": streaming("chunk", chunk=4, left=8),
    "chunk without past": streaming("chunk", chunk=3, left=0, norm="post"),
    "chunk of pairs with more to the right": streaming("chunk", chunk=4, left=4, right=3, subsampling=2),
    "chunk with convolution": streaming("chunk", chunk=4, left=4, right=2, convolution=6, norm="sandwich"),
    "chunk without positions": streaming("chunk", chunk=2, left=4, positions="none", norm="pre_no_final"),
    "xl": streaming("xl", chunk=4, left=6, convolution=2),
    "xl of single frames": streaming("xl", chunk=1, left=5, right=2),
    "vgg": streaming("chunk", chunk=2, left=2, **VGG, subsampling=4),
    "vgg centred": streaming("chunk", chunk=2, left=2, **VGG, subsampling=2, centred=True),
    "vgg centred, mask": streaming("mask", left=1, right=1, **VGG, subsampling=4, centred=True),
}
every_encoder = pytest.mark.parametrize("name", CONFIGS)


def encoder_of(name: str) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(FEATURES, CONFIGS[name]).eval().double()


def features(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, frames, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def streamed(encoder: Encoder, x: Tensor, lens: Tensor, pieces: list[int]) -> Tensor:
    state, outputs, begin = encoder.init_state(len(x)), [], 0
    for size in pieces:
        part = x[:, begin : begin + size]
        y, state = encoder.step(part, state, lens=(lens - begin).clamp(0, part.shape[1]))
        state = pickle.loads(pickle.dumps(state))
        outputs.append(y)
        begin += size
    rest = x[:, begin:]
    outputs.append(encoder.step(rest, state, lens=(lens - begin).clamp(0, rest.shape[1]), final=True)[0])
    return torch.cat(outputs, dim=1)


@every_encoder
@pytest.mark.parametrize("pieces", [[5, 0, 1, 9, 4], [1] * 24])
def test_a_stream_in_pieces_is_the_whole(name: str, pieces: list[int]) -> None:
    check_stream(name, pieces, [25, 0, 12])


@pytest.mark.slow
@every_encoder
@hypothesis.settings(max_examples=30)
@hypothesis.given(
    pieces=st.lists(st.integers(0, 9), max_size=12), lens=st.lists(st.integers(0, 37), min_size=1, max_size=3)
)
def test_a_stream_in_any_pieces_is_the_whole(name: str, pieces: list[int], lens: list[int]) -> None:
    check_stream(name, pieces, lens)


def check_stream(name: str, pieces: list[int], lens: list[int]) -> None:
    encoder, ends = encoder_of(name), torch.tensor(lens)
    x = features(len(lens), max(lens), seed=1)
    for row, end in zip(x, lens, strict=True):
        row[end:] = torch.nan
    with torch.no_grad():
        whole, whole_lens = encoder(x, ends)
    assert whole.shape == (len(lens), -(-max(lens) // encoder.subsampling), encoder.output_dim)
    assert whole_lens.tolist() == [-(-end // encoder.subsampling) for end in lens]
    torch.testing.assert_close(streamed(encoder, x, ends, pieces), whole, atol=1e-9, rtol=0)
    for n, end in enumerate(lens):
        with torch.no_grad():
            alone, (frames,) = encoder(x[n : n + 1, :end], ends[n : n + 1])
        torch.testing.assert_close(whole[n, :frames], alone[0], atol=1e-9, rtol=0)
        assert not whole[n, frames:].any()


@every_encoder
def test_one_frame_changes_the_outputs_that_latency_declares(name: str) -> None:
    encoder, frames = encoder_of(name), 96
    x = features(1, frames)
    changed = x.repeat(frames + 1, 1, 1)
    changed[torch.arange(frames), torch.arange(frames)] += 10.0
    with torch.no_grad():
        y, _ = encoder(changed, torch.full((frames + 1,), frames))
    # Rounding depends on the place in a batch: 1e-13 is above it, and far below what ten units do anywhere near.
    depends = ((y[:-1] - y[-1]).abs() > 1e-13).any(-1).T
    represented = torch.arange(frames).div(encoder.subsampling, rounding_mode="floor")
    first = depends[represented].int().argmax(1) - torch.arange(frames)
    last = frames - 1 - depends[represented].flip(1).int().argmax(1) - torch.arange(frames)
    declared = encoder.latency()
    assert depends[represented].diagonal().all()
    if math.isinf(declared.worst):
        near = (torch.arange(frames) - represented[:, None] * encoder.subsampling).abs() <= 24
        assert depends[represented][near].all()
        return
    # Away from both ends of the utterance, over whole chunks (of at most 24 frames).
    inner = slice(48 - 24, 48 + 24)
    assert last[inner].max() == declared.worst
    assert last[inner].double().mean() == declared.mean
    if math.isinf(declared.past):
        assert depends[-1, -24:].all()
    else:
        assert -first[48:].min() == declared.past


@every_encoder
def test_gradients_reach_every_parameter(name: str) -> None:
    encoder = encoder_of(name).train()
    y, _ = encoder(features(2, 30), torch.tensor([30, 17]))
    y.pow(2).sum().backward()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


def test_what_does_not_fit_is_named() -> None:
    encoder = encoder_of("lstm")
    with pytest.raises(InputError, match=r"shape \(2, 5, 7\): they are \[2, frames, 8\]"):
        encoder.step(torch.zeros(2, 5, 7), encoder.init_state(2))
    with pytest.raises(InputError, match=r"lengths \[6, 2\] for features of shape \(2, 5, 8\)"):
        encoder(features(2, 5), torch.tensor([6, 2]))
    _, state = encoder.step(features(2, 5), encoder.init_state(2), lens=torch.tensor([5, 3]))
    with pytest.raises(InputError, match="utterance 1 goes on after its end"):
        encoder.step(features(2, 5), state, lens=torch.tensor([5, 5]))
    _, state = encoder.step(features(2, 5), encoder.init_state(2), final=True)
    with pytest.raises(UsageError, match="begin a new stream"):
        encoder.step(features(2, 5), state)
