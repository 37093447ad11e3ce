"""Word pieces: text to the numbers a recogniser predicts, and back.

`Tokenizer.train` learns pieces from sentences with sentencepiece; id 0 is always the transducer's blank. For training a
recogniser: a trained model from elsewhere brings its own tokenizer.

Taku Kudo, John Richardson 2018, SentencePiece, arXiv 1808.06226; kinds "unigram" after Kudo 2018, Subword
regularization, arXiv 1804.10959, and "bpe" after Sennrich et al. 2016, Neural machine translation of rare words with
subword units, arXiv 1508.07909. "char" has one piece per character and "word" one per word.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import sentencepiece

from wieldy.cache import replacing
from wieldy.errors import InputError, UsageError

Kind = Literal["unigram", "bpe", "char", "word"]
BLANK = "<blank>"
_SPACE = "▁"  # what sentencepiece writes for a space; it begins a word


class Tokenizer:
    """The pieces of a trained vocabulary. Ids are 1 to `len(self) - 1`; 0 is blank and never encoded."""

    def __init__(self, model: bytes) -> None:
        """`model` is the content of a sentencepiece file whose unknown piece has id 0, as `train` makes and by
        default sentencepiece does."""
        self._model = model
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise InputError("this is not a sentencepiece model") from error
        if self._pieces.unk_id() != 0:
            raise InputError(
                f"the unknown piece of this sentencepiece model has id {self._pieces.unk_id()}",
                hint="blank takes its place: train the model with unk_id=0",
            )
        self.pieces: tuple[str, ...] = (BLANK, *map(self._pieces.id_to_piece, range(1, len(self._pieces))))

    @classmethod
    def train(cls, texts: Iterable[str], kind: Kind = "unigram", size: int | None = None) -> Tokenizer:
        """Learn at most `size` pieces, blank included, from sentences; fewer where the text has no more.

        Kinds "char" and "word" keep every character or word where no size is given. Text is compared after Unicode
        normalisation (NFKC); case and punctuation count. Raises `InputError` without text, `UsageError` for a size
        below the number of different characters.
        """
        if kind not in get_args(Kind):
            raise UsageError(f"tokenizer kind {kind!r}", hint=f"choose {', '.join(get_args(Kind))}")
        sentences = [text for text in texts if text.strip()]
        if not sentences:
            raise InputError("there is no text to learn word pieces from")
        if size is None and kind in ("unigram", "bpe"):
            raise UsageError(f"a {kind} tokenizer needs a size", hint="try 100 for commands, 1000 for free speech")
        least = 2 if kind == "word" else len(set("".join(sentences)) | {" "}) + 1
        if size is not None and size < least:
            raise UsageError(f"{size} pieces are too few", hint=f"blank and every character alone make {least}")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type=kind,
                vocab_size=size or least,
                use_all_vocab=size is None,
                hard_vocab_limit=False,
                character_coverage=1.0,
                normalization_rule_name="nfkc",
                max_sentence_length=2**20,  # bytes; longer sentences would be left out
                unk_id=0,
                unk_piece=BLANK,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                num_threads=1,  # the same pieces every time
                minloglevel=2,  # errors only
            )
        except RuntimeError as error:
            raise InputError(f"no {kind} pieces can be learnt from {len(sentences)} sentences: {error}") from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """What `save` wrote. Raises `InputError` naming the file."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        except InputError as error:
            raise InputError(f"{path}: {error.message}", hint=error.hint) from error

    def save(self, path: Path | str) -> None:
        """Write a file that sentencepiece reads too, usually called `tokens.model`."""
        with replacing(path) as temporary:
            temporary.write_bytes(self._model)

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces `text` falls into. Raises `InputError` listing what is not in the vocabulary."""
        ids: list[int] = self._pieces.encode(text)
        if 0 in ids:
            unknown = zip(self._pieces.encode(text, out_type=str), ids, strict=True)
            # Neighbours that are both unknown come as one piece.
            runs = " ".join(piece.replace(_SPACE, " ") for piece, number in unknown if number == 0)
            outside = dict.fromkeys(runs.split())
            raise InputError(f"{text!r} has {', '.join(map(repr, outside))}", hint="not in the tokenizer's vocabulary")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of pieces in a row."""
        for number in ids:
            if not 0 < number < len(self):
                raise InputError(f"there is no piece {number}", hint=f"ids are 1 to {len(self) - 1}; 0 is blank")
        text: str = self._pieces.decode(list(ids))
        return text

    def begins_word(self, token: int) -> bool:
        """Whether a new word begins with this piece."""
        return self.pieces[token].startswith(_SPACE)

    def __len__(self) -> int:
        return len(self.pieces)
