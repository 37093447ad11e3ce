"""Names, shapes and refusals of the CTranslate2 to transformers mapping, on a Whisper of one layer and width four."""

import numpy as np
import pytest

from wieldy.errors import InputError
from wieldy.weights.ctranslate2_format import Model, Variable
from wieldy.weights.whisper.tensors import config_values, state_dict

D, FFN, MELS, TOKENS, FRAMES, POSITIONS = 4, 6, 3, 7, 5, 8


def whisper(**changes: Variable | None) -> Model:
    """A CTranslate2 Whisper with random weights; `changes` replace variables, None takes one away."""
    random = np.random.default_rng(0)

    def floats(*shape):
        return Variable("float32", random.standard_normal(shape).astype(np.float32))

    variables = {
        "encoder/conv1/weight": floats(D, MELS, 3),
        "encoder/conv2/weight": floats(D, D, 3),
        "encoder/position_encodings/encodings": floats(FRAMES, D),
        "decoder/position_encodings/encodings": floats(POSITIONS, D),
        "decoder/embeddings/weight": floats(TOKENS, D),
        "encoder/num_heads": Variable("int16", np.array(2, np.int16)),
        "decoder/num_heads": Variable("int16", np.array(2, np.int16)),
        "decoder/activation": Variable("int8", np.array(3, np.int8)),
        "decoder/pre_norm": Variable("int8", np.array(1, np.int8)),
        "decoder/scale_alibi": Variable("int8", np.array(1, np.int8)),
    }
    for name in ("conv1", "conv2"):
        variables[f"encoder/{name}/bias"] = floats(D)
    for side, attentions in (("encoder", ["self_attention"]), ("decoder", ["self_attention", "attention"])):
        layer = f"{side}/layer_0"
        norms = [f"{side}/layer_norm", f"{layer}/ffn/layer_norm", *(f"{layer}/{a}/layer_norm" for a in attentions)]
        for norm in norms:
            variables[f"{norm}/gamma"], variables[f"{norm}/beta"] = floats(D), floats(D)
        linear = {"ffn/linear_0": (FFN, D), "ffn/linear_1": (D, FFN)}
        linear |= {"self_attention/linear_0": (3 * D, D), "self_attention/linear_1": (D, D)}
        if side == "decoder":
            linear |= {"attention/linear_0": (D, D), "attention/linear_1": (2 * D, D), "attention/linear_2": (D, D)}
        for name, (rows, columns) in linear.items():
            variables[f"{layer}/{name}/weight"] = floats(rows, columns)
            variables[f"{layer}/{name}/bias"] = floats(rows)
        variables[f"{layer}/self_attention/linear_0/bias"].values[D : 2 * D] = 0
    variables["decoder/layer_0/attention/linear_1/bias"].values[:D] = 0
    variables |= changes
    kept = {name: variable for name, variable in variables.items() if variable is not None}
    return Model("WhisperSpec", 3, kept, {"decoder/projection/weight": "decoder/embeddings/weight"})


def test_shapes_decide_the_configuration():
    assert config_values(whisper()) == {
        "d_model": D,
        "num_mel_bins": MELS,
        "vocab_size": TOKENS,
        "max_source_positions": FRAMES,
        "max_target_positions": POSITIONS,
        "tie_word_embeddings": True,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": FFN,
        "decoder_ffn_dim": FFN,
    }


def test_fused_projections_come_apart_in_order():
    model = whisper()
    tensors = state_dict(model)
    fused = model.variables["decoder/layer_0/self_attention/linear_0/weight"].values
    attention = "model.decoder.layers.0.self_attn"
    for index, part in enumerate("qkv"):
        np.testing.assert_array_equal(tensors[f"{attention}.{part}_proj.weight"], fused[index * D : (index + 1) * D])
    crossed = model.variables["decoder/layer_0/attention/linear_1/bias"].values
    np.testing.assert_array_equal(tensors["model.decoder.layers.0.encoder_attn.v_proj.bias"], crossed[D:])
    assert not any(name.endswith("k_proj.bias") for name in tensors)
    assert "proj_out.weight" not in tensors


def test_nothing_else_is_lost():
    model = whisper()
    tensors = state_dict(model)
    settings = sum(variable.values.size for variable in model.variables.values() if variable.values.ndim == 0)
    keys = 3 * D  # the three zero biases of the keys
    assert sum(tensor.numel() for tensor in tensors.values()) == (
        sum(variable.values.size for variable in model.variables.values()) - settings - keys
    )


def test_an_output_projection_of_its_own_is_kept():
    projection = Variable("float32", np.ones((TOKENS, D), np.float32))
    model = whisper(**{"decoder/projection/weight": projection})
    model.aliases.clear()
    assert not config_values(model)["tie_word_embeddings"]
    assert state_dict(model)["proj_out.weight"].sum() == TOKENS * D


def test_equal_tensors_that_were_stored_once_are_both_there():
    model = whisper(**{"encoder/layer_norm/gamma": None})
    model.aliases["encoder/layer_norm/gamma"] = "decoder/layer_norm/gamma"
    tensors = state_dict(model)
    one, other = tensors["model.encoder.layer_norm.weight"], tensors["model.decoder.layer_norm.weight"]
    assert one.equal(other)
    assert one.data_ptr() != other.data_ptr()


def int8(*shape):
    return Variable("int8", np.ones(shape, np.int8))


def ones(*shape):
    return Variable("float32", np.ones(shape, np.float32))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"decoder/layer_0/self_attention/linear_0/bias": ones(3 * D)}, "bias for the keys"),
        ({"decoder/layer_0/attention/linear_1/bias": ones(2 * D)}, "bias for the keys"),
        ({"decoder/layer_0/ffn/linear_0/weight": int8(FFN, D)}, "quantised to int8"),
        ({"decoder/layer_0/ffn/linear_0/weight_scale": ones(FFN)}, "no part of a Whisper model"),
        ({"decoder/layer_0/ffn/linear_7/weight": ones(FFN, D)}, "no part of a Whisper model"),
        ({"decoder/layer_0/self_attention/linear_0/weight": ones(3 * D + 1, D)}, "does not hold 3 parts"),
        ({"decoder/layer_2/ffn/linear_0/weight": ones(FFN, D)}, "not numbered from 0"),
        ({"decoder/activation": Variable("int8", np.array(0, np.int8))}, "decoder/activation is 0"),
        ({"decoder/pre_norm": Variable("int8", np.array(0, np.int8))}, "decoder/pre_norm is 0"),
        ({"encoder/num_heads": Variable("int16", np.array(3, np.int16))}, "does not divide the width 4"),
        ({"encoder/num_heads": Variable("int16", np.array(0, np.int16))}, "does not divide the width 4"),
        ({"encoder/num_heads": ones(2)}, "not one value"),
        ({"encoder/num_heads": None}, "lacks encoder/num_heads"),
        ({"encoder/conv1/weight": None}, "lacks encoder/conv1/weight"),
        ({"encoder/conv1/weight": ones(D, MELS)}, "not 3 axes"),
        ({"decoder/embeddings/weight": ones(0, D)}, "not 2 axes"),
    ],
)
def test_what_transformers_cannot_hold_is_refused(changes, says):
    model = whisper(**changes)
    with pytest.raises(InputError, match=says):
        (config_values(model), state_dict(model))


def test_another_kind_of_model_is_refused():
    with pytest.raises(InputError, match="is a TransformerSpec of revision 7"):
        config_values(Model("TransformerSpec", 7, {}, {}))
