"""Greedy search against walking the lattice by hand, one utterance at a time."""

import pytest

torch = pytest.importorskip("torch")

from tests.speech.decode.models import SmallTransducer, check_features, encodings  # noqa: E402
from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.decode.greedy import greedy  # noqa: E402


def walk(view, f, max_symbols, modified):
    tokens, frames, score = [], [], 0.0
    for t, frame in enumerate(f):
        symbols = 0
        while True:
            log_p = view.log_p(frame, tokens)
            best = int(log_p.argmax())
            if best == view.blank or symbols == max_symbols:
                score += float(log_p[view.blank])
                break
            score += float(log_p[best])
            tokens, frames, symbols = [*tokens, best], [*frames, t], symbols + 1
            if modified:
                break
    return tuple(tokens), tuple(frames), score


@pytest.mark.parametrize(("mode", "max_symbols"), [("exact", 1), ("exact", 10), ("modified", 10)])
@pytest.mark.parametrize("blank", [0, 4])
def test_it_walks_the_likeliest_nodes(mode, max_symbols, blank):
    for seed in range(5):
        view = SmallTransducer(5, seed=seed, blank=blank, spread=3.0)
        f, lens = encodings([4, 0, 15, 9], seed=seed)
        for row, length, h in zip(
            f, lens.tolist(), greedy(view, f, lens, max_symbols=max_symbols, mode=mode), strict=True
        ):
            tokens, frames, score = walk(view, row[:length], max_symbols, mode == "modified")
            assert (h.tokens, h.frames) == (tokens, frames)
            assert h.score == h.acoustic == pytest.approx(score)
            check_features(view, row[:length], h, modified=mode == "modified")


def test_a_model_that_never_says_blank_is_stopped():
    view = SmallTransducer(3)
    view.output.bias[0] -= 1000
    f, lens = encodings([4])
    (h,) = greedy(view, f, lens, max_symbols=2)
    assert h.frames == (0, 0, 1, 1, 2, 2, 3, 3)


def test_bad_input():
    view = SmallTransducer(3)
    f, lens = encodings([4])
    with pytest.raises(UsageError, match="max_symbols is 0: it must be at least 1"):
        greedy(view, f, lens, max_symbols=0)
    with pytest.raises(UsageError, match="greedy mode 'both': choose exact or modified"):
        greedy(view, f, lens, mode="both")
    f[0, 1] = torch.nan
    with pytest.raises(InputError, match="utterance 0: the encoder's outputs are not finite"):
        greedy(view, f, lens)
    assert greedy(view, *encodings([])) == []
