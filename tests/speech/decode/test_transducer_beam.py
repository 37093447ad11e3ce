"""The beam against its definition, against the loss where nothing is pruned, and against itself in pieces."""

import math
from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.speech.decode.models import Bigrams, SmallTransducer, check_features, encodings, naive_beam  # noqa: E402
from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.decode import links  # noqa: E402
from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig  # noqa: E402
from wieldy.speech.losses.transducer import TransducerLossConfig, transducer_loss  # noqa: E402

MODES = ["exact", "modified"]


def log_probability(view, f, tokens, mode):
    """Minus the loss."""
    lens = torch.tensor([len(f)]), torch.tensor([len(tokens)])
    targets = torch.tensor([tokens], dtype=torch.int64).view(1, len(tokens))
    config = TransducerLossConfig(mode=mode, blank=view.blank)
    return -float(transducer_loss(f[None], view.predict(tokens)[None], view, targets, *lens, config=config))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("beam", "max_symbols"), [(1, 1), (2, 3), (4, 2), (4, 10)])
@pytest.mark.parametrize("fused", [False, True])
def test_it_finds_what_its_definition_finds(mode, beam, max_symbols, fused):
    for seed in range(2):
        view = SmallTransducer(5, seed=seed, spread=3.0)
        f, lens = encodings([6, 1, 0, 9], seed=seed)
        scorer = Bigrams(5) if fused else None
        config = TransducerBeamConfig(beam=beam, nbest=beam, max_symbols=max_symbols, mode=mode)
        found = TransducerBeam(view, config, scorer).decode(f, lens)
        for row, length, nbest in zip(f, lens.tolist(), found, strict=True):
            expected = dict(
                naive_beam(view, row[:length], beam, max_symbols, modified=mode == "modified", scorer=scorer)
            )
            assert {h.tokens for h in nbest} == set(expected)
            for h in nbest:
                assert h.acoustic == pytest.approx(expected[h.tokens], abs=1e-9)
                ending = scorer.ending[h.tokens[-1] if h.tokens else 5].tolist() if scorer else []
                parts = [a + b for a, b in zip(scorer.of(h.tokens), ending, strict=True)] if scorer else []
                assert list(h.parts.values()) == pytest.approx(parts)
                assert h.score == pytest.approx(h.acoustic + sum(parts))
            assert [h.score for h in nbest] == sorted((h.score for h in nbest), reverse=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("blank", [0, 2])
def test_without_pruning_a_score_is_minus_the_loss(mode, blank):
    view = SmallTransducer(3, blank=blank, seed=5)
    f, lens = encodings([3, 2, 1])
    labels = [k for k in range(3) if k != blank]
    most = 3 if mode == "exact" else 1
    config = TransducerBeamConfig(beam=700, nbest=700, max_symbols=most, mode=mode)
    for row, length, nbest in zip(f, lens.tolist(), TransducerBeam(view, config).decode(f, lens), strict=True):
        scores = {h.tokens: h.score for h in nbest}
        # Up to three labels, a path can have no more on one frame than the search allows.
        for tokens in (t for u in range(min(most * length, 5) + 1) for t in product(labels, repeat=u)):
            whole = log_probability(view, row[:length], tokens, mode)
            if len(tokens) <= 3 or mode == "modified":
                assert scores[tokens] == pytest.approx(whole, abs=1e-4), tokens
            elif tokens in scores:
                assert scores[tokens] <= whole + 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_a_score_never_exceeds_the_whole(mode):
    for seed in range(5):
        view = SmallTransducer(6, seed=seed, spread=3.0)
        f, lens = encodings([8, 14], seed=seed)
        config = TransducerBeamConfig(beam=4, nbest=4, mode=mode)
        for row, length, nbest in zip(f, lens.tolist(), TransducerBeam(view, config).decode(f, lens), strict=True):
            assert len(nbest) == 4
            for h in nbest:
                assert h.score <= log_probability(view, row[:length], h.tokens, mode) + 1e-9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pieces", [[1] * 40, [7, 0, 13, 20], [39, 1]])
def test_a_stream_is_found_as_its_whole_is(mode, pieces):
    view = SmallTransducer(7, seed=2, spread=3.0)
    f, lens = encodings([40, 23, 0, 31], seed=4)
    search = TransducerBeam(view, TransducerBeamConfig(beam=3, nbest=3, mode=mode), Bigrams(7))
    whole = search.decode(f, lens)
    session, first = search.start(4), 0
    for piece in pieces:
        before = [h.tokens[:agreed] for h, agreed in zip(session.partial(), session.settled(), strict=True)]
        session.push(f[:, first : first + piece], (lens - first).clamp(0, piece))
        first += piece
        for tokens, h in zip(before, session.partial(), strict=True):
            assert h.tokens[: len(tokens)] == tokens
    for one, other in zip(session.finish(), whole, strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in other]
        assert [h.frames for h in one] == [h.frames for h in other]
        assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-9)
        for h, reference in zip(one, other, strict=True):
            for name, column in vars(reference.features).items():
                np.testing.assert_allclose(getattr(h.features, name), column, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_features_are_those_of_the_node_of_emission(mode):
    view = SmallTransducer(5, seed=1, spread=3.0)
    f, lens = encodings([12], seed=6)
    (nbest,) = TransducerBeam(view, TransducerBeamConfig(beam=4, nbest=4, mode=mode)).decode(f, lens)
    assert any(len(h.tokens) > 3 for h in nbest)
    for h in nbest:
        check_features(view, f[0], h, modified=mode == "modified")
        assert all(gap >= 0 for gap in h.features.gap)
        assert all(1 <= active <= 4 for active in h.features.active)


def test_frames_on_which_the_blank_rules_cost_one_row_per_hypothesis():
    view = SmallTransducer(5)
    view.output.bias[0] += 100
    f, lens = encodings([30, 30])
    TransducerBeam(view, TransducerBeamConfig(beam=3, max_symbols=3)).decode(f, lens)
    first = view.rows["join"]
    TransducerBeam(view, TransducerBeamConfig(beam=3, max_symbols=10)).decode(f, lens)
    assert view.rows["join"] - first == first  # but for the first frames, when the beam is being filled
    assert view.rows["advance"] < 30


def test_long_streams_forget_what_no_hypothesis_is_made_of(monkeypatch):
    view = SmallTransducer(5, seed=3, spread=3.0)
    f, lens = encodings([100, 150], seed=9)
    search = TransducerBeam(view, TransducerBeamConfig(beam=4, nbest=4, max_symbols=3))
    session, remembering = search.start(2), search.start(2)
    remembering.push(f, lens)
    monkeypatch.setattr(links, "FEWEST", 16)
    session._links = links.Links(torch.device("cpu"))
    session.push(f, lens)
    assert len(session._links) < len(remembering._links) / 3
    for one, other in zip(session.finish(), remembering.finish(), strict=True):
        assert [(h.tokens, h.frames) for h in one] == [(h.tokens, h.frames) for h in other]


def test_length_norm_ranks_by_score_per_token():
    view = SmallTransducer(5, seed=3, spread=3.0)
    f, lens = encodings([12])
    by_sum, by_mean = (
        TransducerBeam(view, TransducerBeamConfig(beam=4, nbest=4, length_norm=norm)).decode(f, lens)[0]
        for norm in (0.0, 1.0)
    )
    mean = {h.tokens: h.acoustic / len(h.tokens) for h in by_sum}
    assert [h.tokens for h in by_mean] == sorted(mean, key=mean.get, reverse=True)
    assert [h.score for h in by_mean] == pytest.approx([mean[h.tokens] for h in by_mean])


def test_half_precision_models_are_searched_in_single():
    view = SmallTransducer(5).bfloat16()
    f, lens = encodings([6, 4])
    for nbest in TransducerBeam(view, TransducerBeamConfig(beam=2)).decode(f.bfloat16(), lens):
        assert math.isfinite(nbest[0].score)


def test_nothing_heard_is_the_empty_hypothesis():
    view = SmallTransducer(5)
    f, lens = encodings([0, 0])
    for nbest in TransducerBeam(view, TransducerBeamConfig(beam=2, nbest=2)).decode(f, lens):
        assert [(h.tokens, h.frames, h.score) for h in nbest] == [((), (), 0.0)]
    assert TransducerBeam(view).decode(*encodings([])) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "beam is 0: it must be at least 1"),
        ({"beam": 2, "nbest": 3}, "nbest is 3: with beam 2 it lies in 1 .. 2"),
        ({"max_symbols": 0}, "max_symbols is 0: it must be at least 1"),
        ({"mode": "pruned"}, "transducer beam mode 'pruned': choose exact or modified"),
        ({"length_norm": -1.0}, "length_norm is -1.0: it must not be negative"),
    ],
)
def test_configurations_that_cannot_be_meant(options, message):
    with pytest.raises(UsageError) as caught:
        TransducerBeamConfig(**options)
    assert str(caught.value) == message


def test_bad_input_is_named_by_utterance():
    view = SmallTransducer(5)
    search = TransducerBeam(view)
    f, lens = encodings([4, 3])
    with pytest.raises(InputError, match=r"utterance 1 has 5 frames: there is room for 0 to 4"):
        search.decode(f, torch.tensor([4, 5]))
    with pytest.raises(
        InputError, match=r"\(2, 4, 6\) with \(3,\) lengths: they are \[2, frames, features\] with \[2\]"
    ):
        search.decode(f, torch.tensor([4, 3, 1]))
    f[1, 2] = torch.inf
    with pytest.raises(InputError, match="utterance 1: the encoder's outputs are not finite"):
        search.decode(f, lens)
    view.output.bias[:] = torch.nan
    with pytest.raises(InputError, match="utterance 0: the model's scores are not numbers"):
        search.decode(*encodings([2]))
    with pytest.raises(UsageError, match="blank is 5: the vocabulary has 5 entries"):
        TransducerBeam(SmallTransducer(5, blank=5))
    with pytest.raises(UsageError, match="a vocabulary without labels"):
        TransducerBeam(SmallTransducer(1))
