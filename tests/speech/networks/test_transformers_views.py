"""transformers' Whisper, Moonshine and Parakeet behind our views: the same scores as their own forward, and the same
transcripts as their own greedy search, on tiny models with random weights."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import Tensor  # noqa: E402
from transformers import (  # noqa: E402
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    ParakeetEncoderConfig,
    ParakeetForRNNT,
    ParakeetForTDT,
    ParakeetRNNTConfig,
    ParakeetTDTConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.decode.aed_beam import AedBeam, AedBeamConfig  # noqa: E402
from wieldy.speech.decode.greedy import greedy  # noqa: E402
from wieldy.speech.networks.feature_norm import moments  # noqa: E402
from wieldy.speech.networks.transformers_views import (  # noqa: E402
    MOONSHINE_SHORTEST,
    DecoderView,
    ParakeetView,
    moonshine_view,
    whisper_view,
)
from wieldy.speech.networks.views import AEDView, TransducerView  # noqa: E402


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that transcripts depend on the sound."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
            parameter.mul_(0.7 if parameter.dim() == 1 else 2.0 / parameter[0].numel() ** 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def whisper() -> WhisperForConditionalGeneration:
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "num_mel_bins": 5, "vocab_size": 20}
    special = {"pad_token_id": 12, "bos_token_id": 12, "eos_token_id": 12, "decoder_start_token_id": 13}
    config = WhisperConfig(**layers, **sizes, **special, max_source_positions=10, max_target_positions=16)
    model = randomized(WhisperForConditionalGeneration(config))
    model.generation_config.suppress_tokens = [4]
    model.generation_config.begin_suppress_tokens = [7, 12]
    model.generation_config.no_timestamps_token_id = 17
    model.generation_config.lang_to_id = {"<|en|>": 14, "<|de|>": 15}
    model.generation_config.task_to_id = {"transcribe": 16}
    return model


@pytest.fixture(scope="module")
def moonshine() -> MoonshineForConditionalGeneration:
    sizes = {"hidden_size": 8, "intermediate_size": 12, "vocab_size": 20, "encoder_num_hidden_layers": 1}
    heads = {"encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 2}
    special = {"decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    return randomized(MoonshineForConditionalGeneration(MoonshineConfig(**sizes, **heads, **special)))


@pytest.fixture(scope="module")
def parakeet() -> ParakeetForRNNT:
    model = randomized(ParakeetForRNNT(parakeet_config(ParakeetRNNTConfig)))
    with torch.no_grad():
        model.joint.head.bias[8] += 1.5  # some frames are blank
    return model


def parakeet_config(kind: type) -> ParakeetRNNTConfig:
    encoder = ParakeetEncoderConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        subsampling_conv_channels=4,
        num_mel_bins=16,
    )
    return kind(vocab_size=9, blank_token_id=8, decoder_hidden_size=6, encoder_config=encoder.to_dict())


def samples() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 6000, generator=torch.Generator().manual_seed(0)), torch.tensor([6000, 3000])


def log_mels() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 5, 20, generator=torch.Generator().manual_seed(0)), torch.tensor([20, 20])


def follow(view: AEDView, state: object, tokens: Tensor) -> Tensor:
    """Log-probabilities [n, U, V] after each of `tokens` [n, U], in an order of hypotheses that changes midway."""
    rows, flip = [], torch.arange(len(tokens)).flip(0)
    for u in range(tokens.shape[1]):
        log_p, state = view.step(tokens[:, u], state)
        rows.append(log_p if u < 2 else log_p[flip])
        if u == 1:
            state, tokens = view.select(state, flip), tokens[flip]
    return torch.stack(rows, dim=1)


@torch.no_grad()
def test_whisper_scores_as_its_forward_does(whisper: WhisperForConditionalGeneration) -> None:
    view, (x, lens) = whisper_view(whisper, language="de"), log_mels()
    assert (view.prompt, view.eos, view.vocab) == ((13, 15, 16, 17), 12, 20)
    tokens = torch.tensor([[*view.prompt, 3, 9, 5], [*view.prompt, 11, 1, 1]])
    memory, frames = view.encode(x, lens)
    assert frames.tolist() == [10, 10]
    found = follow(view, view.start(memory, frames), tokens)
    logits = whisper(input_features=x, decoder_input_ids=tokens).logits
    logits[..., [4, *range(13, 20)]] = -torch.inf
    logits[:, 3, [7, 12]] = -torch.inf
    torch.testing.assert_close(found, logits.log_softmax(-1))


@torch.no_grad()
def test_moonshine_scores_as_its_forward_does(moonshine: MoonshineForConditionalGeneration) -> None:
    view, (x, lens) = moonshine_view(moonshine), samples()
    tokens = torch.tensor([[1, 3, 9, 5], [1, 11, 4, 4]])
    memory, frames = view.encode(x, lens)
    found = follow(view, view.start(memory, frames), tokens)
    for n in range(2):
        logits = moonshine(input_values=x[n : n + 1, : lens[n]], decoder_input_ids=tokens[n : n + 1]).logits
        logits[..., 1] = -torch.inf
        torch.testing.assert_close(found[n], logits[0].log_softmax(-1))
    assert frames.tolist() == [int(view.encode(x[n : n + 1, : lens[n]], lens[n : n + 1])[1]) for n in range(2)]
    assert view.encode(x[:, :MOONSHINE_SHORTEST], torch.tensor([MOONSHINE_SHORTEST] * 2))[1].tolist() == [1, 1]
    with pytest.raises(InputError, match="utterance 1 has 894 samples: at least 895 make a frame"):
        view.encode(x, torch.tensor([3000, MOONSHINE_SHORTEST - 1]))


@torch.no_grad()
def test_a_beam_of_one_is_their_greedy_search(
    whisper: WhisperForConditionalGeneration, moonshine: MoonshineForConditionalGeneration
) -> None:
    view, (x, lens) = moonshine_view(moonshine), samples()
    found = AedBeam(view, AedBeamConfig(beam=1, max_tokens=8)).decode(*view.encode(x, lens))
    for n in range(2):
        theirs = moonshine.generate(x[n : n + 1, : lens[n]], max_new_tokens=8, do_sample=False, suppress_tokens=[1])
        assert list(found[n][0].tokens) == [token for token in theirs[0, 1:].tolist() if token != 2]
    view, (x, lens) = whisper_view(whisper, language="en"), log_mels()
    found = AedBeam(view, AedBeamConfig(beam=1, max_tokens=6)).decode(*view.encode(x, lens))
    prompt, best = torch.tensor([view.prompt] * 2), []
    for _ in range(6):
        logits = whisper(input_features=x, decoder_input_ids=prompt).logits[:, -1]
        logits[:, [4, *range(13, 20), *([7, 12] if not best else [])]] = -torch.inf
        best.append(logits.argmax(1))
        prompt = torch.cat([prompt, best[-1][:, None]], dim=1)
    for hypotheses, row in zip(found, torch.stack(best, 1).tolist(), strict=True):
        assert list(hypotheses[0].tokens) == row[: row.index(12) if 12 in row else 6]


def internal(view: DecoderView, tokens: Tensor) -> Tensor:
    state = view.start_internal(len(tokens))
    for column in tokens.T:
        log_p, state = view.internal_step(column, state)
    return log_p


@torch.no_grad()
def test_internal_language_models_leave_out_sound_and_control(
    whisper: WhisperForConditionalGeneration, moonshine: MoonshineForConditionalGeneration
) -> None:
    for model, make, width, control in (
        (whisper, whisper_view, 8, list(range(13, 20))),
        (moonshine, moonshine_view, 8, [1]),
    ):
        tokens = torch.tensor([[13 if model is whisper else 1, 3, 9], [13 if model is whisper else 1, 5, 5]])

        def of(
            memory: Tensor, model: torch.nn.Module = model, tokens: Tensor = tokens, out: list[int] = control
        ) -> Tensor:
            """What the whole decoder says after `tokens` to a memory of many equal frames."""
            states = memory.expand(2, 6, -1)
            hidden = model.get_decoder()(input_ids=tokens, encoder_hidden_states=states).last_hidden_state[:, -1]
            logits = model.proj_out(hidden)
            logits[:, out] = -torch.inf
            log_p = logits.log_softmax(-1)
            log_p[:, out] = 0.0
            return log_p

        heard = []
        for layer in model.get_decoder().layers:
            layer.encoder_attn.register_forward_hook(lambda *_, heard=heard: heard.append(1))
        skipped = internal(make(model), tokens)
        assert not heard
        torch.testing.assert_close(skipped.exp().sum(1), torch.full((2,), 1.0 + len(control)))
        zero = internal(make(model, context="zero_states"), tokens)
        torch.testing.assert_close(zero, of(torch.zeros(width)))
        # Whisper's attention has biases that speak without sound; Moonshine's has none.
        assert torch.allclose(skipped, zero, atol=1e-5) == (model is moonshine)
        mean = torch.linspace(-1, 1, width)
        torch.testing.assert_close(internal(make(model, context="mean_states", mean=mean), tokens), of(mean))
        with pytest.raises(UsageError, match="mean_states without a mean"):
            make(model, context="mean_states")
        with pytest.raises(UsageError, match="context 'silence'"):
            make(model, context="silence")


def test_whisper_knows_its_languages(whisper: WhisperForConditionalGeneration) -> None:
    assert whisper_view(whisper).prompt == (13, 17)
    with pytest.raises(
        UsageError, match=r"language 'fr', task 'transcribe': the model knows <\|de\|>, <\|en\|> and transcribe"
    ):
        whisper_view(whisper, language="fr")


@torch.no_grad()
def test_parakeet_scores_as_its_forward_does(parakeet: ParakeetForRNNT) -> None:
    view: TransducerView = ParakeetView(parakeet)
    assert (view.blank, view.vocab) == (8, 9)
    x, lens = torch.randn(2, 60, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([60, 33])
    tokens = torch.tensor([[8, 3, 1], [8, 0, 7]])
    f, frames = view.encode(x, lens)
    mask = (torch.arange(60) < lens[:, None]).int()
    logits = parakeet(input_features=x, attention_mask=mask, decoder_input_ids=tokens).logits
    assert frames.tolist() == [8, 5]
    g, state = view.start(2)
    for u in range(3):
        for t in range(5):
            torch.testing.assert_close(view.join(f[:, t], g), logits[:, t, u])
        if u < 2:
            flip = torch.tensor([1, 0])
            g, state = view.advance(tokens[flip, u + 1], view.select(state, flip))
            g, state = g[flip], view.select(state, flip)
    for n, end in enumerate(lens.tolist()):
        alone = x[n : n + 1, :end]
        (hypothesis,) = greedy(view, *view.encode(alone, lens[n : n + 1]), max_symbols=parakeet.max_symbols_per_step)
        theirs = parakeet.generate(alone, decoder_start_token_id=8, max_new_tokens=100).sequences[0]
        assert list(hypothesis.tokens) == [token for token in theirs.tolist() if token != 8]
        assert len(set(hypothesis.tokens)) > 1
        assert len(hypothesis.tokens) < 10 * frames[n]


@torch.no_grad()
def test_parakeets_internal_language_model_has_what_its_cut_leaves(parakeet: ParakeetForRNNT) -> None:
    g = torch.randn(3, 6)
    zero, bias = torch.zeros(3, 6), parakeet.encoder_projector.bias.expand(3, -1)
    view = ParakeetView(parakeet)
    torch.testing.assert_close(view.join_internal(g), view.join(zero, g))
    torch.testing.assert_close(ParakeetView(parakeet, cut="encoder_output").join_internal(g), view.join(bias, g))
    batch = torch.randn(1, 40, 16), torch.tensor([40])
    mean, _ = moments([view.encode(*batch)])
    found = ParakeetView(parakeet, cut="mean", mean=mean).join_internal(g)
    torch.testing.assert_close(found, view.join(view.encode(*batch)[0][0].mean(0).expand(3, -1), g))
    with pytest.raises(UsageError, match="cut mean without a mean"):
        ParakeetView(parakeet, cut="mean")
    with pytest.raises(UsageError, match="cut 'all'"):
        ParakeetView(parakeet, cut="all")
    with pytest.raises(UsageError, match="scores durations too"):
        ParakeetView(ParakeetForTDT(parakeet_config(ParakeetTDTConfig)))
