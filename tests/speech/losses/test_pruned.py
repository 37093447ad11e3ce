"""The pruned transducer loss: the simple joint against the exact loss of the same joint, windows against all windows
written out, the whole against the exact loss and against the paths inside the windows."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lattices_written_out import RowJoint, batch, enumerated  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.kernels.transducer_lattice import Lattices  # noqa: E402
from wieldy.speech.losses.nodes import Nodes  # noqa: E402
from wieldy.speech.losses.pruned import PruningConfig, SimpleJoint, simple_arcs, windows  # noqa: E402
from wieldy.speech.losses.transducer import TransducerLossConfig, transducer_loss  # noqa: E402

SIMPLE_ONLY = PruningConfig(simple_scale=1, pruned_scale=0, lm_only_scale=0)


def tensors(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, RowJoint, SimpleJoint]:
    torch.manual_seed(seed)
    f, g = (2 * torch.randn(2, 3, 4, 6, dtype=dtype)).unbind()
    return f.requires_grad_(), g.requires_grad_(), RowJoint(6, 5).to(dtype), SimpleJoint(6, 6, 5).to(dtype)


def pruned(pruning: PruningConfig, **options: object) -> TransducerLossConfig:
    return TransducerLossConfig(mode="pruned", pruning=pruning, **options)


class Sum(nn.Module):
    """The simple joint as a full one; of `terms` f, g or both."""

    def __init__(self, simple: SimpleJoint, terms: str = "fg") -> None:
        super().__init__()
        self.simple, self.terms = simple, terms

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        return sum(term for name, term in zip("fg", self.simple(f, g), strict=True) if name in self.terms)


@pytest.mark.parametrize(
    ("terms", "scales"), [("fg", {}), ("g", {"lm_only_scale": 1}), ("f", {"lm_only_scale": 0, "am_only_scale": 1})]
)
def test_the_simple_loss_is_the_exact_loss_of_the_simple_joint(terms: str, scales: dict) -> None:
    f, g, joint, simple = tensors()
    _, targets, frames, symbols = batch()
    pruning = PruningConfig(simple_scale=1, pruned_scale=0, **({"lm_only_scale": 0} | scales))
    bias = torch.randn(3, 4, 3)
    arguments = targets, frames, symbols
    found = transducer_loss(f, g, joint, *arguments, config=pruned(pruning), simple=simple, bias=bias)
    expected = transducer_loss(f, g, Sum(simple, terms), *arguments, bias=bias)
    torch.testing.assert_close(found, expected)
    leaves = [f, g, *simple.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, leaves, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_a_window_as_wide_as_the_lattice_is_exact_and_narrower_ones_lose_paths(seed: int) -> None:
    f, g, joint, simple = tensors(seed)
    targets, frames, symbols = torch.randint(1, 5, (3, 3)), torch.tensor([4, 3, 2]), torch.tensor([3, 0, 2])
    leaves = [f, g, *joint.parameters()]
    exact = transducer_loss(f, g, joint, targets, frames, symbols, config=TransducerLossConfig(reduction="none"))
    losses = []
    for s_range in (2, 3, 4):
        config = pruned(PruningConfig(s_range=s_range, simple_scale=0), reduction="none", budget_bytes=5 * 8 * 7)
        losses.append(transducer_loss(f, g, joint, targets, frames, symbols, config=config, simple=simple))
        assert (losses[-1] >= exact - 1e-12).all()
    assert losses[0][0] > exact[0] + 1e-6
    torch.testing.assert_close(losses[2], exact)
    for ours, theirs in zip(
        torch.autograd.grad(losses[2].sum(), leaves), torch.autograd.grad(exact.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_the_paths_inside_the_windows_are_summed(seed: int) -> None:
    f, g, joint, simple = tensors(seed)
    sizes = torch.randint(1, 5, (3, 3)), torch.tensor([4, 4, 3]), torch.tensor([3, 1, 2])
    bias, arcs = torch.randn(3, 4, 3, dtype=torch.float64), torch.ones(3, 4, 3, dtype=torch.bool)
    arcs[:, 0, 0] = False
    nodes = Nodes.of_targets(*sizes, (3, 4, 4)).biased(bias, arcs)
    config = PruningConfig(s_range=2, simple_scale=0)
    kept = nodes.select(windows(nodes, nodes.forward_backward(simple_arcs(f, g, simple, nodes, 0, config)[1]), 2))
    at = [*zip(kept.frame.tolist(), kept.position.tolist(), strict=True)]
    inside = [{at[i] for i in np.flatnonzero(kept.utterance == n)} for n in range(3)]
    leaves = [f, g, *joint.parameters()]
    expected = torch.stack([
        enumerated(
            joint(f[n, :t, None], g[n, None, : u + 1]), sizes[0][n].tolist(), bias[n], arcs[n], nodes=inside[n]
        )
        for n, (t, u) in enumerate(zip(*(lengths.tolist() for lengths in sizes[1:]), strict=True))
    ]).sum()  # fmt: skip
    options = {"config": pruned(config, reduction="sum"), "simple": simple, "bias": bias, "arcs": arcs}
    found = transducer_loss(f, g, joint, *sizes, **options)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("s_range", [2, 3, 4, 9])
def test_windows_hold_the_most_that_windows_that_fit_together_can(s_range: int) -> None:
    rng = np.random.default_rng(s_range)
    frames, symbols = torch.tensor([5, 1, 4, 3]), torch.tensor([5, 1, 0, 2])
    nodes = Nodes.of_lengths(frames, symbols, (4, 5, 6))
    lattices = Lattices(np.zeros(4), np.zeros(4), *rng.uniform(size=(2, len(nodes))))
    inside = windows(nodes, lattices, s_range)
    for n, (t, u) in enumerate(zip(frames.tolist(), symbols.tolist(), strict=True)):
        own = nodes.utterance == n
        gamma = (lattices.blank + lattices.label)[own].reshape(t, u + 1)
        last = max(u + 1 - s_range, 0)
        legal = [
            (0, *starts, last)[:t] if t > 1 else (0,)
            for starts in itertools.product(range(last + 1), repeat=max(t - 2, 0))
            if all(0 <= b - a < s_range for a, b in itertools.pairwise((0, *starts, last)))
        ]
        most = max(sum(row[s : s + s_range].sum() for row, s in zip(gamma, starts, strict=True)) for starts in legal)
        chosen = inside[own].reshape(t, u + 1)
        assert gamma[chosen].sum() == pytest.approx(most)
        assert any(
            all(chosen[i].nonzero()[0].tolist() == [*range(s, min(s + s_range, u + 1))] for i, s in enumerate(starts))
            for starts in legal
        )


def test_finite_differences_agree() -> None:
    f, g, joint, simple = tensors(4)
    _, targets, frames, symbols = batch()
    config = pruned(PruningConfig(s_range=3, am_only_scale=0.1))
    torch.autograd.gradcheck(
        lambda f, g: transducer_loss(f, g, joint, targets, frames, symbols, config=config, simple=simple),
        (f, g),
        fast_mode=True,
    )


def test_scales_add_up_and_labels_are_made_early_in_both_terms() -> None:
    f, g, joint, simple = tensors(5)
    _, targets, frames, symbols = batch()

    def loss(fastemit: float = 0.0, **scales: float) -> Tensor:
        config = pruned(PruningConfig(s_range=3, **scales), fastemit=fastemit)
        return transducer_loss(f, g, joint, targets, frames, symbols, config=config, simple=simple)

    alone = loss(simple_scale=1, pruned_scale=0), loss(simple_scale=0, pruned_scale=1)
    torch.testing.assert_close(loss(simple_scale=0.3, pruned_scale=0.2), 0.3 * alone[0] + 0.2 * alone[1])
    for scales in ({"pruned_scale": 0}, {"simple_scale": 0}):
        (plain,), (early,) = (torch.autograd.grad(loss(lam, **scales), f) for lam in (0.0, 0.5))
        assert not torch.allclose(plain, early)


def test_what_lies_beyond_the_lengths_does_not_matter() -> None:
    f, g, joint, simple = tensors(6)
    _, targets, frames, symbols = batch()
    config = pruned(PruningConfig(s_range=3), reduction="sum")
    leaves = [f, g, *joint.parameters(), *simple.parameters()]

    def both(f: Tensor, g: Tensor) -> list[Tensor]:
        leaves[:2] = f, g
        loss = transducer_loss(f, g, joint, targets, frames, symbols, config=config, simple=simple)
        return [loss, *torch.autograd.grad(loss, leaves)]

    spoilt_f, spoilt_g = f.detach().clone(), g.detach().clone()
    spoilt_f[1, 1:], spoilt_g[0, 3:], spoilt_g[1, 1:] = torch.nan, torch.nan, torch.inf
    whole = both(f, g)
    for ours, theirs in zip(both(spoilt_f.requires_grad_(), spoilt_g.requires_grad_()), whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_lattices_are_in_full_under_autocast() -> None:
    """With integers, which bfloat16 adds exactly, nothing of the simple loss may change."""
    f, g, joint, simple = tensors(7, torch.float32)
    with torch.no_grad():
        for tensor in (f, g, *simple.parameters()):
            tensor.copy_(tensor.mul(2).round().clamp(-1, 1))
    _, targets, frames, symbols = batch()
    for pruning, tolerance in ((SIMPLE_ONLY, 1e-6), (PruningConfig(s_range=4), 2e-2)):
        arguments = f, g, joint, targets, frames, symbols
        full = transducer_loss(*arguments, config=pruned(pruning), simple=simple)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = transducer_loss(*arguments, config=pruned(pruning), simple=simple)
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed, full, rtol=tolerance, atol=0)
        mixed.backward()
        assert {p.grad.dtype for p in (f, g, *simple.parameters())} == {torch.float32}


def test_terms_that_disagree_by_more_than_a_float_holds_do_not_make_arcs_likely() -> None:
    """exp(-100) twice is 0 in float32: the loss errs upwards, and its gradient stays finite."""
    f, g, joint, simple = tensors(8, torch.float32)
    with torch.no_grad():
        for part, sign in ((simple.f, 1), (simple.g, -1)):
            part.weight.zero_()
            part.weight[0, 0] = sign * 100.0
    f = torch.ones_like(f).requires_grad_()
    sizes = torch.tensor([[1], [1], [1]]), torch.tensor([2, 2, 2]), torch.tensor([1, 1, 1])
    found = transducer_loss(f, torch.ones_like(g), joint, *sizes, config=pruned(SIMPLE_ONLY), simple=simple)
    exact = transducer_loss(f.double(), torch.ones_like(g).double(), Sum(simple).double(), *sizes)
    assert torch.isfinite(found)
    assert found >= exact - 1e-4
    assert torch.isfinite(torch.autograd.grad(found, f)[0]).all()


def test_more_symbols_than_windows_can_pass_are_named() -> None:
    f, g, joint, simple = tensors()
    targets = torch.ones(3, 3, dtype=torch.int64)
    sizes = torch.tensor([4, 1, 3]), torch.tensor([2, 3, 3])
    config = pruned(PruningConfig(s_range=3))
    with pytest.raises(InputError, match=r"utterance 1 has 3 symbols in 1 frames, .* of 3 .*: s_range .* at least 4"):
        transducer_loss(f, g, joint, targets, *sizes, config=config, simple=simple)
    wider = pruned(PruningConfig(s_range=4))
    assert torch.isfinite(transducer_loss(f, g, joint, targets, *sizes, config=wider, simple=simple))
    with pytest.raises(InputError, match="utterance 0: symbol 0, 7, is outside the vocabulary of 5"):
        transducer_loss(f, g, joint, targets * 7, *sizes, config=wider, simple=simple)


def test_wrong_options_are_refused() -> None:
    f, g, joint, simple = tensors()
    _, targets, frames, symbols = batch()
    with pytest.raises(UsageError, match="mode pruned without a simple joint: they go together"):
        transducer_loss(f, g, joint, targets, frames, symbols, config=TransducerLossConfig(mode="pruned"))
    with pytest.raises(UsageError, match="mode exact with a simple joint"):
        transducer_loss(f, g, joint, targets, frames, symbols, simple=simple)
    for options in ({"s_range": 1}, {"simple_scale": -1}, {"lm_only_scale": 0.6, "am_only_scale": 0.6}):
        with pytest.raises(UsageError, match=str(next(iter(options.values())))):
            PruningConfig(**options)
