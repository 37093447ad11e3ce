"""Cuts in and out of manifests and folders, what is wrong with them, and what is said in them when."""

import lhotse
import numpy as np
import pytest
import soundfile
from lhotse.cut import CutSet

from tests.speech.cuts import spoken
from wieldy.errors import InputError
from wieldy.speech.corpus import aligned, checked, read_manifest, samples_of, text_of
from wieldy.speech.features import LogMelConfig
from wieldy.speech.tokens import Tokenizer


def write_tone(path, seconds: float = 0.5, rate: int = 16_000) -> None:
    soundfile.write(path, 0.1 * np.sin(np.arange(round(seconds * rate)) * 0.3), rate)


@pytest.fixture
def cuts(tmp_path) -> CutSet:
    return CutSet.from_cuts(spoken(tmp_path / f"{i}.wav", 0.5 + i / 4, "one two"[: 3 + 4 * (i % 2)]) for i in range(4))


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "mine.jsonl"])
def test_a_manifest_of_cuts_comes_back_whole(name, cuts, tmp_path):
    cuts.to_file(tmp_path / name)
    again = list(read_manifest(tmp_path / name))
    assert again == list(cuts)
    assert [text_of(cut) for cut in again] == ["one", "one two"] * 2
    assert aligned(again[1])[1].symbol == "two"


def test_recordings_and_supervisions_give_one_cut_per_supervision(tmp_path):
    write_tone(tmp_path / "long.wav", 3.0)
    lhotse.RecordingSet.from_recordings([lhotse.Recording.from_file(tmp_path / "long.wav")]).to_file(
        tmp_path / "recordings.jsonl.gz"
    )
    lhotse.SupervisionSet.from_segments(
        lhotse.SupervisionSegment(f"s{i}", "long", start=i, duration=0.75, text=text)
        for i, text in enumerate(["one", "two"])
    ).to_file(tmp_path / "supervisions.jsonl.gz")
    for path in (tmp_path, tmp_path / "recordings.jsonl.gz"):
        cuts = sorted(read_manifest(path), key=lambda cut: cut.start)
        assert [(cut.start, cut.duration, text_of(cut)) for cut in cuts] == [(0, 0.75, "one"), (1, 0.75, "two")]
    (tmp_path / "supervisions.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"recordings\.jsonl\.gz has recordings only"):
        read_manifest(tmp_path)


def test_a_folder_of_recordings_with_their_texts(tmp_path):
    (tmp_path / "anna").mkdir()
    for name, text in (("anna/a", " turn  it\non "), ("b", "off")):
        write_tone(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(text)
    write_tone(tmp_path / "silent.FLAC")
    cuts = {cut.id: text_of(cut) for cut in read_manifest(tmp_path)}
    assert cuts == {"anna/a.wav": "turn it on", "b.wav": "off", "silent.FLAC": ""}


def test_a_folder_with_a_table_of_transcripts(tmp_path):
    write_tone(tmp_path / "7_anna_0.wav", rate=8000)
    write_tone(tmp_path / "9_ben_0.wav", rate=8000)
    (tmp_path / "transcripts.tsv").write_text("7_anna_0.wav\tseven\tanna\n9_ben_0.wav\tnine\ngone.wav\tone\n")
    cuts = list(read_manifest(tmp_path))
    said = [(cut.id, text_of(cut), cut.supervisions[0].speaker) for cut in cuts]
    assert said == [("7_anna_0.wav", "seven", "anna"), ("9_ben_0.wav", "nine", None), ("gone.wav", "one", None)]
    result = checked(CutSet.from_cuts(cuts))
    assert result.resampled == 2
    assert result.skipped == (("gone.wav", f"{tmp_path}/gone.wav does not exist"),)


def test_a_table_with_a_broken_line(tmp_path):
    (tmp_path / "transcripts.tsv").write_text("a.wav\tone\nb.wav two\n")
    with pytest.raises(InputError, match=r"line 2 of .*transcripts\.tsv has 1 columns"):
        read_manifest(tmp_path)


def test_paths_count_from_the_manifest_where_nothing_is_here(cuts, tmp_path, monkeypatch):
    moved = CutSet.from_cuts(cut.with_recording_path_prefix("") for cut in cuts)
    for cut in moved:
        cut.recording.sources[0].source = cut.recording.sources[0].source.removeprefix(f"{tmp_path}/")
    moved.to_file(tmp_path / "cuts.jsonl")
    assert len(checked(read_manifest(tmp_path / "cuts.jsonl")).cuts) == 4
    monkeypatch.chdir(tmp_path)
    assert len(checked(read_manifest("cuts.jsonl")).cuts) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, "nothing does not exist"),
        ("cuts.jsonl", "{not json", r"cuts\.jsonl is not a lhotse manifest"),
        ("photo.jpg", "\x00", r"photo\.jpg is not a lhotse manifest"),
        ("s.jsonl", '{"id": "a", "recording_id": "a", "start": 0, "duration": 1, "text": "x"}\n', "SupervisionSet"),
    ],
)
def test_what_is_no_manifest(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / name)


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match="has no recordings"):
        read_manifest(tmp_path)


# --- checking --------------------------------------------------------------------------------------------------------


@pytest.fixture
def faulty(cuts, tmp_path) -> tuple[CutSet, dict[str, str]]:
    """Four good cuts and one with each fault, and what is said of each."""
    write_tone(tmp_path / "empty.wav", 0.0)
    write_tone(tmp_path / "short.wav", 0.04)
    (tmp_path / "damaged.wav").write_bytes(b"RIFF and so on")
    for name in ("empty", "short", "damaged"):
        (tmp_path / f"{name}.txt").write_text("one")
    read = {cut.id: cut for cut in read_manifest(tmp_path)}
    gone = spoken(tmp_path / "gone.wav", 1.0, "one")
    (tmp_path / "gone.wav").unlink()
    past = spoken(tmp_path / "past.wav", 1.0, "one")
    past.duration = 1.5
    reasons = {
        "gone": f"{tmp_path}/gone.wav does not exist",
        "past": "it ends at 1.5 s, its recording at 1 s",
        "mute": "it has no transcript",
        "outside": "'one ß' has 'ß': not in the tokenizer's vocabulary",
        "empty.wav": "there is no sound in it (0 s)",
        "damaged.wav": "there is no sound in it (0 s)",
        "short.wav": "0.04 s are less than one frame",
    }
    bad = [gone, past, spoken(tmp_path / "mute.wav", 1.0, ""), spoken(tmp_path / "outside.wav", 1.0, "one ß")]
    bad += [read[name] for name in ("empty.wav", "damaged.wav", "short.wav")]
    return CutSet.from_cuts([*cuts, *bad]), reasons


def test_every_fault_is_listed_and_left_out(faulty, cuts):
    everything, reasons = faulty
    result = checked(everything, Tokenizer.train(["one two"], "char"))
    assert list(result.cuts) == list(cuts)
    assert dict(result.skipped) == reasons
    assert result.resampled == 0


def test_strict_makes_the_first_an_error(faulty):
    everything, reasons = faulty
    for cut in everything:
        if cut.id in reasons:
            with pytest.raises(InputError) as caught:
                checked(CutSet.from_cuts([cut]), Tokenizer.train(["one two"], "char"), strict=True)
            assert str(caught.value) == f"{cut.id}: {reasons[cut.id]}"


def test_nothing_left_is_an_error(faulty):
    with pytest.raises(InputError, match=r"none of 1 cuts can be used, the first, mute: it has no transcript"):
        checked(CutSet.from_cuts(cut for cut in faulty[0] if cut.id == "mute"))


def test_rates_are_counted_against_the_features(cuts):
    assert checked(cuts, features=LogMelConfig(sample_rate=8000, window=200, hop=80)).resampled == 4


# --- looking inside --------------------------------------------------------------------------------------------------


def test_times_count_from_the_start_of_the_cut(tmp_path):
    whole = spoken(tmp_path / "a.wav", 2.0, "one two three four")
    assert [(item.symbol, item.start) for item in aligned(whole)] == [
        ("one", 0.0), ("two", 0.5), ("three", 1.0), ("four", 1.5)
    ]  # fmt: skip
    later = whole.truncate(offset=0.75, duration=0.7)
    assert [(item.symbol, item.start) for item in aligned(later)] == [("two", -0.25), ("three", 0.25)]
    row = later.append(whole.pad(duration=3.0)).append(whole)
    starts = [(item.symbol, round(item.start, 3)) for item in aligned(row)]
    assert starts[:4] == [("two", -0.25), ("three", 0.25), ("one", 0.7), ("two", 1.2)]
    assert starts[-1] == ("four", 5.2)
    with pytest.raises(InputError, match=r"a has no phone times"):
        aligned(whole, "phone")


def test_times_follow_a_change_of_speed(tmp_path):
    faster = spoken(tmp_path / "a.wav", 2.0, "one two").perturb_speed(1.25)
    assert [(item.start, item.duration) for item in aligned(faster)] == [(0.0, 0.8), (0.8, 0.8)]


def test_sound_is_mixed_down_and_resampled(tmp_path):
    left = np.sin(np.arange(8000) * 0.2)
    soundfile.write(tmp_path / "stereo.wav", np.stack([0.5 * left, 0.1 * left], axis=1), 8000)
    (tmp_path / "stereo.txt").write_text("one")
    (cut,) = read_manifest(tmp_path)
    samples = samples_of(cut)
    assert samples.dtype == np.float32
    assert samples.shape == (16_000,)
    assert np.abs(samples[500:-500]).max() == pytest.approx(0.3, abs=0.01)


def test_sound_that_cannot_be_read_names_the_cut(tmp_path):
    cut = spoken(tmp_path / "a.wav", 1.0, "one")
    (tmp_path / "a.wav").write_bytes(b"no sound any more")
    with pytest.raises(InputError, match=r"the sound of a cannot be read: .+"):
        samples_of(cut)
