"""The divergence of lattices against its definition over all nodes, and against paths that are walked one by one."""

import itertools
import math

import pytest

torch = pytest.importorskip("torch")

from lattices_written_out import RowJoint  # noqa: E402
from torch import Tensor  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.losses.divergence import Lattice, lattice_divergence  # noqa: E402

LENGTHS = torch.tensor([4, 1, 3]), torch.tensor([2, 0, 3])
TARGETS = torch.tensor([[1, 4, 0], [0, 0, 0], [2, 2, 3]])


def lattice(seed: int, dtype: torch.dtype = torch.float64) -> Lattice:
    torch.manual_seed(seed)
    f, g = torch.randn(2, 3, 4, 6, dtype=dtype).unbind()
    return Lattice(f.requires_grad_(), g.requires_grad_(), RowJoint(6, 5).to(dtype))


def alignments(frames: int, symbols: int) -> list[list[tuple[int, int, bool]]]:
    """Every way through a lattice, as nodes (t, u) and whether the arc taken there is a label's."""
    found = []
    for places in itertools.combinations_with_replacement(range(frames), symbols):
        nodes, u = [], 0
        for t in range(frames):
            for _ in range(places.count(t)):
                nodes.append((t, u, True))
                u += 1
            nodes.append((t, u, False))
        found.append(nodes)
    return found


def walked(first: Lattice, other: Lattice, floor: float = 0.0) -> Tensor:
    """The mean over utterances of sum gamma_0 KL, gamma_0 counted over alignments."""
    log_p0 = first.joint(first.f[:, :, None], first.g[:, None]).log_softmax(-1).detach()
    log_p = other.joint(other.f[:, :, None], other.g[:, None]).log_softmax(-1)
    total = log_p.new_zeros(())
    for n, (frames, symbols) in enumerate(zip(*(lengths.tolist() for lengths in LENGTHS), strict=True)):
        paths = alignments(frames, symbols)
        chances = [
            math.exp(sum(float(log_p0[n, t, u, TARGETS[n, u] if label else 0]) for t, u, label in path))
            for path in paths
        ]
        for t, u in itertools.product(range(frames), range(symbols + 1)):
            passing = sum(
                chance for path, chance in zip(paths, chances, strict=True) if any((t, u) == node[:2] for node in path)
            )
            gamma = passing / sum(chances)
            if gamma > floor:
                total = total + gamma * (log_p0[n, t, u].exp() * (log_p0[n, t, u] - log_p[n, t, u])).sum() / 3
    return total


@pytest.mark.parametrize("rows", [1, 5, 1000])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_value_and_gradient_are_those_of_the_definition(rows: int, floor: float) -> None:
    first, other = lattice(0), lattice(1)
    leaves = [other.f, other.g, *other.joint.parameters()]
    expected = walked(first, other, floor)
    found = lattice_divergence(first, other, TARGETS, *LENGTHS, floor=floor, budget_bytes=rows * 3 * 5 * 8)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, leaves)
    for ours, theirs in zip(torch.autograd.grad(found, leaves), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_model_does_not_diverge_from_itself_and_nothing_reaches_the_first() -> None:
    same = lattice(0)
    assert float(lattice_divergence(same, same, TARGETS, *LENGTHS).detach()) == pytest.approx(0, abs=1e-12)
    first, other = lattice(0, torch.float32), lattice(1, torch.float32)
    lattice_divergence(first, other, TARGETS, *LENGTHS).backward()
    assert first.f.grad is None
    assert all(parameter.grad is None for parameter in first.joint.parameters())
    assert other.f.grad[1, 1:].abs().sum() == other.g.grad[1, 1:].abs().sum() == 0  # padding


def test_padding_is_not_read() -> None:
    first, other = lattice(0), lattice(1)
    whole = lattice_divergence(first, other, TARGETS, *LENGTHS)
    for model in (first, other):
        model.f.data[1, 1:] = model.g.data[0, 3:] = torch.nan
    torch.testing.assert_close(lattice_divergence(first, other, TARGETS, *LENGTHS), whole)


def test_what_cannot_be_meant_is_refused() -> None:
    model = lattice(0)
    with pytest.raises(UsageError, match=r"floor is 1\.0: it is a probability below 1"):
        lattice_divergence(model, model, TARGETS, *LENGTHS, floor=1.0)
    with pytest.raises(InputError, match="utterance 0: symbol 0, 7, is outside the vocabulary of 5"):
        lattice_divergence(model, model, TARGETS.index_fill(1, torch.tensor([0]), 7), *LENGTHS)
