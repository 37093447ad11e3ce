"""The streaming Transformer against plain twins: attention over all frames with a mask for modes mask and full, chunk
after chunk with remembered layer inputs for chunk and xl; norms, initialisations, resets, latencies and messages."""

import math

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.networks.streaming_config import StreamingConfig  # noqa: E402
from wieldy.speech.networks.streaming_transformer import StreamingEncoder, StreamingLayer  # noqa: E402
from wieldy.speech.networks.windowed_attention import RelativeAttention, shifted  # noqa: E402

FEATURES = 6


def config(mode: str, **settings: object) -> StreamingConfig:
    small = {"layers": 2, "size": 8, "heads": 2, "feed_forward": 12, "dropout": 0.0}
    return StreamingConfig(mode=mode, **{**small, **settings})


def encoder_of(settings: StreamingConfig) -> StreamingEncoder:
    torch.manual_seed(0)
    encoder = StreamingEncoder(FEATURES, settings).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return encoder


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def attention(layer: RelativeAttention, queries: Tensor, keys: Tensor, distance: Tensor, mask: Tensor) -> Tensor:
    """[Q, D] of queries [Q, D] and keys [K, D], `distance` and `mask` [Q, K]: the scores of the paper, one by one."""
    size, heads = queries.shape[1], layer.heads
    head = size // heads
    q = layer.query(queries).view(-1, heads, head)
    k, v = (part.view(-1, heads, head) for part in layer.key_value(keys).chunk(2, dim=1))
    score = torch.einsum("qhe,khe->hqk", q, k)
    if layer.relative:
        angle = distance[..., None].double() * 10000 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        r = layer.position(torch.cat([angle.sin(), angle.cos()], -1)).view(*distance.shape, heads, head)
        score = torch.einsum("qhe,khe->hqk", q + layer.content_bias[:, 0], k)
        score = score + torch.einsum("qhe,qkhe->hqk", q + layer.position_bias[:, 0], r)
    p = (score / math.sqrt(head)).masked_fill(~mask, -torch.inf).softmax(-1)
    return layer.output(torch.einsum("hqk,khe->qhe", p, v).reshape(-1, size))


def convolved(layer: StreamingLayer, x: Tensor, before: Tensor) -> Tensor:
    """The convolution branch on x [t, D] after the branch's inputs `before` [k, D]."""
    module = layer.convolution
    h = functional.glu(module.enter(torch.cat([before, x])), dim=-1)
    h = torch.cat([h.new_zeros(max(0, module.back - len(before)), h.shape[1]), h])
    y = [(h[t : t + module.back + 1] * module.depthwise.weight[:, 0].T).sum(0) for t in range(len(h) - module.back)]
    y = torch.stack(y)[-len(x) :] + module.depthwise.bias
    return module.leave(functional.silu(module.norm(y)))


def rest_of(layer: StreamingLayer, x: Tensor, conv_before: Tensor) -> tuple[Tensor, Tensor]:
    """x after convolution and feed-forward, and the inputs of the convolution."""
    h = x[:0]
    if layer.convolution:
        h = layer.convolution_residual.enter(x)
        x = layer.convolution_residual.leave(x, convolved(layer, h, conv_before))
    feed = layer.feed_forward_residual
    return feed.leave(x, layer.feed_forward(feed.enter(x))), h


def over_all_frames(encoder: StreamingEncoder, x: Tensor) -> Tensor:
    """Modes full and mask for one utterance x [T, F]: every layer with a T x T mask."""
    h = encoder.front.linear(x)
    t = torch.arange(len(h))
    distance = t[:, None] - t
    for index, layer in enumerate(encoder.layers):
        mask = torch.ones_like(distance, dtype=torch.bool)
        if encoder.config.mode == "mask":
            left, right = (encoder.config.of_layer(side, index) for side in ("left", "right"))
            mask = (distance <= left) & (-distance <= right)
        normed = layer.attention_residual.enter(h)
        h = layer.attention_residual.leave(h, attention(layer.attention, normed, normed, distance, mask))
        h, _ = rest_of(layer, h, h[:0])
    return encoder.norm(h)


def chunk_after_chunk(encoder: StreamingEncoder, x: Tensor) -> Tensor:
    """Modes chunk and xl for one utterance x [T, F]: layers remember the inputs of earlier chunks, in xl detached."""
    settings = encoder.config
    frames, outputs = encoder.front.linear(x), []
    remembered = [frames[:0] for _ in encoder.layers]
    conv_before = [frames[:0] for _ in encoder.layers]
    for begin in range(0, len(frames), settings.chunk):
        h = frames[begin : begin + settings.chunk + settings.right]
        main = min(settings.chunk, len(frames) - begin)
        for index, layer in enumerate(encoder.layers):
            past = remembered[index][max(0, begin - settings.left) :]
            past = past.detach() if settings.mode == "xl" else past
            remembered[index] = torch.cat([remembered[index], h[:main]])
            keys = layer.attention_residual.enter(torch.cat([past, h]))
            distance = torch.arange(len(h))[:, None] + len(past) - torch.arange(len(keys))
            y = attention(
                layer.attention, keys[len(past) :], keys, distance, torch.ones_like(distance, dtype=torch.bool)
            )
            h, conv_input = rest_of(layer, layer.attention_residual.leave(h, y), conv_before[index])
            conv_before[index] = torch.cat([conv_before[index], conv_input[:main]])
        outputs.append(encoder.norm(h[:main]))
    return torch.cat(outputs)


TWINS = {
    "full": (over_all_frames, {}),
    "full, post-norm with convolution": (over_all_frames, {"norm": "post", "convolution": 4}),
    "mask": (over_all_frames, {"left": 3, "right": 2}),
    "mask of many blocks": (over_all_frames, {"left": (1, 4), "right": (2, 0), "convolution": 3, "positions": "none"}),
    "chunk": (chunk_after_chunk, {"chunk": 4, "left": 8}),
    "chunk, sandwich": (chunk_after_chunk, {"chunk": 5, "left": 5, "right": 2, "norm": "sandwich", "convolution": 9}),
    "chunk, no past": (chunk_after_chunk, {"chunk": 3, "left": 0, "norm": "pre_no_final", "positions": "none"}),
    "xl": (chunk_after_chunk, {"chunk": 4, "left": 7}),
    "xl, more to the right": (chunk_after_chunk, {"chunk": 3, "left": 2, "right": 4, "convolution": 3}),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("frames", [1, 37])
def test_outputs_and_gradients_are_those_of_the_plain_twin(name: str, frames: int) -> None:
    twin, settings = TWINS[name]
    encoder = encoder_of(config(name.split(",")[0].split(" ")[0], **settings))
    x, weight = features(frames), torch.randn(frames, 8, dtype=torch.float64)
    expected = twin(encoder, x)
    found, _ = encoder(x[None], torch.tensor([frames]))
    torch.testing.assert_close(found[0], expected)
    with torch.no_grad():
        inferred, _ = encoder(x[None], torch.tensor([frames]))
    torch.testing.assert_close(inferred[0], expected)
    parameters = list(encoder.parameters())
    for ours, theirs in zip(
        torch.autograd.grad((found[0] * weight).sum(), parameters, allow_unused=True),
        torch.autograd.grad((expected * weight).sum(), parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_memory_as_long_as_the_utterance_and_chunks_of_one_are_causal_attention() -> None:
    xl = encoder_of(config("xl", chunk=1, left=30))
    causal = encoder_of(config("mask", left=30, right=0))
    causal.load_state_dict(xl.state_dict())
    x, lens = features(2, 30), torch.tensor([30, 11])
    with torch.no_grad():
        torch.testing.assert_close(xl(x, lens)[0], causal(x, lens)[0])


def test_shifting_is_indexing() -> None:
    x = torch.randn(2, 3, 4, 9)
    y = shifted(x)
    for p in range(4):
        for j in range(9 - 3):
            torch.testing.assert_close(y[:, :, p, j], x[:, :, p, j + 3 - p])


def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient_of_nan() -> None:
    for relative in (False, True):
        layer = RelativeAttention(8, 2, relative)
        r = layer.positions(3, 5, 2) if relative else None
        x, keys = torch.randn(1, 1, 3, 8, requires_grad=True), torch.randn(1, 1, 2, 5, 4)
        visible = torch.ones(1, 1, 3, 5, dtype=torch.bool)
        visible[0, 0, 1] = False
        y = layer(x, keys, keys, visible, r)
        torch.testing.assert_close(y[0, 0, 1], layer.output.bias)
        y.sum().backward()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("front", ["stack", "vgg"])
def test_rows_that_start_anew_forget_and_the_others_go_on(front: str) -> None:
    settings = config("xl", chunk=2, left=5, subsampling=2, front=front, convolution=3, channels=(3, 4))
    encoder = encoder_of(settings)
    long, first, second = features(1, 16)[0], features(1, 7)[0] + 1, features(1, 8)[0] - 1
    padded = torch.cat([first, torch.full((1, FEATURES), torch.nan), second])
    x = torch.stack([long, padded])
    state, outputs = encoder.init_state(2, utterances=("long", "first")), []
    with torch.no_grad():
        for begin, lens in ((0, [4, 4]), (4, [4, 3]), (8, [4, 4]), (12, [4, 4])):
            if begin == 8:
                state = encoder.reset(state, torch.tensor([False, True]), utterances=("long", "second"))
            y, state = encoder.step(x[:, begin : begin + 4], state, lens=torch.tensor(lens))
            outputs.append(y)
        y = torch.cat(outputs, 1)
        for found, alone in ((y[0], long), (y[1, :4], first), (y[1, 4:], second)):
            torch.testing.assert_close(found, encoder(alone[None], torch.tensor([len(alone)]))[0][0])
    assert state["utterances"] == ("long", "second")


def test_pieces_train_without_gradient_through_what_is_remembered() -> None:
    encoder = encoder_of(config("xl", chunk=4, left=6))
    x = features(1, 8).requires_grad_()
    _, state = encoder.step(x[:, :4], encoder.init_state(1))
    y, _ = encoder.step(x[:, 4:], state)
    y.sum().backward()
    assert not x.grad[0, :4].any()
    assert x.grad[0, 4:].all()


def test_streams_are_not_mixed_up() -> None:
    encoder = encoder_of(config("xl", chunk=2, left=2))
    _, state = encoder.step(features(2, 2), encoder.init_state(2, utterances=("a", "b")), utterances=("a", "b"))
    with pytest.raises(InputError, match="row 1 goes on with 'c', but remembers 'b': reset that row first"):
        encoder.step(features(2, 2), state, utterances=("a", "c"))
    _, state = encoder.step(features(2, 1), state)
    with pytest.raises(UsageError, match="a reset after 3 frames: feed whole chunks, 2 frames each"):
        encoder.reset(state, torch.tensor([True, False]))
    for settings in (config("mask", left=2, right=0), config("xl", right=1)):
        encoder = encoder_of(settings)
        with pytest.raises(UsageError, match=f"a reset in mode {settings.mode}"):
            encoder.reset(encoder.init_state(1), torch.tensor([True]))


def gradient_ratio(**settings: object) -> float:
    """Gradient norm of the first layer's weights over that of the last, for 24 layers at initialisation."""
    torch.manual_seed(0)
    encoder = StreamingEncoder(FEATURES, config("full", layers=24, size=64, heads=4, feed_forward=256, **settings))
    y, _ = encoder(torch.randn(2, 12, FEATURES), torch.tensor([12, 12]))
    functional.cross_entropy(torch.nn.Linear(64, 10)(y).flatten(0, 1), torch.randint(0, 10, (24,))).backward()
    first, last = (
        sum(parameter.grad.pow(2).sum() for parameter in encoder.layers[index].parameters()) ** 0.5 for index in (0, -1)
    )
    return float(first / last)


def test_scaled_branches_keep_gradients_of_deep_stacks_even() -> None:
    """Of Xavier's 24 pre-norm layers the first has over four times the gradient of the last."""
    assert gradient_ratio(init="xavier") > 3
    assert 1 / 3 < gradient_ratio(init="scaled") < 3


def test_initialisations_scale_what_is_added() -> None:
    def spread(init: str) -> list[float]:
        torch.manual_seed(0)
        encoder = StreamingEncoder(FEATURES, config("full", init=init, convolution=2, layers=4, size=64))
        return [linear.weight.std().item() for layer in encoder.layers for linear in layer.last_linears()]

    plain = spread("xavier")
    assert spread("scaled") == pytest.approx([x / 8**0.5 for x in plain])
    assert spread("depth") == pytest.approx([x / (2 * (index // 3 + 1)) ** 0.5 for index, x in enumerate(plain)])
    assert spread("fixup") == [0.0] * 12


@torch.no_grad()
def test_zero_branches_leave_the_norms_where_they_should_be() -> None:
    x, lens = features(1, 5), torch.tensor([5])
    for norm in ("pre", "post", "sandwich", "pre_no_final"):
        torch.manual_seed(0)
        encoder = StreamingEncoder(FEATURES, config("full", init="fixup", norm=norm)).double()
        entering = encoder.front.linear(x)
        normed = functional.layer_norm(entering, (8,))
        y, _ = encoder(x, lens)
        torch.testing.assert_close(y, entering if norm == "pre_no_final" else normed, atol=1e-3, rtol=0)


def test_the_look_ahead_that_fits_a_latency() -> None:
    mask = config("mask", left=8, right=1, layers=4, subsampling=2)
    assert mask.within(0.31, 0.01).right == 3
    assert mask.within(0.31, 0.01).latency().worst * 0.01 <= 0.31
    chunk = config("chunk", chunk=4, left=16, right=1, subsampling=2)
    wider = chunk.within(0.24, 0.02)
    assert (wider.chunk, wider.left, wider.latency().worst) == (5, 20, 11)
    assert chunk.within(0.06, 0.02).chunk == 1
    with pytest.raises(UsageError, match="a latency of 50 ms: the least is 60 ms"):
        chunk.within(0.05, 0.02)
    with pytest.raises(UsageError, match="the least is 70 ms"):
        config("mask", front="vgg", centred=True, subsampling=2).within(0.06, 0.01)
    with pytest.raises(UsageError, match="needs the whole utterance"):
        config("full").within(1, 0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "causal"}, "mode 'causal': choose full, mask, chunk, xl"),
        ({"norm": "none"}, "norm 'none'"),
        ({"mode": "chunk", "chunk": 10, "left": 64}, "left is 64, the chunk 10: take 60 or 70"),
        ({"mode": "mask", "left": -1}, "left is -1: it is not negative"),
        ({"mode": "mask", "right": (1, 2)}, r"right is \(1, 2\): one number, or in mode mask 6"),
        ({"mode": "xl", "left": (1,) * 6}, "one number"),
        ({"mode": "xl", "positions": "none"}, "needs relative ones"),
        ({"size": 145}, "size 145 for 4 heads: take 144 or 148"),
        ({"front": "vgg", "subsampling": 3}, "subsampling is 3: vgg subsamples by 2 or 4"),
        ({"chunk": 0}, "chunk is 0"),
        ({"convolution": -1}, "convolution is -1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StreamingConfig(**settings)


def test_features_that_make_no_planes() -> None:
    with pytest.raises(UsageError, match="6 features in 2 planes"):
        StreamingEncoder(FEATURES, config("full", front="vgg", planes=2, subsampling=2))
