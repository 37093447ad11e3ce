"""How words are pronounced: from a dictionary, from recordings whose phones have times, or guessed by flite.

Where recordings with phone times exist, `Lexicon.of_cuts` says what their voices really said. `Lexicon.cmu` knows
135,000 English words without any recordings. Phones are those of the CMU dictionary, 39 in lower case without stress.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lhotse.cut import Cut, CutSet

from wieldy.cache import write_text
from wieldy.errors import InputError, MissingError
from wieldy.metrics.text import basic
from wieldy.speech import synthesize
from wieldy.speech.corpus import aligned

SILENCE = "sil"
_SILENCES = frozenset({"", "sil", "pau", "sp", "spn", "h#", "#"})
_SCHWAS = {"ax": "ah", "axr": "er", "ix": "ih"}  # what flite and TIMIT tell apart and the CMU dictionary does not
_MOST_VARIANTS = 4  # of a word taken from recordings: rarer ones are mostly errors of the alignment
_GUESSING_VOICE = "kal16"  # flite's voices share one set of rules for letters; this one speaks quickest

Pronunciation = tuple[str, ...]


@functools.cache
def phone_of(symbol: str) -> str:
    """A phone as the lexicon writes it: AH0, ah and flite's ax are all "ah"; <sil>, pau and SIL are "sil"."""
    plain = symbol.strip("<>[]+ ").lower().rstrip("0123456789")
    return SILENCE if plain in _SILENCES else _SCHWAS.get(plain, plain)


class Lexicon:
    """Pronunciations by word, several where a word has several; case and punctuation do not count.

    With `guess`, a word that is not there is pronounced by flite's rules, where flite is installed.
    """

    def __init__(self, words: Mapping[str, Iterable[Pronunciation]], *, guess: bool = True) -> None:
        self.words = {word: tuple(dict.fromkeys(variants)) for word, variants in words.items()}
        self.guess = guess

    def __call__(self, word: str) -> tuple[Pronunciation, ...]:
        """The pronunciations of a word, none where they cannot be known."""
        plain = basic(word)
        found = self.words.get(plain, ())
        return found or (_guessed(plain) if self.guess and plain else ())

    @classmethod
    def cmu(cls, *, guess: bool = True) -> Lexicon:
        """The CMU dictionary that comes with PocketSphinx."""
        try:
            import pocketsphinx
        except ImportError as error:
            raise MissingError(
                "the dictionary of pocketsphinx is missing", hint="pip install 'wieldy[speech]'"
            ) from error
        return cls.load(Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict", guess=guess)

    @classmethod
    def of_cuts(cls, cuts: CutSet, *, guess: bool = True) -> Lexicon:
        """What is said in cuts with word and phone times, the commonest pronunciation of a word first. Raises
        `InputError` naming a cut without them."""
        counted: dict[str, Counter[Pronunciation]] = {}
        for cut in cuts:
            for word, phones in _pronounced(cut):
                counted.setdefault(word, Counter())[phones] += 1
        return cls(
            {word: [p for p, _ in variants.most_common(_MOST_VARIANTS)] for word, variants in counted.items()},
            guess=guess,
        )

    @classmethod
    def load(cls, path: Path | str, *, guess: bool = True) -> Lexicon:
        """A dictionary in the CMU format: a word, blanks, its phones; further pronunciations as `word(2)`."""
        words: dict[str, list[Pronunciation]] = {}
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as a dictionary: {error}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith(";;;"):
                continue
            word, *phones = line.split()
            if not phones:
                raise InputError(f"line {number} of {path} has no phones", hint="it is a word, blanks and its phones")
            plain = re.sub(r"\(\d+\)$", "", word)
            words.setdefault(plain.lower(), []).append(tuple(map(phone_of, phones)))
        return cls(words, guess=guess)

    def save(self, path: Path | str) -> None:
        lines = [
            f"{word}{f'({number})' if number > 1 else ''} {' '.join(phones)}\n"
            for word, variants in sorted(self.words.items())
            for number, phones in enumerate(variants, 1)
        ]
        write_text(path, "".join(lines))


def _pronounced(cut: Cut) -> Iterator[tuple[str, Pronunciation]]:
    phones = aligned(cut, "phone")
    for word in aligned(cut, "word"):
        inside = [phone_of(p.symbol) for p in phones if word.start <= (p.start + p.end) / 2 < word.end]
        spoken = tuple(phone for phone in inside if phone != SILENCE)
        if spoken and (plain := basic(word.symbol)):
            yield plain, spoken


@functools.lru_cache(maxsize=10_000)
def _guessed(word: str) -> tuple[Pronunciation, ...]:
    try:
        spoken = synthesize.say(word, _GUESSING_VOICE).phones
    except (MissingError, InputError):
        return ()
    return (tuple(phone_of(phone.symbol) for phone in spoken),) if spoken else ()
