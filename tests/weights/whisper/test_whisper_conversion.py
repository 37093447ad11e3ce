"""Whole folders, both ways: the real model must hear the same words, and a random multilingual one keep every bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wieldy.errors import InputError
from wieldy.weights import as_ctranslate2, as_transformers, model_format
from wieldy.weights.ctranslate2_format import read_model
from wieldy.weights.stored import models_folder
from wieldy.weights.whisper import to_ctranslate2, to_transformers

SAMPLE_RATE = 16_000
LANGUAGES = 99


def multilingual_vocabulary() -> list[str]:
    """As many tokens, in the same order of kinds, as Whisper's multilingual one; 51,865."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES as NAMES

    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in list(NAMES)[:LANGUAGES])]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>"]
    stamps = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    words = [f"word{number}" for number in range(51_864 - len(special) - len(stamps))]
    # CTranslate2 knows a multilingual vocabulary by the empty token before the special ones.
    return [*words, "", *special, *stamps]


@pytest.fixture(scope="module")
def random_whisper(tmp_path_factory) -> Path:
    """A multilingual Whisper of two layers with random weights, as `save_pretrained` leaves it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

    folder = tmp_path_factory.mktemp("random") / "whisper-random"
    tokens = multilingual_vocabulary()
    first = tokens.index("<|endoftext|>")
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens[:first])}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    folder.mkdir()
    tokenizer.add_special_tokens(tokens[first : tokens.index("<|0.00|>")])
    tokenizer.add_tokens(tokens[tokens.index("<|0.00|>") :])
    tokenizer.save(str(folder / "tokenizer.json"))
    WhisperTokenizer.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(0)
    end = tokens.index("<|endoftext|>")
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=32,
        num_mel_bins=128,
        vocab_size=len(tokens),
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=end + 1,
    )
    model = WhisperForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    generation = model.generation_config
    generation._from_model_config = False  # as in a model that was saved with decoding settings of its own
    generation.suppress_tokens, generation.begin_suppress_tokens = [1, 2, end + 1], [220, end]
    generation.alignment_heads, generation.is_multilingual = [[1, 0], [1, 3]], True
    generation.lang_to_id = {token: end + 2 + number for number, token in enumerate(tokens[end + 2 :][:LANGUAGES])}
    generation.task_to_id = {task: tokens.index(f"<|{task}|>") for task in ("transcribe", "translate")}
    generation.no_timestamps_token_id = tokens.index("<|notimestamps|>")
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def random_ctranslate2(random_whisper, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ctranslate2")
    to_ctranslate2(random_whisper, folder)
    return folder


def assert_same_tensors(one: Path, other: Path) -> None:
    first, second = read_model(one / "model.bin"), read_model(other / "model.bin")
    # Newer converters write two settings of ALiBi, which Whisper has not.
    added = {"decoder/alibi_use_positive_positions", "decoder/scale_alibi"}
    assert first.variables.keys() | added == second.variables.keys() | added
    for name in first.variables.keys() & second.variables.keys():
        assert first.variables[name].dtype == second.variables[name].dtype
        assert first.variables[name].values.tobytes() == second.variables[name].values.tobytes(), name
    assert first.aliases == second.aliases


@pytest.mark.slow
def test_a_random_multilingual_model_keeps_every_bit_both_ways(random_whisper, random_ctranslate2, tmp_path):
    from safetensors.numpy import load_file
    from transformers import GenerationConfig, WhisperConfig

    assert model_format(random_ctranslate2) == "ctranslate2"
    to_transformers(random_ctranslate2, tmp_path)
    before, after = load_file(random_whisper / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() - {"proj_out.weight"} == after.keys()
    for name, values in after.items():
        assert values.dtype == before[name].dtype
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    fields = ["d_model", "num_mel_bins", "vocab_size", "encoder_layers", "decoder_layers", "encoder_ffn_dim"]
    fields += ["decoder_ffn_dim", "encoder_attention_heads", "decoder_attention_heads", "decoder_start_token_id"]
    fields += ["eos_token_id", "max_source_positions", "max_target_positions", "tie_word_embeddings"]
    one, other = WhisperConfig.from_pretrained(random_whisper), WhisperConfig.from_pretrained(tmp_path)
    assert {field: getattr(one, field) for field in fields} == {field: getattr(other, field) for field in fields}
    said, kept = GenerationConfig.from_pretrained(random_whisper), GenerationConfig.from_pretrained(tmp_path)
    for field in ("suppress_tokens", "begin_suppress_tokens", "alignment_heads", "lang_to_id", "task_to_id"):
        assert getattr(said, field) == getattr(kept, field), field
    assert kept.is_multilingual
    assert kept.no_timestamps_token_id == said.no_timestamps_token_id

    again = tmp_path / "again"
    again.mkdir()
    to_ctranslate2(tmp_path, again)
    assert_same_tensors(random_ctranslate2, again)
    assert json.loads((again / "config.json").read_text()) == json.loads(
        (random_ctranslate2 / "config.json").read_text()
    )


@pytest.mark.slow
def test_both_engines_decode_the_random_multilingual_model_alike(random_whisper, random_ctranslate2):
    import torch
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer
    from transformers import WhisperForConditionalGeneration

    fast = WhisperModel(str(random_ctranslate2), device="cpu", compute_type="float32", cpu_threads=1)
    assert fast.model.is_multilingual
    assert fast.feature_extractor.mel_filters.shape[0] == 128
    tokenizer = Tokenizer(fast.hf_tokenizer, True, task="translate", language="de")
    prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
    features = np.random.default_rng(1).standard_normal((1, 128, 3000)).astype(np.float32)
    heard = fast.model.generate(fast.encode(features[0]), [prompt], beam_size=1, max_length=40, suppress_blank=False)

    slow = WhisperForConditionalGeneration.from_pretrained(random_whisper)
    suppressed = slow.generation_config.suppress_tokens
    ids = list(prompt)
    with torch.no_grad():
        encoded = slow.model.encoder(torch.from_numpy(features))
        while len(ids) < 40 and ids[-1] != slow.config.eos_token_id:
            logits = slow(encoder_outputs=encoded, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
            logits[suppressed] = -torch.inf
            logits[slow.generation_config.no_timestamps_token_id :] = -torch.inf
            ids.append(int(logits.argmax()))
    words = heard[0].sequences_ids[0]  # CTranslate2 counts the prompt twice towards max_length
    assert len(words) >= 10
    assert words == ids[len(prompt) :][: len(words)]


@pytest.mark.slow
def test_the_real_model_hears_the_same_words_in_both_engines(whisper_tiny, conversation, tmp_path):
    """Greedy, float32, on 30 s of a real telephone conversation."""
    import torch
    from faster_whisper import WhisperModel
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    samples, rate = soundfile.read(conversation / "sample.wav", dtype="float32")
    assert rate == SAMPLE_RATE
    folder = tmp_path / "transformers"
    folder.mkdir()
    to_transformers(whisper_tiny, folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = WhisperProcessor.from_pretrained(folder)
    features = processor(samples, sampling_rate=rate, return_tensors="pt").input_features
    ids = model.generate(features, num_beams=1, do_sample=False)
    words = processor.batch_decode(ids, skip_special_tokens=True)[0]
    assert len(words.split()) > 60

    back = tmp_path / "ctranslate2"
    back.mkdir()
    to_ctranslate2(folder, back)
    assert_same_tensors(whisper_tiny, back)
    for ctranslate2 in (whisper_tiny, back):
        fast = WhisperModel(str(ctranslate2), device="cpu", compute_type="float32", cpu_threads=1)
        segments, _ = fast.transcribe(samples, beam_size=1, temperature=0, language="en", without_timestamps=True)
        assert "".join(segment.text for segment in segments) == words

    stamped = model.generate(features, num_beams=1, do_sample=False, return_timestamps=True)
    text = processor.batch_decode(stamped, decode_with_timestamps=True)[0]
    assert text.startswith("<|0.00|>")
    assert "<|5.00|>" in text


@pytest.mark.slow
def test_a_conversion_is_made_once_and_whole(random_ctranslate2, random_whisper, empty_cache, monkeypatch):
    assert as_ctranslate2(random_ctranslate2) == random_ctranslate2
    assert as_transformers(random_whisper) == random_whisper
    converted = as_transformers(random_ctranslate2)
    assert converted.is_relative_to(models_folder())
    assert model_format(converted) == "transformers"
    monkeypatch.setattr("wieldy.weights.whisper.cached.to_transformers", lambda *_: pytest.fail("converted again"))
    assert as_transformers(random_ctranslate2) == converted
    assert model_format(as_ctranslate2(converted)) == "ctranslate2"


@pytest.fixture
def damaged(whisper_tiny, tmp_path) -> Path:
    """A copy of the real model to be damaged; its weights are cut short."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in whisper_tiny.iterdir():
        if path.name != "model.bin":
            shutil.copyfile(path, folder / path.name)
    with open(whisper_tiny / "model.bin", "rb") as whole:
        (folder / "model.bin").write_bytes(whole.read(100_000))
    return folder


@pytest.mark.slow
def test_a_damaged_model_leaves_nothing_in_the_cache(damaged, empty_cache):
    with pytest.raises(InputError, match=r"model\.bin ends in the middle of decoder/embeddings/weight"):
        as_transformers(damaged)
    assert [path for path in (models_folder() / "transformers").iterdir() if path.suffix != ".lock"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("vocabulary.txt", "one\ntwo\n", "does not hold the 51864 tokens"),
        ("vocabulary.txt", None, r"no vocabulary\.json or vocabulary\.txt"),
        ("tokenizer.json", "{}", "not a readable tokenizer"),
        ("tokenizer.json", None, "not a readable tokenizer"),
        ("config.json", '{"suppress_ids": [51864]}', "suppress_ids is not a list of token numbers below 51864"),
        ("config.json", '{"alignment_heads": [[4, 0]]}', "alignment_heads is not a list of pairs"),
        ("config.json", "[]", "not an object"),
    ],
)
def test_a_folder_with_a_damaged_file_is_refused(whisper_tiny, tmp_path, name, content, says):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for path in whisper_tiny.iterdir():
        (source / path.name).symlink_to(path)
    (source / name).unlink()
    if content is not None:
        (source / name).write_text(content)
    with pytest.raises(InputError, match=says):
        to_transformers(source, target)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "says"), [({"model_type": "bert"}, "type 'bert'"), ({}, "type None")])
def test_another_kind_of_transformers_model_is_refused(random_whisper, tmp_path, config, says):
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(random_whisper, source)
    target.mkdir()
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=says):
        to_ctranslate2(source, target)
    (source / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no model folder"):
        to_ctranslate2(source, target)
