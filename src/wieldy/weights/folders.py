"""What a local model folder holds, told by its content, before anything tries to load it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from wieldy.errors import InputError
from wieldy.weights.ctranslate2_format import is_ctranslate2
from wieldy.weights.tensors import check_safetensors, is_pickle

ModelFormat = Literal["ctranslate2", "transformers"]
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})


def model_format(folder: Path | str) -> ModelFormat:
    """`ctranslate2` for `model.bin` with its header, `transformers` for `config.json` with valid safetensors.

    Raises `InputError` that says what was found instead; pickled weights alone are refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a model folder", hint="give the folder that holds config.json")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if is_ctranslate2(folder / "model.bin"):
        return "ctranslate2"
    weights = [path for path in files if path.suffix == ".safetensors"]
    if (folder / "config.json").is_file() and weights:
        _check_shards(folder)
        for path in weights:
            check_safetensors(path)
        return "transformers"
    pickles = [path.name for path in files if path.suffix in _PICKLE_SUFFIXES and is_pickle(path)]
    if pickles:
        raise InputError(
            f"{folder} holds only pickled weights ({', '.join(pickles)}), which can run code when they are read",
            hint="convert them to safetensors where you trust them",
        )
    raise InputError(
        f"{folder} is no model folder: it holds {_some(path.name for path in files)}",
        hint="wieldy reads CTranslate2 folders (model.bin) and transformers folders (config.json and *.safetensors)",
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; `InputError` when the file is missing or is something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds a JSON {type(data).__name__}, not an object")
    return data


def _check_shards(folder: Path) -> None:
    """The index of split weights names files; they must be files of this folder."""
    for index in folder.glob("*.safetensors.index.json"):
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise InputError(f"{index} has no weight_map")
        for shard in sorted({str(name) for name in shards.values()}):
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise InputError(f"{index} names {shard!r}, which is no file of that folder")


def _some(names: Iterable[str], most: int = 8) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more if listed else "no files"
