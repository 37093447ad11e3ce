"""Other people's encoders made to stream, with random weights: pieces of a stream give the whole, outputs depend on
what the latency declares, and the libraries' own calls see no more either."""

import copy
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from transformers import (  # noqa: E402
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerModel,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from wieldy.errors import UsageError  # noqa: E402
from wieldy.speech.networks.streamed import MakeStreamingConfig, StreamedEncoder, make_streaming  # noqa: E402

FRAME_MS = 6 / 16  # of the tiny front end: 6 samples at 16 kHz
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8),
    "conv_kernel": (4, 3),
    "conv_stride": (3, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "layerdrop": 0.0,
}
CONFORMER = {**TINY, "conv_depthwise_kernel_size": 5}


def torch_encoder(batch_first: bool, norm_first: bool) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=batch_first, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first and not norm_first)


MODELS = {
    "wav2vec2": lambda: Wav2Vec2Model(Wav2Vec2Config(**TINY)),
    "hubert": lambda: HubertModel(HubertConfig(**TINY, attn_implementation="eager")),
    "wavlm": lambda: WavLMModel(WavLMConfig(**{**TINY, "do_stable_layer_norm": False})),
    "conformer, relative": lambda: Wav2Vec2ConformerModel(
        Wav2Vec2ConformerConfig(**CONFORMER, position_embeddings_type="relative")
    ),
    "conformer, rotary": lambda: Wav2Vec2ConformerModel(
        Wav2Vec2ConformerConfig(**CONFORMER, position_embeddings_type="rotary")
    ),
    "torch": lambda: torch_encoder(True, False),
    "torch, time first": lambda: torch_encoder(False, True),
}
CHUNK = {"mode": "chunk", "chunk_ms": 4 * FRAME_MS, "left_ms": 8 * FRAME_MS}
MASK = {"mode": "mask", "left_ms": 3 * FRAME_MS}
AHEAD = {**MASK, "right_ms": 2 * FRAME_MS}
every_model = pytest.mark.parametrize("name", MODELS)


def original(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def streamed(name: str, settings: dict[str, object]) -> StreamedEncoder:
    own = {"frame_ms": FRAME_MS} if name.startswith("torch") else {}
    return make_streaming(original(name), config=MakeStreamingConfig(**settings, **own)).value


def inputs(encoder: StreamedEncoder, batch: int, frames: int) -> Tensor:
    """As much as makes so many output frames."""
    length = frames * encoder.subsampling + encoder.field - encoder.subsampling
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, encoder.input_dim, dtype=torch.float64, generator=generator)


@every_model
@pytest.mark.parametrize("settings", [CHUNK, MASK], ids=["chunk", "mask"])
@torch.no_grad()
def test_a_stream_in_pieces_is_the_whole_whoever_is_in_the_batch(name: str, settings: dict[str, object]) -> None:
    encoder = streamed(name, settings)
    x = inputs(encoder, 3, 30)
    frames = x.shape[1]
    lens = torch.tensor([frames, frames // 2, 0])
    for row, end in zip(x, lens, strict=True):
        row[end:] = torch.nan
    whole, whole_lens = encoder(x, lens)
    assert whole.shape == (3, 30, 16)
    for n in (0, 1):
        alone, (own,) = encoder(x[n : n + 1, : lens[n]], lens[n : n + 1])
        torch.testing.assert_close(whole[n, :own], alone[0], atol=1e-9, rtol=0)
        assert not whole[n, own:].any()
        assert own == whole_lens[n]
    state, outputs, begin = encoder.init_state(3), [], 0
    for size in (frames // 9, 0, 1, frames // 2, frames // 9, frames):
        piece = x[:, begin : begin + size]
        y, state = encoder.step(piece, state, lens=(lens - begin).clamp(0, piece.shape[1]))
        state = copy.deepcopy(state)
        outputs.append(y)
        begin += size
    nothing = x[:, frames:]
    outputs.append(encoder.step(nothing, state, lens=(lens - frames).clamp(0, 0), final=True)[0])
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, atol=1e-9, rtol=0)


@every_model
@pytest.mark.parametrize("settings", [CHUNK, MASK, AHEAD], ids=["chunk", "mask", "mask ahead"])
def test_outputs_depend_on_the_inputs_that_latency_declares(name: str, settings: dict[str, object]) -> None:
    """By gradients, which here are zero only where nothing depends: as telling as changed inputs, and much faster."""
    encoder, frames = streamed(name, settings), 40
    step = encoder.subsampling
    x = inputs(encoder, 1, frames).requires_grad_()
    y, _ = encoder(x, torch.tensor([x.shape[1]]))
    weight = torch.randn(16, dtype=torch.float64)
    ahead, back = [], []
    for frame in range(16, frames):
        (gradient,) = torch.autograd.grad((y[0, frame] * weight).sum(), x, retain_graph=True)
        seen = gradient[0].abs().gt(1e-15).any(-1).nonzero()
        places = frame * step + torch.arange(step)  # inputs that speak through this frame
        ahead.append(seen.max() - places)
        back.append(places - seen.min())
    declared = encoder.latency()
    inner = torch.stack(ahead[:8]).double()  # two chunks, away from the end
    assert (inner.max(), inner.mean()) == (declared.worst, declared.mean)
    assert torch.stack(back[12:]).max() == declared.past


@every_model
@torch.no_grad()
def test_the_library_s_own_call_sees_no_more_and_the_original_is_untouched(name: str) -> None:
    before = original(name)
    own = {"frame_ms": FRAME_MS} if name.startswith("torch") else {}
    encoder = make_streaming(before, config=MakeStreamingConfig(**CHUNK, **own)).value
    x = inputs(encoder, 2, 20)
    lens = torch.tensor([x.shape[1], x.shape[1] - 6 * encoder.subsampling])
    y, frames = encoder(x, lens)
    if encoder.torch_layers:
        padding = torch.arange(x.shape[1]) >= lens[:, None]
        given = x if encoder.batch_first else x.transpose(0, 1)
        called = encoder.model(given, src_key_padding_mask=padding)
        called = called if encoder.batch_first else called.transpose(0, 1)
        unlimited, untouched = before(given), original(name)(given)
    else:
        samples = x[:, :, 0]
        heard = (torch.arange(x.shape[1]) < lens[:, None]).long()
        called = encoder.model(samples, attention_mask=heard).last_hidden_state
        unlimited, untouched = (model(samples).last_hidden_state for model in (before, original(name)))
    conformer = "conformer" in name  # whose convolutions see padding, unless it is ours
    for row in range(1 if conformer else 2):
        torch.testing.assert_close(called[row, : frames[row]], y[row, : frames[row]], atol=1e-9, rtol=0)
    assert not torch.allclose(unlimited[0, 0], called[0, 0], atol=1e-3)
    torch.testing.assert_close(unlimited, untouched)


@pytest.mark.parametrize("name", ["wav2vec2", "torch"])
def test_it_trains_with_the_window_and_is_saved_under_the_same_names(name: str) -> None:
    encoder = streamed(name, CHUNK)
    assert encoder.model.state_dict().keys() == original(name).state_dict().keys()
    x = inputs(encoder, 1, 12).requires_grad_()
    y, _ = encoder(x, torch.tensor([x.shape[1]]))
    y[0, :4].sum().backward()
    reached = x.grad[0].any(-1).nonzero().max()
    assert reached == 4 * encoder.subsampling - 1 + encoder.field - encoder.subsampling
    twin = copy.deepcopy(encoder).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        y, _ = twin(x.detach(), torch.tensor([x.shape[1]]))
    assert y.std() > 0.1  # the copy's layers are its own


def test_the_report_names_what_was_changed_and_what_is_still_seen() -> None:
    report = make_streaming(original("conformer, relative"), config=MakeStreamingConfig(**CHUNK)).report
    rows = {row[0]: row[1:] for row in report.tables[0].rows}
    assert rows["encoder.layers.1.self_attn"][1] == "to the end of the chunk of 4 frames"
    assert rows["encoder.layers.0.conv_module.depthwise_conv"] == (
        "convolution of 2 frames ahead",
        "at most 2 frames, within the chunk",
    )
    assert rows["feature_extractor"][1] == "4 samples, 0.25 ms"
    assert report.metric("modules changed").median == 4
    assert report.metric("look-ahead, worst").median == pytest.approx((4 * 6 - 1 + 4) / 16)


def test_a_norm_over_time_is_warned_of_and_does_not_stream() -> None:
    model = Wav2Vec2Model(Wav2Vec2Config(**{**TINY, "feat_extract_norm": "group"}))
    with pytest.warns(UserWarning, match=r"does not stream: feature_extractor.conv_layers.0.layer_norm norm over"):
        encoder, report = make_streaming(model.eval(), config=MakeStreamingConfig(**CHUNK))
    assert encoder.latency().worst == float("inf")
    assert (
        "feature_extractor.conv_layers.0.layer_norm",
        "not changed: norms over time",
        "everything",
    ) in report.tables[0].rows
    x = torch.zeros(1, 100, 1)
    encoder(x, torch.tensor([100]))
    with pytest.raises(UsageError, match=r"conv_layers.0.layer_norm norms over the whole utterance"):
        encoder.step(x, encoder.init_state(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_streaming(original("wav2vec2"), config=MakeStreamingConfig(**CHUNK))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "xl"}, "mode 'xl': choose chunk, which sees what xl sees, or mask; StreamingEncoder has xl"),
        ({"left_ms": -20}, "left_ms is -20: it must be at least 0"),
        ({"chunk_ms": 0}, "chunk_ms is 0: it must be above 0"),
        ({"frame_ms": 0}, "frame_ms is 0"),
        ({"right_ms": 20}, "right_ms 20 in mode chunk: beyond their chunk"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MakeStreamingConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk_ms": 650}, "chunk_ms is 650, which is no multiple of 20 ms: take 640 or 660"),
        ({"chunk_ms": 10}, "chunk_ms is 10: the least is a frame, 20 ms"),
        ({"chunk_ms": 640, "left_ms": 1000}, "left_ms is 1000, which is no multiple of 640 ms: take 640 or 1280"),
        ({"mode": "mask", "left_ms": 70}, "left_ms is 70, which is no multiple of 20 ms: take 60 or 80"),
        ({"mode": "mask", "left_ms": 60, "right_ms": 5}, "right_ms is 5, which is no multiple of 20 ms: take 0 or 20"),
    ],
)
def test_milliseconds_that_are_no_frames_name_the_nearest(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MakeStreamingConfig(**settings).window(20.0)


def test_encoders_that_cannot_be_changed() -> None:
    def fails(model: nn.Module, message: str, **settings: object) -> None:
        with pytest.raises(UsageError, match=message):
            make_streaming(model, config=MakeStreamingConfig(**settings))

    fails(nn.LSTM(3, 3), "LSTM cannot be made to stream: take a Wav2Vec2Model")
    fails(torch_encoder(True, False), "frame_ms is missing")
    encoder = torch_encoder(True, False)
    encoder.layers[1] = nn.Identity()
    fails(encoder, "layers.1 is a Identity: only torch's own are known", frame_ms=20)
    fails(Wav2Vec2Model(Wav2Vec2Config(**TINY, add_adapter=True)), "ends in an adapter", **CHUNK)
    flash = original("wav2vec2")
    flash.config._attn_implementation = "flash_attention_2"
    fails(flash, "attention by flash_attention_2 takes no mask of ours", **CHUNK)
    encoder = streamed("torch", AHEAD)
    with pytest.raises(UsageError, match="a stream with 2 frames of look-ahead in each layer: take mode chunk"):
        encoder.step(torch.zeros(1, 4, 16, dtype=torch.float64), encoder.init_state(1))


@every_model
@torch.no_grad()
def test_the_first_chunk_is_what_the_original_makes_of_its_sound_alone(name: str) -> None:
    encoder = streamed(name, CHUNK)
    x = inputs(encoder, 1, 12)
    y, _ = encoder(x, torch.tensor([x.shape[1]]))
    alone, model = x[:, : 4 * encoder.subsampling + encoder.field - encoder.subsampling], original(name)
    if not encoder.torch_layers:
        expected = model(alone[:, :, 0]).last_hidden_state
    else:
        expected = model(alone) if encoder.batch_first else model(alone.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(y[:, :4], expected)
