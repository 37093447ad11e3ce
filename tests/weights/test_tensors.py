"""Pickles are told by their content, and a safetensors file that was tampered with is refused."""

import io
import json
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from wieldy.errors import InputError
from wieldy.weights.tensors import check_safetensors, is_pickle, load_safetensors

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, dtype=np.int64)}


def torch_file(**options) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer, **options)
    return buffer.getvalue()


PICKLES = {
    **{f"protocol {number}": lambda number=number: pickle.dumps({"a": [1.0, "b"]}, number) for number in range(2, 6)},
    "torch archive": torch_file,
    "older torch file": lambda: torch_file(_use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "weights"])
def test_pickles_are_refused_whatever_they_are_called(tmp_path, kind, name):
    path = tmp_path / name
    path.write_bytes(PICKLES[kind]())
    assert is_pickle(path)
    with pytest.raises(InputError, match="convert it to safetensors"):
        load_safetensors(path)


def test_safetensors_of_every_header_length_are_no_pickles(tmp_path):
    """A header of 640 bytes begins with the two bytes a pickle of protocol 2 begins with."""
    path = tmp_path / "model.safetensors"
    begins_alike = 0
    for length in range(300, 1400, 8):
        path.write_bytes(save(TENSORS, metadata={"note": "x" * length}))
        begins_alike += path.read_bytes()[0] == 0x80 and path.read_bytes()[1] in range(2, 6)
        assert not is_pickle(path)
        check_safetensors(path)
    assert begins_alike


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_tensors_come_back_as_they_were_saved(tmp_path, framework):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    loaded = load_safetensors(path, framework)
    assert loaded.keys() == TENSORS.keys()
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(np.asarray(loaded[name]), values)


def tampered(change) -> bytes:
    """A valid file, with b in the bytes 0 to 32 and a behind it, whose header was rewritten by `change`."""
    data = save(TENSORS)
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    assert (header["b"]["data_offsets"], header["a"]["data_offsets"]) == ([0, 32], [32, 56])
    header = change(header) or header
    text = json.dumps(header).encode()
    # The body is as long as the header says, so that only what `change` did is wrong.
    ends = [entry["data_offsets"][1] for entry in header.values() if "data_offsets" in entry]
    body = b"\0" * (max(ends) if ends and max(ends) < 1000 else 56)
    return struct.pack("<Q", len(text)) + text + body


TAMPERED = {
    "shape": lambda h: h["a"].update(shape=[3, 3]),
    "type": lambda h: h["a"].update(dtype="F64"),
    "unknown type": lambda h: h["a"].update(dtype="OBJ"),
    "past the end": lambda h: h["a"].update(shape=[2, 300], data_offsets=[32, 2432]),
    "overlap": lambda h: h["a"].update(data_offsets=[8, 32]),
    "gap": lambda h: h["a"].update(data_offsets=[40, 64]),
    "backwards": lambda h: h["a"].update(data_offsets=[56, 32]),
    "huge shape": lambda h: h["a"].update(shape=[2**62, 2**62]),
    "negative shape": lambda h: h["a"].update(shape=[-2, -3]),
    "no tensors": lambda h: {"__metadata__": {}},
    "an unknown field": lambda h: {**h, "c": {"code": "x"}},
}


@pytest.mark.parametrize("change", TAMPERED)
def test_tampered_headers_are_refused(tmp_path, change):
    path = tmp_path / "model.safetensors"
    path.write_bytes(tampered(TAMPERED[change]))
    with pytest.raises(InputError, match="not a valid safetensors file"):
        load_safetensors(path, "numpy")


@pytest.mark.parametrize("length", [0, 2**20, 2**40, 2**64 - 1])
def test_header_lengths_that_cannot_be_are_refused(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + save(TENSORS)[8:])
    with pytest.raises(InputError, match="not a valid safetensors file"):
        check_safetensors(path)


@given(st.data())
def test_truncated_files_are_refused(tmp_path_factory, data):
    whole = save(TENSORS)
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError):
        check_safetensors(path)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        load_safetensors(tmp_path / "none.safetensors")
