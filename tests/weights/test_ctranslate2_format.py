"""The reader against CTranslate2's own writer, and against files that lie."""

import struct
from pathlib import Path

import numpy as np
import pytest
from ctranslate2.specs.model_spec import LayerSpec, ModelConfig, ModelSpec, NumpyVariable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from wieldy.errors import InputError
from wieldy.weights.ctranslate2_format import MAX_RANK, is_ctranslate2, read_model

DTYPES = ["float32", "int8", "int16", "int32", "float16"]


class Spec(ModelSpec):
    """Any number of variables under any names, for CTranslate2's writer."""

    name, revision = "TestSpec", 7

    def __init__(self, variables):
        super().__init__()
        self.__dict__.update(variables)

    def get_default_config(self):
        return ModelConfig()


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variable(name: bytes, shape=(2,), kind=0, size=8, data=b"\0" * 8, rank=None) -> bytes:
    dims = struct.pack(f"<{len(shape)}I", *shape)
    return name + struct.pack("<B", len(shape) if rank is None else rank) + dims + struct.pack("<BI", kind, size) + data


def file(*variables: bytes, version=6, count=None, aliases=b"\0\0\0\0") -> bytes:
    head = struct.pack("<I", version) + text("S") + struct.pack("<II", 3, len(variables) if count is None else count)
    return head + b"".join(variables) + aliases


def alias(name: str, target: str) -> bytes:
    return struct.pack("<I", 1) + text(name) + text(target)


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.from_regex("[a-z][a-z0-9_]{0,12}", fullmatch=True),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: arrays(dtype, st.just(()) | array_shapes(max_dims=MAX_RANK, min_side=0, max_side=4))
        ),
        max_size=6,
    )
)
def test_what_ctranslate2_writes_is_read(tmp_path_factory, arrays_by_name):
    path = tmp_path_factory.mktemp("model")
    spec = Spec({name: NumpyVariable(values) for name, values in arrays_by_name.items()})
    spec.save(str(path))
    model = read_model(path / "model.bin")
    assert is_ctranslate2(path / "model.bin")
    assert (model.spec, model.revision, model.aliases) == ("TestSpec", 7, {})
    assert model.variables.keys() == arrays_by_name.keys()
    for name, values in arrays_by_name.items():
        read = model.variables[name]
        assert (read.dtype, read.values.shape) == (values.dtype.name, values.shape)
        assert read.values.tobytes() == values.tobytes()


def test_bfloat16_comes_as_its_bits_and_equal_tensors_as_aliases(tmp_path):
    import torch
    from ctranslate2.specs.model_spec import PyTorchVariable

    class Layer(LayerSpec):
        def __init__(self):
            self.weight = PyTorchVariable(torch.tensor([1.0, -2.5], dtype=torch.bfloat16))

    spec = Spec({"a": Layer(), "b": Layer()})
    spec.optimize()
    spec.save(str(tmp_path))
    model = read_model(tmp_path / "model.bin")
    assert model.aliases == {"b/weight": "a/weight"}
    dtype, values = model.variables["a/weight"]
    assert (dtype, values.dtype) == ("bfloat16", np.uint16)
    assert values.tolist() == [0x3F80, 0xC020]


GOOD = variable(text("a"))
BAD = {
    "version 7": file(GOOD, version=7),
    "twice": file(GOOD, GOOD),
    "axes": file(variable(text("a"), shape=(1,) * 5)),
    "unknown type": file(variable(text("a"), kind=6)),
    "which is not": file(variable(text("a"), shape=(3,))),
    "which is not (": file(variable(text("a"), shape=(2**31, 2**31, 2**31))),
    "in the middle of a: 8 bytes wanted, 4 left": file(variable(text("a"), data=b""), aliases=b"\0" * 4),
    "in the middle of a: 4294967280": file(variable(text("a"), shape=(2**30 - 4,), size=2**32 - 16)),
    "a variable's name": file(count=2**32 - 1),
    "is not text": file(variable(struct.pack("<H", 2) + b"ab")),
    "not text": file(variable(struct.pack("<H", 3) + b"\xff\xfe\0")),
    "it does not end in a zero byte": file(variable(struct.pack("<H", 0))),
    "alias": file(GOOD, aliases=alias("b", "c")),
    "the alias a of a": file(GOOD, aliases=alias("a", "a")),
    "3 bytes after its end": file(GOOD) + b"abc",
    "cannot read": b"",
}


@pytest.mark.parametrize("says", BAD)
def test_files_that_lie_are_refused(tmp_path, says):
    path = tmp_path / "model.bin"
    path.write_bytes(BAD[says])
    with pytest.raises(InputError) as caught:
        read_model(path)
    assert says in str(caught.value)


def test_the_good_file_of_these_tests_is_read(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(file(GOOD, aliases=alias("b", "a")))
    model = read_model(path)
    assert model.variables["a"].values.tolist() == [0.0, 0.0]
    assert model.aliases == {"b": "a"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_end_in_a_model_or_an_input_error(tmp_path: Path, data):
    content = bytearray(file(GOOD, variable(text("b"), (2, 2), 4), aliases=alias("c", "b")))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.bin"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        model = read_model(path)
    except InputError:
        return
    assert all(values.nbytes <= len(content) for _, values in model.variables.values())


def test_every_truncation_is_refused(tmp_path):
    whole = file(GOOD, aliases=alias("b", "a"))
    path = tmp_path / "model.bin"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_model(path)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_model(tmp_path / "model.bin")
    assert not is_ctranslate2(tmp_path / "model.bin")
