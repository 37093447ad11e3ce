"""Adaptation of a tiny recogniser of tones: what is trained, what is measured, and what ends it."""

import copy
import dataclasses

import pytest

torch = pytest.importorskip("torch")

from lhotse.cut import CutSet  # noqa: E402

from tests.speech.adapt import tones  # noqa: E402
from wieldy.errors import InputError, MissingError, UsageError  # noqa: E402
from wieldy.speech import adapt as adaptation  # noqa: E402
from wieldy.speech import asr  # noqa: E402
from wieldy.speech.adapt import AdaptConfig, adapt, new_words, read_text  # noqa: E402
from wieldy.speech.adapt.config import SpliceConfig  # noqa: E402
from wieldy.speech.adapt.guard import DOMAIN, SOURCE, Guard, SourceWorseError  # noqa: E402
from wieldy.speech.adapt.recordings import Recordings  # noqa: E402
from wieldy.speech.adapt.text import DomainText  # noqa: E402
from wieldy.speech.adapt.tts import PARTS  # noqa: E402
from wieldy.speech.augment import AugmentConfig  # noqa: E402
from wieldy.speech.batches import BatchConfig, Batches  # noqa: E402
from wieldy.speech.losses.divergence import Lattice, lattice_divergence  # noqa: E402

CONFIG = AdaptConfig(epochs=8, rate=5e-3, max_worse=10.0)


@pytest.fixture(scope="module")
def learned():
    return tones.recognizer(steps=110)


@pytest.fixture(autouse=True)
def voices(monkeypatch):
    """Tones instead of voices."""
    spoken_by = []

    def speak(lines, names, config):
        spoken_by.append(names)
        return tones.spoken(lines, names[0])

    monkeypatch.setattr(adaptation, "speak", speak)
    return spoken_by


@pytest.fixture(scope="module")
def source():
    return tones.spoken(tones.SOURCE, "source")


def changed(before, after):
    """The parts of the network in which something is different."""
    old, new = before.network.state_dict(), after.network.state_dict()
    names = {name.split(".")[0] for name in old if not torch.equal(old[name].nan_to_num(), new[name].nan_to_num())}
    return {part for part, modules in PARTS.items() if names & set(modules)}


def mean_loss(recognizer, lines):
    data = Batches(tones.spoken(lines, "other"), tones.FEATURES, recognizer.tokenizer, BatchConfig(max_utterances=64))
    with torch.inference_mode():
        return float(asr.loss(recognizer.network, data.epoch(0)[0]))


def parameters(network, *parts):
    modules = [getattr(network, name) for part in parts for name in PARTS[part]]
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_synthetic_speech_teaches_the_new_domain_and_leaves_the_encoder_alone(learned, source, voices):
    adapted, report = adapt(learned, tones.DOMAIN * 2, source=source, config=CONFIG)
    assert changed(learned, adapted) == {"predictor", "joint"}
    assert mean_loss(adapted, tones.DOMAIN) < 0.8 * mean_loss(learned, tones.DOMAIN)
    assert report.metric(f"word error rate, {DOMAIN}, after").count == 8  # a tenth of 45 lines of two words
    assert report.metric(f"word error rate, {SOURCE}, after").count == 8  # a fifth of 20
    assert report.metric("new words heard, after").count == 8
    assert report.metric("lines learnt").median == 82
    assert report.metric("parameters touched").median == parameters(learned.network, "predictor", "joint")
    assert report.metric("parameters").median == parameters(learned.network, *PARTS)
    assert report.notes == ()
    assert voices == [(CONFIG.test_voice,), CONFIG.voices]
    assert all(parameter.requires_grad for parameter in adapted.network.parameters())


def test_words_of_recordings_teach_the_new_domain_without_a_voice(learned, source, voices):
    """All words of these lines are among the source's, in other sequences."""
    lines = [f"{one} {other} {third}" for one in ("b", "bc", "aab") for other in ("c", "ba") for third in ("abb", "bc")]
    config = dataclasses.replace(CONFIG, method="splice", epochs=3, splice=SpliceConfig(variants=2))
    adapted, report = adapt(learned, lines, source=source, config=config)
    assert changed(learned, adapted) == {"predictor", "joint"}
    assert mean_loss(adapted, lines) < 0.9 * mean_loss(learned, lines)
    assert report.metric("recordings made").median == 22  # two of each of eleven lines
    assert report.metric("words from runs of words").median == 100
    assert voices == [(CONFIG.test_voice,)]  # for the test alone
    both = dataclasses.replace(config, method="splice+tts", epochs=1)
    adapt(learned, lines, source=source, pieces=tones.spoken(tones.SOURCE, "other"), config=both)
    assert voices[1:] == [(CONFIG.test_voice,), CONFIG.voices]
    with pytest.raises(UsageError, match="method splice without recordings: name some with word times: --recordings"):
        adapt(learned, lines, config=config)


@pytest.mark.parametrize("update", [("predictor",), ("joint",), ("encoder", "predictor", "joint")])
def test_what_is_updated_and_nothing_else(learned, source, update):
    adapted, _ = adapt(
        learned, tones.DOMAIN, source=source, config=dataclasses.replace(CONFIG, epochs=1, update=update)
    )
    assert changed(learned, adapted) == set(update)


def test_the_predictor_alone_learns_the_text_as_a_language_model(learned, source, monkeypatch):
    config = dataclasses.replace(CONFIG, method="lm-branch", epochs=2)
    adapted, report = adapt(learned, tones.DOMAIN, source=source, config=config)
    assert changed(learned, adapted) == {"predictor"}
    assert report.metric("parameters touched").median == sum(p.numel() for p in learned.network.predictor.parameters())

    def missing(*_):
        raise MissingError("the program flite is missing", hint="install it: apt install flite")

    # It needs no voices, but for its report.
    monkeypatch.setattr(adaptation, "speak", missing)
    adapted, report = adapt(learned, tones.DOMAIN, source=source, config=config)
    assert changed(learned, adapted) == {"predictor"}
    assert "not measured: the program flite is missing: install it: apt install flite" in report.notes[0]
    with pytest.raises(MissingError, match="apt install flite"):
        adapt(learned, tones.DOMAIN, config=CONFIG)


def test_without_source_the_report_says_that_nothing_guards(learned):
    _, report = adapt(learned, tones.DOMAIN, config=dataclasses.replace(CONFIG, epochs=1))
    assert report.notes == ("without source recordings nothing held it to what it was",)
    assert not [metric.name for metric in report.metrics if SOURCE in metric.name or "new words" in metric.name]


def test_the_divergence_keeps_answers_on_the_source_near_what_they_were(learned, source):
    (batch,) = Recordings(source, learned, CONFIG, frozen=True).epoch(0)

    def lattice(network):
        f, lens, g = network(batch.features, batch.feature_lens, batch.targets)
        return Lattice(f, g, network.joint), lens

    def moved(kl_weight):
        config = dataclasses.replace(CONFIG, epochs=4, source_mix=0.0, kl_weight=kl_weight)
        adapted, _ = adapt(learned, tones.DOMAIN, source=source, config=config)
        with torch.no_grad():
            (first, lens), (other, _) = lattice(learned.network), lattice(adapted.network)
            return float(lattice_divergence(first, other, batch.targets, lens, batch.target_lens))

    assert moved(10.0) < 0.5 * moved(0.0)


def test_what_stands_for_speech_in_the_internal_language_model_moves_along(learned, source):
    recognizer = copy.deepcopy(learned)
    recordings = Recordings(source, recognizer, CONFIG, frozen=True)
    batches = [(batch.features, batch.feature_lens) for batch in recordings.epoch(0)]
    recognizer.network.measure_mean_encoding_(batches)
    adapted, _ = adapt(recognizer, tones.DOMAIN, source=source, config=dataclasses.replace(CONFIG, epochs=1))
    assert (adapted.network.mean_encoding - recognizer.network.mean_encoding).abs().max() > 1e-3
    alone, _ = adapt(recognizer, tones.DOMAIN, config=dataclasses.replace(CONFIG, epochs=1))
    assert alone.network.mean_encoding.isnan().all()


def test_a_frozen_encoder_hears_every_recording_once(learned, source):
    others = tones.spoken(tones.DOMAIN, "source")  # of the same names
    recordings = Recordings(CutSet.from_cuts([*source, *others]), learned, CONFIG, frozen=True)
    for batch in recordings.epoch(0):
        recordings.hear(learned.network, batch)
    heard = []
    hook = learned.network.encoder.register_forward_pre_hook(lambda *_: heard.append(1))
    again = [(batch, *recordings.hear(learned.network, batch)) for batch in recordings.epoch(1)]
    hook.remove()
    assert not heard
    for batch, y, lens in again:
        expected, same = learned.network.hear(batch.features, batch.feature_lens)
        torch.testing.assert_close(y, expected)
        assert lens.tolist() == same.tolist()


def test_what_is_augmented_is_heard_anew_every_time(learned, source):
    augment = AugmentConfig(speed=None, level_db=(-20, 20), frequency_masks=0, time_masks=0)
    recordings = Recordings(source, learned, CONFIG, frozen=True, augment=augment)
    heard = [recordings.hear(learned.network, recordings.epoch(number)[0])[0].sum() for number in (0, 1)]
    assert heard[0] != heard[1]


# --- the guard -------------------------------------------------------------------------------------------------------


class Scripted:
    """Recordings whose errors go by the calls: so many of ten words."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def answers(self, network):
        wrong = self.errors.pop(0)
        return [(["a"] * 10, ["a"] * (10 - wrong) + ["b"] * wrong)]


@pytest.mark.parametrize(
    ("domain", "source", "best", "stopped"),
    [
        ((5, 4, 3, 3), (2, 2, 2, 1), 3, 0),  # of equals the last
        ((5, 2, 3, 4), (2, 2, 2, 2), 1, 0),
        ((5, 4, 0), (2, 2, 3), 1, 2),
        ((5, 4), (2, 3), 0, 1),  # nothing is kept
        ((5, 6, 7, 8), (2, 2, 2, 2), 0, 0),
    ],
)
def test_the_guard_keeps_the_best_weights_and_ends_where_the_source_gets_worse(domain, source, best, stopped):
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    guard = Guard(network, {DOMAIN: Scripted(*domain), SOURCE: Scripted(*source)}, 0.02)
    guard.watch(3)
    try:
        for step in (1, 2, 3):
            torch.nn.init.constant_(network.weight, step)
            guard.step(step)
    except SourceWorseError:
        pass
    guard.restore_best()
    assert network.weight.item() == guard.best_step == best
    assert guard.stopped_at == stopped
    assert sum(word != "a" for word in guard.after[DOMAIN][0][1]) == domain[best]


def test_an_adaptation_that_harms_the_source_at_once_changes_nothing(learned, source):
    adapted, report = adapt(learned, tones.DOMAIN, source=source, config=AdaptConfig(rate=1.0, epochs=1))
    assert changed(learned, adapted) == set()
    assert "ended at step 1 of 2, with more than 2% more errors" in report.notes[0]
    assert "the weights are those of step 0" in report.notes[0]


# --- text ------------------------------------------------------------------------------------------------------------


def test_lines_that_cannot_be_used_are_listed_with_the_reason(learned):
    lines = ["ca  cab", "ab", "", "x-ray", "cab", " - ", "ab", "Ab ab"]
    text = DomainText.of(lines, learned.tokenizer)
    assert sorted({*text.learn, *text.test}) == ["ab", "ca cab", "cab"]
    assert len(text.test) == 1
    assert not set(text.test) & set(text.learn)
    assert dict(text.skipped) == {
        "x-ray": "'x-ray' has 'x-r', 'y': not in the tokenizer's vocabulary",
        "-": "there is no word in it",
        "Ab ab": "'Ab ab' has 'A': not in the tokenizer's vocabulary",
    }
    _, report = adapt(learned, lines, config=dataclasses.replace(CONFIG, epochs=1))
    assert report.metric("lines left out").median == 3
    assert report.tables[0].rows == text.skipped


def test_too_little_text_or_sound_is_refused(learned, source):
    with pytest.raises(InputError, match="1 of 2 lines of text can be used, the first left out, 'x': 'x' has 'x'"):
        adapt(learned, ["x", "ab"])
    with pytest.raises(InputError, match="0 of 0 lines of text can be used: there must be two different ones"):
        adapt(learned, ["", " "])
    with pytest.raises(InputError, match="one source recording: give two at least"):
        adapt(learned, tones.DOMAIN, source=tones.spoken(["ab"]))


def test_text_is_read_from_a_file_or_from_all_in_a_folder(tmp_path):
    (tmp_path / "b.txt").write_text("three\n")
    (tmp_path / "a.txt").write_text("one\ntwo")
    (tmp_path / "c.md").write_text("four")
    assert read_text(tmp_path) == ["one", "two", "three"]
    assert read_text(tmp_path / "c.md") == ["four"]
    (tmp_path / "latin.md").write_bytes(b"\xe9t\xe9")
    with pytest.raises(InputError, match=r"latin\.md cannot be read as UTF-8 text"):
        read_text(tmp_path / "latin.md")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no \.txt file"):
        read_text(tmp_path / "empty")


def test_new_words_are_counted_where_they_were_said():
    answers = [(["a", "x", "b", "x"], ["a", "x", "c"]), (["y"], ["y"]), (["a"], ["x"])]
    assert new_words(answers, {"x", "y"}) == (3, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "cut"}, r"method 'cut': choose tts, lm-branch, splice, splice\+tts"),
        ({"update": ()}, r"update is \(\): name some of encoder, predictor, joint"),
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"rate": 0}, "rate is 0: it must be above 0"),
        ({"source_mix": 1}, r"source_mix is 1: it lies in \[0, 1\)"),
        ({"voices": ("slt", "kal16")}, "test with a voice that is not heard"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        AdaptConfig(**fields)


def test_voices_speak_english_only(learned):
    recognizer = copy.copy(learned)
    recognizer.language = "de"
    with pytest.raises(UsageError, match="the recogniser's language is 'de': the voices speak English"):
        adapt(recognizer, tones.DOMAIN)
