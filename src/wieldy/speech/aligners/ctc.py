"""Forced alignment with any CTC model: the likeliest way through its frames that spells the text.

For whoever has a CTC model and no hybrid system. CTC models answer in spikes: a word's boundaries are where the blank
frames between the spikes are shared out, good to a few frames.

Alex Graves et al. 2006, Connectionist temporal classification. States s = 0 .. 2 U are blank, y_1, blank, y_2 .. blank;

    a_t(s) = log p_t(s) + max(a_{t-1}(s), a_{t-1}(s - 1), a_{t-1}(s - 2) if y(s) is a label other than y(s - 2))

Notation: T frames, U tokens, V vocabulary with blank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.errors import InputError, UsageError
from wieldy.speech.aligners import Alignment
from wieldy.speech.decode.viterbi import viterbi
from wieldy.speech.tokens import Tokenizer


def ctc_viterbi(
    log_probs: NDArray[np.float32], tokens: Sequence[int], blank: int = 0
) -> tuple[NDArray[np.int64], float]:
    """The likeliest path, of each frame the place 0 .. U - 1 of its token or -1 for blank, int64 [T], and its score.

    The score is its log-probability; `log_probs` [T, V] are natural logarithms. Raises `InputError` where there are too
    few frames.
    """
    frames = len(log_probs)
    labels = np.asarray(tokens, np.int64)
    least = len(labels) + int((labels[1:] == labels[:-1]).sum())  # a blank between equal ones
    if frames < least:
        raise InputError(f"{frames} frames are too few for {len(labels)} tokens", hint=f"they need {least}")
    if not frames:
        return np.zeros(0, np.int64), 0.0
    if len(labels) and not (labels.min() >= 0 and labels.max() < log_probs.shape[1]):
        raise InputError(
            f"tokens {labels.min()} to {labels.max()}", hint=f"the model knows 0 to {log_probs.shape[1] - 1}"
        )
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    emitted = log_probs.astype(np.float64)[:, states]
    place = np.arange(len(states))
    skips = np.zeros(len(states), bool)
    skips[3::2] = labels[1:] != labels[:-1]
    predecessors = np.stack([place, place - 1, np.where(skips, place - 2, -1)], axis=1)
    # Of equals the path that ends in blank.
    path, best = viterbi(emitted, predecessors, range(min(2, len(states))), [place[-1], *place[-2:-1]])
    return np.where(path % 2 == 1, path // 2, -1), best


def word_frames(
    path: NDArray[np.int64], starts: Sequence[int], reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First frame of each word and the one after its last, on a `path` of `ctc_viterbi`; words begin with the tokens
    `starts`. From its first spike to its last, and on either side half of the blank frames up to the next word, at most
    `reach` of them."""
    at = np.flatnonzero(path >= 0)
    word = np.searchsorted(starts, path[at], side="right") - 1
    first = at[np.searchsorted(word, np.arange(len(starts)))]
    after = at[np.searchsorted(word, np.arange(len(starts)), side="right") - 1] + 1
    gaps = first[1:] - after[:-1]
    begin = first - np.minimum(np.concatenate([[first[0]], gaps // 2]), reach)
    end = after + np.minimum(np.concatenate([gaps - gaps // 2, [len(path) - after[-1]]]), reach)
    return begin, end


@dataclass(frozen=True, kw_only=True)
class CtcAligner:
    """`emit` gives log-probabilities [T, V], natural logarithms, of sound [n] at 16 kHz, a frame every `frame_s` s."""

    emit: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    tokenizer: Tokenizer  # whose ids the columns are
    frame_s: float  # > 0
    blank: int = 0
    reach_s: float = 0.1  # how far a word may extend into the blank frames around its spikes, >= 0

    def __post_init__(self) -> None:
        if not self.frame_s > 0 or not self.reach_s >= 0:
            raise UsageError(f"frame_s {self.frame_s}, reach_s {self.reach_s}", hint="seconds, the first above 0")

    def align(self, samples: NDArray[np.float32], text: str) -> Alignment:
        """As `Aligner.align`, words as in `word_frames`."""
        tokens = self.tokenizer.encode(text)
        starts = [u for u, token in enumerate(tokens) if self.tokenizer.begins_word(token)]
        words = text.split()
        if len(starts) != len(words):
            raise InputError(f"{text!r}: its tokens begin {len(starts)} words and not {len(words)}")
        path, best = ctc_viterbi(self.emit(samples), tokens, self.blank)
        if best == -np.inf:
            raise InputError(f"{len(path)} frames of sound cannot be aligned with {text!r}: probability 0")
        if not words:
            return Alignment(())
        begin, end = word_frames(path, starts, round(self.reach_s / self.frame_s))
        times = zip(words, begin.tolist(), end.tolist(), strict=True)
        return Alignment(
            tuple(
                AlignmentItem(name, round(b * self.frame_s, 5), round((e - b) * self.frame_s, 5))
                for name, b, e in times
            )
        )
