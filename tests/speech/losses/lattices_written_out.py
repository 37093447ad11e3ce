"""Lattices small enough to write out: a joint, a ragged batch, and the loss of one utterance by two other ways."""

import itertools

import torch
from torch import Tensor, nn


class RowJoint(nn.Module):
    def __init__(self, size: int, vocabulary: int) -> None:
        super().__init__()
        self.output = nn.Linear(size, vocabulary)

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        return self.output(torch.tanh(f + g))


def recursion(logits: Tensor, target: list[int], blank: int, *, modified: bool = False) -> Tensor:
    """-log Z of one utterance, logits [T, U + 1, V], as the forward recursion says it; autograd goes through."""
    log_p = logits.log_softmax(-1)
    frames, positions = logits.shape[:2]
    a: dict[tuple[int, int], Tensor] = {(0, 0): logits.new_zeros(())}
    for t in range(frames + 1):
        for u in range(positions):
            arcs = []
            if (t - 1, u) in a:
                arcs.append(a[t - 1, u] + log_p[t - 1, u, blank])
            before = (t - modified, u - 1)
            if before in a and before[0] < frames:
                arcs.append(a[before] + log_p[before[0], u - 1, target[u - 1]])
            if arcs:
                a[t, u] = torch.stack(arcs).logsumexp(0)
    return -a[frames, positions - 1]


def batch(seed: int = 0, vocabulary: int = 5, dtype: torch.dtype = torch.float64):
    """Ragged: T 4, 1, 3; U 2, 0, 3; with garbage beyond the lengths."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 4, vocabulary, generator=rng, dtype=dtype) * 2
    targets = torch.randint(1, vocabulary, (3, 3), generator=rng)
    return logits, targets, torch.tensor([4, 1, 3]), torch.tensor([2, 0, 3])


def paths(frames: int, symbols: int, *, modified: bool = False) -> set[tuple[tuple[bool, int, int], ...]]:
    """Every way through the lattice, as arcs (says a label, t, u)."""
    found = set()
    for kinds in set(itertools.permutations([False] * (frames - modified * symbols) + [True] * symbols)):
        t = u = 0
        arcs = []
        for says in kinds:
            arcs.append((says, t, u))
            t, u = t + (modified or not says), u + says
        if all(t < frames for _, t, _ in arcs):
            found.add(tuple(arcs))
    return found


def enumerated(
    logits: Tensor,
    target: list[int],
    bias: Tensor | None = None,
    arcs: Tensor | None = None,
    *,
    modified: bool = False,
    nodes: set[tuple[int, int]] | None = None,
) -> Tensor:
    """-log of the sum over all paths, each written out, of one utterance: logits [T, U + 1, V], `bias` and `arcs`
    [T, U], blank 0; only through `nodes` (t, u), if given. Autograd goes through."""
    log_p = logits.log_softmax(-1)
    frames, positions = logits.shape[:2]
    sums = []
    for path in paths(frames, positions - 1, modified=modified):
        if arcs is not None and not all(arcs[t, u] for says, t, u in path if says):
            continue
        if nodes is not None and not {(t, u) for _, t, u in path} <= nodes:
            continue
        said = [(t, u) for says, t, u in path if says]
        score = sum(log_p[t, u, target[u] if says else 0] for says, t, u in path)
        sums.append(score + (sum(bias[t, u] for t, u in said) if bias is not None else 0))
    return -torch.stack(sums).logsumexp(0)
