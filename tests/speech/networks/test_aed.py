"""The encoder-decoder: token by token is all at once, caches are reordered, its internal language model hears nothing,
stored is loaded, and the search runs on it."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.decode.aed_beam import AedBeam, AedBeamConfig  # noqa: E402
from wieldy.speech.networks.aed import Aed, AedConfig  # noqa: E402
from wieldy.speech.networks.lstm import LstmConfig  # noqa: E402
from wieldy.speech.networks.views import AEDView  # noqa: E402


def tiny(**changes: object) -> Aed:
    torch.manual_seed(0)
    sizes = {"layers": 2, "size": 8, "heads": 2, "feed_forward": 12, "dropout": 0.0}
    encoder = LstmConfig(layers=1, hidden=6, projection=0, stack=2)
    return Aed(AedConfig(vocabulary=7, input_dim=4, encoder=encoder, **sizes, **changes)).eval()


def sound() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([9, 4, 1])


@torch.no_grad()
def test_token_by_token_is_all_at_once_in_any_order() -> None:
    network, (x, lens) = tiny(), sound()
    targets = torch.tensor([[3, 1, 4, 1], [2, 5, 6, 2], [3, 1, 4, 6]])
    whole = network(x, lens, targets).log_softmax(-1)
    assert whole.shape == (3, 5, 7)
    view: AEDView = network
    state, order = view.start(*view.encode(x, lens)), [0, 1, 2]
    tokens = torch.zeros(3, dtype=torch.int64)
    for u, shuffle in enumerate([[2, 1, 0], [0, 0, 1], [0, 1, 2], [2, 2, 1, 0]]):
        log_p, state = view.step(tokens, state)
        torch.testing.assert_close(log_p, whole[order, u])
        order, state = [order[i] for i in shuffle], view.select(state, torch.tensor(shuffle))
        tokens = targets[order, u]
    log_p, _ = view.step(tokens, state)
    torch.testing.assert_close(log_p, whole[order, 4])


@torch.no_grad()
def test_what_lies_beyond_an_utterance_is_not_heard() -> None:
    network, (x, lens) = tiny(), sound()
    targets = torch.tensor([[3, 1]] * 3)
    whole = network(x, lens, targets)
    x[1, 4:] = torch.nan
    torch.testing.assert_close(network(x, lens, targets), whole)
    torch.testing.assert_close(network(x[1:2, :4], lens[1:2], targets[:1]), whole[1:2])


@torch.no_grad()
def test_the_internal_language_model_hears_what_its_context_says() -> None:
    x, lens = sound()

    def internal(network: Aed) -> torch.Tensor:
        state = network.start_internal(2)
        _, state = network.internal_step(torch.tensor([0, 0]), state)
        return network.internal_step(torch.tensor([3, 5]), state)[0]

    def with_memory(network: Aed, frame: torch.Tensor) -> torch.Tensor:
        """Of many equal frames, which attention cannot tell from one."""
        state = network.start(frame.expand(2, 5, -1), torch.tensor([5, 3]))
        _, state = network.step(torch.tensor([0, 0]), state)
        return network.step(torch.tensor([3, 5]), state)[0]

    network = tiny(internal_lm="zero_states")
    for layer in network.layers:
        layer.heard_key_value.bias.normal_()
    torch.testing.assert_close(internal(network), with_memory(network, torch.zeros(8)))
    for layer in network.layers:
        layer.heard_key_value.bias.zero_()
        layer.heard_output.bias.zero_()
    skipping = tiny(internal_lm="skip")
    skipping.load_state_dict(network.state_dict())
    torch.testing.assert_close(internal(skipping), internal(network))
    skipping.layers[0].heard_output.bias.add_(1.0)
    torch.testing.assert_close(internal(skipping), internal(network))

    network = tiny(internal_lm="mean_states")
    with pytest.raises(UsageError, match="call measure_mean_memory_"):
        network.start_internal(1)
    network.measure_mean_memory_([(x, lens)])
    memory, frames = network.encode(x, lens)
    mean = sum(memory[n, :t].sum(0) for n, t in enumerate(frames.tolist())) / frames.sum()
    torch.testing.assert_close(internal(network), with_memory(network, mean))


def test_it_learns_and_the_search_finds_what_it_learned() -> None:
    network, (x, lens) = tiny().train(), sound()
    targets = torch.tensor([[3, 1, 4], [2, 5, 0], [6, 0, 0]])
    wanted = torch.cat([targets, torch.zeros(3, 1, dtype=torch.int64)], dim=1)
    network.measure_features_([(x, lens)])
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        loss = functional.cross_entropy(network(x, lens, targets).transpose(1, 2), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    with torch.no_grad():
        found = AedBeam(network, AedBeamConfig(beam=2, max_tokens=5)).decode(*network.encode(x, lens))
    assert [hypotheses[0].tokens for hypotheses in found] == [(3, 1, 4), (2, 5), (6,)]


def test_stored_is_loaded(tmp_path: Path) -> None:
    network = tiny(internal_lm="zero_states")
    network.save(tmp_path)
    again = Aed.load(tmp_path)
    assert again.config == network.config
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(data | {"kind": "transducer"}))
    with pytest.raises(InputError, match="has the kind 'transducer': known are aed"):
        Aed.load(tmp_path)


def test_settings_that_cannot_be_meant() -> None:
    for settings, message in (
        ({"vocabulary": 1}, "vocabulary is 1"),
        ({"size": 10}, "size 10 for 4 heads"),
        ({"heads": 0}, "heads is 0"),
        ({"internal_lm": "none"}, "internal_lm 'none'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ):
        with pytest.raises(UsageError, match=message):
            AedConfig(**{"vocabulary": 7, **settings})
