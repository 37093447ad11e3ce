"""`wieldy align` as it is used: by PocketSphinx, and with the times of another program."""

import pytest

pytest.importorskip("lhotse")

from tests.speech.cuts import spoken
from wieldy import cli
from wieldy.speech import synthesize
from wieldy.speech.corpus import aligned, read_manifest

CTM = "one 1 0.10 0.40 turn\none 1 0.50 0.30 left\n"


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, text in (("one", "turn left"), ("two", "turn right")):
        spoken(folder / f"{name}.wav", 1.0, text)
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_times_of_another_program(recordings, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "times.ctm").write_text(CTM)
    assert cli.main(["align", "recordings", "--times", "times.ctm", "--out", "found/cuts.jsonl.gz"]) == 0
    assert "left out two.wav: times.ctm has no times of two" in capsys.readouterr().err
    monkeypatch.chdir("/")  # the manifest can be read from anywhere
    (cut,) = read_manifest(tmp_path / "found" / "cuts.jsonl.gz")
    assert [(item.symbol, item.start, item.end) for item in aligned(cut)] == [("turn", 0.1, 0.5), ("left", 0.5, 0.8)]
    assert cut.load_audio().shape == (1, 16_000)


def test_textgrids_are_found_by_name(recordings, tmp_path, capsys):
    grid = tmp_path / "grids" / "two.TextGrid"
    grid.parent.mkdir()
    grid.write_text('"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "words" 0 1 1 0.2 0.7 "turn"')
    words = ["align", str(recordings), "--times", str(grid.parent), "--out", str(tmp_path / "cuts.jsonl")]
    assert cli.main(words) == 0
    (cut,) = read_manifest(tmp_path / "cuts.jsonl")
    assert [(item.start, item.end) for item in aligned(cut)] == [(0.2, 0.7)]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--out", "cuts.txt"], 2, "cuts.txt is no name for a manifest: end it with .jsonl.gz"),
        (["--out", "c.jsonl", "--times", "times.ctm", "--strict"], 3, "two.wav: times.ctm has no times of two"),
        (["--out", "c.jsonl", "--times", "empty"], 3, "empty has no .TextGrid files"),
    ],
)
def test_what_is_refused(recordings, tmp_path, capsys, monkeypatch, options, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "times.ctm").write_text(CTM)
    (tmp_path / "empty").mkdir()
    assert cli.main(["align", "recordings", *options]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c.jsonl").exists()


def test_pocketsphinx_hears_when_words_are_said(tmp_path, capsys):
    pytest.importorskip("pocketsphinx")
    import soundfile

    said = synthesize.say("open the window", synthesize.voice_named("heart"))
    soundfile.write(tmp_path / "a.wav", said.samples, said.sample_rate)
    (tmp_path / "a.txt").write_text("open the window")
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    (tmp_path / "b.txt").write_text("open the wndw")
    assert cli.main(["align", str(tmp_path), "--out", str(tmp_path / "cuts.jsonl.gz")]) == 0
    message = capsys.readouterr().err
    assert "left out b.wav: the pronunciation of 'wndw' is not known to pocketsphinx" in message
    assert "word times of 1, 1 left out" in message
    (cut,) = read_manifest(tmp_path / "cuts.jsonl.gz")
    assert [item.symbol for item in aligned(cut)] == ["open", "the", "window"]
    assert len(aligned(cut, "phone")) == 11
