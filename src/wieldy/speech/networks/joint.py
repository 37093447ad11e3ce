"""Joint network of a transducer: what it heard and what it said so far make scores for what comes next.

With f and g the projected outputs of encoder and predictor, row by row,

    h = W act(f + g) + b                                        head "rnnt": logits, softmax over blank and labels
    log P(blank) = log sigmoid(h_0)                             head "hat": whether to go on, and with which label,
    log P(k) = log sigmoid(-h_0) + log_softmax(h_1 ..)_k        are separate decisions

Alex Graves 2012, arXiv 1211.3711; Ehsan Variani et al. 2020, Hybrid autoregressive transducer (HAT), arXiv 2003.07705.
HAT's log-probabilities are logits too: a softmax leaves them as they are, so losses and searches need not know.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Head = Literal["rnnt", "hat"]
Activation = Literal["tanh", "relu"]


class Joint(nn.Module):
    def __init__(self, size: int, vocabulary: int, *, head: Head = "rnnt", activation: Activation = "tanh") -> None:
        super().__init__()
        self.head, self.activation = head, activation
        self.output = nn.Linear(size, vocabulary)

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        """Logits [..., V] of rows `f` and `g` [..., J] of equal shape, or that broadcast."""
        total = f + g
        h: Tensor = self.output(total.tanh() if self.activation == "tanh" else total.relu())
        if self.head == "rnnt":
            return h
        blank, labels = h[..., :1], h[..., 1:]
        return torch.cat([functional.logsigmoid(blank), functional.logsigmoid(-blank) + labels.log_softmax(-1)], dim=-1)
