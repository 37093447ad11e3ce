"""Small recognisers with random weights, and searches over one utterance that read like their definition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from wieldy.speech.decode import TokenHypothesis

Prefix = tuple[int, ...]


class SmallTransducer(nn.Module):
    """A `TransducerView` with a GRU as predictor, in float64. Encodings are made up by the caller."""

    def __init__(self, vocab: int, *, size: int = 6, blank: int = 0, seed: int = 0, spread: float = 2.0) -> None:
        super().__init__()
        self.blank, self.vocab, self.size = blank, vocab, size
        self.embedding = nn.Embedding(vocab, size)
        self.gru = nn.GRUCell(size, size)
        self.output = nn.Linear(size, vocab)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * spread / size**0.5)
        self.double().requires_grad_(False)
        self.rows = {"join": 0, "advance": 0}
        self._known: dict[Prefix, Tensor] = {}

    def start(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        g = self.output.weight.new_zeros(n, self.size)
        return g, {"hidden": g}

    def advance(self, tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        self.rows["advance"] += len(tokens)
        g = self.gru(self.embedding(tokens), state["hidden"])
        return g, {"hidden": g}

    def select(self, state: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        return {"hidden": state["hidden"][index]}

    def join(self, f: Tensor, g: Tensor) -> Tensor:
        self.rows["join"] += len(f)
        return self.output(torch.tanh(f + g))

    def join_internal(self, g: Tensor) -> Tensor:
        return self.output(torch.tanh(g))

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        """As a joint for the loss."""
        return self.join(f, g)

    def predict(self, tokens: Sequence[int]) -> Tensor:
        """g [U + 1, J]."""
        return torch.cat([self._after(tuple(tokens[:u])) for u in range(len(tokens) + 1)])

    def _after(self, tokens: Prefix) -> Tensor:
        if tokens not in self._known:
            before = self._after(tokens[:-1]) if tokens else None
            g, _ = self.start(1) if before is None else self.advance(torch.tensor(tokens[-1:]), {"hidden": before})
            self._known[tokens] = g
        return self._known[tokens]

    def log_p(self, f: Tensor, tokens: Sequence[int]) -> Tensor:
        """[V] at the node of one frame `f` [J] and the prefix `tokens`."""
        return self.join(f[None], self._after(tuple(tokens)))[0].log_softmax(0)


def encodings(lens: Sequence[int], size: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    """f [B, T, J], garbage beyond the lengths, and these."""
    rng = torch.Generator().manual_seed(seed)
    f = torch.randn(len(lens), max(lens, default=0), size, generator=rng, dtype=torch.float64) * 1.5
    for row, length in zip(f, lens, strict=True):
        row[length:] = torch.nan
    return f, torch.tensor(lens, dtype=torch.int64)


class Bigrams:
    """A `PrefixScorer` of two parts: scores by the last token, and of ending after it."""

    names = ("lm", "ilm")

    def __init__(self, vocab: int, seed: int = 3) -> None:
        rng = torch.Generator().manual_seed(seed)
        table = torch.randn(vocab + 1, 2, vocab, generator=rng, dtype=torch.float64).log_softmax(2)
        self.table = table * torch.tensor([0.6, -0.3])[:, None]
        self.table[:, :, 0] = torch.nan  # the blank's, which nobody may read
        self.ending = torch.randn(vocab + 1, 2, generator=rng, dtype=torch.float64)

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, tuple[Tensor]]:
        last = torch.full((n,), len(self.table) - 1)
        return self.table[last], (last,)

    def advance(self, tokens: Tensor, state: tuple[Tensor], g: Tensor | None = None) -> tuple[Tensor, tuple[Tensor]]:
        return self.table[tokens], (tokens,)

    def select(self, state: tuple[Tensor], index: Tensor) -> tuple[Tensor]:
        return (state[0][index],)

    def end(self, state: tuple[Tensor]) -> Tensor:
        return self.ending[state[0]]

    def of(self, tokens: Sequence[int]) -> list[float]:
        """The parts of a prefix."""
        before = [len(self.table) - 1, *tokens][: len(tokens)]
        return [sum(float(self.table[b, part, k]) for b, k in zip(before, tokens, strict=True)) for part in (0, 1)]


def naive_beam(
    view: SmallTransducer,
    f: Tensor,
    beam: int,
    max_symbols: int,
    *,
    modified: bool = False,
    scorer: Bigrams | None = None,
) -> list[tuple[Prefix, float]]:
    """The search of `transducer_beam` as its docstring says it, for one utterance f [T, J], with dictionaries."""

    def add(a: float, b: float) -> float:
        return b if a == -math.inf else a + math.log1p(math.exp(b - a)) if b <= a else add(b, a)

    def fused(prefix: Prefix) -> float:
        return sum(scorer.of(prefix)) if scorer else 0.0

    def bar(scores: dict[Prefix, float]) -> float:
        best = sorted((score + fused(prefix) for prefix, score in scores.items()), reverse=True)
        return best[beam - 1] if len(best) >= beam else -math.inf

    def extensions(mass: dict[Prefix, float], least: float) -> dict[Prefix, float]:
        found = {
            (*prefix, k): m + log_p[prefix][k]
            for prefix, m in mass.items()
            for k in range(view.vocab)
            if k != view.blank and (*prefix, k) not in log_p
        }
        ranked = sorted(found, key=lambda prefix: found[prefix] + fused(prefix), reverse=True)
        return {prefix: found[prefix] for prefix in ranked[:beam] if found[prefix] + fused(prefix) > least}

    kept: dict[Prefix, float] = {(): 0.0}
    for frame in f:
        log_p = {prefix: view.log_p(frame, prefix).tolist() for prefix in kept}
        blanks = {prefix: log_p[prefix][view.blank] for prefix in kept}
        if modified:
            after = {prefix: m + blanks[prefix] for prefix, m in kept.items()}
            for prefix, m in kept.items():
                for k in range(view.vocab):
                    if k != view.blank and (*prefix, k) in kept:
                        after[*prefix, k] = add(after[*prefix, k], m + log_p[prefix][k])
            after |= extensions(kept, bar(after))
        else:
            mass, reached = kept, dict(kept)
            for _ in range(max_symbols):
                grown = extensions(mass, bar({p: m + log_p[p][view.blank] for p, m in reached.items()}))
                log_p |= {prefix: view.log_p(frame, prefix).tolist() for prefix in grown}
                mass = {
                    prefix: mass[prefix[:-1]] + log_p[prefix[:-1]][prefix[-1]]
                    for prefix in log_p
                    if prefix and prefix[:-1] in mass
                }
                for prefix, m in mass.items():
                    reached[prefix] = add(reached.get(prefix, -math.inf), m)
            after = {prefix: m + log_p[prefix][view.blank] for prefix, m in reached.items()}
        ranked = sorted(after, key=lambda prefix: after[prefix] + fused(prefix), reverse=True)
        kept = {prefix: after[prefix] for prefix in ranked[:beam]}
    return list(kept.items())


def check_features(view: SmallTransducer, f: Tensor, h: TokenHypothesis, *, modified: bool) -> None:
    """Those of each token are what the model says at the node of emission; f [T, J]."""
    assert len(h.frames) == len(h.tokens) == len(h.features.gap) == len(h.features.active)
    assert list(h.frames) == sorted(h.frames)
    assert not modified or len(set(h.frames)) == len(h.frames)
    for u, (token, t) in enumerate(zip(h.tokens, h.frames, strict=True)):
        log_p = view.log_p(f[t], h.tokens[:u])
        others = [float(log_p[k]) for k in range(view.vocab) if k not in (token, view.blank)]
        straight = t == 0 or (u and h.frames[u - 1] == t - modified)  # no blank since the token before
        behind = t + modified
        expected = {
            "log_prob": float(log_p[token]),
            "entropy": -float((log_p.exp() * log_p).sum()),
            "margin": float(log_p[token]) - max(others),
            "blank_before": 0.0 if straight else float(view.log_p(f[t - 1], h.tokens[:u])[view.blank]),
            "blank_after": float(view.log_p(f[behind], h.tokens[: u + 1])[view.blank]) if behind < len(f) else 0.0,
        }
        found = {name: float(getattr(h.features, name)[u]) for name in expected}
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), (u, t)


class SmallAed(nn.Module):
    """An `AEDView` with a GRU as decoder, in float64; its memory [B, T', J] is averaged, which needs the lengths."""

    def __init__(self, vocab: int, *, prompt: tuple[int, ...] = (1,), size: int = 6, seed: int = 0) -> None:
        super().__init__()
        self.vocab, self.eos, self.prompt = vocab, 0, prompt
        self.embedding = nn.Embedding(vocab, size)
        self.gru = nn.GRUCell(size, size)
        self.output = nn.Linear(size, vocab)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 2 / size**0.5)
        self.double().requires_grad_(False)
        self.calls: list[int] = []

    def start(self, memory: Tensor, lens: Tensor) -> Tensor:
        inside = torch.arange(memory.shape[1]) < lens[:, None]
        return memory.masked_fill(~inside[..., None], 0.0).sum(1) / lens[:, None]

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(len(tokens))
        state = self.gru(self.embedding(tokens), state)
        return self.output(state).log_softmax(1), state

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]

    def log_probability(self, memory: Tensor, tokens: Sequence[int]) -> float:
        """Of `tokens` and the end, for one memory [T', J]."""
        state = self.start(memory[None], torch.tensor([len(memory)]))
        total, sequence = 0.0, [*self.prompt, *tokens]
        for position, token in enumerate(sequence):
            log_p, state = self.step(torch.tensor([token]), state)
            if (following := position + 1) >= len(self.prompt):
                total += float(log_p[0, sequence[following] if following < len(sequence) else self.eos])
        return total
