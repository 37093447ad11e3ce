"""The encoder-decoder beam against all sequences there are, against transformers' `generate`, and its options."""

from itertools import product

import pytest

torch = pytest.importorskip("torch")

from tests.speech.decode.models import Bigrams, SmallAed, encodings  # noqa: E402
from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.decode.aed_beam import AedBeam, AedBeamConfig  # noqa: E402


class BigramsToTheEnd(Bigrams):
    """With a score for the end token, which is 0."""

    def __init__(self, vocab: int) -> None:
        super().__init__(vocab)
        self.table[:, :, 0] = torch.randn(vocab + 1, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("norm", [0.0, 1.0])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("prompt", [(1,), (2, 3)])
def test_with_room_for_all_it_finds_the_best_of_all(norm, fused, prompt):
    view, scorer = SmallAed(4, prompt=prompt, seed=2), BigramsToTheEnd(4) if fused else None
    memory, lens = encodings([3, 1, 5])
    config = AedBeamConfig(beam=200, nbest=200, max_tokens=4, length_norm=norm)
    for row, length, nbest in zip(
        memory, lens.tolist(), AedBeam(view, config, scorer).decode(memory, lens), strict=True
    ):
        every = {}
        for tokens in (t for u in range(5) for t in product([1, 2, 3], repeat=u)):
            parts = scorer.of((*tokens, 0)) if scorer else []
            acoustic = view.log_probability(row[:length], tokens)
            every[tokens] = ((acoustic + sum(parts)) / (len(tokens) + 1) ** norm, acoustic, parts)
        assert {h.tokens for h in nbest} == set(every)
        for h in nbest:
            score, acoustic, parts = every[h.tokens]
            assert (h.score, h.acoustic) == pytest.approx((score, acoustic))
            assert list(h.parts.values()) == pytest.approx(parts)
        assert [h.score for h in nbest] == sorted((h.score for h in nbest), reverse=True)


def test_a_narrow_beam_never_beats_the_best_and_batches_do_not_matter():
    for seed in range(5):
        view = SmallAed(4, seed=seed)
        memory, lens = encodings([3, 1, 5], seed=seed)
        config = AedBeamConfig(beam=2, nbest=2, max_tokens=5)
        search = AedBeam(view, config)
        whole = AedBeam(view, AedBeamConfig(beam=400, max_tokens=5)).decode(memory, lens)
        for n, nbest in enumerate(search.decode(memory, lens)):
            one = slice(n, n + 1)
            (alone,) = search.decode(memory[one], lens[one])
            assert [(h.tokens, h.score) for h in nbest] == [(h.tokens, pytest.approx(h.score)) for h in alone]
            assert nbest[0].score <= whole[n][0].score + 1e-9
            for h in nbest:
                assert h.score == pytest.approx(view.log_probability(memory[n, : lens[n]], h.tokens))


def test_utterances_that_are_done_cost_nothing_more():
    view = SmallAed(5)
    view.output.weight.zero_()
    view.output.bias[:] = torch.tensor([5.0, 0.0, 0.0, 0.0, 0.0])  # ends at once, whatever was heard
    memory, lens = encodings([3] * 4)
    AedBeam(view, AedBeamConfig(beam=1, max_tokens=50)).decode(memory, lens)
    assert view.calls == [4]
    view.calls.clear()
    view.output.bias[0] = -5.0
    AedBeam(view, AedBeamConfig(beam=2, max_tokens=3)).decode(memory, lens)
    assert view.calls == [4, 8, 8, 8]


def test_length_limits():
    view = SmallAed(5, seed=1)
    memory, lens = encodings([3])
    for least, most in ((0, 1), (3, 3), (2, 6)):
        (nbest,) = AedBeam(view, AedBeamConfig(beam=3, nbest=3, min_tokens=least, max_tokens=most)).decode(memory, lens)
        assert nbest
        assert all(least <= len(h.tokens) <= most for h in nbest)


@pytest.mark.parametrize(("repeats", "loop"), [(1, 1), (3, 1), (2, 2), (2, 4)])
def test_the_guard_lets_a_phrase_stand_so_often_in_a_row(repeats, loop):
    view = SmallAed(6)
    phrase = [1, 2, 3, 4][:loop]
    view.prompt = (phrase[-1],)
    view.step = lambda tokens, state: (torch.stack([_next(phrase, int(token)) for token in tokens]), state)
    memory, lens = encodings([1])

    def longest(max_repeats):
        config = AedBeamConfig(beam=1, max_tokens=20, min_tokens=20, max_repeats=max_repeats)
        tokens = AedBeam(view, config).decode(memory, lens)[0][0].tokens
        looped = 0
        while looped < 20 and tokens[looped] == phrase[looped % loop]:
            looped += 1
        return looped

    assert longest(0) == 20
    assert longest(repeats) == (repeats + 1) * loop - 1 if loop > 1 else longest(repeats) == repeats


def _next(phrase, token):
    """After each token of the phrase comes the next one; otherwise 5, or if that may not be, anything but the end."""
    log_p = torch.full((6,), -20.0, dtype=torch.float64)
    log_p[5], log_p[0] = -10.0, -100.0
    if token in phrase:
        log_p[phrase[(phrase.index(token) + 1) % len(phrase)]] = 0.0
    return log_p


@pytest.mark.slow
def test_it_finds_what_transformers_finds():
    transformers = pytest.importorskip("transformers")
    from wieldy.speech.networks.transformers_views import DecoderView

    torch.manual_seed(2)  # with it, all hypotheses end
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    special = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 0, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(
        vocab_size=12, num_mel_bins=8, max_source_positions=10, max_target_positions=40, **sizes, **heads, **special,
        begin_suppress_tokens=None, suppress_tokens=None,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    features, view = torch.randn(6, 8, 20), DecoderView(model, prompt=(1,), eos=0, control=())
    memory, lens = view.encode(features, torch.full((6,), 20))
    for beam, norm in ((3, 0.0), (4, 1.0)):
        search = AedBeamConfig(beam=beam, nbest=beam, max_tokens=37, length_norm=norm)
        found = AedBeam(view, search).decode(memory.detach(), lens)
        generation = transformers.GenerationConfig(
            num_beams=beam, num_return_sequences=beam, length_penalty=norm, max_new_tokens=38, do_sample=False,
            early_stopping=False, return_dict_in_generate=True, output_scores=True, **special,
        )  # fmt: skip
        generated = transformers.GenerationMixin.generate(model, features, generation_config=generation)
        sequences = generated.sequences[:, 1:].tolist()
        assert all(0 in sequence for sequence in sequences)  # none was cut short
        expected = [tuple(sequence[: sequence.index(0)]) for sequence in sequences]
        assert [h.tokens for nbest in found for h in nbest] == expected
        scores = [h.score for nbest in found for h in nbest]
        assert scores == pytest.approx(generated.sequences_scores.tolist(), abs=1e-4)
        assert max(map(len, expected)) > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "beam is 0: it must be at least 1"),
        ({"beam": 2, "nbest": 3}, "nbest is 3: with beam 2 it lies in 1 .. 2"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens 5, max_tokens 4: 0 <= min <= max, and max >= 1"),
        ({"length_norm": -1.0}, "length_norm is -1.0: it must not be negative"),
        ({"max_repeats": -1}, "max_repeats is -1: it must not be negative; 0 means no guard"),
    ],
)
def test_configurations_that_cannot_be_meant(options, message):
    with pytest.raises(UsageError) as caught:
        AedBeamConfig(**options)
    assert str(caught.value) == message


def test_scores_that_are_not_numbers_are_named_and_no_batch_is_no_answer():
    view = SmallAed(5)
    memory, lens = encodings([3, 3])
    memory[1] = torch.nan
    with pytest.raises(InputError, match="utterance 1: the scores of token 0 are not numbers"):
        AedBeam(view).decode(memory, lens)
    assert AedBeam(view).decode(*encodings([])) == []
