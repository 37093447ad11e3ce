"""`wieldy adapt` as it is used, with tones for voices."""

import json

import pytest

pytest.importorskip("torch")

from tests.speech.adapt import tones
from wieldy import cli
from wieldy.speech import adapt as adaptation
from wieldy.speech.recognize.transducer import TransducerRecognizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tones.recognizer(steps=60).save(folder)
    return folder


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "orders.txt"
    path.write_text("\n".join([*tones.DOMAIN, "x-ray"]))
    return path


def test_a_folder_comes_out_that_is_a_recogniser_with_its_report(model, text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(adaptation, "speak", lambda lines, voices, config: tones.spoken(lines, voices[0]))
    words = ["adapt", str(model), "--text", str(text), "--out", str(tmp_path / "adapted"), "--epochs", "1"]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    assert "adaptation to text, tts" in captured.out
    assert "'x-ray' has" in captured.out
    assert "without source recordings nothing held it to what it was" in captured.out
    assert captured.err.endswith(f"now: wieldy captions FILE --model {tmp_path / 'adapted'}\n")
    TransducerRecognizer.load(tmp_path / "adapted")
    report = json.loads((tmp_path / "adapted" / "report.json").read_text())
    assert {metric["name"] for metric in report["metrics"]} >= {"lines left out", "word error rate, new domain, after"}
    # What is there already is not written over.
    assert cli.main(words) == 2
    assert "holds a model already: choose another folder with --out" in capsys.readouterr().err


def test_what_cannot_be_read_ends_in_one_line(model, tmp_path, capsys):
    words = ["adapt", str(model), "--out", str(tmp_path / "out"), "--text"]
    assert cli.main([*words, str(tmp_path / "none.txt")]) == 3
    assert "none.txt cannot be read as UTF-8 text" in capsys.readouterr().err
    assert cli.main(["adapt", str(tmp_path), "--out", str(tmp_path / "out"), "--text", __file__]) == 3
    assert "recognizer.json" in capsys.readouterr().err
