"""What decides the claim on streaming Transformers, with trials made up; and that every part of it runs."""

import shutil

import pytest

pytest.importorskip("torch")

from wieldy.claims import transformers_large_scale_asr as claim
from wieldy.metrics.text import WordErrors
from wieldy.speech.networks.acoustic_model import parameters
from wieldy.speech.study import Trial

FULL = claim.SIZES["full"]


def trials(name, wrong, diverged_at=None):
    """One, with so many of 1000 frames wrong."""
    frames = (WordErrors(1000, substitutions=wrong),)
    figures = {"phones": frames, "words": frames, "losses": (1.0,), "look_ahead_ms": 0.0, "rtf": 0.01}
    return [
        Trial(
            candidate=name,
            seed=0,
            parameters=1,
            steps=1,
            seconds=1.0,
            diverged_at=diverged_at,
            frames=frames,
            **figures,
        )
    ]


def streaming(wrong):
    """By way, at all four latencies."""
    named = {
        claim._named(way, ahead): n for way, own in wrong.items() for ahead, n in zip(claim.AHEAD, own, strict=True)
    }
    return {name: trials(name, n) for name, n in named.items()}


EVEN = {
    "mask": [400, 300, 250, 210],
    "chunk": [400, 300, 250, 200],
    "XL": [400, 300, 250, 200],
    "LC-BLSTM": [390, 300, 250, 200],
}


@pytest.mark.parametrize(
    ("changed", "figure", "rise"),
    [
        ({}, 200 / 206, 210 / 250),
        ({"XL": [400, 300, 250, 208]}, 208 / 206, 210 / 250),  # not as good as LC-BLSTM
        ({"mask": [400, 300, 250, 160]}, 200 / 160, 250 / 300),  # not as good as the mask
        ({"chunk": [400, 420, 250, 200]}, 200 / 206, 420 / 400),  # not better with more look-ahead
    ],
)
def test_the_claim_holds_where_xl_is_as_good(changed, figure, rise) -> None:
    found = streaming(EVEN | changed)
    assert claim.deciding(found) == pytest.approx(figure)
    assert claim.largest_rise(found) == pytest.approx(rise)


def test_instability_is_that_of_post_norm_without_warm_up_at_the_same_rate() -> None:
    jobs = {job[0] for job in claim._stability_jobs(FULL, 0)}
    found = {name: trials(name, 300) for name in jobs}
    assert claim.instability(found) == pytest.approx(1)
    bad, other = (claim._deep("post", "scaled", warm, 3e-3) for warm in (False, True))
    assert claim.instability(found | {other: trials(other, 900)}) == pytest.approx(1)
    assert claim.instability(found | {bad: trials(bad, 450)}) == pytest.approx(1.5)
    assert claim.instability(found | {bad: trials(bad, 450, diverged_at=70)}) == claim.DIVERGED


def test_every_arm_of_the_specification_is_there_and_of_one_size() -> None:
    deep = [(name, seed) for name, _, seed, _ in claim._stability_jobs(FULL, 0)]
    assert len({name for name, _ in deep}) == 16
    assert sum(name == claim._stable(1e-3) for name, _ in deep) == 3
    ways = list(claim._streaming(FULL))
    assert len(ways) == 16
    sizes = [parameters(claim.FEATURES.dim, encoder) for _, ahead, encoder in ways if ahead == 20]
    assert max(sizes) <= 1.05 * min(sizes)
    assert [name for name, *_ in claim._whole_jobs(FULL, 0)].count(claim.BLSTM) == 3


@pytest.mark.parametrize("way", claim.WAYS)
def test_look_ahead_is_what_it_is_called(way) -> None:
    small = claim.SIZES["smoke"]
    for ahead in (0, 20):
        assert claim.measured_look_ahead(claim.streaming_encoder(small, way, ahead)) == ahead


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_every_part_executes(empty_cache) -> None:
    result = claim.run("smoke", 3)
    assert result.exit_status == 0
    assert len(result.arms) == 2 + 16 + 16
    assert result.secondary[-1].figure == 0
