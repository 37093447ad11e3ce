"""Models of a public hub, for those who can reach one: a size name of faster-whisper, or `org/name[@revision]`.

Files land in wieldy's cache in the hub library's own layout. A copy that another program left in the hub library's
usual cache is used as it is.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from wieldy.cache import sha256_of
from wieldy.errors import InputError, MissingError
from wieldy.weights.registry import Asset, Hub
from wieldy.weights.stored import models_folder

# What the two model formats need and nothing that is code or a pickle. Repositories that keep a float32 copy beside
# the weights name it so.
WANTED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "normalizer.json",
    "vocab.json",
    "merges.txt",
    "vocabulary.*",
    "tokenizer.model",
    "model.bin",
    "*.safetensors",
    "*.safetensors.index.json",
)
UNWANTED = ("*.fp32*",)
_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)


def parse(name: str) -> Hub | None:
    """The repository that `name` means, or None where it has not the form of one."""
    if found := _ID.fullmatch(name):
        return Hub(repo=found["repo"], revision=found["revision"])
    if "/" not in name and (repo := _faster_whisper_sizes().get(name)):
        return Hub(repo=repo)
    return None


def known_sizes() -> tuple[str, ...]:
    """The names faster-whisper gives to the models it knows."""
    return tuple(_faster_whisper_sizes())


def hub_cache() -> Path:
    """Where hub repositories lie in wieldy's cache."""
    return models_folder() / "hub"


def find(hub: Hub) -> Path | None:
    """The folder of a repository that was fetched before, by wieldy or by another program. Never uses the network."""
    for cache in (hub_cache(), None):
        folder = _snapshot(hub, cache, offline=True)
        if folder is not None and _has_weights(folder):
            return folder
    return None


def fetch(hub: Hub, name: str, *, progress: bool = True) -> Path:
    """Download a model into wieldy's cache and return its folder; `MissingError` when that cannot be done."""
    folder = _download(hub, name, WANTED, progress)
    if not _has_weights(folder):
        raise MissingError(
            f"the model {name} ({hub.repo}) has no weights that wieldy reads",
            hint="choose one with CTranslate2's model.bin or with safetensors; pickles are never read",
        )
    return folder


def fetch_asset(asset: Asset, hub: Hub, folder: Path, *, progress: bool = True) -> None:
    """Put the files of a registered asset into `folder`, each checked against its registered hash."""
    inside = f"{hub.folder}/" if hub.folder else ""
    snapshot = _download(hub, asset.name, tuple(inside + file.name for file in asset.files), progress)
    for file in asset.files:
        source = snapshot / inside / file.name
        if not source.is_file():
            raise MissingError(f"{hub.repo} has no {inside}{file.name}")
        found = sha256_of(source)
        if found != file.sha256:
            raise InputError(f"{hub.repo}: {inside}{file.name} has SHA-256 {found}, not {file.sha256}")
        shutil.copyfile(source, folder / file.name)


def _has_weights(folder: Path) -> bool:
    """Another program may have wanted only the configuration, and many repositories have only pickles."""
    return any(any(folder.glob(weights)) for weights in ("model.bin", "*.safetensors"))


def _download(hub: Hub, name: str, files: tuple[str, ...], progress: bool) -> Path:
    try:
        folder = _snapshot(hub, hub_cache(), offline=False, files=files, progress=progress)
    except Exception as error:  # the hub library lets errors of several HTTP libraries through
        raise MissingError(
            f"the model {name} ({hub.repo}) could not be downloaded: {_first_line(error)}",
            hint=f"check the name and the network, then run `wieldy models get {name}`, "
            "or give the path of a folder that has the model",
        ) from error
    if folder is None:
        raise MissingError(f"the hub has no files of {name} ({hub.repo})")
    return folder


def _snapshot(
    hub: Hub, cache: Path | None, *, offline: bool, files: tuple[str, ...] = WANTED, progress: bool = True
) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    quiet = not progress and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        folder = snapshot_download(
            hub.repo,
            revision=hub.revision,
            cache_dir=cache,
            local_files_only=offline,
            allow_patterns=list(files),
            ignore_patterns=list(UNWANTED),
        )
    except LocalEntryNotFoundError:
        if offline:
            return None
        raise
    finally:
        if quiet:
            enable_progress_bars()
    return Path(folder)


def _faster_whisper_sizes() -> dict[str, str]:
    from faster_whisper.utils import _MODELS  # the only place that says which repository a size name means

    return dict(_MODELS)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("Got: ") if lines else type(error).__name__
