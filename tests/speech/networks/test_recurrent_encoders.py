"""The recurrent encoders against their equations, frame by frame, and against torch's bidirectional LSTM."""

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from wieldy.errors import UsageError  # noqa: E402
from wieldy.speech.networks.bilstm import BlstmConfig, BlstmEncoder, reversed_within  # noqa: E402
from wieldy.speech.networks.layer_trajectory import LayerTrajectoryConfig, LayerTrajectoryEncoder  # noqa: E402
from wieldy.speech.networks.lstm import NormedLstm  # noqa: E402


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("projection", [0, 3])
@torch.no_grad()
def test_the_normed_cell_is_its_equation(projection: int) -> None:
    layer = NormedLstm(4, 5, projection).double()
    layer.scale.uniform_(0.5, 2)
    layer.shift.uniform_(-1, 1)
    x = torch.randn(6, 4, dtype=torch.float64)
    h, c = torch.zeros(projection or 5).double(), torch.zeros(5).double()
    start = h[None], c[None]
    rows = []
    for x_t in x:
        z = []
        for a, (w, r) in enumerate(zip(layer.input.weight.chunk(4), layer.recurrent.weight.chunk(4), strict=True)):
            entering = w @ x_t + r @ h
            spread = (entering.var(unbiased=False) + 1e-5).sqrt()
            z.append((entering - entering.mean()) / spread * layer.scale[a] + layer.shift[a])
        c = z[1].sigmoid() * c + z[0].sigmoid() * z[2].tanh()
        h = z[3].sigmoid() * c.tanh()
        h = layer.projection.weight @ h if projection else h
        rows.append(h)
    y, (last_h, last_c) = layer(x[None], start)
    torch.testing.assert_close(y[0], torch.stack(rows))
    torch.testing.assert_close((last_h[0], last_c[0]), (h, c))


@pytest.mark.parametrize("matrices", [False, True])
@torch.no_grad()
def test_the_layer_trajectory_is_its_equations(matrices: bool) -> None:
    config = LayerTrajectoryConfig(look_ahead=(1, 2), hidden=5, projection=3, matrices=matrices)
    encoder = LayerTrajectoryEncoder(4, config).double()
    x = torch.randn(7, 4, dtype=torch.float64)
    h, s, c = x, x @ encoder.bottom.weight.T, torch.zeros(7, 3).double()
    for time, depth in zip(encoder.time, encoder.depth, strict=True):
        h, _ = time.plain(h)
        v = torch.zeros_like(s)
        for t in range(7):
            for d in range(depth.look_ahead + 1):
                if t + d < 7:
                    g = depth.context.weight[:, :, d]
                    v[t] += g @ s[t + d] if matrices else g[:, 0] * s[t + d]
        gates = h @ depth.input.weight.T + depth.input.bias + v @ depth.recurrent.weight.T
        i, f, o = (gates[:, k * 3 : k * 3 + 3].sigmoid() for k in (0, 1, 3))
        c = f * c + i * gates[:, 6:9].tanh()
        s = o * c.tanh()
    y, _ = encoder(x[None], torch.tensor([7]))
    torch.testing.assert_close(y[0], s)


def bidirectional(encoder: BlstmEncoder, index: int) -> nn.LSTM:
    onward, back = encoder.onward[index].plain, encoder.back[index].plain
    lstm = nn.LSTM(onward.input_size, onward.hidden_size, batch_first=True, bidirectional=True).double()
    state = onward.state_dict() | {f"{name}_reverse": tensor for name, tensor in back.state_dict().items()}
    lstm.load_state_dict(state)
    return lstm


@pytest.mark.parametrize(("chunk", "right"), [(0, 0), (4, 0), (4, 3), (1, 2), (5, 20)])
@torch.no_grad()
def test_a_bidirectional_encoder_is_torchs_on_each_chunk(chunk: int, right: int) -> None:
    encoder = BlstmEncoder(4, BlstmConfig(layers=2, hidden=3, chunk=chunk, right=right)).double()
    layers = [bidirectional(encoder, index) for index in range(2)]
    x = torch.randn(1, 11, 4, dtype=torch.float64)
    expected, states = [], [(torch.zeros(1, 1, 3).double(),) * 2] * 2
    zero = torch.zeros(1, 1, 3).double()
    for begin in range(0, 11, chunk or 11):
        end = min(11, begin + (chunk or 11))
        y, main = x[:, begin : end + right], end - begin
        after = []
        for layer, (h, c) in zip(layers, states, strict=True):
            start = torch.cat([h, zero]), torch.cat([c, zero])
            _, (h_main, c_main) = layer(y[:, :main], start)
            after.append((h_main[:1], c_main[:1]))
            y, _ = layer(y, start)
        states = after
        expected.append(y[:, :main])
    found, _ = encoder(x, torch.tensor([11]))
    torch.testing.assert_close(found, torch.cat(expected, 1))


def test_reversal_leaves_what_lies_beyond() -> None:
    x: Tensor = torch.arange(8.0).view(2, 4, 1)
    found = reversed_within(x, torch.tensor([3, 0]))
    assert found[..., 0].tolist() == [[2, 1, 0, 3], [4, 5, 6, 7]]


def test_settings_that_cannot_be_meant() -> None:
    for settings in ({"layers": 0}, {"right": 2}, {"chunk": -1}, {"dropout": 1.0}):
        with pytest.raises(UsageError):
            BlstmConfig(**settings)
    for settings in ({"look_ahead": ()}, {"look_ahead": (1, -1)}, {"hidden": 0}, {"projection": 256}, {"dropout": 1.0}):
        with pytest.raises(UsageError):
            LayerTrajectoryConfig(**settings)
