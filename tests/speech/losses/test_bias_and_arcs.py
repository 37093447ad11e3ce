"""Emission bias and arc mask of the transducer loss, against all paths written out."""

import math

import pytest

torch = pytest.importorskip("torch")

from lattices_written_out import RowJoint, batch, enumerated  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from wieldy.errors import InputError  # noqa: E402
from wieldy.speech.losses.transducer import TransducerLossConfig, transducer_loss  # noqa: E402


def case(seed: int = 0) -> tuple[list[Tensor], RowJoint, Tensor, Tensor]:
    """f and g, the joint, `bias` and `arcs`: some arcs forbidden, a way left in each utterance."""
    rng = torch.Generator().manual_seed(seed)
    f, g = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=rng).unbind()
    joint = RowJoint(6, 5).double()
    bias = torch.randn(3, 4, 3, dtype=torch.float64, generator=rng)
    bias[0, 0, 1], bias[2, 2, 0] = -torch.inf, -torch.inf
    arcs = torch.ones(3, 4, 3, dtype=torch.bool)
    arcs[0, 1, 0] = arcs[2, 0, 2] = False
    return [f.requires_grad_(), g.requires_grad_()], joint, bias, arcs


@pytest.mark.parametrize("mode", ["exact", "modified"])
@pytest.mark.parametrize("given", [("bias",), ("arcs",), ("bias", "arcs")])
def test_all_paths_are_summed_with_their_bias(mode: str, given: tuple[str, ...]) -> None:
    (f, g), joint, bias, arcs = case()
    options = {name: {"bias": bias, "arcs": arcs}[name] for name in given}
    _, targets, frames, symbols = batch()
    if mode == "modified":
        options = {name: value.clone() for name, value in options.items()}
        for value in options.values():
            value[2] = 1  # three symbols in three frames leave one path: nothing may be forbidden
    leaves = [f, g, *joint.parameters()]
    expected = torch.stack([
        enumerated(
            joint(f[n, :t, None], g[n, None, : u + 1]), targets[n].tolist(),
            **{name: value[n] for name, value in options.items()}, modified=mode == "modified",
        )
        for n, (t, u) in enumerate(zip(frames.tolist(), symbols.tolist(), strict=True))
    ])  # fmt: skip
    config = TransducerLossConfig(mode=mode, reduction="none", budget_bytes=5 * 8 * 7)
    found = transducer_loss(f, g, joint, targets, frames, symbols, config=config, **options)
    torch.testing.assert_close(found, expected)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weights).sum(), leaves)
    for ours, theirs in zip(torch.autograd.grad((found * weights).sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_finite_differences_agree() -> None:
    (f, g), joint, bias, arcs = case(1)
    _, targets, frames, symbols = batch()
    torch.autograd.gradcheck(
        lambda f, g: transducer_loss(f, g, joint, targets, frames, symbols, bias=bias, arcs=arcs),
        (f, g),
        fast_mode=True,
    )


def test_the_end_of_an_utterance_is_drawn_to_its_time() -> None:
    """Two symbols, the second due at frame 1, all arcs at probability 1/2: 1, 2, 3 and 4 paths end in frames 0 to 3."""
    late = torch.tensor([-1.0, 0.0, -1.0, -2.0])
    bias = torch.stack([torch.zeros(4), late], dim=1)[None]
    joint = nn.Identity()
    joint.forward = lambda f, g: f + g  # type: ignore[method-assign, assignment]
    never = -torch.inf
    g = torch.tensor([[[0.0, 0.0, never], [0.0, never, 0.0], [0.0, never, 0.0]]])
    sizes = torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2])
    loss = transducer_loss(torch.zeros(1, 4, 3), g, joint, *sizes, bias=bias)
    paths = sum(count * math.exp(drawn) for count, drawn in zip((1, 2, 3, 4), late.tolist(), strict=True))
    assert float(loss) == pytest.approx(-math.log(paths / 2**6))


def test_a_forbidden_arc_is_a_bias_of_minus_infinity_and_no_bias_is_zero() -> None:
    (f, g), joint, _, arcs = case(2)
    _, targets, frames, symbols = batch()

    def loss(**options: Tensor) -> Tensor:
        return transducer_loss(f, g, joint, targets, frames, symbols, **options)

    torch.testing.assert_close(loss(arcs=arcs), loss(bias=torch.where(arcs, 0.0, -torch.inf)))
    torch.testing.assert_close(loss(bias=torch.zeros(3, 4, 3)), loss())
    assert loss(arcs=arcs) > loss()


def test_what_lies_beyond_the_lengths_is_not_read() -> None:
    (f, g), joint, bias, arcs = case(3)
    _, targets, frames, symbols = batch()
    whole = transducer_loss(f, g, joint, targets, frames, symbols, bias=bias, arcs=arcs)
    bias[0, :, 2], bias[1], bias[2, 3:], arcs[0, :, 2] = torch.nan, torch.inf, torch.nan, False
    torch.testing.assert_close(transducer_loss(f, g, joint, targets, frames, symbols, bias=bias, arcs=arcs), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": torch.zeros(3, 4, 4)}, r"bias has shape \(3, 4, 4\): it is \[3, 4, 3\]"),
        ({"arcs": torch.zeros(3, 4, dtype=torch.bool)}, r"arcs has shape \(3, 4\)"),
        ({"arcs": torch.ones(3, 4, 3)}, "arcs are torch.float32: they are boolean"),
        ({"bias": (2, 1, 0, math.nan)}, "utterance 2: the bias of symbol 0 at frame 1 is nan"),
        ({"bias": (0, 3, 1, math.inf)}, "utterance 0: the bias of symbol 1 at frame 3 is inf"),
        (
            {"bias": (2, slice(None), 1, -math.inf)},
            "utterance 2 has no path left: bias and arcs must allow",
        ),
        ({"arcs": (0, slice(None), 0, False)}, "utterance 0 has no path left"),
    ],
)
def test_bad_bias_and_arcs_are_named(change: dict, message: str) -> None:
    (f, g), joint, bias, arcs = case()
    _, targets, frames, symbols = batch()
    options = {"bias": bias, "arcs": arcs}
    for name, value in change.items():
        if isinstance(value, Tensor):
            options[name] = value
        else:
            options[name][value[:3]] = value[3]
    with pytest.raises(InputError, match=message):
        transducer_loss(f, g, joint, targets, frames, symbols, **options)


def test_symbols_that_may_only_be_said_in_the_wrong_order_leave_no_path() -> None:
    (f, g), joint, _, arcs = case()
    _, targets, frames, symbols = batch()
    arcs[0, 1:, 1], arcs[0, :3, 0] = False, False  # the second symbol at frame 0 only, the first at frame 3 only
    with pytest.raises(InputError, match="utterance 0 has no path left"):
        transducer_loss(f, g, joint, targets, frames, symbols, arcs=arcs)
