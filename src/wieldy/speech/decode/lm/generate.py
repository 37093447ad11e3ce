"""Language models in the `generate` of transformers: what a `PrefixScorer` adds, beam by beam.

For models of that library where their own search is to be kept, with its time stamps and rules. Our `AedBeam` takes the
scorers as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from wieldy.errors import UsageError
from wieldy.speech.decode import PrefixScorer, State


class FusionLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Adds `scorer`'s parts to log-probabilities; those of logits, where a search gives logits.

    Give it to `generate(logits_processor=[...])`, with any number of beams and renormalize_logits=False. What stands
    before the first call's next token is the prompt, which is not scored. One processor serves one call at a time.
    """

    def __init__(self, scorer: PrefixScorer, end: int) -> None:
        """`end` is the token that ends an answer, whose score is the scorer's for ending."""
        self.scorer, self.end = scorer, end
        self._length = self._prompt = 0
        self._state: State = None
        self._row: dict[tuple[int, ...], int] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        n, length = input_ids.shape
        if length <= self._length or not self._row:  # another call of generate
            self._prompt = length
            added, self._state = self.scorer.start(n)
        else:
            rows = [self._row.get(prefix) for prefix in self._prefixes(input_ids[:, :-1])]
            if length != self._length + 1 or None in rows:
                raise UsageError(
                    "a search that does not grow token by token",
                    hint="assisted and speculative generation go without a language model",
                )
            state = self.scorer.select(self._state, torch.tensor(rows, device=input_ids.device))
            added, self._state = self.scorer.advance(input_ids[:, -1], state)
        self._length = length
        self._row = {prefix: row for row, prefix in enumerate(self._prefixes(input_ids))}
        total = added.sum(1)
        total[:, self.end] = self.scorer.end(self._state).sum(1)
        return scores.log_softmax(-1) + total.to(scores)

    def _prefixes(self, input_ids: Tensor) -> list[tuple[int, ...]]:
        return [tuple(prefix) for prefix in input_ids[:, self._prompt :].tolist()]


class WhisperSpelling:
    """The `Spelling` of Whisper's tokenizer: all text comes before the end token, a word begins with a blank."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self.end = int(tokenizer.convert_tokens_to_ids("<|endoftext|>"))
        pieces = tokenizer.convert_ids_to_tokens(list(range(self.end)))
        self._begins = [piece.startswith("Ġ") for piece in pieces]

    def __len__(self) -> int:
        return self._vocabulary

    def begins_word(self, token: int) -> bool:
        return token < self.end and self._begins[token]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(f" {text.strip()}", add_special_tokens=False) if text.strip() else []
        return ids

    def decode(self, ids: Any) -> str:
        text: str = self._tokenizer.decode(list(ids))
        return text
