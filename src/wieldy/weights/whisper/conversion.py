"""Whole model folders, from CTranslate2's kind to transformers' kind and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wieldy.errors import InputError, MissingError
from wieldy.weights.ctranslate2_format import read_model
from wieldy.weights.folders import model_format, read_json
from wieldy.weights.whisper.tensors import config_values, state_dict
from wieldy.weights.whisper.tokens import WhisperTokens, read_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import WhisperConfig

MAX_INITIAL_TIMESTAMP = 50  # in steps of 20 ms: speech is taken to begin within 1 s; openai/whisper, DecodingOptions


def to_transformers(source: Path, target: Path) -> None:
    """Write the CTranslate2 Whisper folder `source` as what `save_pretrained` writes into the existing folder `target`.

    `WhisperForConditionalGeneration.from_pretrained(target)` and `WhisperProcessor.from_pretrained(target)` load it
    without a network. Raises `InputError` when `source` is damaged, quantised or no Whisper model.
    """
    _need_transformers()
    from safetensors.torch import save_file
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperProcessor,
        WhisperTokenizer,
    )

    model = read_model(source / "model.bin")
    decoding = read_json(source / "config.json")
    shape = config_values(model)
    tokens = WhisperTokens.read(source, shape["vocab_size"])
    tensors = state_dict(model)
    numbers = {
        "bos_token_id": tokens.number("<|endoftext|>"),
        "eos_token_id": tokens.number("<|endoftext|>"),
        "pad_token_id": tokens.number("<|endoftext|>"),
        "decoder_start_token_id": tokens.number("<|startoftranscript|>"),
    }
    config = WhisperConfig(
        **shape,
        **numbers,
        architectures=["WhisperForConditionalGeneration"],
        dtype=tensors["model.encoder.conv1.weight"].dtype,
    )
    _check_tensors(config, tensors)
    generation = GenerationConfig(
        **numbers,
        max_length=shape["max_target_positions"],
        max_initial_timestamp_index=MAX_INITIAL_TIMESTAMP,
        no_timestamps_token_id=tokens.number("<|notimestamps|>"),
        prev_sot_token_id=tokens.number("<|startofprev|>"),
        return_timestamps=False,
        is_multilingual=tokens.multilingual,
        suppress_tokens=_numbers(decoding, "suppress_ids", shape["vocab_size"]),
        begin_suppress_tokens=_numbers(decoding, "suppress_ids_begin", shape["vocab_size"]),
        alignment_heads=_heads(decoding, config),
    )
    if tokens.multilingual:
        generation.lang_to_id = tokens.languages
        generation.task_to_id = {task: tokens.number(f"<|{task}|>") for task in ("transcribe", "translate")}

    # transformers' own tokenizer class reads the file and keeps it; only it knows which tokens are special.
    read_tokenizer(source / "tokenizer.json", tokens).save(str(target / "tokenizer.json"))
    tokenizer = WhisperTokenizer.from_pretrained(target, extra_special_tokens=list(tokens.special))
    extractor = WhisperFeatureExtractor(feature_size=shape["num_mel_bins"])
    config.save_pretrained(target)
    generation.save_pretrained(target)
    WhisperProcessor(extractor, tokenizer).save_pretrained(target)
    # Other programs look for the features' settings under their older name.
    extractor.save_pretrained(target)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def to_ctranslate2(source: Path, target: Path) -> None:
    """Write the transformers Whisper folder `source` as a CTranslate2 model into the existing folder `target`.

    faster-whisper loads it without a network. Raises `InputError` when `source` is no Whisper model in safetensors.
    """
    _need_transformers()
    from ctranslate2.converters import TransformersConverter
    from transformers import WhisperFeatureExtractor
    from transformers.utils import logging

    if model_format(source) != "transformers":
        raise InputError(f"{source} is not a transformers folder", hint="give one with config.json and *.safetensors")
    kind = read_json(source / "config.json").get("model_type")
    if kind != "whisper":
        raise InputError(f"{source} holds a model of type {kind!r}, not 'whisper'")
    if not (source / "tokenizer.json").is_file():
        raise InputError(f"{source} has no tokenizer.json", hint="save it with WhisperTokenizer.save_pretrained")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # CTranslate2's converter makes its folder itself.
        TransformersConverter(str(source)).convert(str(target / "converted"))
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise InputError(f"{source} cannot be converted: {error}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    for path in (target / "converted").iterdir():
        path.rename(target / path.name)
    (target / "converted").rmdir()
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    WhisperFeatureExtractor.from_pretrained(source).save_pretrained(target)
    _complete_decoding(target)


def _complete_decoding(folder: Path) -> None:
    """Fill in what CTranslate2 needs and a fine-tuned model often lacks: lists of token numbers, never null."""
    decoding = read_json(folder / "config.json")
    vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    decoding["suppress_ids"] = decoding.get("suppress_ids") or []
    decoding["suppress_ids_begin"] = decoding.get("suppress_ids_begin") or []
    decoding["lang_ids"] = decoding.get("lang_ids") or list(WhisperTokens(tuple(vocabulary)).languages.values())
    (folder / "config.json").write_text(json.dumps(decoding, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_tensors(config: WhisperConfig, tensors: dict[str, torch.Tensor]) -> None:
    """Compare names and shapes with the model transformers would build; nothing is allocated for it."""
    import torch
    from transformers import WhisperForConditionalGeneration

    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in WhisperForConditionalGeneration(config).state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["proj_out.weight"]
    if unlike := sorted(wanted.keys() ^ tensors.keys()):
        raise InputError(f"the CTranslate2 model {'lacks' if unlike[0] in wanted else 'has too much'}: {unlike[0]}")
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise InputError(f"{name} has the shape {tuple(tensors[name].shape)}, not {tuple(shape)}")


def _numbers(decoding: dict[str, Any], key: str, size: int) -> list[int]:
    values = decoding.get(key) or []
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < size for value in values):
        raise InputError(f"config.json: {key} is not a list of token numbers below {size}")
    return values


def _heads(decoding: dict[str, Any], config: WhisperConfig) -> list[list[int]]:
    """The decoder's (layer, head) pairs whose cross attention follows the audio."""
    most = (config.decoder_layers, config.decoder_attention_heads)
    heads = decoding.get("alignment_heads") or []
    if not isinstance(heads, list) or not all(_is_pair(pair, most) for pair in heads):
        raise InputError(f"config.json: alignment_heads is not a list of pairs below {most}")
    return heads


def _is_pair(pair: object, most: Sequence[int]) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return all(type(value) is int and 0 <= value < limit for value, limit in zip(pair, most, strict=True))


def _need_transformers() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingError(
            "converting Whisper between CTranslate2 and transformers needs torch and transformers",
            hint="run `pip install 'wieldy[torch]'`",
        ) from error
