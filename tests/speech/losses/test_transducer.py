"""The transducer loss: its value and gradient against differentiating the recursion, finite differences, and itself
in chunks, in other types, and without what lies beyond the lengths."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lattices_written_out import RowJoint, batch, recursion  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.losses.transducer import TransducerLossConfig, rnnt_loss, transducer_loss  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["exact", "modified"])
def test_value_and_gradient_are_those_of_the_recursion(dtype: torch.dtype, mode: str) -> None:
    f, g = torch.randn(2, 3, 4, 6, dtype=dtype, generator=torch.Generator().manual_seed(1)).unbind()
    joint = RowJoint(6, 5).to(dtype)
    _, targets, frames, symbols = batch()
    leaves = [f.requires_grad_(), g.requires_grad_(), *joint.parameters()]
    expected = sum(
        recursion(joint(f[n, :t, None], g[n, None, : u + 1]), targets[n].tolist(), 0, modified=mode == "modified")
        for n, (t, u) in enumerate(zip(frames.tolist(), symbols.tolist(), strict=True))
    )
    wanted = torch.autograd.grad(expected, leaves)
    config = TransducerLossConfig(mode=mode, reduction="sum", budget_bytes=5 * 4 * 7)
    found = transducer_loss(f, g, joint, targets, frames, symbols, config=config)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found, leaves), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("blank", [0, -1])
def test_from_logits_likewise(blank: int) -> None:
    logits, targets, frames, symbols = batch()
    targets = targets if blank == 0 else targets - 1
    logits.requires_grad_()
    for single in (logits, logits.detach().float().requires_grad_()):
        found = rnnt_loss(single, targets, frames, symbols, blank=blank, reduction="none")
        expected = torch.stack([
            recursion(single[n, :t, : u + 1], targets[n].tolist(), blank)
            for n, (t, u) in enumerate(zip(frames.tolist(), symbols.tolist(), strict=True))
        ])  # fmt: skip
        torch.testing.assert_close(found, expected)
        weights = torch.tensor([1.0, -2.0, 0.5]).to(single.dtype)
        (ours,), (theirs,) = (torch.autograd.grad((loss * weights).sum(), single) for loss in (found, expected))
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours.sum(-1), torch.zeros_like(ours[..., 0]), atol=1e-6, rtol=0)


def test_finite_differences_agree() -> None:
    logits, targets, frames, symbols = batch()
    torch.autograd.gradcheck(lambda x: rnnt_loss(x, targets, frames, symbols, blank=0), logits.requires_grad_())
    log_p = logits.detach().log_softmax(-1).requires_grad_()
    torch.autograd.gradcheck(lambda x: rnnt_loss(x, targets, frames, symbols, blank=0, fused_log_softmax=False), log_p)
    loss = rnnt_loss(logits, targets, frames, symbols, blank=0) * torch.tensor(2.0, requires_grad=True)
    (first,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_size_of_chunks_and_what_lies_beyond_the_lengths_do_not_matter(rows: int) -> None:
    f, g = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(2)).unbind()
    joint = RowJoint(6, 5)
    _, targets, frames, symbols = batch()
    whole = transducer_loss(f, g, joint, targets, frames, symbols, config=TransducerLossConfig(reduction="none"))
    f[1, 1:], g[0, 3:], g[1, 1:], targets[0, 2:] = torch.nan, torch.nan, torch.nan, -7
    config = TransducerLossConfig(reduction="none", budget_bytes=rows * 5 * 4)
    torch.testing.assert_close(transducer_loss(f, g, joint, targets, frames, symbols, config=config), whole)
    for n in range(3):
        one = slice(n, n + 1)
        alone = transducer_loss(f[one], g[one], joint, targets[one], frames[one], symbols[one])
        torch.testing.assert_close(alone, whole[n])


def test_any_strides_will_do() -> None:
    logits, targets, frames, symbols = batch(dtype=torch.float32)
    turned = logits.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    f, g = (torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(seed)).permute(2, 1, 0) for seed in (0, 1))
    joint = RowJoint(6, 5)
    leaves = [turned.requires_grad_(), f.requires_grad_(), g.requires_grad_()]

    def both(x: Tensor, f: Tensor, g: Tensor) -> Tensor:
        sizes = targets, frames, symbols
        return rnnt_loss(x, *sizes, blank=0) + transducer_loss(f, g, joint, *sizes)

    straight = [leaf.detach().contiguous().requires_grad_() for leaf in leaves]
    for ours, theirs in zip(
        torch.autograd.grad(both(*leaves), leaves), torch.autograd.grad(both(*straight), straight), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_half_precision_logits_have_lattices_in_full() -> None:
    logits, targets, frames, symbols = batch(dtype=torch.float32)
    half = logits.bfloat16().requires_grad_()
    found = rnnt_loss(half, targets, frames, symbols, blank=0)
    torch.testing.assert_close(found, rnnt_loss(half.float(), targets, frames, symbols, blank=0))
    found.backward()
    assert half.grad.dtype == torch.bfloat16
    f, g = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(3)).unbind()
    joint = RowJoint(6, 5)
    full = transducer_loss(f, g, joint, targets, frames, symbols)
    precisions = set()
    joint.register_forward_hook(lambda *seen: precisions.add(seen[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = transducer_loss(f.requires_grad_(), g, joint, targets, frames, symbols)
    mixed.backward()
    torch.testing.assert_close(mixed, full, rtol=2e-2, atol=0)
    assert f.grad.dtype == torch.float32
    assert precisions == {torch.bfloat16}  # of both passes of the joint


def test_fastemit_raises_the_gradient_of_labels_only() -> None:
    logits, targets, frames, symbols = batch()
    f, g = logits[..., 0, :].clone().requires_grad_(), torch.zeros(3, 4, 5, dtype=torch.float64)
    joint = nn.Identity()
    joint.forward = lambda f, g: f + g  # type: ignore[method-assign, assignment]

    def gradient(fastemit: float) -> tuple[Tensor, Tensor]:
        config = TransducerLossConfig(fastemit=fastemit, reduction="sum")
        loss = transducer_loss(f, g, joint, targets, frames, symbols, config=config)
        return loss.detach(), torch.autograd.grad(loss, f)[0]

    (plain, before), (same, after) = gradient(0.0), gradient(0.5)
    assert plain == same
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after[1], before[1])  # nothing is said in the second


def test_the_gradient_can_be_clamped() -> None:
    logits, targets, frames, symbols = batch(dtype=torch.float32)
    plain, clamped = (
        torch.autograd.grad(rnnt_loss(x, targets, frames, symbols, blank=0, clamp=clamp), x)[0]
        for x, clamp in ((logits.clone().requires_grad_(), -1), (logits.clone().requires_grad_(), 0.05))
    )
    torch.testing.assert_close(clamped, plain.clamp(-0.05, 0.05))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": [4, 0, 3]}, "utterance 1 has 0 frames"),
        ({"frames": [5, 1, 3]}, "utterance 0 has 5 frames"),
        ({"symbols": [2, 0, 4]}, "utterance 2 has 4 symbols"),
        ({"targets": [[1, 0, 1], [1, 1, 1], [1, 1, 1]]}, "utterance 0: symbol 1, 0, is the blank"),
        ({"targets": [[1, 1, 1], [1, 1, 1], [1, 9, 1]]}, "utterance 2: symbol 1, 9, is outside the vocabulary of 5"),
        ({"logits": (2, 1, 0, 3)}, "utterance 2: the logits at frame 1 are not finite"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    logits, targets, frames, symbols = batch(dtype=torch.float32)
    if place := change.get("logits"):
        logits[place] = torch.nan
    arguments = {"targets": targets, "frames": frames, "symbols": symbols}
    arguments |= {name: torch.tensor(value) for name, value in change.items() if name != "logits"}
    with pytest.raises(InputError, match=message):
        rnnt_loss(logits, arguments["targets"], arguments["frames"], arguments["symbols"], blank=0)


def test_what_modified_and_chunks_cannot_do_is_refused() -> None:
    f, g = torch.randn(2, 3, 4, 6).unbind()
    _, targets, frames, symbols = batch()
    config = TransducerLossConfig(mode="modified")
    with pytest.raises(InputError, match="utterance 1 has 2 symbols in 1 frames"):
        transducer_loss(f, g, RowJoint(6, 5), targets, frames, torch.tensor([2, 2, 3]), config=config)
    with pytest.raises(UsageError, match="dropout"):
        transducer_loss(f, g, nn.Sequential(nn.Dropout(0.1)), targets, frames, symbols)


@pytest.mark.parametrize("options", [{"mode": "guess"}, {"fastemit": -1}, {"budget_bytes": 0}, {"reduction": "max"}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(UsageError):
        TransducerLossConfig(**options)


def test_a_long_lattice_stays_exact() -> None:
    """1,000 frames, 200 symbols: both recursions meet, where float32 would have drifted apart."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(0, 3, (1, 1000, 201, 4)), dtype=torch.float32)
    targets = torch.tensor(rng.integers(1, 4, (1, 200)))
    sizes = torch.tensor([1000]), torch.tensor([200])
    single, double = (rnnt_loss(x, targets, *sizes, blank=0) for x in (logits, logits.double()))
    assert float(single) == pytest.approx(float(double), rel=1e-6)
