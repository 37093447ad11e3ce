"""Start a network from the weights of another that was trained before: a front end, some layers, all of it.

For an encoder that was first taught frames, CTC or another task, or the parts that two encoders share. What does not
fit stays as it is and is listed, since a start that silently took nothing is a start from random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from wieldy.errors import InputError
from wieldy.report import Metric, Report, Table
from wieldy.weights.tensors import load_safetensors


@torch.no_grad()
def start_from_(
    network: nn.Module, trained: Mapping[str, Tensor] | Path | str, *, source: str = "", target: str = ""
) -> Report:
    """Copy into `network` the tensors of `trained` (a state dictionary, or a safetensors file) that have the same name
    and shape, and say which.

    `source` and `target` are what the names begin with in either: with source "encoder.front." and target "front." only
    these are taken. Raises `InputError` where not one fits.
    """
    weights = trained if isinstance(trained, Mapping) else load_safetensors(Path(trained))
    given = {target + name.removeprefix(source): value for name, value in weights.items() if name.startswith(source)}
    own = {name: value for name, value in network.state_dict().items() if name.startswith(target)}
    fitting = [name for name in own if name in given and own[name].shape == given[name].shape]
    if not fitting:
        raise InputError(
            f"none of {len(given)} tensors fits one of {len(own)}",
            hint="say by source and target what their names begin with: "
            f"{next(iter(weights), 'nothing')!r}, {next(iter(network.state_dict()), 'nothing')!r}",
        )
    rows = []
    for name in sorted({*own, *given}):
        if name in fitting:
            own[name].copy_(given[name])
        elif name not in given:
            rows.append((name, "as it was: not in what was trained"))
        elif name not in own:
            rows.append((name, "not used: not in the network"))
        else:
            rows.append((name, f"as it was: {tuple(own[name].shape)}, trained {tuple(given[name].shape)}"))
    count = sum(own[name].numel() for name in fitting)
    return Report(
        title="started from trained weights",
        metrics=(
            Metric.of("tensors taken", len(fitting), count=len(own)),
            Metric.of(
                "weights taken", 100 * count / sum(value.numel() for value in network.state_dict().values()), "%"
            ),
        ),
        tables=(Table("Not taken", ("tensor", "why"), tuple(rows)),),
    )
