"""Word times: the search for the likeliest path against trying all, branches, streams, and what has no times."""

import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lhotse.supervision import AlignmentItem  # noqa: E402
from torch import nn  # noqa: E402

from tests.speech.adapt import tones  # noqa: E402
from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech import lexicon as lexicons  # noqa: E402
from wieldy.speech.captions.transducer import TransducerEngine  # noqa: E402
from wieldy.speech.corpus import aligned, samples_of  # noqa: E402
from wieldy.speech.decode.frame_branch import BranchStream, FrameBranch, FrameBranchConfig, Tap, tap_of  # noqa: E402
from wieldy.speech.decode.learn_times import (  # noqa: E402
    PhoneBranchConfig,
    add_ctc_branch,
    add_phone_branch,
    fit_emission_shift,
    labels_at,
)
from wieldy.speech.decode.phone_graph import PhoneGraph  # noqa: E402
from wieldy.speech.decode.viterbi import viterbi  # noqa: E402
from wieldy.speech.decode.word_times import Said, Timing, WordTimeStream  # noqa: E402
from wieldy.speech.lexicon import Lexicon  # noqa: E402
from wieldy.speech.recognize.transducer import TransducerRecognizer  # noqa: E402

# --- the likeliest path ----------------------------------------------------------------------------------------------


def best_by_trying(scores, predecessors, first, last):
    """The best of all paths, and how many there are."""
    found = []
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        steps = itertools.pairwise(path)
        if path[0] in first and path[-1] in last and all(one in predecessors[other] for one, other in steps):
            found.append((float(sum(scores[t, s] for t, s in enumerate(path))), path))
    return max(found, default=(-math.inf, ())), len(found)


@pytest.mark.parametrize("seed", range(10))
def test_the_likeliest_path_is_that_of_trying_all(seed):
    rng = np.random.default_rng(seed)
    frames, states = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    predecessors = rng.integers(-1, states, (states, 3))
    first, last = ([int(s) for s in rng.permutation(states)[: rng.integers(1, states + 1)]] for _ in range(2))
    scores = rng.normal(size=(frames, states))
    (best, path), count = best_by_trying(scores, predecessors, first, last)
    mine, score = viterbi(scores, predecessors, first, last)
    assert score == pytest.approx(best)
    if count:
        assert tuple(mine.tolist()) == path


def sequences(words, frames, unknown):
    """All label sequences of so many frames that say the words, silence being 0."""
    for pronunciations in itertools.product(*[variants or [[unknown]] for variants in words]):
        for pauses in itertools.product([False, True], repeat=len(words) + 1):
            labels = [0] if pauses[0] else []
            for phones, pause in zip(pronunciations, pauses[1:], strict=True):
                labels += [*phones, *([0] if pause else [])]
            for cuts in itertools.combinations(range(1, frames), len(labels) - 1) if labels else ():
                edges = [0, *cuts, frames]
                yield [
                    label for label, (b, e) in zip(labels, itertools.pairwise(edges), strict=True) for _ in range(e - b)
                ]


@pytest.mark.parametrize(
    "words", [[], [[[1]]], [[[1, 2], [2]], [[1]]], [[[1, 1]], []], [[[2], [1, 2]], [[1], [3, 1]]]], ids=str
)
def test_a_graph_allows_silence_and_every_pronunciation_and_nothing_else(words):
    rng = np.random.default_rng(len(words))
    for frames in range(1, 6):
        scores = rng.normal(size=(frames, 5))
        graph = PhoneGraph.of(words, silence=0, unknown=4)
        totals = [scores[np.arange(frames), labels].sum() for labels in sequences(words, frames, 4)]
        path, score = graph.path(scores)
        assert score == pytest.approx(max(totals, default=-math.inf))
        assert (frames >= graph.fewest) == bool(totals)
        if totals:
            spans = graph.spans(path)
            assert len(spans) == len(words)
            assert (spans[:, 1] > spans[:, 0]).all()
            assert (spans[1:, 0] >= spans[:-1, 1]).all()


def test_phones_have_the_label_in_the_middle_of_the_frame():
    times, numbers = np.array([[0.1, 0.25], [0.25, 0.3]]), np.array([2, 1])
    assert labels_at(times, numbers, 5, 0.1).tolist() == [0, 2, 1, 0, 0]
    assert labels_at(times, numbers, 10, 0.05).tolist() == [0, 0, 2, 2, 2, 1, 0, 0, 0, 0]
    assert labels_at(np.zeros((0, 2)), np.zeros(0, int), 2, 0.1).tolist() == [0, 0]


# --- branches and taps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "context", "per_frame"), [(0, 2, 1), (1, 2, 2), (2, 1, 1)])
def test_a_branch_on_a_stream_answers_as_on_the_whole(layers, context, per_frame):
    torch.manual_seed(0)
    config = FrameBranchConfig(input_dim=3, classes=4, layers=layers, dim=5, context=context, per_frame=per_frame)
    branch = FrameBranch(config)
    x = torch.randn(2, 9, 3)
    with torch.inference_mode():
        whole = branch(x, torch.tensor([9, 6]))
        assert whole.shape == (2, 9 * per_frame, 4)
        other = x.clone()
        other[1, 6:] = torch.nan_to_num(torch.tensor(5.0))
        torch.testing.assert_close(branch(other, torch.tensor([9, 6]))[1, : 6 * per_frame], whole[1, : 6 * per_frame])
        for sizes in ([9], [1] * 9, [2, 0, 5, 2]):
            stream = BranchStream(branch)
            parts = [stream.push(part) for part in x[:1].split(sizes, dim=1)]
            parts.append(stream.push(x[:1, :0], final=True))
            torch.testing.assert_close(torch.cat(parts), whole[0])


def test_a_layer_two_thirds_up_is_tapped_in_any_encoder():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.GRU(4, 4, batch_first=True) for _ in range(6))
            self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(2))

        def forward(self, x):
            for layer in self.layers:
                x, _ = layer(x)
            return x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

    model, x = Model(), torch.randn(1, 5, 4)
    name = tap_of(model, "encoder", lambda: model.encoder(x), 5)
    assert name == "encoder.layers.3"
    with Tap(model, name) as tap:
        before = model.encoder(x)
    expected = x
    for layer in model.encoder.layers[:4]:
        expected, _ = layer(expected)
    torch.testing.assert_close(tap.taken(), expected)
    torch.testing.assert_close(model.encoder(x), before, rtol=0, atol=0)
    assert tap.runs == 0  # the hook is gone
    with pytest.raises(UsageError, match=r"encoder\.layers\.3 did not run: tap a module that the encoder calls"):
        tap.taken()
    with pytest.raises(UsageError, match=r"there is no module 'encoder\.what' to tap: it has encoder"):
        Tap(model, "encoder.what")


# --- a recogniser of tones -------------------------------------------------------------------------------------------


def with_phones(cuts):
    """The letters as phones."""
    letter_s = tones.LETTER / tones.RATE
    for cut in cuts:
        (part,) = cut.supervisions
        part.alignment["phone"] = [
            AlignmentItem(letter, round((k + 1) * letter_s, 5), round(letter_s, 5))
            for k, letter in enumerate(part.text)
            if letter != " "
        ]
    return cuts


@pytest.fixture(scope="module")
def learned():
    return tones.recognizer(steps=110)


@pytest.fixture(scope="module")
def cuts():
    return with_phones(tones.spoken(tones.SOURCE + tones.DOMAIN))


@pytest.fixture(scope="module")
def timed(learned, cuts):
    config = PhoneBranchConfig(steps=120, dim=16, rate=2e-2)
    recognizer, report = add_phone_branch(learned, cuts, config=config)
    assert report.metric("right frames").median > 95
    return recognizer


def of_words(recognizer, cut, method=None, words=None):
    nbest, tapped = recognizer.searched(samples_of(cut, tones.RATE), tones.RATE)
    said = recognizer.said(nbest[0])
    if words is not None:
        return recognizer.timing.phones.times(words, tapped)
    return recognizer.timing.times(said, tapped, method)


def apart(times, cut):
    edges = [
        abs(mine - true)
        for time, word in zip(times, aligned(cut), strict=True)
        for mine, true in ((time.start_s, word.start), (time.end_s, word.end))
    ]
    return sum(edges) / len(edges)


def test_what_is_recognised_stays_the_same_to_the_bit(learned, timed, cuts):
    weights = copy.deepcopy(learned.network.state_dict())
    assert timed.network is learned.network
    for cut in list(cuts)[:5]:
        samples = samples_of(cut, tones.RATE)
        (one, _), (other, tapped) = learned.searched(samples, tones.RATE), timed.searched(samples, tones.RATE)
        assert tapped.shape[2] == learned.network.encoder.output_dim
        assert one[0].score == other[0].score
        assert one[0].tokens == other[0].tokens
        assert [word.text for word in learned.heard(samples, tones.RATE).words] == [
            word.text for word in timed.heard(samples, tones.RATE).words
        ]
    for name, tensor in learned.network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0, equal_nan=True)


def test_words_are_where_they_were_said(timed, cuts):
    for cut in cuts:
        words = [item.symbol for item in aligned(cut)]
        times = of_words(timed, cut, words=words)
        assert apart(times, cut) < 0.02
        assert times[0].start_s >= 0
        assert times[-1].end_s <= cut.duration
        for one, other in itertools.pairwise(times):
            assert one.end_s <= other.start_s
        for time in times:
            assert "".join(phone for phone, _, _ in time.phones) == time.word
            assert (time.phones[0][1], time.phones[-1][2]) == (time.start_s, time.end_s)


def test_words_heard_have_these_times(timed, cuts):
    for cut in list(cuts)[:3]:
        heard = timed.heard(samples_of(cut, tones.RATE), tones.RATE).words
        assert [(word.start, word.end) for word in heard] == [(t.start_s, t.end_s) for t in of_words(timed, cut)]


def test_the_other_methods(timed, cuts):
    shifted, report = fit_emission_shift(timed, cuts)
    assert report.metric("shift of starts").median == pytest.approx(1000 * shifted.timing.shift_s[0])
    both, _ = add_ctc_branch(shifted, cuts, config=PhoneBranchConfig(steps=150, dim=16, rate=2e-2, frame_shift_s=1.0))
    assert both.timing.method == "phone"
    assert both.timing.phones is timed.timing.phones
    cut = cuts[0]
    right = [item.symbol for item in aligned(cut)]
    said = both.said(both.searched(samples_of(cut, tones.RATE), tones.RATE)[0][0])
    assert list(said.words) == right
    assert apart(of_words(both, cut, "emission"), cut) < 0.15
    assert apart(of_words(both, cut, "ctc"), cut) < 0.15
    with pytest.raises(UsageError, match="the recogniser has no branch for method 'ctc'"):
        of_words(timed, cut, "ctc")
    with pytest.raises(UsageError, match="method 'spectrum': choose phone, ctc, emission"):
        of_words(timed, cut, "spectrum")


def test_emitted_words_are_moved_and_never_overlap():
    timing = Timing("x", 0.1, "emission", (-0.15, 0.05))
    said = Said(("a", "b"), (0, 2), (5, 6, 7), (1, 4, 6))
    assert [(t.start_s, t.end_s) for t in timing.times(said, torch.zeros(1, 9, 1))] == [(0, 0.55), (0.55, 0.75)]
    assert timing.times(Said((), (), (), ()), torch.zeros(1, 0, 1)) == []


def test_branches_are_kept_in_the_folder(timed, cuts, tmp_path):
    timed.save(tmp_path)
    loaded = TransducerRecognizer.load(tmp_path)
    for cut in list(cuts)[:3]:
        assert of_words(loaded, cut) == of_words(timed, cut)
    (tmp_path / "word-times.json").write_text('{"tap": "x", "frame_s": 0.1, "method": "phone", "shift_s": [1]}')
    with pytest.raises(InputError, match=r"word-times\.json does not describe word times"):
        TransducerRecognizer.load(tmp_path)


def test_a_network_may_be_trained_along(learned, cuts):
    config = PhoneBranchConfig(steps=2, dim=8, joint_weight=0.1)
    recognizer, _ = add_phone_branch(learned, cuts, config=config)
    before, after = (own.network.encoder.state_dict() for own in (learned, recognizer))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert recognizer.timing.phones


# --- what has no times -----------------------------------------------------------------------------------------------


def test_what_cannot_be_placed_has_no_times_and_a_reason(timed, cuts):
    assert of_words(timed, cuts[0], words=[]) == []
    line = tones.SOURCE[0].split()
    timer = timed.timing.phones
    timer = dataclasses.replace(timer, lexicon=Lexicon(timer.lexicon.words, guess=False))
    frames = timed.searched(samples_of(cuts[0], tones.RATE), tones.RATE)[1]
    first, second = timer.times([line[0], "zebra"], frames)
    assert (second.start_s, second.end_s) == (None, None)
    assert second.reason == "the pronunciation of 'zebra' is not known"
    # Its neighbour is where it was.
    assert first.start_s == pytest.approx(aligned(cuts[0])[0].start, abs=0.05)
    (time,) = timer.times(["abcabc"], frames[:, :0])
    assert time.start_s is None
    assert "phones in 0 frames" in time.reason
    words = ["ab"] * 40
    for time in timer.times(words, frames):
        assert time.start_s is None
        assert time.reason == f"80 phones in {frames.shape[1]} frames"


def test_recordings_without_phones_are_named(learned):
    with pytest.raises(InputError, match="tone-0 has no phone times"):
        add_phone_branch(learned, tones.spoken(["ab", "ba"]))
    with pytest.raises(InputError, match="1 recordings to learn times from: give two at least"):
        add_phone_branch(learned, with_phones(tones.spoken(["ab"])))
    with pytest.raises(InputError, match="no word of these recordings is recognised right"):
        fit_emission_shift(tones.recognizer(steps=0), tones.spoken(["ab"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"frame_shift_s": 0}, "frame_shift_s is 0: it must be above 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        PhoneBranchConfig(**fields)


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 100])
def test_times_on_a_stream_are_those_of_the_whole_and_come_soon(timed, cuts, step):
    """Words come a little after they were said, as a search gives them."""
    for cut in list(cuts)[-4:]:
        words = aligned(cut)
        frames = timed.searched(samples_of(cut, tones.RATE), tones.RATE)[1]
        stream, given, waits = WordTimeStream(timed.timing.phones, max_delay_s=0.3), [], list(words)
        for first in range(0, frames.shape[1], step):
            stream.push(frames[:, first : first + step])
            now = (first + step) * timed.timing.phones.answer_s
            while waits and waits[0].end + 0.1 <= now:
                stream.add([waits.pop(0).symbol])
            given += stream.settled()
        if step == 1:
            assert given  # before the end
        stream.add([word.symbol for word in waits])
        stream.push(frames[:, :0], final=True)
        given += stream.finished()
        assert [time.word for time in given] == [word.symbol for word in words]
        assert apart(given, cut) < 0.04
        assert stream.finished() == []


# --- pronunciations --------------------------------------------------------------------------------------------------


def test_pronunciations_are_those_of_the_recordings(cuts):
    known = Lexicon.of_cuts(cuts, guess=False)
    assert known("ab") == (("a", "b"),)
    assert known("AB,") == known("ab")
    assert known("zz") == ()


def test_a_dictionary_is_read_and_written(tmp_path):
    path = tmp_path / "words.dict"
    path.write_text(";;; a comment\nread R EH1 D\nread(2) R IY1 D\n\nthe DH AX\n")
    known = Lexicon.load(path, guess=False)
    assert known("read") == (("r", "eh", "d"), ("r", "iy", "d"))
    assert known("the") == (("dh", "ah"),)
    known.save(tmp_path / "again.dict")
    assert Lexicon.load(tmp_path / "again.dict").words == known.words
    path.write_text("read R EH D\nbad\n")
    with pytest.raises(InputError, match=r"line 2 of .*words\.dict has no phones"):
        Lexicon.load(path)
    with pytest.raises(InputError, match=r"nothing\.dict cannot be read as a dictionary"):
        Lexicon.load(tmp_path / "nothing.dict")


def test_phones_have_one_name():
    assert [lexicons.phone_of(name) for name in ("AH0", "ax", "ah", "SIL", "<sil>", "pau", "", "er1")] == [
        *["ah"] * 3,
        *["sil"] * 4,
        "er",
    ]


def test_words_that_no_dictionary_has_are_guessed(monkeypatch):
    spoken = type("Spoken", (), {"phones": [type("Phone", (), {"symbol": s}) for s in ("z", "ax")]})
    lexicons._guessed.cache_clear()
    monkeypatch.setattr(lexicons.synthesize, "say", lambda word, voice: spoken)
    assert Lexicon({})("zuh") == (("z", "ah"),)
    assert Lexicon({}, guess=False)("zuh") == ()
    lexicons._guessed.cache_clear()


def test_the_dictionary_of_pocketsphinx_has_39_phones():
    pytest.importorskip("pocketsphinx")
    known = Lexicon.cmu(guess=False)
    assert known("kitchen") == (("k", "ih", "ch", "ah", "n"),)
    assert len(known("the")) > 1
    assert len({phone for variants in known.words.values() for phones in variants for phone in phones}) == 39


def test_words_are_finished_before_those_that_follow_them(timed, cuts):
    cut = list(cuts)[-1]
    first, second = aligned(cut)
    frames = timed.searched(samples_of(cut, tones.RATE), tones.RATE)[1]
    stream = WordTimeStream(timed.timing.phones)
    stream.push(frames)
    stream.add([first.symbol])
    assert apart(stream.finished([second.symbol]), cut.truncate(duration=first.end)) < 0.04
    stream.add([second.symbol])
    (time,) = stream.finished()
    assert time.start_s == pytest.approx(second.start, abs=0.05)
    empty = WordTimeStream(timed.timing.phones)
    empty.add(["ab"])
    assert empty.settled() == []
    assert [time.reason for time in empty.finished()] == ["2 phones in 0 frames"]


def test_live_captions_have_these_times(timed, cuts):
    cut = list(cuts)[-1]
    samples = samples_of(cut, 16_000)
    engine = TransducerEngine(timed)
    given = []
    for first in range(0, len(samples), 2560):
        given += engine.push(samples[first : first + 2560], 160).committed
    given += engine.flush().committed
    whole = timed.heard(samples, 16_000).words
    assert [word.text for word in given] == [word.text for word in whole]
    for mine, theirs in zip(given, whole, strict=True):
        assert mine.start_ms / 1000 == pytest.approx(theirs.start, abs=0.04)
        assert mine.end_ms / 1000 == pytest.approx(theirs.end, abs=0.04)
