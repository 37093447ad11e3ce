"""Tokenizers: text there and back, blank at 0, and what is outside the vocabulary by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import InputError, UsageError

pytest.importorskip("sentencepiece")
from wieldy.speech.tokens import Tokenizer

TEXT = "turn the radio off in kitchen please order five green apples and two pears for anna's sister"
WORDS = TEXT.split()
SENTENCES = [" ".join(np.random.default_rng(i).choice(WORDS, 6)) for i in range(60)]
KINDS = [("unigram", 40), ("bpe", 40), ("char", None), ("word", None)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind[0])
def tokenizer(request) -> Tokenizer:
    return Tokenizer.train(SENTENCES, *request.param)


@given(words=st.lists(st.sampled_from(WORDS), max_size=12))
def test_there_and_back(tokenizer, words):
    ids = tokenizer.encode(" ".join(words))
    assert all(0 < number < len(tokenizer) for number in ids)
    assert tokenizer.decode(ids) == " ".join(words)
    assert sum(map(tokenizer.begins_word, ids)) == len(words)
    assert bool(ids) == bool(words)


def test_every_id_has_its_piece(tokenizer):
    assert tokenizer.pieces[0] == "<blank>"
    assert len(set(tokenizer.pieces)) == len(tokenizer.pieces) == len(tokenizer)
    ids = tokenizer.encode(SENTENCES[0])
    assert "".join(tokenizer.pieces[number] for number in ids).replace("▁", " ").strip() == SENTENCES[0]


def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokens.model")
    again = Tokenizer.load(tmp_path / "tokens.model")
    assert again.pieces == tokenizer.pieces
    assert again.encode(SENTENCES[3]) == tokenizer.encode(SENTENCES[3])


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_the_same_sentences_give_the_same_pieces(kind, size):
    assert Tokenizer.train(SENTENCES, kind, size).pieces == Tokenizer.train(iter(SENTENCES), kind, size).pieces


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_size_counts_blank(kind):
    sizes = [len(Tokenizer.train(SENTENCES, kind, size)) for size in (30, 35, 10_000)]
    assert sizes[:2] == [30, 35]
    assert sizes[2] < 500  # no more pieces than there is text


def test_a_small_word_vocabulary_keeps_the_most_frequent():
    tokenizer = Tokenizer.train(["on on on off off mute"], "word", 3)
    assert tokenizer.pieces == ("<blank>", "▁on", "▁off")


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_characters_outside_are_listed_once(kind):
    tokenizer = Tokenizer.train(SENTENCES, kind, None if kind == "char" else 40)
    with pytest.raises(InputError, match=r"^'turn ß the ö ß off' has 'ß', 'ö': not in the tokenizer's vocabulary$"):
        tokenizer.encode("turn ß the ö ß off")


def test_words_outside_are_listed_one_by_one():
    with pytest.raises(InputError, match=r"has 'lamp', 'engine':"):
        Tokenizer.train(SENTENCES, "word").encode("turn lamp engine off")


def test_composed_and_decomposed_letters_are_one():
    tokenizer = Tokenizer.train(["caf\u00e9"], "char")
    assert tokenizer.encode("cafe\u0301") == tokenizer.encode("caf\u00e9")


@pytest.mark.parametrize("ids", [[0], [10_000], [-1]])
def test_ids_that_are_no_labels(tokenizer, ids):
    with pytest.raises(InputError, match=rf"no piece {ids[0]}: ids are 1 to {len(tokenizer) - 1}; 0 is blank"):
        tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], "char"), InputError, "no text"),
        ((["", "  "], "word"), InputError, "no text"),
        ((["abc"], "unigram"), UsageError, "needs a size"),
        ((["abc"], "bpe", 3), UsageError, "blank and every character alone make 5"),
        ((["abc"], "words"), UsageError, "choose unigram, bpe, char, word"),
    ],
)
def test_what_cannot_be_trained(arguments, error, message):
    with pytest.raises(error, match=message):
        Tokenizer.train(*arguments)


def test_files_that_are_no_tokenizers(tmp_path):
    with pytest.raises(InputError, match=r"gone\.model cannot be read: No such file"):
        Tokenizer.load(tmp_path / "gone.model")
    (tmp_path / "junk.model").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.model: this is not a sentencepiece model"):
        Tokenizer.load(tmp_path / "junk.model")


def test_a_model_without_room_for_blank(tmp_path):
    import sentencepiece

    with open(tmp_path / "other.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES), model_writer=file, model_type="char", vocab_size=40, unk_id=2, bos_id=0,
            eos_id=1, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    with pytest.raises(InputError, match=r"other\.model: the unknown piece .* has id 2: blank takes its place"):
        Tokenizer.load(tmp_path / "other.model")
