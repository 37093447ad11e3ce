"""How hypotheses came about: chains of emitted tokens that share their beginnings, and rows of tensors they share.

Searches carry an index per hypothesis instead of lists and states, so that keeping one copies nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wieldy.speech.decode import State, TokenFeatures

FEATURES = tuple(field.name for field in dataclasses.fields(TokenFeatures))
_BLANK_AFTER, _GAP, _ACTIVE = (FEATURES.index(name) for name in ("blank_after", "gap", "active"))
FEWEST = 1024  # links before any are forgotten: some hundred tokens


class Links:
    """One link per token that some alignment emitted; each knows the link before it. Link 0 is before all tokens."""

    def __init__(self, device: torch.device) -> None:
        self._ints = torch.zeros(FEWEST, 3, dtype=torch.int64, device=device)  # previous link, token, frame
        self._features = torch.zeros(FEWEST, len(FEATURES), device=device)
        self._ints[0, 2] = -2  # before any frame there is, and the one before that
        self._count, self._limit = 1, FEWEST

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        previous: Tensor,
        token: Tensor,
        frame: Tensor,
        *,
        log_p: Tensor,
        chosen: Tensor,
        blank_before: Tensor,
        blank: Tensor,
        blank_after: Tensor | None = None,
    ) -> Tensor:
        """The links [m] of tokens [m] emitted at nodes with log-probabilities `log_p` [m, V], -inf for the blank.

        `chosen` is the token's, `blank` the blank's at the same node, `blank_after` that of the node behind.
        """
        first, last = self._count, self._count + token.shape[0]
        while last > self._ints.shape[0]:
            self._ints = torch.cat([self._ints, torch.zeros_like(self._ints)])
            self._features = torch.cat([self._features, torch.zeros_like(self._features)])
        self._ints[first:last] = torch.stack([previous, token, frame], dim=1)
        others = log_p.scatter(1, token[:, None], -torch.inf)
        entropy = torch.special.entr(log_p.exp()).sum(1) + torch.special.entr(blank.exp())
        features = {
            "log_prob": chosen,
            "entropy": entropy,
            "margin": chosen - others.amax(1),
            "blank_before": blank_before,
            "blank_after": torch.zeros_like(blank) if blank_after is None else blank_after,
            "gap": torch.full_like(blank, torch.inf),
            "active": torch.ones_like(blank),
        }
        self._features[first:last] = torch.stack([features[name].float() for name in FEATURES], dim=1)
        self._count = last
        return torch.arange(first, last, device=token.device)

    def frame(self, link: Tensor) -> Tensor:
        return self._ints[link, 2]

    def set_blank_after(self, link: Tensor, blank: Tensor) -> None:
        self._features[link, _BLANK_AFTER] = blank.float()

    def set_beam(self, first: int, gap: Tensor, active: Tensor) -> None:
        """What the beam looked like after the frame on which the links from `first` on were made."""
        links = slice(first, self._count)
        self._features[links, _GAP], self._features[links, _ACTIVE] = gap.float(), active.float()

    def trace(self, link: int) -> tuple[tuple[int, ...], tuple[int, ...], TokenFeatures]:
        """Tokens, frames and features of the chain that ends in `link`."""
        path = []
        ints = self._ints.cpu().numpy()
        while link:
            path.append(link)
            link = int(ints[link, 0])
        path.reverse()
        columns = self._features[path].cpu().numpy().T
        features = TokenFeatures(**dict(zip(FEATURES, np.ascontiguousarray(columns), strict=True)))
        return tuple(ints[path, 1].tolist()), tuple(ints[path, 2].tolist()), features

    def collected(self, live: Tensor) -> Tensor:
        """The links `live` under the names they have after others were forgotten; rarely, so that it costs little."""
        if self._count < self._limit:
            return live
        wanted = torch.zeros(self._count, dtype=torch.bool, device=live.device)
        step = live.flatten()
        while len(step):
            wanted[step] = True
            step = self._ints[step, 0]
            step = step[~wanted[step]]
        wanted[0] = True
        kept = wanted.nonzero()[:, 0]
        renamed = wanted.cumsum(0) - 1
        count = len(kept)
        self._ints[:count], self._features[:count] = self._ints[kept], self._features[kept]
        self._ints[:count, 0] = renamed[self._ints[:count, 0]]
        self._count, self._limit = count, max(FEWEST, 2 * count)
        return renamed[live]


class Rows:
    """Rows of the tensors in `content`, handed out by number. A row that nobody names any more is used again."""

    def __init__(self, content: State) -> None:
        self.content = _mapped(torch.clone, content)

    def __len__(self) -> int:
        return _rows(self.content)

    def put(self, content: State, in_use: Tensor) -> Tensor:
        """The numbers [m] of the rows that hold `content` [m, ...] from now on; rows `in_use` stay as they are."""
        wanted = _rows(content)
        free = torch.ones(len(self), dtype=torch.bool, device=in_use.device)
        free[in_use] = False
        rows = free.nonzero()[:wanted, 0]
        if (missing := wanted - rows.shape[0]) > 0:
            first = len(self)
            more = max(missing, first)
            self.content = _mapped(lambda old: torch.cat([old, old.new_zeros(more, *old.shape[1:])]), self.content)
            rows = torch.cat([rows, torch.arange(first, first + missing, device=rows.device)])
        self.set(rows, content)
        return rows

    def set(self, rows: Tensor, content: State) -> None:
        _mapped(lambda old, new: old.index_copy_(0, rows, new), self.content, content)


def _mapped(change: Callable[..., Any], *states: State) -> State:
    """`change` of corresponding tensors of states with the same structure."""
    first = states[0]
    if isinstance(first, Tensor):
        return change(*states)
    if isinstance(first, dict):
        return {key: _mapped(change, *(state[key] for state in states)) for key in first}
    return tuple(_mapped(change, *parts) for parts in zip(*states, strict=True))


def _rows(state: State) -> int:
    """How many hypotheses a state is of."""
    while not isinstance(state, Tensor):
        state = next(iter(state.values() if isinstance(state, dict) else state))
    return state.shape[0]
