"""Transformer encoder for streams: look-ahead by mask, by chunk or with a Transformer-XL memory, exact in any pieces.

Take it where a little latency may be spent and LSTMs have stopped improving; on a single slow core, `lstm` is cheaper.

Liang Lu et al. 2020, Exploring transformers for large-scale speech recognition, arXiv 2005.09684; memory after Zihang
Dai et al. 2019, Transformer-XL, arXiv 1901.02860; the optional convolution after Anmol Gulati et al. 2020, Conformer,
arXiv 2005.08100, looking back only and with a layer norm for the batch norm, which a stream does not have.
Initialisation `depth` after Biao Zhang et al. 2019, arXiv 1908.11365, `fixup` after Hongyi Zhang et al. 2019, arXiv
1901.09321.

A layer adds attention, convolution and feed-forward F to x, with a norm LN where the configuration says:

    pre: x + F(LN x)      post: LN(x + F x)      sandwich: x + LN F(LN x)

Notation: B utterances, N chunks, c frames in a chunk, r more that it sees, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import UsageError
from wieldy.speech.latency import AlgorithmicLatency
from wieldy.speech.networks.encoder import RUNNING, Encoder, State, within
from wieldy.speech.networks.front_ends import StackFrontEnd, VggFrontEnd
from wieldy.speech.networks.streaming_config import StreamingConfig
from wieldy.speech.networks.windowed_attention import RelativeAttention, windowed


class StreamingEncoder(Encoder):
    """Mode xl can be trained piece by piece of a stream: what the layers remember carries no gradient."""

    def __init__(self, input_dim: int, config: StreamingConfig = StreamingConfig()) -> None:
        super().__init__()
        self.config, self.input_dim = config, input_dim
        self.output_dim, self.subsampling = config.size, config.subsampling
        self.front: StackFrontEnd | VggFrontEnd
        if config.front == "stack":
            self.front = StackFrontEnd(input_dim, config.size, config.subsampling)
        else:
            vgg = config.channels, config.planes, config.centred
            self.front = VggFrontEnd(input_dim, config.size, config.subsampling, *vgg)
        self.layers = nn.ModuleList(StreamingLayer(config, index) for index in range(config.layers))
        self.norm = nn.LayerNorm(config.size) if config.norm in ("pre", "sandwich") else nn.Identity()
        self._initialise()

    def latency(self) -> AlgorithmicLatency:
        return self.config.latency()

    def reset(self, state: State, rows: Tensor, *, utterances: Sequence[str] = ()) -> State:
        """`state` with a new utterance from the next frame on in each of `rows`, a mask [B]: its memory is forgotten.

        For training on consecutive pieces of many utterances, where they end at different times. `UsageError` inside a
        chunk, and where frames beyond a chunk are awaited.
        """
        config, inner = self.config, state["inner"]
        if config.mode not in ("chunk", "xl") or config.right or config.front_look_ahead:
            raise UsageError(
                f"a reset in mode {config.mode}", hint="take chunk or xl, without look-ahead beyond chunks"
            )
        whole = config.chunk * config.subsampling
        if state["seen"] % whole:
            raise UsageError(f"a reset after {state['seen']} frames", hint=f"feed whole chunks, {whole} frames each")
        keep = (~rows).to(inner["waiting"].dtype)

        def cleared(x: Tensor) -> Tensor:
            return x * keep.view(-1, *[1] * (x.dim() - 1))

        front = dict(inner["front"])
        if config.front == "vgg":
            front["before"] = [cleared(x) for x in front["before"]]
        layers = [{**own, "before": cleared(own["before"])} for own in inner["layers"]]
        starts = inner["starts"].masked_fill(rows, inner["first"])
        ends = state["ends"].masked_fill(rows, RUNNING)
        inner = {**inner, "front": front, "layers": layers, "starts": starts}
        return {**state, "utterances": tuple(utterances), "ends": ends, "inner": inner}

    def _start(self, batch: int, device: torch.device) -> State:
        return {
            "front": self.front.start(batch, device),
            "layers": [layer.start(batch, device) for layer in self.layers],  # type: ignore[operator]
            "waiting": self._zeros(batch, 0, self.config.size, device=device),
            "first": 0,
            "starts": torch.zeros(batch, dtype=torch.int64, device=device),
        }

    def _step(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:
        x, front = self.front(x, state["front"], ends, final)
        after = {**state, "front": front, "layers": []}
        stream = self._by_frame if self.config.mode == "mask" else self._by_chunk
        y = stream(x, state, after, self.output_lens(ends), final)
        return self.norm(y), after

    def _by_frame(self, x: Tensor, state: State, after: State, ends: Tensor, final: bool) -> Tensor:
        for layer, own in zip(self.layers, state["layers"], strict=True):
            x, own = layer.by_frame(x, own, ends, final)  # type: ignore[operator]
            after["layers"].append(own)
        return x

    def _by_chunk(self, x: Tensor, state: State, after: State, ends: Tensor, final: bool) -> Tensor:
        config, first = self.config, state["first"]
        x = torch.cat([state["waiting"], x], dim=1)
        frames = x.shape[1]
        left, chunk, right = config.of_layer("left", 0), config.chunk, config.of_layer("right", 0)
        if config.mode == "full":
            left, chunk, right = 0, max(1, frames), 0
        if final:
            chunks = -(-frames // chunk)
            x = functional.pad(x, (0, 0, 0, max(0, chunks * chunk + right - frames)))
        else:
            chunks = max(0, (frames - right) // chunk) if config.mode != "full" else 0
        after["waiting"], after["first"] = x[:, chunks * chunk :], first + chunks * chunk
        if not chunks:
            after["layers"] = state["layers"]
            return x[:, :0]
        width = left + chunk + right
        known = within(ends, first - left, left + chunks * chunk + right)
        known &= ~within(state["starts"], first - left, known.shape[1])
        visible = known.unfold(1, width, chunk)[:, :, None]
        x = x[:, : chunks * chunk + right].unfold(1, chunk + right, chunk).transpose(2, 3)
        for layer, own in zip(self.layers, state["layers"], strict=True):
            x, own = layer.by_chunk(x, own, chunk, visible)  # type: ignore[operator]
            after["layers"].append(own)
        return x[:, :, :chunk].flatten(1, 2)[:, :frames] if final else x[:, :, :chunk].flatten(1, 2)

    @torch.no_grad()
    def _initialise(self) -> None:
        init = self.config.init
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, RelativeAttention) and module.relative:
                nn.init.normal_(module.content_bias, std=0.02)
                nn.init.normal_(module.position_bias, std=0.02)
        for index, layer in enumerate(self.layers):
            factors = {"scaled": (2 * len(self.layers)) ** -0.5, "depth": (2 * (index + 1)) ** -0.5, "fixup": 0.0}
            for linear in layer.last_linears():  # type: ignore[operator]
                linear.weight *= factors.get(init, 1.0)


class Residual(nn.Module):
    """Where the norms of one branch are, and its dropout."""

    def __init__(self, config: StreamingConfig) -> None:
        super().__init__()
        self.post = config.norm == "post"
        self.first = nn.LayerNorm(config.size)
        self.second = nn.LayerNorm(config.size) if config.norm == "sandwich" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def enter(self, x: Tensor) -> Tensor:
        normed: Tensor = x if self.post else self.first(x)
        return normed

    def leave(self, x: Tensor, branch: Tensor) -> Tensor:
        total: Tensor = x + self.dropout(self.second(branch))
        return self.first(total) if self.post else total


class StreamingLayer(nn.Module):
    def __init__(self, config: StreamingConfig, index: int) -> None:
        super().__init__()
        self.left, self.right = config.of_layer("left", index), config.of_layer("right", index)
        if config.mode == "full":
            self.left = self.right = 0
        self.size, self.memory = config.size, config.mode == "xl"
        self.attention_residual = Residual(config)
        self.attention = RelativeAttention(config.size, config.heads, config.positions == "relative")
        self.convolution: BackwardConvolution | None = None
        if config.convolution:
            self.convolution_residual = Residual(config)
            self.convolution = BackwardConvolution(config.size, config.convolution)
        self.feed_forward_residual = Residual(config)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.size, config.feed_forward),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feed_forward, config.size),
        )

    def last_linears(self) -> list[nn.Linear]:
        """Those whose output is added to x."""
        convolution = [self.convolution.leave] if self.convolution else []
        last = self.feed_forward[3]
        assert isinstance(last, nn.Linear)
        return [self.attention.output, *convolution, last]

    def start(self, batch: int, device: torch.device) -> State:
        like = self.attention.output.weight
        nothing = like.new_zeros(
            batch, self.attention.heads, self.left, self.size // self.attention.heads, device=device
        )
        back = self.convolution.back if self.convolution else 0
        return {
            "keys": nothing,
            "values": nothing,
            "before": like.new_zeros(batch, back, self.size, device=device),
            "waiting": like.new_zeros(batch, 0, self.size, device=device),
            "first": 0,
            "positions": {},
        }

    def by_chunk(self, x: Tensor, state: State, chunk: int, visible: Tensor) -> tuple[Tensor, State]:
        """x [B, N, c + r, D] to the same shape: N chunks with the r frames that each sees beyond its end. `visible`
        [B, N, 1, left + c + r] says which frames of its window a chunk may look at."""
        chunks, seen, left = x.shape[1], x.shape[2], self.left
        h = self.attention_residual.enter(x)
        main = h[:, :, :chunk].flatten(1, 2)
        # The memory is made of the same frames as the chunks were, without their gradient.
        apart = self.memory and torch.is_grad_enabled() and x.requires_grad
        past = self.attention_residual.enter(x[:, :, :chunk].flatten(1, 2).detach()) if apart else main
        kept, windows = [], []
        own: tuple[Tensor | None, ...] = (None, None)
        if apart or seen > chunk:
            own = self.attention.keys_values(h.flatten(1, 2))
        for part, before, beside in zip(
            self.attention.keys_values(past), (state["keys"], state["values"]), own, strict=True
        ):
            whole = torch.cat([before, part], dim=2)
            kept.append(whole[:, :, whole.shape[2] - left :])
            if beside is None:
                windows.append(windowed(whole, left + chunk, chunk))
            else:
                beside = windowed(beside, seen, seen)
                back = windowed(whole, left, chunk)[:, :chunks] if left else beside[..., :0, :]
                windows.append(torch.cat([back, beside], dim=3))
        r, positions = self._positions(state, seen, left + seen)
        x = self.attention_residual.leave(x, self.attention(h, *windows, visible, r))
        keys, values = (part.detach() for part in kept) if self.memory else kept
        after = {**state, "keys": keys, "values": values, "positions": positions}
        if self.convolution:
            y, before = self.convolution(self.convolution_residual.enter(x), state["before"], chunk)
            x = self.convolution_residual.leave(x, y)
            after["before"] = before.detach() if self.memory else before
        return self._fed_forward(x), after

    def by_frame(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:
        """Outputs [B, t', D] of those frames whose `right` next ones are known now that x [B, t, D] have come."""
        left, right, first = self.left, self.right, state["first"]
        parts = self.attention.keys_values(self.attention_residual.enter(x))
        pairs = zip((state["keys"], state["values"]), parts, strict=True)
        kept = [torch.cat(pair, dim=2) for pair in pairs]
        x = torch.cat([state["waiting"], x], dim=1)
        frames = x.shape[1] if final else max(0, x.shape[1] - right)
        after = {
            **state,
            "keys": kept[0][:, :, frames:],
            "values": kept[1][:, :, frames:],
            "waiting": x[:, frames:],
            "first": first + frames,
        }
        if not frames:
            return x[:, :0], after
        # Blocks as long as the neighbourhood make about twice the work of the least, in few calls.
        block = min(frames, max(16, left + right))
        blocks = -(-frames // block)
        width, covered = left + block + right, blocks * block + left + right
        padded = [functional.pad(part, (0, 0, 0, max(0, covered - part.shape[2]))) for part in kept]
        windows = [windowed(part, width, block)[:, :blocks] for part in padded]
        known = within(ends, first - left, covered)
        known[:, : max(0, left - first)] = False
        offset = torch.arange(width, device=x.device) - torch.arange(block, device=x.device)[:, None]
        visible = known.unfold(1, width, block)[:, :, None] & (offset >= 0) & (offset <= left + right)
        x = x[:, :frames]
        h = self.attention_residual.enter(functional.pad(x, (0, 0, 0, blocks * block - frames)))
        h = h.view(len(x), blocks, block, self.size)
        r, after["positions"] = self._positions(state, block, width)
        y = self.attention(h, *windows, visible, r).flatten(1, 2)[:, :frames]
        x = self.attention_residual.leave(x, y)
        if self.convolution:
            y, after["before"] = self.convolution(self.convolution_residual.enter(x)[:, None], state["before"], frames)
            x = self.convolution_residual.leave(x, y[:, 0])
        return self._fed_forward(x), after

    def _positions(self, state: State, queries: int, keys: int) -> tuple[Tensor | None, dict[int, Tensor]]:
        """R of the attention, and what to remember of it: without gradients the last one, by its length of a block."""
        known: dict[int, Tensor] = state["positions"]
        if not self.attention.relative:
            return None, known
        if torch.is_grad_enabled():
            return self.attention.positions(queries, keys, self.left), {}
        if queries not in known:
            known = {queries: self.attention.positions(queries, keys, self.left)}
        return known[queries], known

    def _fed_forward(self, x: Tensor) -> Tensor:
        residual = self.feed_forward_residual
        return residual.leave(x, self.feed_forward(residual.enter(x)))


class BackwardConvolution(nn.Module):
    """y = W silu(LN(depthwise(h)))  with  h = a sigmoid(b),  (a, b) = V x; sees `frames` frames, the present last."""

    def __init__(self, size: int, frames: int) -> None:
        super().__init__()
        self.back = frames - 1
        self.enter = nn.Linear(size, 2 * size)
        self.depthwise = nn.Conv1d(size, size, frames, groups=size)
        self.norm = nn.LayerNorm(size)
        self.leave = nn.Linear(size, size)

    def forward(self, x: Tensor, before: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """Of x [B, N, c + r, D] after `before`, h [B, back, D] of earlier frames: y, and the h before what follows."""
        h = functional.glu(self.enter(x), dim=-1)
        whole = rows = torch.cat([before, h[:, :, :chunk].flatten(1, 2)], dim=1)
        if x.shape[2] > chunk:
            windows = whole.unfold(1, self.back + chunk, chunk).transpose(2, 3)
            rows = torch.cat([windows, h[:, :, chunk:]], dim=2).flatten(0, 1)
        mixed = self.depthwise(rows.transpose(1, 2)).transpose(1, 2)
        y = self.leave(functional.silu(self.norm(mixed)))
        return y.reshape(x.shape), whole[:, whole.shape[1] - self.back :]
