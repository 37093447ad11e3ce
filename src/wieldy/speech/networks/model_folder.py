"""A network as a folder: `config.json` for its shape, `model.safetensors` for its weights; nothing in it is executed.

A file that names what this version does not know is refused, with the nearest name that it does know.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import nn

from wieldy.cache import replacing, write_text
from wieldy.errors import InputError, UsageError
from wieldy.weights.folders import read_json
from wieldy.weights.tensors import load_safetensors

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

Config = TypeVar("Config")


def as_json(config: Any) -> dict[str, Any]:
    """The fields of a config dataclass, those that are configs too with their `kind`."""
    data: dict[str, Any] = {"kind": config.kind}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        data[field.name] = as_json(value) if dataclasses.is_dataclass(value) else value
    return data


def config_of(data: Any, kinds: Iterable[type[Config]], where: str) -> Config:
    """The config, one of `kinds`, that `data` from a JSON file describes. `where` names the file in errors."""
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {data!r}", hint="it is an object with a kind")
    known: dict[Any, type[Config]] = {getattr(kind, "kind"): kind for kind in kinds}  # noqa: B009
    data = dict(data)
    kind = data.pop("kind", None)
    if not isinstance(kind, str) or kind not in known:
        raise InputError(f"{where} has the kind {kind!r}", hint=f"known are {', '.join(known)}")
    names = [field.name for field in dataclasses.fields(known[kind])]  # type: ignore[arg-type]
    for name in data:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"{kind} has {', '.join(names)}"
            raise InputError(f"{where} has the unknown key {name!r}", hint=hint)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    try:
        return known[kind](**values)
    except (UsageError, TypeError) as error:
        raise InputError(f"{where} is no {kind} configuration: {error}") from error


def save_network(folder: Path | str, config: Any, network: nn.Module) -> None:
    """Write both files; each appears whole or not at all, the weights first."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replacing(folder / WEIGHTS_FILE) as path:
        save_file(tensors, path)
    write_text(folder / CONFIG_FILE, json.dumps(as_json(config), indent=2) + "\n")


def read_config(folder: Path | str) -> tuple[dict[str, Any], str]:
    """What `config.json` holds, and its name for errors."""
    path = Path(folder) / CONFIG_FILE
    return read_json(path), str(path)


def load_weights(folder: Path | str, network: nn.Module) -> None:
    """Fill `network` from `model.safetensors`; `InputError` names the first tensor that does not fit."""
    path = Path(folder) / WEIGHTS_FILE
    tensors, own = load_safetensors(path), network.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors:
            raise InputError(f"{path} lacks {name}", hint=f"{CONFIG_FILE} beside it asks for it")
        if name not in own:
            raise InputError(f"{path} holds {name}", hint=f"{CONFIG_FILE} beside it has no place for it")
        if own[name].shape != tensors[name].shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}",
                hint=f"{CONFIG_FILE} beside it asks for {tuple(own[name].shape)}",
            )
    network.load_state_dict(tensors)
