"""Generated corpora: what is said, by whom, when, how loud; and strings of recorded digits."""

import dataclasses
import itertools
import shutil

import lhotse
import numpy as np
import pytest
import soundfile
from lhotse.cut import CutSet

from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech import corpora, synthesize
from wieldy.speech.corpora import CorpusConfig, digits_corpus, joined, named_corpus, said_by_voices, sentences, spoken
from wieldy.speech.corpus import aligned, checked, samples_of, text_of

CLEAN = CorpusConfig(noise_snr_db=None, level_db=None)
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is missing")


# --- sentences -------------------------------------------------------------------------------------------------------


def words_of(domain: str) -> set[str]:
    return {word for sentence in sentences(domain, 3000) for word in sentence.split()}


@pytest.mark.parametrize("domain", ["general", "target", "rephrased"])
def test_sentences_are_different_and_as_spoken(domain):
    said = sentences(domain, 3000)
    assert len(set(said)) == 3000
    assert all(set("".join(sentence)) <= set("abcdefghijklmnopqrstuvwxyz ") for sentence in said)
    assert sentences(domain, 50) == said[:50] != sentences(domain, 50, seed=1)


def test_domains_share_the_words_they_should():
    general = words_of("general")
    assert 120 <= len(general) <= 150
    assert len(words_of("target") - general) == 60
    rephrased = sentences("rephrased", 3000)
    heard = [np.mean([word in general for word in sentence.split()]) for sentence in rephrased]
    assert min(heard) >= 0.7
    assert np.mean(heard) < 0.95  # some words are new
    assert not set(rephrased) & set(sentences("general", 3000))


def test_an_unknown_domain():
    with pytest.raises(UsageError, match=r"no domain 'medical': choose general, target, rephrased"):
        sentences("medical", 1)


# --- synthetic voices ------------------------------------------------------------------------------------------------

TEXTS = ["turn on the light", "order seven apples", "the number is four"]


@needs_flite
def test_cuts_have_text_voice_and_exact_times(empty_cache):
    cuts = list(spoken(TEXTS, ("slt", "kal16"), CLEAN))
    assert [(cut.id, text_of(cut), cut.supervisions[0].speaker) for cut in cuts] == [
        ("slt-00000", TEXTS[0], "slt"),
        ("kal16-00001", TEXTS[1], "kal16"),
        ("slt-00002", TEXTS[2], "slt"),
    ]
    for cut in cuts:
        samples = samples_of(cut)
        assert samples.size == cut.num_samples
        words, phones = aligned(cut), aligned(cut, "phone")
        assert [item.symbol for item in words] == text_of(cut).split()
        for word in words:
            inside = [phone for phone in phones if word.start - 1e-4 <= phone.start < word.end - 1e-4]
            assert inside[0].start == pytest.approx(word.start, abs=1e-4)
            assert inside[-1].end == pytest.approx(word.end, abs=1e-4)
            part = samples[round(word.start * 16_000) : round(word.end * 16_000)]
            assert np.mean(part**2) > 0.05 * np.mean(samples**2)
        quiet = samples[: round((words[0].start - 0.05) * 16_000)]
        assert np.mean(quiet**2) < 0.01 * np.mean(samples**2)
    assert [item.symbol for item in aligned(cuts[0], "phone")[:3]] == ["t", "er", "n"]


@needs_flite
def test_a_corpus_is_made_once(empty_cache, monkeypatch):
    first = spoken(TEXTS, ("kal16",))
    monkeypatch.setattr(synthesize, "say", lambda *args, **kwargs: pytest.fail("spoken again"))
    assert list(spoken(TEXTS, ("kal16",))) == list(first)
    assert len(checked(first, strict=True).cuts) == 3
    with pytest.raises(pytest.fail.Exception, match="spoken again"):
        spoken(TEXTS, ("kal16",), CorpusConfig(seed=1))


@needs_flite
def test_a_corpus_can_be_moved(empty_cache, tmp_path):
    (cut,) = spoken(TEXTS[:1], ("kal16",))
    shutil.copytree(empty_cache / "corpora", tmp_path / "moved")
    shutil.rmtree(empty_cache)
    (manifest,) = (tmp_path / "moved").rglob("cuts.jsonl.gz")
    (again,) = corpora.corpus.read_manifest(manifest)
    assert samples_of(again).size == cut.num_samples


@needs_flite
def test_the_seed_decides_pace_noise_and_level(empty_cache, monkeypatch):
    def made(seed: int, **config) -> np.ndarray:
        (cut,) = spoken(TEXTS[:1], ("kal16",), CorpusConfig(seed=seed, **config))
        return samples_of(cut)

    first = made(0)
    shutil.rmtree(empty_cache / "corpora")
    np.testing.assert_array_equal(made(0), first)
    assert made(1).size != first.size  # another pace
    clean, noisy, echoing = (
        made(0, level_db=None, noise_snr_db=noise, room_rt60_s=room)
        for noise, room in ((None, None), ((20, 20), None), (None, (0.3, 0.3)))
    )
    assert 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2)) == pytest.approx(20, abs=0.1)
    assert np.mean((echoing - clean) ** 2) > 0.1 * np.mean(clean**2)
    assert 20 * np.log10(np.sqrt(np.mean(clean**2))) == pytest.approx(-27, abs=2)  # -26 dB where there is speech


def test_a_voice_that_is_no_program(empty_cache):
    pytest.importorskip("hibari")
    (cut,) = spoken(TEXTS[:1], ("heart",), CLEAN)
    assert cut.sampling_rate == 16_000
    assert [item.symbol for item in aligned(cut)] == TEXTS[0].split()


def test_without_flite_its_package_is_named(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="apt install flite"):
        spoken(TEXTS)


@pytest.mark.parametrize(("texts", "voices"), [([], ("slt",)), (TEXTS, ())])
def test_nothing_to_say_or_nobody_to_say_it(texts, voices):
    with pytest.raises(UsageError, match="at least one sentence and one voice"):
        spoken(texts, voices)


@pytest.mark.parametrize(
    ("field", "value"), [("pace", (0.4, 1.0)), ("pace", (1.1, 1.0)), ("noise_snr_db", (5, 1)), ("noise", ("brown",))]
)
def test_impossible_configs(field, value):
    with pytest.raises(UsageError, match=f"{field} is"):
        CorpusConfig(**{field: value})


# --- recordings of people --------------------------------------------------------------------------------------------

RATE = 8000


@pytest.fixture
def digits(tmp_path) -> CutSet:
    """Tones named as spoken digits: the pitch tells the digit, the noise the speaker; every one at another level."""
    rng = np.random.default_rng(0)
    for speaker, noise in (("anna", 1e-3), ("ben", 4e-3)):
        for digit in range(10):
            length = int(rng.integers(2400, 4000))
            tone = np.sin(2 * np.pi * (300 + 100 * digit) * np.arange(length) / RATE)
            tone[: length // 4] = 0.0
            samples = rng.uniform(0.05, 0.5) * (tone + noise * rng.standard_normal(length))
            soundfile.write(tmp_path / f"{digit}_{speaker}_0.wav", samples, RATE)
    return digits_corpus(tmp_path)


def test_names_tell_digit_and_speaker(digits):
    said = {cut.id: (text_of(cut), cut.supervisions[0].speaker) for cut in digits}
    assert len(said) == 20
    assert said["7_ben_0"] == ("seven", "ben")
    assert checked(digits).resampled == 20


def test_names_tell_words_too(tmp_path):
    for name in ("turn-on_anna_3.wav", "Stop.flac", "seven_ben_1.WAV"):
        soundfile.write(tmp_path / name, np.zeros(RATE), RATE)
    (tmp_path / "notes.txt").write_text("about the recordings")
    said = [(text_of(cut), cut.supervisions[0].speaker) for cut in named_corpus(tmp_path)]
    assert sorted(said, key=str) == [("seven", "ben"), ("stop", None), ("turn on", "anna")]


def test_a_damaged_recording_is_skipped_later(tmp_path):
    soundfile.write(tmp_path / "1_anna_0.wav", np.zeros(RATE), RATE)
    (tmp_path / "2_anna_0.wav").write_bytes(b"not a sound")
    assert checked(digits_corpus(tmp_path)).skipped == (("2_anna_0", "there is no sound in it (0 s)"),)


@pytest.mark.parametrize("name", ["gone", ""])
def test_a_folder_without_recordings(name, tmp_path):
    with pytest.raises(InputError, match=r"is not a folder|has no recordings"):
        digits_corpus(tmp_path / name)


def test_strings_hold_their_digits_in_order_at_their_times(digits):
    strings = joined(digits, np.random.default_rng(0), 12, lengths=(2, 4), pause_s=(0.05, 0.2))
    assert len(strings) == 12
    for index, string in enumerate(strings):
        assert string.supervisions[0].speaker == ("anna", "ben")[index % 2]
        items, samples = aligned(string), samples_of(string)
        assert samples.size == string.num_samples
        assert 2 <= len(items) <= 4
        assert [item.symbol for item in items] == text_of(string).split()
        assert 0.05 <= items[0].start <= 0.2
        assert 0.05 - 1e-4 <= string.duration - items[-1].end <= 0.2 + 1e-4
        for before, after in itertools.pairwise(items):
            assert 0.05 - 1e-4 <= after.start - before.end <= 0.2 + 1e-4
        levels = []
        for item in items:
            part = samples[round(item.start * 16_000) : round(item.end * 16_000)]
            spectrum = np.abs(np.fft.rfft(part))
            tone = np.argmax(spectrum) * 16_000 / part.size
            assert corpora.DIGITS[round((tone - 300) / 100)] == item.symbol
            levels.append(np.mean(part[part.size // 2 : -200] ** 2))
        assert 10 * np.log10(max(levels) / min(levels)) < 0.5


def test_every_recording_is_used_before_one_is_used_again(digits):
    strings = joined(digits, np.random.default_rng(0), 20, lengths=(1, 1))
    assert sorted((text_of(s), s.supervisions[0].speaker) for s in strings) == sorted(
        (text_of(cut), cut.supervisions[0].speaker) for cut in digits
    )


def test_people_repeat_themselves_as_often_as_is_asked(digits):
    many = CutSet.from_cuts(cut.with_id(f"{cut.id}-{i}") for cut in digits for i in range(5))

    def share(repeats):
        strings = joined(many, np.random.default_rng(0), 40, lengths=(8, 8), repeats=repeats)
        texts = [text_of(string).split() for string in strings]
        pairs = [a == b for words in texts for a, b in itertools.pairwise(words)]
        return sum(pairs) / len(pairs)

    assert share(0.0) < 0.2
    assert 0.4 < share(0.5) < 0.65
    assert share(1.0) > 0.7  # as often as there is such a recording left


def test_phrases_are_said_by_voices_that_know_when(monkeypatch):
    if not any(voice.name == "heart" for voice in synthesize.voices()):
        pytest.skip("hibari is not installed")
    heart = synthesize.voice_named("heart")
    monkeypatch.setattr(synthesize, "voices", lambda: (heart, dataclasses.replace(heart, name="joe", shippable=False)))
    cuts = said_by_voices(["turn left", "stop"], 3, (1, 2), seed=4)
    assert {cut.supervisions[0].speaker for cut in cuts} == {"heart"}
    for cut in cuts:
        assert set(text_of(cut).split()) <= {"turn", "left", "stop"}
        assert [item.symbol for item in aligned(cut)] == text_of(cut).split()
    monkeypatch.setattr(synthesize, "voices", tuple)
    with pytest.raises(MissingError, match="no synthetic voice is installed"):
        said_by_voices(["stop"], 1)


def test_pauses_are_not_silent_and_the_generator_decides(digits):
    one, again, other = (joined(digits, np.random.default_rng(seed), 4) for seed in (0, 0, 1))
    for string, same in zip(one, again, strict=True):
        np.testing.assert_array_equal(samples_of(string), samples_of(same))
        start = samples_of(string)[: round(aligned(string)[0].start * 16_000)]
        assert not start.size or start.any()
    assert [text_of(string) for string in one] != [text_of(string) for string in other]


def test_strings_can_be_saved_and_read(digits, tmp_path):
    strings = joined(digits, np.random.default_rng(0), 3)
    strings.save_audios(tmp_path / "sound").to_file(tmp_path / "cuts.jsonl.gz")
    again = corpora.corpus.read_manifest(tmp_path / "cuts.jsonl.gz")
    assert [text_of(cut) for cut in again] == [text_of(cut) for cut in strings]


@pytest.mark.parametrize(
    ("field", "value"), [("lengths", (0, 3)), ("lengths", (3, 2)), ("pause_s", (-0.1, 0.1)), ("repeats", 1.5)]
)
def test_impossible_strings(field, value, digits):
    with pytest.raises(UsageError, match=f"{field} is"):
        joined(digits, np.random.default_rng(0), 1, **{field: value})


def test_no_recordings_no_strings():
    with pytest.raises(InputError, match="no recordings"):
        joined(lhotse.CutSet.from_cuts([]), np.random.default_rng(0), 1)


def test_real_digits(shared_data):
    cuts = digits_corpus(shared_data / "fsdd")
    assert len(cuts) == 2500
    assert {cut.supervisions[0].speaker for cut in cuts} == {"george", "jackson", "lucas", "nicolas", "yweweler"}
    assert {text_of(cut) for cut in cuts} == set(corpora.DIGITS)
    strings = checked(joined(cuts, np.random.default_rng(0), 10)).cuts
    assert all(np.abs(samples_of(string)).max() <= 1 for string in strings)
