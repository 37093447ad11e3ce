"""What decides the claim on transducers in practice, with findings made up; and that every part of it runs."""

import shutil

import pytest

pytest.importorskip("torch")

from lhotse.supervision import AlignmentItem

from wieldy.claims import rnnt_practical as claim
from wieldy.metrics.text import WordErrors
from wieldy.speech.decode.word_times import WordTime


def findings(new, old, **more):
    """Of 1000 words in each domain, so many errors by arm; those not named make 50 in the old one."""
    errors = {
        (arm, domain): [WordErrors(1000, substitutions=own.get(arm, 50))]
        for domain, own in (("new", new), ("old", old))
        for arm in claim.ADAPTED
    }
    return claim.Found(errors=errors, **more)


NEW = {claim.BASE: 800, claim.TTS: 600, claim.SPLICE: 400, claim.BOTH: 390}


@pytest.mark.parametrize(
    ("new", "old", "figure"),
    [
        ({}, {}, 400 / 600),  # a quarter fewer errors than before, and fewer than synthetic speech
        ({claim.TTS: 300}, {}, 400 / 300),
        ({claim.SPLICE: 590}, {}, 590 / 600),
        ({claim.SPLICE: 590, claim.TTS: 700}, {}, 590 / 600),
        ({}, {claim.SPLICE: 70}, 2.0),  # two points more in the old domain
        ({}, {claim.SPLICE: 20}, 400 / 600),
        (dict.fromkeys(claim.ADAPTED, 0), {}, 1 / 0.75),
    ],
)
def test_the_claim_holds_where_splicing_wins_and_does_no_harm(new, old, figure) -> None:
    assert claim.deciding(findings(NEW | new, old)) == pytest.approx(figure)


def test_times_and_confidence_are_judged_by_their_means() -> None:
    found = findings(
        NEW,
        {},
        apart={"phone branch": [10.0, 30.0], "CTC branch": [60.0], "emission, shifted": [80.0, 80.0]},
        changed=1,
        heard=[WordErrors(10, substitutions=2)],
        sure={
            claim.CLASSIFIER: [0.9, 0.8, 0.7, 0.1],
            claim.CHEAP: [0.9, 0.8, 0.7, 0.1],
            claim.TOKEN: [0.9, 0.05, 0.7, 0.1],
        },
        right=[True, True, True, False],
    )
    figures = [condition.figure for condition in claim._secondary(found)]
    assert figures[:4] == [20.0, 0.25, 1, pytest.approx(1 - 2 / 3)]
    assert figures[6:] == [0.2, 0.2]
    verdicts = [condition.verdict for condition in claim._secondary(found + found)]
    assert verdicts[:3] == ["holds", "holds", "does not hold"]
    names = [arm.name for arm in (*claim._times_arms(found), *claim._confidence_arms(found))]
    assert "times: CTC branch" in names
    assert f"confidence: {claim.CHEAP}" in names


def test_what_was_not_heard_is_not_judged() -> None:
    conditions = list(claim._secondary(findings(NEW, {}, apart={name: [] for name in claim.TIMES.values()})))
    assert {condition.verdict for condition in conditions} == {"not run", "holds"}
    assert claim.off(AlignmentItem("a", 1.0, 0.5), WordTime("a")) == []
    assert claim.off(AlignmentItem("a", 1.0, 0.5), WordTime("a", 1.01, 1.46)) == pytest.approx([10, 40])


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("flite") and shutil.which("espeak-ng")), reason="flite or espeak-ng is missing")
def test_every_part_executes(empty_cache) -> None:
    result = claim.run("smoke", 3)
    assert result.exit_status == 0
    assert {arm.name for arm in result.arms} >= set(claim.ADAPTED)
    assert result.primary.figure is not None
