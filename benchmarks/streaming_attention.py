"""Attention in chunks against the same with a dense mask, and a minute of sound through a streaming encoder.

Both get the same queries, keys and values and see the same: each chunk itself and 64 frames before it. One looks at
windows, the other at all frames with a mask of T x T. Every run is a fresh process that has warmed up on few frames;
memory is what its peak grew by. The stream is the default encoder, 16 frames of 40 ms at a time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.arms import CORES, Observation, observe
from benchmarks.result import BenchmarkResult, shut
from wieldy.claims.result import Condition
from wieldy.devices import memory
from wieldy.report import Metric

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "attention in chunks against a dense mask: at most 0.4x the time, 0.15x the memory; a stream at equal cost"
BAR = 0.4
PACKAGES = ("numpy", "torch")
DATA = "normal frames and weights from one seed"

MAX_MEMORY = 0.15
MAX_GROWTH = 1.2  # time of a step at the end of a minute over that at its beginning
MAX_OF_OFFLINE = 1.3  # time of all steps over that of the whole at once
MAX_RTF = 0.05
MAX_DIFFERENCE = 1e-5
FRAMES, CHUNK, LEFT, SIZE, HEADS = 3000, 16, 64, 144, 4
SECONDS, FRAME_S, FEATURES = 60, 0.04, 320


def ours(outputs: Path) -> Observation:
    """Every chunk with its window."""
    return _attention(outputs / "ours.npy", dense=False)


def dense(outputs: Path) -> Observation:
    """All frames at once, with a mask."""
    return _attention(outputs / "dense.npy", dense=True)


def stream(outputs: Path) -> Observation:
    """A minute in steps, and at once: seconds of both, of the steps of the first and the last tenth, and how far the
    outputs are apart."""
    del outputs
    import torch

    from wieldy.speech.networks.streaming_config import StreamingConfig
    from wieldy.speech.networks.streaming_transformer import StreamingEncoder

    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    encoder = StreamingEncoder(FEATURES, StreamingConfig(chunk=CHUNK, left=LEFT)).eval()
    frames = round(SECONDS / FRAME_S) // CHUNK * CHUNK
    x, lens = torch.randn(1, frames, FEATURES), torch.tensor([frames])
    steps, state, parts = [], encoder.init_state(1), []
    with torch.inference_mode():
        encoder(x, lens)
        for chunk in x[:, : 8 * CHUNK].split(CHUNK, dim=1):
            _, state = encoder.step(chunk, state)
        state = encoder.init_state(1)
        for chunk in x.split(CHUNK, dim=1):
            began = time.perf_counter()
            y, state = encoder.step(chunk, state)
            steps.append(time.perf_counter() - began)
            parts.append(y)
        began = time.perf_counter()
        whole, _ = encoder(x, lens)
        offline = time.perf_counter() - began
    tenth = len(steps) // 10
    early, late = statistics.median(steps[:tenth]), statistics.median(steps[-tenth:])
    apart = float((torch.cat(parts, dim=1) - whole).abs().max())
    return Observation(sum(steps), {"offline": offline, "early": early, "late": late, "apart": apart})


ARMS = {"ours": ours, "dense": dense, "stream": stream}


def run(runs: int) -> BenchmarkResult:
    """Gate on equal outputs, then `runs` rounds of all arms."""
    import numpy as np

    bar = Condition(
        f"time over that of a dense mask, T = {FRAMES}, chunk {CHUNK}, left {LEFT}", None, "<=", BAR, "not measured yet"
    )
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        for arm in ("ours", "dense"):
            observe("streaming_attention", arm, outputs)
        one, other = (np.load(outputs / f"{arm}.npy") for arm in ("ours", "dense"))
        gates = (
            Condition("outputs in chunks against a dense mask", float(np.abs(one - other).max()), "<=", MAX_DIFFERENCE),
            Condition(
                "outputs of steps against the whole",
                observe("streaming_attention", "stream", outputs).output["apart"],
                "<=",
                MAX_DIFFERENCE,
            ),
        )
        if any(gate.verdict != "holds" for gate in gates):
            return shut("streaming_attention", SUMMARY, bar, gates, data=(DATA,))
        rounds = [{arm: observe("streaming_attention", arm, outputs) for arm in ARMS} for _ in range(runs)]
    seconds = {arm: Metric(arm, tuple(observed[arm].seconds for observed in rounds), "s") for arm in ARMS}
    extra = {
        arm: Metric(f"memory, {arm}", tuple(observed[arm].output / 2**20 for observed in rounds), "MiB")
        for arm in ("ours", "dense")
    }
    steps = [observed["stream"] for observed in rounds]
    growth = Metric("last steps over first", tuple(one.output["late"] / one.output["early"] for one in steps))
    of_offline = Metric("all steps over the whole at once", tuple(one.seconds / one.output["offline"] for one in steps))
    factor = Metric("real-time factor of steps", tuple(one.seconds / SECONDS for one in steps))
    ratio = seconds["ours"].median / seconds["dense"].median
    memories = extra["ours"].median / extra["dense"].median
    return BenchmarkResult(
        name="streaming_attention",
        summary=SUMMARY,
        bar=Condition(bar.statement, ratio, "<=", BAR),
        gates=gates,
        further=(
            Condition("memory over that of a dense mask", memories, "<=", MAX_MEMORY),
            Condition("time of a step at the end of a minute over the beginning", growth.median, "<=", MAX_GROWTH),
            Condition("time of all steps over the whole at once", of_offline.median, "<=", MAX_OF_OFFLINE),
            Condition("real-time factor of steps", factor.median, "<=", MAX_RTF),
        ),
        ours=seconds["ours"],
        peer=seconds["dense"],
        beside=(*extra.values(), growth, of_offline, factor),
        data=(DATA,),
        notes=(
            f"attention of {SIZE} features and {HEADS} heads, without its linear layers",
            f"encoder of 6 layers of this size; float32, {CORES} threads",
        ),
    )


def _attention(output: Path, *, dense: bool) -> Observation:
    """The attention of all frames once: the output has the bytes that the peak grew by."""
    import numpy as np
    import torch
    from torch import nn

    from wieldy.speech.networks.windowed_attention import RelativeAttention

    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    layer = RelativeAttention(SIZE, HEADS, relative=False).eval()
    # Its linear layers are the same in both, and not what is compared.
    layer.query = layer.output = nn.Identity()  # type: ignore[assignment]
    x = torch.randn(1, FRAMES, SIZE)
    with torch.inference_mode():
        keys_values = layer.keys_values(x)
        _seen(layer, x[:, : 4 * CHUNK], [part[:, :, : 4 * CHUNK] for part in keys_values], dense=dense)
        before, began = memory.peak(), time.perf_counter()
        y = _seen(layer, x, keys_values, dense=dense)
        seconds, extra = time.perf_counter() - began, memory.peak() - before
    np.save(output, y.numpy())
    return Observation(seconds, extra)


def _seen(layer: object, x: Tensor, keys_values: Sequence[Tensor], *, dense: bool) -> Tensor:
    """Outputs [1, T, D] of frames x [1, T, D] with keys and values [1, H, T, E]; each sees its chunk and what is before
    it."""
    import torch
    from torch.nn import functional

    from wieldy.speech.networks.windowed_attention import RelativeAttention, windowed

    assert isinstance(layer, RelativeAttention)
    frames = x.shape[1]
    if dense:
        keys, values = keys_values
        t = torch.arange(frames)
        begin = t[:, None] // CHUNK * CHUNK
        visible = (t >= begin - LEFT) & (t < begin + CHUNK)
        y: Tensor = layer(x[:, None], keys[:, None], values[:, None], visible[None, None], None)
        return y.flatten(1, 2)
    chunks = -(-frames // CHUNK)
    x = functional.pad(x, (0, 0, 0, chunks * CHUNK - frames))
    windows = [
        windowed(functional.pad(part, (0, 0, LEFT, chunks * CHUNK - frames)), LEFT + CHUNK, CHUNK)
        for part in keys_values
    ]
    known = torch.arange(-LEFT, chunks * CHUNK)
    visible = ((known >= 0) & (known < frames)).unfold(0, LEFT + CHUNK, CHUNK)[None, :, None]
    y = layer(x.view(1, chunks, CHUNK, -1), *windows, visible, None)
    return y.flatten(1, 2)[:, :frames]
