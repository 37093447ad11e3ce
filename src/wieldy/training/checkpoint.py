"""Everything a run needs to go on exactly where it was, in one safetensors file that is whole or absent.

Tensors are named `model.NAME` and `optimizer.INDEX.NAME`; the rest is JSON in the file's header. No pickle: a
checkpoint from somewhere else cannot run code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from wieldy.cache import replacing
from wieldy.errors import InputError
from wieldy.weights.tensors import check_safetensors

_FORMAT = "wieldy-training-1"


def save(path: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Write the state of a run. `progress` is what JSON can hold."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    held = optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, state in held["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    header = {
        "format": _FORMAT,
        "progress": json.dumps(progress),
        "optimizer": json.dumps({"groups": held["param_groups"], "numbers": numbers}),
    }
    with replacing(path) as temporary:
        save_file(_storable(tensors), temporary, header)


def load(path: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Put the state of a run back and return its `progress`. `InputError` where it is of another model."""
    check_safetensors(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if header.get("format") != _FORMAT:
            raise InputError(f"{path} is not a checkpoint of a training run")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    restore(model, weights, path)
    stored = json.loads(header["optimizer"])
    state: dict[int, dict[str, Any]] = {int(index): dict(rest) for index, rest in stored["numbers"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, part = name.split(".", 2)
            state.setdefault(int(index), {})[part] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": stored["groups"]})
    progress: dict[str, Any] = json.loads(header["progress"])
    return progress


def save_weights(path: Path, model: nn.Module) -> None:
    """The weights alone, by the names of the state dict."""
    with replacing(path) as temporary:
        save_file(_storable(model.state_dict()), temporary)


def restore(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Put `weights` into `model`; `InputError` names the first that do not match."""
    own = model.state_dict()
    strange = [f"{name} is missing" for name in own if name not in weights]
    strange += [f"{name} is not one of the model's" for name in weights if name not in own]
    strange += [
        f"{name} is {tuple(weights[name].shape)} and not {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if strange:
        raise InputError(f"{source} holds another model: {'; '.join(strange[:3])}")
    model.load_state_dict(weights)


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU: tensors that share memory, as tied weights do, cannot be stored as they are."""
    seen: set[int] = set()
    storable = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu", memory_format=torch.contiguous_format)
        storable[name] = tensor.clone() if tensor.data_ptr() in seen or not tensor.is_contiguous() else tensor
        seen.add(tensor.data_ptr())
    return storable
