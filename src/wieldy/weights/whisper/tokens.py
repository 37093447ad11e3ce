"""Whisper's tokens: which number stands for what, and a tokenizer file that has the time stamps too."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wieldy.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MULTILINGUAL_SIZE = 51_865  # English-only vocabularies are smaller; openai/whisper, model.py
_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>", re.ASCII)
_SPECIAL = re.compile(r"<\|[^|]*\|>")


@dataclass(frozen=True)
class WhisperTokens:
    """The vocabulary of a model, in the order of its token numbers."""

    vocabulary: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, size: int) -> WhisperTokens:
        """From a CTranslate2 folder's `vocabulary.json` or `vocabulary.txt`, which must have `size` tokens."""
        for name in ("vocabulary.json", "vocabulary.txt"):
            if (folder / name).is_file():
                break
        else:
            raise InputError(f"{folder} has no vocabulary.json or vocabulary.txt")
        try:
            text = (folder / name).read_text(encoding="utf-8")
            tokens = json.loads(text) if name.endswith(".json") else text.removesuffix("\n").split("\n")
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{folder / name} is not a readable vocabulary: {error}") from error
        if not isinstance(tokens, list) or len(tokens) != size:
            raise InputError(f"{folder / name} does not hold the {size} tokens that the model has")
        return cls(tuple(str(token) for token in tokens))

    def number(self, token: str) -> int:
        """The number of a special token such as `<|notimestamps|>`."""
        try:
            return self.vocabulary.index(token)
        except ValueError:
            raise InputError(f"the vocabulary has no {token}, so this is no Whisper model") from None

    @property
    def multilingual(self) -> bool:
        return len(self.vocabulary) >= MULTILINGUAL_SIZE

    @property
    def special(self) -> tuple[str, ...]:
        """The special tokens that are not time stamps, in order: `<|endoftext|>` to `<|notimestamps|>`."""
        end, last = self.number("<|endoftext|>"), self.number("<|notimestamps|>")
        return tuple(token for token in self.vocabulary[end : last + 1] if _SPECIAL.fullmatch(token))

    @property
    def languages(self) -> dict[str, int]:
        """The language tokens and their numbers: they lie between the start token and the tasks."""
        start, task = self.number("<|startoftranscript|>"), self.number("<|translate|>")
        stop = min(task, self.number("<|transcribe|>"))
        return {self.vocabulary[number]: number for number in range(start + 1, stop)}


def read_tokenizer(path: Path, tokens: WhisperTokens) -> Tokenizer:
    """A `tokenizer.json`, with the time stamps added where it lacks them, that numbers tokens as the model does."""
    from tokenizers import AddedToken, Tokenizer

    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise InputError(f"{path} is not a readable tokenizer: {error}") from error
    lacking = tokens.vocabulary[tokenizer.get_vocab_size() :]
    if unexpected := [token for token in lacking if not _TIMESTAMP.fullmatch(token)]:
        raise InputError(f"{path} lacks the token {unexpected[0]!r} of the model's vocabulary")
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in lacking])
    for token in (*tokens.special, *tokens.vocabulary[-1:]):
        if tokenizer.token_to_id(token) != tokens.number(token):
            raise InputError(
                f"{path} gives {token} the number {tokenizer.token_to_id(token)}, the model {tokens.number(token)}"
            )
    return tokenizer
