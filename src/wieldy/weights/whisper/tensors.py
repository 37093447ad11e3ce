"""CTranslate2's Whisper tensors under transformers' names.

CTranslate2 fuses the projections of an attention into `linear_0` (self attention: q, k and v; cross attention: q, with
k and v in `linear_1`), gives k a bias of zero, which transformers' Whisper has not, and calls the scale and the shift
of a layer norm gamma and beta. Tensors that are equal are stored once, the others as aliases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wieldy.errors import InputError
from wieldy.weights.ctranslate2_format import Model, Variable

if TYPE_CHECKING:
    import torch

SPEC, REVISION = "WhisperSpec", 3
FLOATS = ("float32", "float16", "bfloat16")
EMBEDDINGS, PROJECTION = "decoder/embeddings/weight", "decoder/projection/weight"

_LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/(\w+/\w+)/(weight|bias|gamma|beta)", re.ASCII)
_LAYER_PARTS = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_TOP = {
    "encoder/conv1/weight": "model.encoder.conv1.weight",
    "encoder/conv1/bias": "model.encoder.conv1.bias",
    "encoder/conv2/weight": "model.encoder.conv2.weight",
    "encoder/conv2/bias": "model.encoder.conv2.bias",
    "encoder/position_encodings/encodings": "model.encoder.embed_positions.weight",
    "encoder/layer_norm/gamma": "model.encoder.layer_norm.weight",
    "encoder/layer_norm/beta": "model.encoder.layer_norm.bias",
    EMBEDDINGS: "model.decoder.embed_tokens.weight",
    "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
    "decoder/layer_norm/gamma": "model.decoder.layer_norm.weight",
    "decoder/layer_norm/beta": "model.decoder.layer_norm.bias",
    PROJECTION: "proj_out.weight",
}
# Settings that change what is computed, each with the only value transformers' Whisper can follow.
_SETTINGS = {
    "decoder/activation": 3,  # GELU in CTranslate2's list
    "decoder/alibi": 0,
    "decoder/alignment_heads": 1,
    "decoder/alignment_layer": -1,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
_HEADS = {"encoder/num_heads", "decoder/num_heads"}
# Looked at only where `decoder/alibi` is on, which is refused.
_WITHOUT_EFFECT = {"decoder/alibi_use_positive_positions", "decoder/scale_alibi"}
_NO_WEIGHTS = _SETTINGS.keys() | _HEADS | _WITHOUT_EFFECT


def is_tied(model: Model) -> bool:
    """Whether the output projection is the token embedding."""
    return PROJECTION not in model.variables and model.aliases.get(PROJECTION, EMBEDDINGS) == EMBEDDINGS


def config_values(model: Model) -> dict[str, Any]:
    """The fields of `transformers.WhisperConfig` that the tensors decide."""
    if (model.spec, model.revision) != (SPEC, REVISION):
        raise InputError(
            f"the CTranslate2 model is a {model.spec} of revision {model.revision}, not a {SPEC} of revision {REVISION}"
        )
    for name, wanted in _SETTINGS.items():
        if name in model.variables and _scalar(model, name) != wanted:
            raise InputError(f"{name} is {_scalar(model, name)}, transformers' Whisper can follow only {wanted}")
    d_model, mels, _ = _shape(model, "encoder/conv1/weight", 3)
    vocabulary, _ = _shape(model, EMBEDDINGS, 2)
    values = {
        "d_model": d_model,
        "num_mel_bins": mels,
        "vocab_size": vocabulary,
        "max_source_positions": _shape(model, "encoder/position_encodings/encodings", 2)[0],
        "max_target_positions": _shape(model, "decoder/position_encodings/encodings", 2)[0],
        "tie_word_embeddings": is_tied(model),
    }
    for side in ("encoder", "decoder"):
        heads = _scalar(model, f"{side}/num_heads")
        if heads < 1 or d_model % heads:
            raise InputError(f"{side}/num_heads is {heads}, which does not divide the width {d_model}")
        values[f"{side}_layers"] = _layers(model, side)
        values[f"{side}_attention_heads"] = heads
        values[f"{side}_ffn_dim"] = _shape(model, f"{side}/layer_0/ffn/linear_0/weight", 2)[0]
    return values


def state_dict(model: Model) -> dict[str, torch.Tensor]:
    """The weights by transformers' names, each a tensor of its own in the type the file has."""
    tensors: dict[str, torch.Tensor] = {}
    for name, variable in _all_variables(model).items():
        if name in _NO_WEIGHTS or (name == PROJECTION and is_tied(model)):
            continue
        if variable.dtype not in FLOATS:
            raise InputError(
                f"{name} is quantised to {variable.dtype}", hint="convert a model in float16 or float32 instead"
            )
        for ours, values in _renamed(name, variable.values):
            tensors[ours] = _tensor(variable.dtype, values)
    return tensors


def _renamed(name: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if top := _TOP.get(name):
        yield top, values
        return
    found = _LAYER.fullmatch(name)
    parts = _LAYER_PARTS.get(found[3]) if found else None
    if found is None or parts is None:
        raise InputError(f"the variable {name} is no part of a Whisper model that wieldy knows")
    if values.ndim == 0 or len(values) % len(parts):
        raise InputError(f"{name} has the shape {values.shape}, which does not hold {len(parts)} parts")
    for part, rows in zip(parts, np.split(values, len(parts)), strict=True):
        if part.endswith("k_proj") and found[4] == "bias":
            if np.any(rows):
                raise InputError(f"{name} has a bias for the keys, which transformers' Whisper cannot hold")
            continue
        yield f"model.{found[1]}.layers.{int(found[2])}.{part}.{_LEAVES[found[4]]}", rows


def _tensor(dtype: str, values: np.ndarray) -> torch.Tensor:
    import torch

    tensor = torch.from_numpy(values.copy())
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _all_variables(model: Model) -> Mapping[str, Variable]:
    return {**model.variables, **{alias: model.variables[target] for alias, target in model.aliases.items()}}


def _variable(model: Model, name: str) -> np.ndarray:
    variable = model.variables.get(model.aliases.get(name, name))
    if variable is None:
        raise InputError(f"the CTranslate2 model lacks {name}")
    return variable.values


def _shape(model: Model, name: str, rank: int) -> tuple[int, ...]:
    values = _variable(model, name)
    if values.ndim != rank or values.size == 0:
        raise InputError(f"{name} has the shape {values.shape}, not {rank} axes")
    return values.shape


def _scalar(model: Model, name: str) -> int:
    values = _variable(model, name)
    if values.size != 1:
        raise InputError(f"{name} has the shape {values.shape}, not one value")
    return int(values.item())


def _layers(model: Model, side: str) -> int:
    layers = (_LAYER.fullmatch(name) for name in _all_variables(model))
    numbers = {int(layer[2]) for layer in layers if layer and layer[1] == side}
    if not numbers or max(numbers) + 1 != len(numbers):
        raise InputError(f"the {side} has the layers {sorted(numbers)}, which are not numbered from 0")
    return len(numbers)
