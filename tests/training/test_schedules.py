import math

import pytest

from wieldy.errors import UsageError
from wieldy.training.schedules import Schedule


@pytest.mark.parametrize("shape", ["invsqrt", "cosine", "hold-decay", "constant"])
def test_the_rate_rises_to_its_peak_and_never_again(shape):
    schedule = Schedule(peak=2.0, shape=shape, warmup=0.1)
    rates = [schedule.rate(step, 100) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.2 * s for s in range(1, 11)])
    assert max(rates) == pytest.approx(2.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_the_last_rate():
    assert Schedule(peak=1.0, shape="invsqrt", warmup=0.25).rate(100, 100) == pytest.approx(math.sqrt(25 / 100))
    for shape in ("cosine", "hold-decay"):
        assert Schedule(peak=1.0, shape=shape, final=0.05).rate(100, 100) == pytest.approx(0.05)
    assert Schedule(peak=1.0, shape="hold-decay", warmup=0.0).rate(50, 100) == pytest.approx(1.0)


def test_one_step_is_enough():
    assert Schedule(peak=1.0, shape="cosine").rate(1, 1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peak": 0.0}, "the learning rate is 0.0: it must be above 0"),
        ({"shape": "stairs"}, "schedule 'stairs': choose one of invsqrt"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"final": 0.0}, "final is 0.0"),
    ],
)
def test_schedules_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Schedule(**options)
