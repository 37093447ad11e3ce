"""A Whisper folder in the format an engine wants, converted at most once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wieldy.cache import digest, sha256_of
from wieldy.weights.folders import ModelFormat, model_format
from wieldy.weights.stored import locked, models_folder, replacing_folder
from wieldy.weights.whisper.conversion import to_ctranslate2, to_transformers

CONVERSION = 1  # counted up when the same input is to give another output


def as_transformers(folder: Path | str) -> Path:
    """`folder` itself if transformers can load it, else its conversion in the cache."""
    return _as("transformers", Path(folder), to_transformers)


def as_ctranslate2(folder: Path | str) -> Path:
    """`folder` itself if CTranslate2 can load it, else its conversion in the cache."""
    return _as("ctranslate2", Path(folder), to_ctranslate2)


def _as(wanted: ModelFormat, folder: Path, convert: Callable[[Path, Path], None]) -> Path:
    if model_format(folder) == wanted:
        return folder
    content = {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file()}
    name = f"{folder.resolve().name}-{digest(wanted, CONVERSION, content)[:12]}"
    target = models_folder() / wanted / name
    if not target.is_dir():
        with locked(target):
            if not target.is_dir():
                with replacing_folder(target) as staging:
                    convert(folder, staging)
    return target
