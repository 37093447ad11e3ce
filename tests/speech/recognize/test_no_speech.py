"""Words are dropped where both say so: the probability of no speech, and the doubt about the words."""

import pytest

from wieldy.speech.recognize.no_speech import why_dropped


@pytest.mark.parametrize(
    ("no_speech", "log_probability", "dropped"),
    [(0.95, -0.95, True), (0.61, -0.76, True), (0.95, -0.04, False), (0.31, -3.0, False)],
)
def test_both_figures_must_say_so(no_speech: float, log_probability: float, dropped: bool) -> None:
    assert (why_dropped(" You", no_speech, log_probability) is not None) == dropped


def test_a_long_text_is_told_in_one_short_line() -> None:
    warning = why_dropped(" Thank you for watching,\n" * 9, 0.9, -1.0)
    assert warning == "'Thank you for watching, Thank you ...' dropped: no speech there, probability 0.90"
