"""Labels from word times against ones written out by hand, and every way in which times can be wrong."""

import dataclasses

import lhotse
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lhotse.supervision import AlignmentItem

from wieldy.errors import InputError, UsageError
from wieldy.speech import corpus
from wieldy.speech.batches import Batch
from wieldy.speech.pretrain.labels import (
    Spanned,
    TooFewFramesError,
    arc_mask,
    frame_labels,
    label_tensor,
    node_labels,
    token_spans,
)
from wieldy.speech.tokens import Tokenizer

CHARS = Tokenizer.train(["abcd efg"], "char")
FRAME_S = 0.03

# Three words of five pieces in twelve frames: silence, "ab" in 1-4, "c" in 5-6, silence, "de" in 8-10, silence. The
# second half of an odd number of frames has one more.
TOKENS = [1, 2, 3, 4, 5]
SPANS = np.array([[1, 3], [3, 5], [5, 7], [8, 9], [9, 11]])
FRAMES = [0, 1, 1, 2, 2, 3, 3, 0, 4, 5, 5, 0]


class Pieces:
    """A tokenizer for the five pieces of that example, of which the first, third and fourth begin a word."""

    pieces = ("<blank>", "▁a", "b", "▁c", "▁d", "e")

    def begins_word(self, token):
        return token in (1, 3, 4)


def cut(words, seconds, name="utterance", text=None, phones=()):
    recording = lhotse.Recording(
        id=name,
        sources=[lhotse.AudioSource(type="file", channels=[0], source=f"{name}.wav")],  # which nobody reads
        sampling_rate=16_000,
        num_samples=round(16_000 * seconds),
        duration=seconds,
    )
    alignment = {"word": [AlignmentItem(word, start, round(end - start, 8)) for word, start, end in words]}
    if phones:
        alignment["phone"] = [AlignmentItem(phone, start, round(end - start, 8)) for phone, start, end in phones]
    return corpus.cut_of(recording, text or " ".join(word for word, *_ in words), alignment=alignment)


EXAMPLE = cut([("ab", 0.03, 0.15), ("c", 0.15, 0.21), ("de", 0.24, 0.33)], 0.36)


def batch_of(*cuts, tokens):
    lens = torch.tensor([len(own) for own in tokens])
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(own, dtype=torch.int64) for own in tokens], batch_first=True)
    frames = torch.tensor([round(one.duration / FRAME_S) for one in cuts])
    return Batch(torch.zeros(len(cuts), int(frames.max()), 1), frames, padded, lens, cuts)


def spans_of(words, seconds, tokenizer=CHARS, frames=None, **more):
    made = cut(words, seconds, **more)
    tokens = tokenizer.encode(corpus.text_of(made))
    return token_spans(made, tokens, tokenizer, frames or round(seconds / FRAME_S), FRAME_S)


# --- the example written out -----------------------------------------------------------------------------------------


def test_spans_and_frame_labels_written_out():
    np.testing.assert_array_equal(token_spans(EXAMPLE, TOKENS, Pieces(), 12, FRAME_S), SPANS)
    batch = batch_of(EXAMPLE, tokens=[TOKENS])
    assert frame_labels(batch, Pieces(), batch.feature_lens, FRAME_S).tolist() == [FRAMES]


def test_all_copies_the_frame_label_to_every_position():
    labels, weights = label_tensor(SPANS, TOKENS, 12, "all")
    assert labels.tolist() == [[label] * 6 for label in FRAMES]
    assert weights.tolist() == [[1.0] * 6] * 12
    assert (labels.dtype, weights.dtype) == (torch.int64, torch.float32)


def test_correct_labels_the_span_at_the_position_that_is_due():
    labels, weights = label_tensor(SPANS, TOKENS, 12, "correct", "end")
    expected = np.zeros((12, 6), int)
    for t, u, token in (
        (1, 0, 1), (2, 0, 1), (3, 1, 2), (4, 1, 2), (5, 2, 3), (6, 2, 3), (8, 3, 4), (9, 4, 5), (10, 4, 5)
    ):  # fmt: skip
        expected[t, u] = token
    np.testing.assert_array_equal(labels.numpy(), expected)
    assert bool((weights == 1).all())
    # Emitted at the start of its span, a token is due there only; in the middle, until there.
    labels, _ = label_tensor(SPANS, TOKENS, 12, "correct", "start")
    assert labels.nonzero().tolist() == [[1, 0], [3, 1], [5, 2], [8, 3], [9, 4]]
    labels, _ = label_tensor(np.array([[0, 3]]), [7], 4, "correct", "mid")
    assert labels.nonzero().tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("anchor", "emitted"),
    [("end", [2, 4, 6, 8, 10]), ("start", [1, 3, 5, 8, 9]), ("mid", [1, 3, 5, 8, 9])],
)
def test_path_counts_the_nodes_of_one_path(anchor, emitted):
    labels, weights = label_tensor(SPANS, TOKENS, 12, "path", anchor)
    path, u = [], 0
    for t in range(12):
        path.append((t, u))
        if t in emitted:
            u += 1
            path.append((t, u))
    assert [tuple(node) for node in weights.nonzero().tolist()] == path
    assert weights.sum() == 12 + 5
    assert [tuple(node) for node in labels.nonzero().tolist()] == [(t, u) for u, t in enumerate(emitted)]
    assert labels[emitted, range(5)].tolist() == TOKENS


def test_a_delay_moves_spans_as_far_as_there_is_room():
    batch = batch_of(EXAMPLE, tokens=[TOKENS])
    (spans,) = Spanned(Pieces(), FRAME_S, delay=2)(batch, batch.feature_lens)
    assert spans.tolist() == [[3, 5], [5, 7], [7, 9], [10, 11], [11, 12]]
    (spans,) = Spanned(Pieces(), FRAME_S, delay=99)(batch, batch.feature_lens)
    assert spans.tolist() == [[7, 8], [8, 9], [9, 10], [10, 11], [11, 12]]


def test_arcs_are_allowed_around_the_span():
    two = cut([("c", 0.03, 0.09)], 0.3, "kept"), cut([("de", 0.0, 0.03)], 0.03, "discarded")
    batch = batch_of(*two, tokens=[[3], [4, 5]])
    mask = arc_mask(batch, Spanned(Pieces(), FRAME_S)(batch, batch.feature_lens), batch.feature_lens, before=1, after=3)
    assert mask.shape == (2, 10, 2)
    assert mask[0, :, 0].nonzero().ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert bool(mask[1].all())
    with pytest.raises(UsageError, match="-1 frames before and 3 after: neither is negative"):
        arc_mask(batch, [None, None], batch.feature_lens, before=-1, after=3)


def test_a_batch_is_its_utterances():
    other = cut([("c", 0.0, 0.06)], 0.06, "short")
    lost = cut([("de", 0.0, 0.03)], 0.03, "lost")
    batch = batch_of(EXAMPLE, other, lost, tokens=[TOKENS, [3], [4, 5]])
    spanned = Spanned(Pieces(), FRAME_S)
    spans = spanned(batch, batch.feature_lens)
    assert spanned.discarded == {"lost": "2 tokens in 1 frames"}
    assert spanned.seen == 3
    for variant in ("all", "correct", "path"):
        labels, weights = node_labels(batch, spans, batch.feature_lens, variant, "end")
        assert labels.shape == weights.shape == (3, 12, 6)
        for b, (own, tokens, frames) in enumerate(((spans[0], TOKENS, 12), (spans[1], [3], 2))):
            part = b, slice(frames), slice(len(tokens) + 1)
            alone = label_tensor(own, tokens, frames, variant)
            assert torch.equal(labels[part], alone[0])
            assert torch.equal(weights[part], alone[1])
            assert weights[b].sum() == alone[1].sum()
        assert not weights[2].any()
    labels = frame_labels(batch, Pieces(), batch.feature_lens, FRAME_S)
    assert labels[1].tolist() == [3, 3] + [-1] * 10
    assert labels[2].tolist() == [-1] * 12


def test_spans_are_worked_out_once_for_a_cut_and_again_for_another_speed():
    batch = batch_of(EXAMPLE, tokens=[TOKENS])
    spanned = Spanned(Pieces(), FRAME_S)
    (first,) = spanned(batch, batch.feature_lens)
    assert spanned(batch, batch.feature_lens)[0] is first
    slow = EXAMPLE.perturb_speed(0.5, affix_id=False)
    (second,) = spanned(dataclasses.replace(batch, cuts=(slow,)), torch.tensor([24]))
    np.testing.assert_array_equal(second[[0, 2, 3]][:, 0], 2 * first[[0, 2, 3]][:, 0])
    assert spanned.seen == 1


# --- any alignment ---------------------------------------------------------------------------------------------------


@st.composite
def alignments(draw):
    """Words of characters with times that leave room for them."""
    count = draw(st.integers(1, 6))
    words, now = [], 0.0
    for _ in range(count):
        text = draw(st.text("abcdefg", min_size=1, max_size=4))
        start = now + draw(st.floats(0, 0.2))
        now = start + draw(st.floats(0.03 * (len(text) + 2), 0.6))
        words.append((text, round(start, 5), round(now, 5)))
    return words, round(now + draw(st.floats(0.02, 0.3)), 5)


@given(alignments())
def test_words_are_found_again_to_half_a_frame(case):
    words, seconds = case
    spans = spans_of(words, seconds)
    sizes = np.diff(spans)
    assert (sizes >= 1).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()
    place = 0
    for text, start, end in words:
        own = spans[place : place + len(text) + 1]  # the mark of a word's beginning is a piece of its own
        place += len(own)
        assert abs(own[0, 0] * FRAME_S - start) <= FRAME_S / 2 + 5e-5  # lhotse rounds to 48 kHz
        assert abs(own[-1, 1] * FRAME_S - end) <= FRAME_S / 2 + 5e-5  # lhotse rounds to 48 kHz
        assert np.ptp(np.diff(own)) <= 1  # shared evenly


@given(alignments(), st.sampled_from(["start", "mid", "end"]))
def test_a_path_has_a_node_for_each_frame_and_each_token(case, anchor):
    words, seconds = case
    spans = spans_of(words, seconds)
    frames = round(seconds / FRAME_S)
    labels, weights = label_tensor(spans, np.arange(1, len(spans) + 1), frames, "path", anchor)
    assert weights.sum() == frames + len(spans)
    assert int((labels > 0).sum()) == len(spans)


# --- short words -----------------------------------------------------------------------------------------------------


def test_an_utterance_is_discarded_from_one_token_more_than_frames_on():
    word = [("abc", 0.0, 0.12)]  # four pieces with the mark of its beginning
    np.testing.assert_array_equal(spans_of(word, 0.12), [[0, 1], [1, 2], [2, 3], [3, 4]])
    with pytest.raises(TooFewFramesError, match="4 tokens in 3 frames"):
        spans_of([("abc", 0.0, 0.09)], 0.09)


def test_a_short_word_borrows_from_the_silence_behind_it_then_before_it():
    assert spans_of([("abc", 0.06, 0.09)], 0.3).tolist() == [[2, 3], [3, 4], [4, 5], [5, 6]]
    assert spans_of([("abc", 0.15, 0.18)], 0.21).tolist() == [[3, 4], [4, 5], [5, 6], [6, 7]]
    spans = spans_of([("a", 0.0, 0.06), ("abc", 0.12, 0.15), ("b", 0.18, 0.3)], 0.3)  # one behind, two before
    assert spans[2:6].tolist() == [[2, 3], [3, 4], [4, 5], [5, 6]]


def test_a_short_word_between_words_is_discarded():
    with pytest.raises(TooFewFramesError, match="'abc' has 1 frames for 4 tokens"):
        spans_of([("a", 0.0, 0.3), ("abc", 0.3, 0.33), ("b", 0.33, 0.6)], 0.6)


# --- phones ----------------------------------------------------------------------------------------------------------


def test_pieces_are_cut_where_phones_are():
    phones = [("DH", 0.0, 0.06), ("AH", 0.06, 0.24), ("C", 0.24, 0.3), ("D", 0.3, 0.6)]
    made = cut([("ab", 0.0, 0.3), ("cd", 0.3, 0.6)], 0.6, phones=phones)
    # "ab": half of the letters, so after one of three phones rounded to even, the second; "cd" has but one phone.
    assert token_spans(made, [1, 2, 3, 2], Pieces(), 20, FRAME_S)[:2].tolist() == [[0, 8], [8, 10]]


@given(
    st.lists(st.floats(0.001, 0.2), min_size=1, max_size=6),
    st.integers(1, 8),
    st.integers(0, 4),
)
def test_pieces_cut_at_phones_have_a_frame_each(durations, letters, spare):
    text = "abcdefgg"[:letters]
    end = max(sum(durations), FRAME_S * (letters + 1))
    ends = np.cumsum(durations) * end / sum(durations)
    phones = [("P", round(b, 5), round(e, 5)) for b, e in zip([0.0, *ends[:-1]], ends, strict=True)]
    end = round(end, 5)
    spans = spans_of([(text, 0.0, end)], end + spare * FRAME_S, phones=phones, frames=round(end / FRAME_S) + spare)
    assert (np.diff(spans) >= 1).all()
    assert (spans[1:, 0] == spans[:-1, 1]).all()
    assert spans[0, 0] == 0


# --- what is wrong ---------------------------------------------------------------------------------------------------


def test_case_punctuation_and_marks_of_the_aligner_do_not_count():
    words = [("<sil>", 0.0, 0.1), ("AB", 0.1, 0.3), ("", 0.3, 0.4), ("<unk>", 0.4, 0.4), ("c,", 0.4, 0.6)]
    assert len(spans_of(words, 0.6, text="ab c")) == 3 + 2


@pytest.mark.parametrize(
    ("words", "text", "message"),
    [
        (
            [("ab", 0.0, 0.2), ("cd", 0.2, 0.4)],
            "ab dc",
            "utterance: word 2 of its alignment is 'cd', of its transcript 'dc'",
        ),
        ([("ab", 0.0, 0.2)], "ab cd", "utterance: 1 aligned words, 2 in its transcript"),
        (
            [("ab", 0.0, 0.2), ("cd", 0.1, 0.4)],
            None,
            "utterance: 'ab' from 0 to 0.2 s and 'cd' from 0.1 to 0.4 s overlap",
        ),
        ([("ab", 0.3, 0.2)], None, "utterance: 'ab' from 0.3 to 0.2 s, which cannot be"),
        ([("ab", -0.1, 0.2)], None, "utterance: 'ab' from -0.1 to 0.2 s, which cannot be"),
        ([("ab", 0.0, 0.64)], None, "utterance: 'ab' from 0 to 0.64 s, its sound ends at 0.6 s"),
    ],
)
def test_times_that_cannot_be_are_refused(words, text, message):
    with pytest.raises(InputError) as caught:
        spans_of(words, 0.6, text=text)
    assert str(caught.value) == message


def test_a_word_that_ends_a_frame_after_the_sound_is_clipped():
    assert spans_of([("a", 0.0, 0.625)], 0.6)[-1].tolist() == [10, 20]


def test_a_cut_without_word_times_is_refused():
    made = cut([("a", 0.0, 0.1)], 0.3)
    made.supervisions[0].alignment.clear()
    with pytest.raises(InputError, match="utterance has no word times"):
        token_spans(made, CHARS.encode("a"), CHARS, 10, FRAME_S)


def test_another_frame_period_is_refused():
    with pytest.raises(InputError) as caught:
        spans_of([("a", 0.0, 0.1)], 0.6, frames=10)
    assert str(caught.value) == (
        "utterance: the encoder gives 10 frames, its 0.6 s are 20.0 of 30 ms: "
        "that is sub-sampled 2 times as much: correct the frame period"
    )
    assert len(spans_of([("a", 0.0, 0.1)], 0.6, frames=18)) == 2  # windows at the end are not whole


def test_a_tokenizer_that_joins_words_is_refused():
    made = cut([("ab", 0.0, 0.2), ("cd", 0.2, 0.4)], 0.6)
    with pytest.raises(InputError) as caught:
        token_spans(made, [1, 2], Pieces(), 20, FRAME_S)
    assert str(caught.value) == (
        "utterance: 2 tokens begin 1 words, its transcript has 2: this tokenizer joins words, so word times say "
        "nothing of its pieces: take another, such as char"
    )


def test_unknown_variants_anchors_and_wrong_spans_are_refused():
    with pytest.raises(UsageError, match="variant 'some': choose all, correct, path"):
        label_tensor(SPANS, TOKENS, 12, "some")
    with pytest.raises(UsageError, match="anchor 'late': choose start, mid, end"):
        label_tensor(SPANS, TOKENS, 12, "path", "late")
    with pytest.raises(InputError, match=r"spans have shape \(5, 2\): they are \[4, 2\]"):
        label_tensor(SPANS, TOKENS[:4], 12)
    for wrong in (SPANS[::-1], SPANS + 2, SPANS - 2, np.array([[3, 3]] * 5)):
        with pytest.raises(InputError, match="they are in order, each at least a frame"):
            label_tensor(wrong, TOKENS, 12)


def test_nothing_said_is_all_silence():
    labels, weights = label_tensor(np.zeros((0, 2), int), [], 3, "path")
    assert not labels.any()
    assert weights.tolist() == [[1.0]] * 3
