"""The text of a new domain: read it, and find the lines that a recogniser cannot be taught."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wieldy.errors import InputError
from wieldy.speech.tokens import Tokenizer

_MOST_TESTED = 200  # lines; as many again would narrow the interval of an error rate by less than a third


@dataclass(frozen=True)
class DomainText:
    """Lines to learn from, as often as they are there, other ones to test on, and (line, reason) of each left out."""

    learn: tuple[str, ...]
    test: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, lines: Iterable[str], tokenizer: Tokenizer, seed: int = 0) -> DomainText:
        """A tenth of the different lines, at least one and at most 200, is for testing. Raises `InputError` where fewer
        than two different lines can be used."""
        good, skipped = [], []
        for line in filter(None, (" ".join(line.split()) for line in lines)):
            if reason := _fault(line, tokenizer):
                skipped.append((line, reason))
            else:
                good.append(line)
        different = list(dict.fromkeys(good))
        if len(different) < 2:
            first = f", the first left out, {skipped[0][0]!r}: {skipped[0][1]}" if skipped else ""
            raise InputError(
                f"{len(different)} of {len(good) + len(skipped)} lines of text can be used{first}",
                hint="there must be two different ones, and better a few hundred",
            )
        count = min(_MOST_TESTED, max(1, len(different) // 10))
        chosen = np.random.default_rng(seed).choice(len(different), count, replace=False)
        test = [different[i] for i in sorted(chosen.tolist())]
        return cls(tuple(line for line in good if line not in set(test)), tuple(test), tuple(skipped))


def read_text(path: Path | str) -> list[str]:
    """The lines of a UTF-8 file, or of all .txt files in a folder in order of their names: a sentence a line."""
    path = Path(path)
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no .txt file", hint="put the text there, a sentence a line")
    try:
        return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None


def _fault(line: str, tokenizer: Tokenizer) -> str:
    """Why a line cannot be used; empty where it can."""
    if not re.search(r"\w", line):
        return "there is no word in it"
    try:
        tokenizer.encode(line)
    except InputError as error:
        return str(error)
    return ""
