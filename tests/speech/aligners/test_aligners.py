"""Alignments from files, from CTC frames against every path there is, and from PocketSphinx against known times."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse.supervision import AlignmentItem

from tests.speech.cuts import spoken
from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech import synthesize
from wieldy.speech.aligners import Alignment, with_alignment
from wieldy.speech.aligners.ctc import CtcAligner, ctc_viterbi
from wieldy.speech.aligners.files import read_ctm, read_textgrid
from wieldy.speech.aligners.pocketsphinx import PocketSphinxAligner
from wieldy.speech.corpus import aligned
from wieldy.speech.tokens import Tokenizer


def times(items):
    return [(item.symbol, round(item.start, 3), round(item.end, 3)) for item in items]


# --- CTC -------------------------------------------------------------------------------------------------------------


def collapsed(path, blank=0):
    return [label for label, _ in itertools.groupby(path) if label != blank]


def best_of_all_paths(log_probs, tokens):
    """Naive: the score of the likeliest of all V^T label sequences that collapse to the tokens."""
    frames, vocabulary = log_probs.shape
    paths = itertools.product(range(vocabulary), repeat=frames)
    scores = (sum(log_probs[t, k] for t, k in enumerate(path)) for path in paths if collapsed(path) == tokens)
    return max(scores, default=None)


@settings(max_examples=40)
@given(st.integers(1, 5), st.lists(st.integers(1, 2), max_size=3), st.integers(0, 1000))
def test_viterbi_finds_the_best_of_all_paths(frames, tokens, seed):
    logits = np.random.default_rng(seed).normal(0, 2, (frames, 3))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    best = best_of_all_paths(log_probs, tokens)
    if best is None:
        with pytest.raises(InputError, match="too few"):
            ctc_viterbi(log_probs, tokens)
        return
    path, score = ctc_viterbi(log_probs, tokens)
    assert score == pytest.approx(best)
    labels = [tokens[u] if u >= 0 else 0 for u in path.tolist()]
    assert collapsed(labels) == tokens
    assert sum(log_probs[t, k] for t, k in enumerate(labels)) == pytest.approx(best)
    assert (np.diff(path[path >= 0]) >= 0).all()


def test_viterbi_at_the_edges():
    path, score = ctc_viterbi(np.zeros((0, 3)), [])
    assert (path.tolist(), score) == ([], 0.0)
    with pytest.raises(InputError, match="2 frames are too few for 2 tokens: they need 3"):
        ctc_viterbi(np.zeros((2, 3)), [1, 1])
    with pytest.raises(InputError, match="tokens 1 to 3: the model knows 0 to 2"):
        ctc_viterbi(np.zeros((4, 3)), [1, 3])
    assert ctc_viterbi(np.log(np.eye(3)[[0, 1, 2, 1]] + 1e-9), [1, 2, 1])[0].tolist() == [-1, 0, 1, 2]


TOKENIZER = Tokenizer.train(["ab b", "ba a"], "char")


def emitting(pieces):
    """A model that is sure of one piece a frame, "." for blank."""
    rows = [0 if piece == "." else TOKENIZER.pieces.index(piece) for piece in pieces]
    sure = np.where(np.eye(len(TOKENIZER)), 0.0, -np.inf).astype(np.float32)
    return lambda _: sure[rows]


def test_words_reach_from_spike_to_spike_and_share_the_blanks_between_them():
    aligner = CtcAligner(emit=emitting("..▁a.b..▁b........"), tokenizer=TOKENIZER, frame_s=0.03)
    assert times(aligner.align(np.zeros(0, np.float32), "ab b").words) == [("ab", 0.0, 0.21), ("b", 0.21, 0.39)]
    close = CtcAligner(emit=emitting("..▁a.b...▁b........"), tokenizer=TOKENIZER, frame_s=0.03, reach_s=0.0)
    assert times(close.align(np.zeros(0, np.float32), "ab b").words) == [("ab", 0.06, 0.18), ("b", 0.27, 0.33)]


def test_a_text_that_ctc_cannot_have_heard_is_refused():
    aligner = CtcAligner(emit=emitting("▁a"), tokenizer=TOKENIZER, frame_s=0.03)
    with pytest.raises(InputError, match="2 frames of sound cannot be aligned with 'b': probability 0"):
        aligner.align(np.zeros(0, np.float32), "b")
    with pytest.raises(InputError, match="2 frames are too few for 5 tokens"):
        aligner.align(np.zeros(0, np.float32), "ab b")
    assert CtcAligner(emit=emitting(".."), tokenizer=TOKENIZER, frame_s=0.03).align(np.zeros(0), "") == Alignment(())
    with pytest.raises(UsageError, match=r"frame_s 0\.0, reach_s 0\.1: seconds, the first above 0"):
        CtcAligner(emit=emitting("a"), tokenizer=TOKENIZER, frame_s=0.0)


# --- PocketSphinx ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aligner():
    pytest.importorskip("pocketsphinx")
    return PocketSphinxAligner()


def test_pocketsphinx_finds_the_words_where_a_voice_said_them(aligner):
    try:
        voice = synthesize.voice_named("slt")
    except MissingError as error:
        pytest.skip(str(error))
    speech = synthesize.say("Please order two large pizzas for Friday.", voice)
    found = aligner.align(speech.samples, "Please order two large pizzas for Friday.")
    assert [item.symbol for item in found.words] == ["Please", "order", "two", "large", "pizzas", "for", "Friday."]
    late = [abs(item.start - word.start_s) for item, word in zip(found.words, speech.words, strict=True)]
    assert np.median(late) < 0.04
    assert [item.symbol for item in found.phones[:4]] == ["P", "L", "IY", "Z"]
    assert found.phones[0].start == found.words[0].start
    assert found.phones[-1].end == pytest.approx(found.words[-1].end)


def test_pocketsphinx_refuses_what_it_cannot_align(aligner):
    silence = np.zeros(16_000, np.float32)
    with pytest.raises(InputError) as caught:
        aligner.align(silence, "turn 7 xyzzyq")
    assert str(caught.value) == (
        "the pronunciation of '7', 'xyzzyq' is not known to pocketsphinx: spell numbers out, or align with a CTC model"
    )
    with pytest.raises(InputError, match="the pronunciation of nothing is not known"):
        aligner.align(silence, " ")
    for samples in (silence[:100], silence[:0]):
        with pytest.raises(InputError, match="s of sound cannot be aligned with 'hello world'"):
            aligner.align(samples, "hello world")


def test_pocketsphinx_that_gives_up_refuses_one_recording(aligner, monkeypatch):
    """Its own error must not end the alignment of a whole corpus, and the next recording is heard as ever."""

    def fail(pcm):
        raise RuntimeError("Failed to stop utterance processing")

    with monkeypatch.context() as patch:
        patch.setattr(aligner, "_decode", fail)
        with pytest.raises(InputError, match="1 s of sound cannot be aligned with 'hello world'"):
            aligner.align(np.zeros(16_000, np.float32), "hello world")


# --- files -----------------------------------------------------------------------------------------------------------

LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.75
            text = "say ""7"""
        intervals [3]:
            xmin = 0.75
            xmax = 1.5
            text = "on"
    item [2]:
        class = "TextTier"
        name = "marks"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.5
            mark = "x"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0.75
            xmax = 1.5
            text = "AA1"
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
3
"IntervalTier"
"words"
0
1.5
3
0
0.25
""
0.25
0.75
"say ""7"""
0.75
1.5
"on"
"TextTier"
"marks"
0
1.5
1
0.5
"x"
"IntervalTier"
"phones"
0
1.5
1
0.75
1.5
"AA1"
'''


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
def test_textgrids_of_both_layouts(tmp_path, text):
    (tmp_path / "a.TextGrid").write_text(text)
    found = read_textgrid(tmp_path / "a.TextGrid")
    assert times(found.words) == [('say "7"', 0.25, 0.75), ("on", 0.75, 1.5)]
    assert times(found.phones) == [("AA1", 0.75, 1.5)]
    assert not read_textgrid(tmp_path / "a.TextGrid", phones="none").phones
    with pytest.raises(InputError, match=r"a\.TextGrid has no tier 'Words': it has 'words', 'phones'"):
        read_textgrid(tmp_path / "a.TextGrid", words="Words")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", r"a\.TextGrid:1: the TextGrid ends here"),
        (LONG.replace("ooTextFile", "other"), r"a\.TextGrid:1: this is no TextGrid"),
        (LONG[:400], r"a\.TextGrid:\d+: the TextGrid ends here"),
        (LONG.replace("xmax = 0.25", 'xmax = "soon"'), r"a\.TextGrid:17: \"soon\" stands where a number should"),
        (LONG.replace('text = ""\n', "text = 1\n"), r"a\.TextGrid:18: 1 stands where a quoted text should"),
    ],
)
def test_damaged_textgrids_are_refused_with_the_line(tmp_path, text, message):
    (tmp_path / "a.TextGrid").write_text(text)
    with pytest.raises(InputError, match=message):
        read_textgrid(tmp_path / "a.TextGrid")


def test_ctm_has_words_of_several_recordings(tmp_path):
    (tmp_path / "a.ctm").write_text("one 1 0.10 0.25 on\none 1 0.40 0.20 off\ntwo 1 0.00 0.30 on 0.9\n")
    found = read_ctm(tmp_path / "a.ctm")
    assert {name: times(own.words) for name, own in found.items()} == {
        "one": [("on", 0.1, 0.35), ("off", 0.4, 0.6)],
        "two": [("on", 0.0, 0.3)],
    }


# --- cuts ------------------------------------------------------------------------------------------------------------


def test_an_alignment_goes_into_a_cut_and_comes_out_again(tmp_path):
    cut = spoken(tmp_path / "a.wav", 2.0, "on off").truncate(offset=0.5)
    words = AlignmentItem("on", 0.1, 0.2), AlignmentItem("off", 0.4, 0.3)
    alignment = Alignment(words, (AlignmentItem("P", 0.1, 0.1),))
    made = with_alignment(cut, alignment)
    assert times(aligned(made)) == times(words)
    assert Alignment.of_cut(made) == alignment
    assert times(aligned(cut)) == [("on", -0.5, 0.5), ("off", 0.5, 1.5)]
    assert Alignment.of_cut(cut).phones == ()
    with pytest.raises(InputError, match="has no word times"):
        Alignment.of_cut(cut.drop_alignments())
    cut.supervisions *= 2
    with pytest.raises(InputError, match="has 2 supervisions: trim cuts to their supervisions"):
        with_alignment(cut, alignment)
