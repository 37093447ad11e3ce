"""What decides the claim on transducers, with findings made up; and that every part of it runs."""

import shutil

import numpy as np
import pytest

pytest.importorskip("torch")

from wieldy.claims import rnnt_surpass_hybrid as claim
from wieldy.metrics.text import WordErrors


def findings(new, old):
    """Of 1000 words in each domain, so many errors by arm; those not named make 100 in the old one."""
    return {
        ("custom", arm, domain): claim.Found([WordErrors(1000, substitutions=errors.get(arm, 100))])
        for domain, errors in (("new", new), ("old", old))
        for arm in claim.CUSTOM
    }


SPOKEN = {"speech: predictor": 390, claim.TTS: 350, "speech: all": 380}
NEW = {claim.BASE: 500, claim.FUSION: 400, claim.LM_BRANCH: 420, **SPOKEN}


@pytest.mark.parametrize(
    ("new", "old", "figure"),
    [
        ({}, {}, 350 / 360),  # against nine tenths of shallow fusion
        ({"speech: all": 340}, {}, 350 / 340),  # another is better
        ({"speech: all": 340}, {"speech: all": 121}, 350 / 360),  # but harms the old domain
        ({claim.FUSION: 380}, {}, 350 / 342),
        ({}, {claim.TTS: 130}, 1.5),  # three points instead of two
        (dict.fromkeys(claim.CUSTOM, 0), {}, 1 / 0.9),
    ],
)
def test_the_claim_holds_where_speech_wins_and_does_no_harm(new, old, figure) -> None:
    assert claim.deciding(findings(NEW | new, old)) == pytest.approx(figure)


def test_the_losses_that_are_measured_agree() -> None:
    case = claim.Case(batch=3, frames=7, symbols=4, vocabulary=9, width=5)
    chunks, dense = (claim.measured_loss(name, case) for name in ("chunks", "dense"))
    np.testing.assert_allclose(chunks.gradient, dense.gradient, atol=1e-6)
    assert np.abs(dense.gradient).max() > 0


def test_look_ahead_is_counted_with_what_is_stacked() -> None:
    size = claim.SIZES["full"]
    findings = {("ahead", str(frames)): claim.Found([WordErrors(10)] * 2) for frames in size.look_ahead}
    arms = list(claim._look_ahead_arms(findings, size))
    assert [arm.name for arm in arms] == ["look-ahead: 0 ms", "look-ahead: 360 ms", "look-ahead: 720 ms"]
    assert [arm.metrics[1].median for arm in arms] == pytest.approx([60, 420, 780])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_every_part_executes(empty_cache) -> None:
    result = claim.run("smoke", 3)
    assert result.exit_status == 0
    assert {arm.name for arm in result.arms} >= {claim.BASE, claim.TTS, "start: random", "loss: chunks"}
    assert result.primary.figure is not None
