"""From features to the vectors that a Transformer works on, at fewer frames a second, whole or in pieces of a stream.

`StackFrontEnd` joins neighbouring frames and is the cheap one; `VggFrontEnd` convolves over time and frequency, which
also tells the layers above where in time they are. Both give output frame t for input frames t * subsampling and on.

VGG blocks before a Transformer: Abdelrahman Mohamed et al. 2019, Transformers with convolutional context for ASR, arXiv
1904.11660. Notation: B utterances, t frames, F features, D output features, C channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import UsageError
from wieldy.speech.networks.encoder import State, zeroed
from wieldy.speech.networks.lstm import FrameStack


class StackFrontEnd(nn.Module):
    """A linear layer on `subsampling` joined frames."""

    look_ahead = look_back = 0

    def __init__(self, input_dim: int, output_dim: int, subsampling: int) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.stack = FrameStack(subsampling)
        self.linear = nn.Linear(input_dim * subsampling, output_dim)

    def start(self, batch: int, device: torch.device) -> State:
        return {"stack": self.linear.weight.new_zeros(batch, 0, self.input_dim, device=device)}

    def forward(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:  # noqa: ARG002
        x, rest = self.stack(x, state["stack"], final)
        return self.linear(x), {"stack": rest}


class VggFrontEnd(nn.Module):
    """Two blocks of two 3 x 3 convolutions, each with a rectifier, and a maximum over 2 x 2 (time x frequency), the
    second block's over 1 x 2 for a subsampling of 2; then a linear layer.

    With `centred`, each convolution sees one frame back and one ahead, else two back. `planes` equal parts of a frame
    (earlier frames that were joined to it) are the channels of the input.
    """

    def __init__(
        self, input_dim: int, output_dim: int, subsampling: int, channels: tuple[int, int], planes: int, centred: bool
    ) -> None:
        super().__init__()
        if input_dim % planes or input_dim // planes < 4:
            raise UsageError(
                f"{input_dim} features in {planes} planes", hint="each plane has equally many features, 4 or more"
            )
        self.planes = planes
        self.pools = (2, subsampling // 2)
        first, second = channels
        self.channels = (planes, first, first, second, second)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(entering, leaving, 3, padding=(0, 1)) for entering, leaving in pairwise(self.channels)
        )
        bands = input_dim // planes
        self.bands = (bands, bands, bands // 2, bands // 2)
        self.linear = nn.Linear(second * (bands // 4), output_dim)
        self.ahead = int(centred)
        # Two convolutions at the input's frames, two at every second.
        self.look_ahead, self.look_back = 6 * self.ahead, 6 * (2 - self.ahead)

    def start(self, batch: int, device: torch.device) -> State:
        """Per convolution the frames before those to come and the number of the next frame; per pool what is over."""

        def zeros(channels: int, frames: int, bands: int) -> Tensor:
            return self.linear.weight.new_zeros(batch, channels, frames, bands, device=device)

        return {
            "before": [
                zeros(size, 2 - self.ahead, bands) for size, bands in zip(self.channels[:4], self.bands, strict=True)
            ],
            "next": [0] * 4,
            "over": [zeros(self.channels[2], 0, self.bands[1]), zeros(self.channels[4], 0, self.bands[3])],
        }

    def forward(self, x: Tensor, state: State, ends: Tensor, final: bool) -> tuple[Tensor, State]:
        """Outputs [B, t', D] of the frames x [B, t, F], which end at `ends` [B], input frames."""
        after: State = {"before": [], "next": [], "over": []}
        batch, frames, features = x.shape
        h = x.view(batch, frames, self.planes, features // self.planes).transpose(1, 2)
        for index, convolution in enumerate(self.convolutions):
            h = torch.cat([state["before"][index], h], dim=2)
            after["before"].append(h[:, :, max(0, h.shape[2] - 2) :])
            if final:
                h = functional.pad(h, (0, 0, 0, self.ahead))
            first = state["next"][index]
            if h.shape[2] > 2:
                h = zeroed(convolution(h).relu().transpose(1, 2), ends, first).transpose(1, 2)
            else:
                h = h.new_zeros(batch, self.channels[index + 1], 0, h.shape[3])
            after["next"].append(first + h.shape[2])
            if index % 2:
                block = index // 2
                h, over = self._pool(torch.cat([state["over"][block], h], dim=2), self.pools[block], final)
                after["over"].append(over)
                ends = torch.div(ends + self.pools[block] - 1, self.pools[block], rounding_mode="floor")
        return self.linear(h.transpose(1, 2).flatten(2)), after

    @staticmethod
    def _pool(h: Tensor, factor: int, final: bool) -> tuple[Tensor, Tensor]:
        if final:
            h = functional.pad(h, (0, 0, 0, -h.shape[2] % factor))  # zero is the least a rectifier gives
        whole = h.shape[2] // factor * factor
        h, over = h[:, :, :whole], h[:, :, whole:]
        if not whole:
            return h[..., : h.shape[3] // 2], over
        return functional.max_pool2d(h, (factor, 2)), over
