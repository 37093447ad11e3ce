"""Models of whole words in a search over word pieces: what users have is an ARPA file of words, or a list of them.

`WordScorer` adds a model's log-probability of a word once the next one begins, so that the pieces within a word compete
by sound alone. `PhraseScorer` helps a few words or phrases of your own (`--words`) piece by piece, and takes the help
back where something else came of it: contextual biasing after Ding Zhao et al. 2019, Shallow-fusion end-to-end
contextual biasing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech.decode.lm import backoff
from wieldy.speech.decode.lm.backoff import BackoffModel

_KEPT = 100_000  # words whose scores are remembered
_ROWS = 1000  # places in phrases whose rows are: 200 MB with Whisper's vocabulary, if there are as many


class Spelling(Protocol):
    """How a recogniser spells: a `Tokenizer`, or that of another library's model. V tokens, some of which may be no
    text."""

    def __len__(self) -> int: ...

    def begins_word(self, token: int) -> bool: ...

    def encode(self, text: str) -> list[int]:
        """The tokens of whole words."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...


class WordModel(Protocol):
    """Log-probabilities of words, one after the other."""

    def begin(self) -> Hashable:
        """The history before the first word."""
        ...

    def after(self, history: Hashable, word: str) -> tuple[float, Hashable]:
        """log P of `word`, unknown ones too, and the history behind it."""
        ...

    def end(self, history: Hashable) -> float:
        """log P of the end."""
        ...


class ArpaWords:
    """A `WordModel` of an ARPA file."""

    def __init__(self, model: BackoffModel) -> None:
        if backoff.UNKNOWN not in model.number:
            raise InputError("the language model has no <unk>", hint="a recogniser will hear words that it lacks")
        self.model = model

    def begin(self) -> tuple[int, ...]:
        return self.model.history([backoff.BEGIN])

    def after(self, history: Any, word: str) -> tuple[float, tuple[int, ...]]:
        number = self.model.number.get(word, self.model.number[backoff.UNKNOWN])
        keep = self.model.order - 1
        return float(self.model.row(history)[number]), (*history, number)[len(history) + 1 - keep :] if keep else ()

    def end(self, history: Any) -> float:
        return float(self.model.row(history)[self.model.number[backoff.END]])


class KenLMWords:
    """A `WordModel` of any file that the `kenlm` package reads, binary ones too."""

    def __init__(self, path: Path | str) -> None:
        try:
            kenlm: Any = importlib.import_module("kenlm")
        except ImportError as error:
            raise MissingError(
                "kenlm is not installed", hint="pip install kenlm, or give the model as an ARPA file"
            ) from error
        try:
            self._model = kenlm.Model(str(path))
        except OSError as error:
            raise InputError(f"{path} cannot be read by kenlm: {str(error).splitlines()[0]}") from error
        self._state = kenlm.State

    def begin(self) -> Hashable:
        state: Hashable = self._state()
        self._model.BeginSentenceWrite(state)
        return state

    def after(self, history: Hashable, word: str) -> tuple[float, Hashable]:
        state = self._state()
        return float(self._model.BaseScore(history, word, state)) * backoff.LN10, state

    def end(self, history: Hashable) -> float:
        return self.after(history, backoff.END)[0]


class WordScorer:
    """A `PrefixScorer` of a `WordModel`. State: which of all hypotheses so far one is, by number [n]."""

    names = ("words",)

    def __init__(
        self, model: WordModel, spelling: Spelling, weight: float, written: Callable[[str], str] = str
    ) -> None:
        """`weight` >= 0 of the model's log-probabilities. `written` is how the model writes a word; what it leaves
        nothing of, such as a lone comma, is no word."""
        if not weight >= 0:
            raise UsageError(f"weight is {weight}", hint="it must not be negative")
        self.model, self.spelling, self.weight, self.written = model, spelling, weight, written
        self._begins = _beginnings(spelling)
        # Of each number, the history before the word that is going on and the tokens of that word. Different ways to
        # one history and word have one number, so there are as many as there are words in the answers of a search.
        self._known: list[tuple[Hashable, tuple[int, ...]]] = [(model.begin(), ())]
        self._number = {self._known[0]: 0}
        self._done = lru_cache(_KEPT)(self._word_done)

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = torch.zeros(n, dtype=torch.int64, device=None if g is None else g.device)
        return self._scores(state), state

    def advance(self, tokens: Tensor, state: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        pairs = zip(state.tolist(), tokens.tolist(), strict=True)
        after = torch.tensor([self._after(number, token) for number, token in pairs], dtype=torch.int64)
        after = after.to(state.device)
        return self._scores(after), after

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]

    def end(self, state: Tensor) -> Tensor:
        scores = []
        for number in state.tolist():
            log_p, history = self._done(number)
            scores.append(self.weight * (log_p + self.model.end(history)))
        return torch.tensor(scores, device=state.device).view(-1, 1)

    def _after(self, number: int, token: int) -> int:
        history, word = self._known[number]
        if self._begins[token]:
            history, word = self._done(number)[1], ()
        key = history, (*word, token)
        if key not in self._number:
            self._number[key] = len(self._known)
            self._known.append(key)
        return self._number[key]

    def _word_done(self, number: int) -> tuple[float, Hashable]:
        """log P of the word that was going on and the history behind it."""
        history, word = self._known[number]
        text = self.written(self.spelling.decode(word).strip()) if word else ""
        return self.model.after(history, text) if text else (0.0, history)

    def _scores(self, state: Tensor) -> Tensor:
        """[n, 1, V]: the word that was going on, for tokens that begin the next one."""
        done = torch.tensor([self.weight * self._done(number)[0] for number in state.tolist()])
        return (done[:, None, None] * self._begins).to(state.device)


class PhraseScorer:
    """A `PrefixScorer` that makes `phrases` likelier. State: the place in a phrase, [n]."""

    names = ("phrases",)

    def __init__(self, phrases: Sequence[str], spelling: Spelling, bonus: float = 1.5) -> None:
        """`bonus` >= 0, in nats, for every token of a phrase.

        Raises `InputError` for a phrase without words, or with characters the recogniser cannot write.
        """
        if not bonus >= 0:
            raise UsageError(f"bonus is {bonus}", hint="it must not be negative")
        self.bonus = bonus
        self._begins = _beginnings(spelling)
        self._next: list[dict[int, int]] = [{}]  # of each place; 0 is outside of all phrases
        self._whole = [True]
        parents, last = [0], [0]
        for phrase in phrases:
            if not (tokens := spelling.encode(phrase)):
                raise InputError(f"{phrase!r} is no phrase")
            place = 0
            for token in tokens:
                if token not in self._next[place]:
                    self._next[place][token] = len(self._next)
                    self._next.append({})
                    self._whole.append(False)
                    parents.append(place)
                    last.append(token)
                place = self._next[place][token]
            self._whole[place] = True
        self._owed = [0.0]  # given for what may not become a whole phrase
        for parent, token in zip(parents[1:], last[1:], strict=True):
            over = self._whole[parent] and self._begins[token]
            self._owed.append(bonus + (0.0 if over else self._owed[parent]))
        self._row = lru_cache(_ROWS)(self._scored)

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = torch.zeros(n, dtype=torch.int64, device=None if g is None else g.device)
        return self._rows(state), state

    def advance(self, tokens: Tensor, state: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        pairs = zip(state.tolist(), tokens.tolist(), strict=True)
        after = [self._next[place].get(token, self._next[0].get(token, 0)) for place, token in pairs]
        state = torch.tensor(after, dtype=torch.int64, device=state.device)
        return self._rows(state), state

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]

    def end(self, state: Tensor) -> Tensor:
        owed = [0.0 if self._whole[place] else -self._owed[place] for place in state.tolist()]
        return torch.tensor(owed, device=state.device).view(-1, 1)

    def _scored(self, place: int) -> Tensor:
        """[V]: what else comes than a phrase's next token takes back what was given, unless the phrase is whole and a
        word begins; and a word that begins may begin a phrase."""
        kept = self._begins if self._whole[place] else torch.zeros_like(self._begins)
        scores = torch.where(kept, 0.0, -self._owed[place])
        scores[list(self._next[0])] += self.bonus
        scores[list(self._next[place])] = self.bonus
        return scores

    def _rows(self, state: Tensor) -> Tensor:
        rows = [self._row(place) for place in state.tolist()]
        stacked = torch.stack(rows) if rows else torch.zeros(0, len(self._begins))
        return stacked[:, None].to(state.device)


def _beginnings(spelling: Spelling) -> Tensor:
    """Which tokens [V] begin a word."""
    return torch.tensor([spelling.begins_word(token) for token in range(len(spelling))])
