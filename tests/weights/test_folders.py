"""A model folder is known by its content."""

import io
import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from wieldy.errors import InputError
from wieldy.weights import model_format
from wieldy.weights.folders import read_json


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def test_a_ctranslate2_folder(whisper_tiny):
    assert model_format(whisper_tiny) == "ctranslate2"


def test_a_transformers_folder(folder):
    save_file({"a": np.zeros(3)}, folder / "model.safetensors")
    assert model_format(folder) == "transformers"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    assert model_format(folder) == "transformers"


@pytest.mark.parametrize("name", ["model.bin", "pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickled_weights_alone_are_refused(folder, name):
    import torch

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    (folder / name).write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=rf"only pickled weights \({name}\).*convert them to safetensors"):
        model_format(folder)


def test_a_pickle_called_safetensors_is_refused(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="is a pickle"):
        model_format(folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "gone.safetensors"])
def test_an_index_that_names_other_files_is_refused(folder, shard):
    save_file({"a": np.zeros(3)}, folder / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(InputError, match="no file of that folder"):
        model_format(folder)


def test_what_is_no_model_folder_says_what_was_found(folder, tmp_path):
    with pytest.raises(InputError, match=r"no model folder: it holds config\.json: wieldy reads"):
        model_format(folder)
    (folder / "model.bin").write_bytes(b"\x06\0\0\0\xff\xff nothing")
    with pytest.raises(InputError, match=r"it holds config\.json, model\.bin"):
        model_format(folder)
    with pytest.raises(InputError, match="is not a model folder"):
        model_format(folder / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="it holds no files"):
        model_format(tmp_path / "empty")


@pytest.mark.parametrize("text", ["[1]", "{", "\udcff", '{"a":' * 100_000])
def test_json_that_is_no_object_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"config\.json"):
        read_json(path)


def test_json_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json"):
        read_json(tmp_path / "config.json")
