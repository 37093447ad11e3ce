"""Self-attention in which each block of frames sees a window of its neighbours, never the square of all frames.

`windowed` views keys and values as overlapping windows, one per block of queries, so that time and memory grow with
frames times window. `RelativeAttention` is the layer on top, with positions relative to the query.

Zihang Dai et al. 2019, Transformer-XL: attentive language models beyond a fixed-length context, arXiv 1901.02860: with
content bias u and position bias w, R_d = W_r r_d for sinusoids r_d of distance d = i - j,

    score(i, j) = ((q_i + u) k_j + (q_i + w) R_i-j) / sqrt(d_head)

Notation: B utterances, H heads, N blocks, Q queries in a block, W keys in its window, E features of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def windowed(x: Tensor, window: int, stride: int) -> Tensor:
    """Views of x [B, H, T, E], one every `stride` frames: [B, N, H, window, E]."""
    return x.unfold(2, window, stride).permute(0, 2, 1, 4, 3)


class RelativeAttention(nn.Module):
    """Multi-head attention from blocks of queries to windows of keys. Without `relative`, positions do not count."""

    def __init__(self, size: int, heads: int, relative: bool) -> None:
        super().__init__()
        self.heads, self.head_size, self.relative = heads, size // heads, relative
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)  # together: one product
        self.output = nn.Linear(size, size)
        if relative:
            self.position = nn.Linear(size, size, bias=False)
            self.content_bias = nn.Parameter(torch.zeros(heads, 1, self.head_size))
            self.position_bias = nn.Parameter(torch.zeros(heads, 1, self.head_size))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, T, E] of frames x [B, T, D]."""
        key, value = self.key_value(x).chunk(2, dim=2)
        return self._of_heads(key), self._of_heads(value)

    def positions(self, queries: int, keys: int, left: int) -> Tensor:
        """R [H, E, queries + keys - 1] of all distances from a query back to a key, the largest first, for keys that
        begin `left` frames before the first query."""
        size = self.query.in_features
        distance = torch.arange(queries - 1 + left, left - keys, -1, dtype=torch.float64)
        angle = distance[:, None] * 10000 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        sinusoids = torch.cat([angle.sin(), angle.cos()], dim=1)[:, :size].to(self.position.weight)
        r: Tensor = self.position(sinusoids).view(-1, self.heads, self.head_size)
        return r.permute(1, 2, 0)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, visible: Tensor, r: Tensor | None) -> Tensor:
        """Outputs [B, N, Q, D] for queries from x [B, N, Q, D] and windows of keys and values [B, N, H, W, E]; `r` are
        their `positions`, if they are relative. `visible` is a mask [B, N, Q or 1, W]; for a query that sees nothing,
        values count as 0 (torch's own softmax sees to that), and nothing becomes NaN."""
        batch, blocks, queries, size = x.shape
        q = self._of_heads(self.query(x).flatten(0, 1))
        k, v = keys.flatten(0, 1), values.flatten(0, 1)
        mask = visible.flatten(0, 1)[:, None]
        if r is not None:
            bias = shifted((q + self.position_bias) @ r)[..., : k.shape[2]] / math.sqrt(q.shape[3])
            mask = bias.masked_fill(~mask, -torch.inf)
            q = q + self.content_bias
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        output: Tensor = self.output(y.transpose(1, 2).reshape(batch, blocks, queries, size))
        return output

    def _of_heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_size).transpose(1, 2)


def shifted(x: Tensor) -> Tensor:
    """y[.., p, j] = x[.., p, j + Q - 1 - p] of x [.., Q, K]; where that lies beyond K, something else."""
    *rest, queries, distances = x.shape
    x = functional.pad(x, (1, 0)).view(*rest, distances + 1, queries)
    return x[..., 1:, :].reshape(*rest, queries, distances)
