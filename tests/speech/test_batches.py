"""Batches: every utterance once, within the budget, the same ones again for the same seed and epoch."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse.cut import CutSet

from tests.speech.cuts import spoken
from wieldy.errors import InputError, UsageError
from wieldy.speech import batches
from wieldy.speech.augment import AugmentConfig
from wieldy.speech.batches import Batch, BatchConfig, Batches
from wieldy.speech.corpus import aligned, samples_of, text_of
from wieldy.speech.features import LogMelConfig, log_mel
from wieldy.speech.tokens import Tokenizer

WORDS = ["one", "two", "three", "four", "five", "six"]
TOKENIZER = Tokenizer.train([" ".join(WORDS)], "char")
FEATURES = LogMelConfig(mels=8)
MASKS_ONLY = AugmentConfig(speed=None)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> CutSet:
    folder, rng = tmp_path_factory.mktemp("sound"), np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(24)]
    return CutSet.from_cuts(
        spoken(folder / f"{i:02}.wav", 0.06 * len(text) + rng.uniform(0.05, 0.3), text) for i, text in enumerate(texts)
    )


def made(cuts, augment=None, seed=0, **config) -> Batches:
    return Batches(cuts, FEATURES, TOKENIZER, BatchConfig(**config), augment, seed)


def same(one: Batch, other: Batch) -> bool:
    tensors = ("features", "feature_lens", "targets", "target_lens")
    return one.cuts == other.cuts and all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)


def test_a_batch_holds_each_utterance_padded_with_zeros(cuts):
    seen = []
    for batch in made(cuts).epoch(0):
        seen += [cut.id for cut in batch.cuts]
        assert len(batch) == len(batch.cuts)
        assert batch.features.shape == (len(batch), int(batch.feature_lens.max()), FEATURES.dim)
        assert batch.targets.shape == (len(batch), int(batch.target_lens.max()))
        assert (batch.features.dtype, batch.targets.dtype) == (torch.float32, torch.int64)
        assert (batch.feature_lens.dtype, batch.target_lens.dtype) == (torch.int64, torch.int64)
        for b, cut in enumerate(batch.cuts):
            frames, symbols = int(batch.feature_lens[b]), int(batch.target_lens[b])
            np.testing.assert_array_equal(batch.features[b, :frames].numpy(), log_mel(samples_of(cut), FEATURES))
            assert TOKENIZER.decode(batch.targets[b, :symbols].tolist()) == text_of(cut)
            assert not batch.features[b, frames:].any()
            assert not batch.targets[b, symbols:].any()
    assert sorted(seen) == sorted(cut.id for cut in cuts)


@settings(max_examples=12, deadline=None)
@given(nodes=st.integers(1, 5000), most=st.integers(1, 10), epoch=st.integers(0, 3), slow=st.booleans())
def test_no_batch_is_above_its_budget(cuts, nodes, most, epoch, slow):
    augment = AugmentConfig(speed=(0.6, 0.8)) if slow else None
    data = made(cuts, augment, max_lattice_nodes=nodes, max_utterances=most)
    for batch in data.epoch(epoch):
        assert len(batch) <= most
        size = len(batch) * int(batch.feature_lens.max()) * (int(batch.target_lens.max()) + 1)
        assert size <= nodes or len(batch) == 1


def test_neighbours_are_alike(cuts):
    sizes = [cut.duration * len(text_of(cut)) for cut in cuts]
    groups = made(cuts, max_utterances=4)._groups(0)
    spreads = [max(sizes[i] for i in group) - min(sizes[i] for i in group) for group in groups]
    assert np.mean(spreads) < 0.35 * (max(sizes) - min(sizes))


@pytest.mark.parametrize(
    "augment", [None, MASKS_ONLY, AugmentConfig(noise_snr_db=(10, 20), room_rt60_s=(0.1, 0.2), voice=(0.9, 1.1))]
)
def test_the_same_epoch_again_whole_or_from_the_middle(cuts, augment):
    epoch = list(made(cuts, augment, max_utterances=5).epoch(3))
    other = made(cuts, augment, max_utterances=5)
    list(other.epoch(2))  # what went before leaves no trace
    again = other.epoch(3)
    assert len(again) == len(epoch)
    assert same(again[-1], epoch[-1])
    assert all(itertools.starmap(same, zip(again[2:4], epoch[2:4], strict=True)))
    with pytest.raises(IndexError):
        again[len(again)]


def test_other_epochs_and_seeds_are_other_batches(cuts):
    def order(epoch, seed=0, **config):
        return [[cut.id for cut in batch.cuts] for batch in made(cuts, seed=seed, **config).epoch(epoch)]

    assert order(0) == order(0)
    assert order(0, max_utterances=5) != order(1, max_utterances=5) != order(1, seed=1, max_utterances=5)
    groups = {frozenset(group) for group in order(0, max_utterances=5)}
    assert groups != {frozenset(group) for group in order(1, max_utterances=5)}  # not only their order
    still = {"max_utterances": 5, "shuffle": False}
    assert order(0, **still) == order(1, **still)


def test_features_of_unchanged_sound_are_computed_once(cuts, monkeypatch):
    data = made(cuts, MASKS_ONLY)
    list(data.epoch(0))
    monkeypatch.setattr(batches, "samples_of", lambda *_: pytest.fail("read again"))
    list(data.epoch(1))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        list(made(cuts, MASKS_ONLY, keep_bytes=0).epoch(0))


def test_masks_leave_what_is_kept_as_it_was(cuts):
    masked, plain = made(cuts, MASKS_ONLY, shuffle=False), made(cuts, shuffle=False)
    first, second = masked.epoch(0)[0].features, masked.epoch(1)[0].features
    assert not torch.equal(first, second)
    masked.augment = None
    assert torch.equal(masked.epoch(2)[0].features, plain.epoch(2)[0].features)


def test_the_cuts_of_a_batch_have_the_times_of_its_sound(cuts):
    augment = AugmentConfig(speed=(1.25, 1.25), time_masks=0, frequency_masks=0)
    before = {cut.id: cut for cut in cuts}
    batch = made(cuts, augment).epoch(0)[0]
    for b, cut in enumerate(batch.cuts):
        assert cut.duration == pytest.approx(before[cut.id].duration / 1.25, abs=1e-3)
        assert int(batch.feature_lens[b]) == FEATURES.frames(cut.num_samples)
        for item, old in zip(aligned(cut), aligned(before[cut.id]), strict=True):
            assert (item.start, item.duration) == pytest.approx((old.start / 1.25, old.duration / 1.25), abs=2e-4)


def test_an_utterance_of_one_frame_keeps_it_at_any_speed(tmp_path):
    cut = spoken(tmp_path / "short.wav", FEATURES.frame_samples / 16_000, "one")
    batch = made(CutSet.from_cuts([cut]), AugmentConfig(speed=(1.5, 1.5))).epoch(0)[0]
    assert batch.feature_lens.tolist() == [1]


def test_other_rates_are_resampled(tmp_path):
    cuts = CutSet.from_cuts(spoken(tmp_path / f"{rate}.wav", 1.0, "one", rate=rate) for rate in (8000, 16_000, 44_100))
    (batch,) = made(cuts).epoch(0)
    assert batch.feature_lens.tolist() == [FEATURES.frames(16_000)] * 3


def test_a_batch_moves_whole(cuts):
    batch = made(cuts).epoch(0)[0].to("meta")
    assert {getattr(batch, name).device.type for name in ("features", "feature_lens", "targets", "target_lens")} == {
        "meta"
    }
    assert batch.cuts


def test_cuts_that_cannot_be_batched_are_named(tmp_path):
    with pytest.raises(InputError, match=r"odd: 'one ß' has 'ß': not in the tokenizer's vocabulary"):
        made(CutSet.from_cuts([spoken(tmp_path / "odd.wav", 1.0, "one ß")]))
    with pytest.raises(InputError, match=r"tiny of 0\.02 s is shorter than a frame"):
        made(CutSet.from_cuts([spoken(tmp_path / "tiny.wav", 0.02, "one")]))


@pytest.mark.parametrize(("field", "value"), [("max_lattice_nodes", 0), ("max_utterances", 0), ("keep_bytes", -1)])
def test_impossible_configs(field, value):
    with pytest.raises(UsageError, match=f"{field} is {value}"):
        BatchConfig(**{field: value})
