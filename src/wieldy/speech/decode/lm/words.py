"""Models of whole words in a search over word pieces: what users have is an ARPA file of words, or a list of them.

`WordScorer` adds a model's log-probability of a word once the next one begins, so that the pieces within a word compete
by sound alone. `PhraseScorer` helps a few words or phrases of your own (`--words`) piece by piece, and takes the help
back where something else came of it: contextual biasing after Ding Zhao et al. 2019, Shallow-fusion end-to-end
contextual biasing.
"""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech.decode.lm import backoff
from wieldy.speech.decode.lm.backoff import BackoffModel
from wieldy.speech.tokens import Tokenizer

_KEPT = 100_000  # words whose scores are remembered


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

    def __init__(self, model: WordModel, tokenizer: Tokenizer, weight: float) -> None:
        """`weight` >= 0 of the model's log-probabilities."""
        if not weight >= 0:
            raise UsageError(f"weight is {weight}", hint="it must not be negative")
        self.model, self.tokenizer, self.weight = model, tokenizer, weight
        self._begins = torch.tensor([n > 0 and tokenizer.begins_word(n) for n in range(len(tokenizer))])
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
        return self.model.after(history, self.tokenizer.decode(word)) if word else (0.0, history)

    def _scores(self, state: Tensor) -> Tensor:
        """[n, 1, V]: the word that was going on, for tokens that begin the next one."""
        done = torch.tensor([self.weight * self._done(number)[0] for number in state.tolist()])
        return (done[:, None, None] * self._begins).to(state.device)


class PhraseScorer:
    """A `PrefixScorer` that makes `phrases` likelier. State: the place in a phrase, [n]."""

    names = ("phrases",)

    def __init__(self, phrases: Sequence[str], tokenizer: Tokenizer, bonus: float = 1.5) -> None:
        """`bonus` >= 0, in nats, for every token of a phrase; 1.5 is where lists of this kind begin to be heard.

        Raises `InputError` for a phrase without words, or with characters the recogniser cannot write.
        """
        if not bonus >= 0:
            raise UsageError(f"bonus is {bonus}", hint="it must not be negative")
        begins = np.array([n > 0 and tokenizer.begins_word(n) for n in range(len(tokenizer))])
        children: list[dict[int, int]] = [{}]
        parents, last, whole = [0], [0], [True]  # place 0 is outside of all phrases
        for phrase in phrases:
            if not (tokens := tokenizer.encode(phrase)):
                raise InputError(f"{phrase!r} is no phrase")
            place = 0
            for token in tokens:
                if token not in children[place]:
                    children[place][token] = len(children)
                    children.append({})
                    parents.append(place)
                    last.append(token)
                    whole.append(False)
                place = children[place][token]
            whole[place] = True
        owed = np.zeros(len(children), np.float32)  # given for what may not become a whole phrase
        for place in range(1, len(children)):
            parent = parents[place]
            owed[place] = bonus + (0 if whole[parent] and begins[last[place]] else owed[parent])
        # What else comes than a phrase's next token takes back what was given, unless the phrase is whole and a word
        # begins; and a word that begins may begin a phrase.
        kept = np.array(whole)[:, None] & begins
        scores = np.where(kept, 0, -owed[:, None]).astype(np.float32)
        targets = np.zeros(scores.shape, np.int64)
        for place, after in enumerate(children):
            for token, target in children[0].items():
                scores[place, token] += bonus
                targets[place, token] = target
            for token, target in after.items():
                scores[place, token], targets[place, token] = bonus, target
        self._scores, self._targets = torch.from_numpy(scores)[:, None], torch.from_numpy(targets)
        self._ends = torch.from_numpy(np.where(whole, 0, -owed).astype(np.float32))[:, None]

    def start(self, n: int, g: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = torch.zeros(n, dtype=torch.int64, device=None if g is None else g.device)
        return self._at(self._scores, state), state

    def advance(self, tokens: Tensor, state: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        state = self._targets.to(state.device)[state, tokens]
        return self._at(self._scores, state), state

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]

    def end(self, state: Tensor) -> Tensor:
        return self._at(self._ends, state)

    def _at(self, table: Tensor, state: Tensor) -> Tensor:
        return table.to(state.device)[state]
