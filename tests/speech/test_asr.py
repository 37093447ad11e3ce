"""Training from a folder of recordings to a recogniser: two tones stand for words, which a tiny network learns fast."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch
from lhotse.cut import CutSet

from wieldy.cli import main
from wieldy.errors import InputError, UsageError, WieldyError
from wieldy.metrics.text import WordErrors
from wieldy.speech import asr
from wieldy.speech.asr import AsrConfig, error_rate, features_for, split, tokenizer_for, train_recognizer
from wieldy.speech.augment import AugmentConfig
from wieldy.speech.corpora import named_corpus
from wieldy.speech.corpus import recorded
from wieldy.speech.networks.lstm import LstmConfig
from wieldy.speech.networks.predictors import StatelessPredictorConfig
from wieldy.speech.networks.transducer import TransducerConfig
from wieldy.speech.recognize.transducer import TransducerRecognizer

RATE = 8000
TONES = {"low": 400.0, "high": 1600.0}
PLAIN = AugmentConfig(speed=None, frequency_masks=0, time_masks=0)


def tone(word, rng):
    t = np.arange(round(rng.uniform(0.15, 0.3) * RATE)) / RATE
    return (0.1 * np.sin(2 * np.pi * TONES[word] * t) + 1e-3 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    for i in range(40):
        word = ("low", "high")[i % 2]
        soundfile.write(folder / f"{word}_{('anna', 'ben')[i // 2 % 2]}_{i}.wav", tone(word, rng), RATE)
    return folder


@pytest.fixture
def smallest(monkeypatch):
    """A network that learns two tones in a second."""

    def preset(name, vocabulary, input_dim):
        encoder = LstmConfig(layers=1, hidden=32, projection=0)
        predictor = StatelessPredictorConfig(embedding=8, context=1)
        return TransducerConfig(
            vocabulary=vocabulary, input_dim=input_dim, encoder=encoder, predictor=predictor, joint=32
        )

    monkeypatch.setattr(TransducerConfig, "preset", preset)


CONFIG = AsrConfig(steps=120, rate=0.01, held_out="ben", augment=PLAIN)


def test_a_folder_of_recordings_becomes_a_recogniser(recordings, smallest, tmp_path):
    _, report = train_recognizer(named_corpus(recordings), tmp_path, CONFIG)
    assert report.metric("word error rate, ben, who was not trained on").median < 20
    assert report.metric("recordings left out").median == 0
    rng = np.random.default_rng(1)
    silence = np.zeros(RATE // 4, np.float32)
    back = TransducerRecognizer.load(tmp_path)
    for word in TONES:
        assert back.heard(np.concatenate([tone(word, rng), silence]), RATE).text == word
    assert json.loads((tmp_path / "report.json").read_text())["title"] == f"training of {tmp_path.name}"
    assert (tmp_path / "report.html").is_file()


def test_an_interrupted_training_goes_on(recordings, smallest, tmp_path):
    config = dataclasses.replace(CONFIG, steps=6, join=3)
    whole, _ = train_recognizer(named_corpus(recordings), tmp_path / "whole", config)

    def stop(stage, share):
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asr, "SAVE_EVERY", 2)
        with pytest.raises(KeyboardInterrupt):
            train_recognizer(named_corpus(recordings), tmp_path / "cut", config, progress=stop)
        resumed, _ = train_recognizer(named_corpus(recordings), tmp_path / "cut", config, resume=True)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name].nan_to_num(), tensor.nan_to_num()), name


def test_what_cannot_be_used_is_listed_or_an_error(recordings, smallest, tmp_path):
    cuts = named_corpus(recordings)
    gone = recorded(tmp_path / "gone.wav", "low")
    config = dataclasses.replace(CONFIG, steps=1, pretrain=0)
    _, report = train_recognizer(CutSet.from_cuts([*cuts, gone]), tmp_path / "out", config)
    assert report.metric("recordings left out").median == 1
    ((name, why),) = report.tables[0].rows
    assert name == "gone"
    assert "does not exist" in why
    strict = dataclasses.replace(config, strict=True)
    with pytest.raises(InputError, match="does not exist"):
        train_recognizer(CutSet.from_cuts([*cuts, gone]), tmp_path / "strict", strict)
    assert not (tmp_path / "strict").exists()


def test_the_parts_share_no_recording_and_no_held_out_speaker(recordings):
    parts = split(named_corpus(recordings), AsrConfig(held_out="ben"))
    ids = {name: {cut.id for cut in own} for name, own in parts.items()}
    assert {name: len(own) for name, own in ids.items()} == {"train": 18, "develop": 2, "test": 20}
    assert not ids["train"] & ids["develop"]
    assert all("ben" in name for name in ids["test"])
    assert not any("ben" in name for name in ids["train"] | ids["develop"])
    with pytest.raises(InputError, match="no recording is by 'eve': the speakers are anna, ben"):
        split(named_corpus(recordings), AsrConfig(held_out="eve"))
    with pytest.raises(InputError, match="1 recordings to train on"):
        split(CutSet.from_cuts(list(named_corpus(recordings))[:1]), AsrConfig())


def test_features_have_the_rate_of_the_worst_recording():
    assert features_for(8000).sample_rate == features_for(11_025).sample_rate == 8000
    assert features_for(44_100).sample_rate == 16_000
    assert features_for(8000).frame_s == features_for(16_000).frame_s == pytest.approx(0.03)
    with pytest.raises(InputError, match="recordings of 4000 samples a second"):
        features_for(4000)


def test_few_words_are_tokens_and_many_are_cut_into_pieces():
    assert set(tokenizer_for(["stop", "go"], AsrConfig()).pieces[1:]) == {"▁stop", "▁go"}
    many = [f"word{i}" for i in range(300)]
    pieces = tokenizer_for(many, AsrConfig(pieces=40))
    assert len(pieces) <= 40


def test_an_error_rate_has_its_words_and_interval():
    rate = error_rate("wer", [WordErrors(words=4, deletions=1), WordErrors(words=6)])
    assert rate.median == pytest.approx(10.0)
    assert rate.count == 10
    assert rate.interval == (0.0, 25.0)


def test_a_loss_that_explodes_says_what_to_try(recordings, smallest, tmp_path, monkeypatch):
    monkeypatch.setattr(asr, "loss", lambda network, batch: network.joint.output.bias.sum() * float("nan"))
    with pytest.raises(WieldyError, match="diverged at step 1: try half the learning rate, --rate"):
        train_recognizer(named_corpus(recordings), tmp_path, dataclasses.replace(CONFIG, pretrain=0))


def test_the_command_keeps_models_and_shows_the_report(recordings, smallest, tmp_path, capsys):
    words = ["train", "asr", str(recordings), "--named", "--join", "3", "--steps", "2", "--out", str(tmp_path / "m")]
    assert main(words) == 0
    assert "recordings kept from training" in capsys.readouterr().out
    assert main(words) == 2
    assert "holds a model already: choose another folder with --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"join": 0}, "join is 0"),
        ({"tokens": "letters"}, "tokens 'letters': choose auto"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        AsrConfig(**options)
