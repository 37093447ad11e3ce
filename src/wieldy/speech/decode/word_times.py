"""When each recognised word was said, to a few hundredths of a second, which a transducer by itself does not know.

A transducer emits words late and irregularly. Here a branch on its encoder says of each frame which phone is spoken
(`frame_branch`), and the recognised words are laid along these phones: method `phone`. Without a branch, method
`emission` moves the frames of emission by what they are late on average; method `ctc` aligns word pieces by a branch
that was trained without any alignment.

Rui Zhao et al. 2021, On addressing practical challenges for RNN-Transducer, arXiv 2105.00858. With W the weight of the
prior, the score of phone k on frame t is  log softmax(branch)_t,k - W log P(k):  likelihoods up to a constant, so that
silence, which is most frames, is not preferred.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wieldy.cache import write_text
from wieldy.errors import InputError, UsageError
from wieldy.speech.aligners.ctc import ctc_viterbi, word_frames
from wieldy.speech.decode.frame_branch import BranchStream, FrameBranch, FrameBranchConfig
from wieldy.speech.decode.phone_graph import PhoneGraph
from wieldy.speech.decode.viterbi import advanced, start, traced
from wieldy.speech.lexicon import SILENCE, Lexicon
from wieldy.speech.networks.model_folder import config_of, load_weights, read_config, save_network
from wieldy.weights.folders import read_json

Method = Literal["phone", "ctc", "emission"]

PHONES, TOKENS = "phone-branch", "ctc-branch"  # folders of the branches
_LEXICON, _ABOUT = "lexicon.dict", "word-times.json"
_REACH_S = 0.1  # how far a word may extend into the blank around its spikes, as in `aligners.ctc`
_ACTIVE = 20.0  # nats below the best state, beyond which a stream's paths are given up: e^-20 is a chance of 2e-9


@dataclass(frozen=True)
class WordTime:
    """A word with its start and end in seconds from the start of the sound, and its phones likewise where they are
    known; without times, `reason` says why."""

    word: str
    start_s: float | None = None
    end_s: float | None = None
    phones: tuple[tuple[str, float, float], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Said:
    """A hypothesis of a search: words, the index of the first token of each, the tokens and the frames they came on."""

    words: tuple[str, ...]
    starts: tuple[int, ...]
    tokens: tuple[int, ...]
    frames: tuple[int, ...]


@dataclass(frozen=True)
class PhoneTimer:
    """A branch of phones with what it takes to lay words along them. `phones[k]` is class k, the first is silence."""

    branch: FrameBranch
    phones: tuple[str, ...]
    log_prior: NDArray[np.float32]  # [C], of the labels it was trained on
    mean_s: NDArray[np.float32]  # [C], how long a phone lasts on average
    lexicon: Lexicon
    answer_s: float  # from one answer of the branch to the next
    prior_weight: float = 1.0

    def times(self, words: Sequence[str], frames: Tensor) -> list[WordTime]:
        """The times of words said in tapped frames [1, T, D]; without any, None with the reason, never an error."""
        with torch.inference_mode():
            logits = self.branch(frames, torch.tensor([frames.shape[1]]))[0]
        return self.aligned(words, self.scores(logits))

    def scores(self, logits: Tensor) -> NDArray[np.float64]:
        """Scores [t, C + 1] of the phones, and of any phone but silence, from logits [t, C]."""
        scores = logits.double().log_softmax(1).numpy() - self.prior_weight * self.log_prior
        anything = np.logaddexp.reduce(scores[:, 1:], axis=1) - np.log(len(self.phones) - 1)
        return np.concatenate([scores, anything[:, None]], axis=1)

    def graph(self, words: Sequence[str]) -> PhoneGraph:
        return PhoneGraph.of([self.variants(word) for word in words], silence=0, unknown=len(self.phones))

    def variants(self, word: str) -> list[list[int]]:
        """The pronunciations of a word in phones that the branch knows; none where there is no such."""
        number = {phone: index for index, phone in enumerate(self.phones)}
        return [[number[p] for p in phones] for phones in self.lexicon(word) if all(p in number for p in phones)]

    def expected_s(self, word: str) -> float | None:
        """How long a word lasts by the means of its phones; None where its pronunciation is not known."""
        lengths = [float(self.mean_s[phones].sum()) for phones in self.variants(word)]
        return float(np.mean(lengths)) if lengths else None

    def aligned(self, words: Sequence[str], scores: NDArray[np.float64]) -> list[WordTime]:
        """As `times`, from scores."""
        if not words:
            return []
        graph = self.graph(words)
        if len(scores) < graph.fewest:
            reason = f"{graph.fewest} phones in {len(scores)} frames"
            return [WordTime(word, reason=reason) for word in words]
        path, _ = graph.path(scores)
        return self.found(words, graph, path)

    def found(
        self, words: Sequence[str], graph: PhoneGraph, path: NDArray[np.int64], offset: int = 0
    ) -> list[WordTime]:
        """The times on a path through all words whose first frame is number `offset`."""

        def seconds(frame: int) -> float:
            return round((offset + frame) * self.answer_s, 5)

        phones: list[list[tuple[str, float, float]]] = [[] for _ in words]
        unknown = set()
        for phone, word, begin, end in graph.phones(path):
            if phone < len(self.phones):
                phones[word].append((self.phones[phone], seconds(begin), seconds(end)))
            else:
                unknown.add(word)
        return [
            WordTime(word, reason=f"the pronunciation of {word!r} is not known")
            if number in unknown
            else WordTime(word, seconds(int(begin)), seconds(int(end)), tuple(phones[number]))
            for number, (word, (begin, end)) in enumerate(zip(words, graph.spans(path), strict=True))
        ]


@dataclass(frozen=True)
class CtcTimer:
    """A branch of word pieces, blank being 0."""

    branch: FrameBranch
    answer_s: float

    def times(self, said: Said, frames: Tensor) -> list[WordTime]:
        with torch.inference_mode():
            logits = self.branch(frames, torch.tensor([frames.shape[1]]))[0]
        log_probs = logits.float().log_softmax(1).numpy()
        if not said.words:
            return []
        try:
            path, _ = ctc_viterbi(log_probs, said.tokens)
        except InputError as error:
            return [WordTime(word, reason=str(error)) for word in said.words]
        begin, end = word_frames(path, said.starts, round(_REACH_S / self.answer_s))
        times = zip(said.words, (begin * self.answer_s).tolist(), (end * self.answer_s).tolist(), strict=True)
        return [WordTime(word, round(b, 5), round(e, 5)) for word, b, e in times]


@dataclass(frozen=True)
class Timing:
    """All that a recogniser knows about times. `method` is what it uses unless told otherwise; `shift_s` is what starts
    and ends of words are later than the emission of their first and last token, fitted."""

    tap: str  # the module of the network that the branches listen at
    frame_s: float  # of the encoder
    method: Method = "phone"
    shift_s: tuple[float, float] = (0.0, 0.0)
    phones: PhoneTimer | None = None
    tokens: CtcTimer | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(f"method {self.method!r}", hint=f"choose {', '.join(get_args(Method))}")

    def times(self, said: Said, frames: Tensor, method: Method | None = None) -> list[WordTime]:
        """Of the words of a hypothesis, with the tapped frames [1, T, D] of its sound."""
        match replace(self, method=method or self.method).method:
            case "emission":
                spans = self.emission_spans(said)
                return [WordTime(word, begin, end) for word, (begin, end) in zip(said.words, spans, strict=True)]
            case "phone" if self.phones:
                return self.phones.times(said.words, frames)
            case "ctc" if self.tokens:
                return self.tokens.times(said, frames)
            case other:
                raise UsageError(
                    f"the recogniser has no branch for method {other!r}", hint="see wieldy.speech.decode.learn_times"
                )

    def emission_spans(self, said: Said) -> list[tuple[float, float]]:
        """From the frame of the first token of each word to the end of that of its last, moved, without overlaps."""
        found: list[tuple[float, float]] = []
        free = 0.0
        for first, after in zip(said.starts, (*said.starts, len(said.tokens))[1:], strict=True):
            begin = max(free, said.frames[first] * self.frame_s + self.shift_s[0])
            free = max(begin, (said.frames[after - 1] + 1) * self.frame_s + self.shift_s[1])
            found.append((round(begin, 5), round(free, 5)))
        return found

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        about = {"tap": self.tap, "frame_s": self.frame_s, "method": self.method, "shift_s": self.shift_s}
        if self.phones:
            save_network(folder / PHONES, self.phones.branch.config, self.phones.branch)
            self.phones.lexicon.save(folder / _LEXICON)
            about["phones"] = {
                "names": self.phones.phones,
                "log_prior": self.phones.log_prior.tolist(),
                "mean_s": self.phones.mean_s.tolist(),
                "answer_s": self.phones.answer_s,
                "prior_weight": self.phones.prior_weight,
                "guess": self.phones.lexicon.guess,
            }
        if self.tokens:
            save_network(folder / TOKENS, self.tokens.branch.config, self.tokens.branch)
            about["tokens"] = {"answer_s": self.tokens.answer_s}
        write_text(folder / _ABOUT, json.dumps(about, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Timing:
        """What `save` wrote. Raises `InputError` where it is something else."""
        about = read_json(folder / _ABOUT)
        try:
            phones = tokens = None
            if known := about.get("phones"):
                names = tuple(known["names"])
                log_prior, mean_s = (np.asarray(known[name], np.float32) for name in ("log_prior", "mean_s"))
                branch = _branch(folder / PHONES)
                if names[:1] != (SILENCE,) or {len(log_prior), len(mean_s), len(names)} != {branch.config.classes}:
                    raise InputError(f"{folder / _ABOUT} does not describe the branch beside it")
                lexicon = Lexicon.load(folder / _LEXICON, guess=bool(known["guess"]))
                phones = PhoneTimer(branch, names, log_prior, mean_s, lexicon, known["answer_s"], known["prior_weight"])
            if known := about.get("tokens"):
                tokens = CtcTimer(_branch(folder / TOKENS), known["answer_s"])
            begin, end = about["shift_s"]
            return cls(
                str(about["tap"]), float(about["frame_s"]), about["method"], (float(begin), float(end)), phones, tokens
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{folder / _ABOUT} does not describe word times: {error}") from error

    @staticmethod
    def in_folder(folder: Path) -> bool:
        return (folder / _ABOUT).is_file()


def _branch(folder: Path) -> FrameBranch:
    data, where = read_config(folder)
    branch = FrameBranch(config_of(data, (FrameBranchConfig,), where))
    load_weights(folder, branch)
    return branch.eval()


class WordTimeStream:
    """Method phone on a stream: words come from a search while the sound goes on, and their times are final soon after.

    A word's times are settled when all paths that are still likely agree on them, and at the latest when `max_delay_s`
    of sound have come since the word did. What is settled is forgotten, so that the work does not grow.
    """

    def __init__(self, timer: PhoneTimer, *, max_delay_s: float = 0.5) -> None:
        self.timer, self.max_delay_s = timer, max_delay_s
        self._stream = BranchStream(timer.branch)
        self._scores = np.zeros((0, len(timer.phones) + 1))  # of the frames since the last settled word
        self._first = 0  # their number
        self._words: list[tuple[str, int]] = []  # that are not settled, with the number of frames when they came

    def push(self, frames: Tensor, *, final: bool = False) -> None:
        """The next tapped frames [1, t, D]."""
        logits = self._stream.push(frames, final=final)
        self._scores = np.concatenate([self._scores, self.timer.scores(logits)])

    def add(self, words: Sequence[str]) -> None:
        """Words that follow those before, of which the search is certain."""
        now = self._first + len(self._scores)
        self._words += [(word, now) for word in words]

    def settled(self) -> list[WordTime]:
        """The words whose times are final now, in order."""
        graph, scores = self._graph(()), self._scores
        if not self._words or len(scores) < graph.fewest:
            return []
        score, back = self._searched(graph)
        paths = [traced(back, graph.predecessors, int(s)) for s in np.flatnonzero(score >= score.max() - _ACTIVE)]
        best = traced(back, graph.predecessors, int(score.argmax()))
        now, late = self._first + len(scores), round(self.max_delay_s / self.timer.answer_s)
        count, end = 0, 0
        for number, (_, came) in enumerate(self._words):
            own = _span(graph, best, number)
            if own is None or not ({_span(graph, path, number) for path in paths} == {own} or now - came >= late):
                break
            count, end = number + 1, own[1]
        return self._given(count, graph, best[:end]) if count else []

    def finished(self, following: Sequence[str] = ()) -> list[WordTime]:
        """All words there are, whose sound has come, with `following` that may have begun behind them."""
        count = len(self._words)
        if not count:
            return []
        graph, fewest = self._graph(following), self._graph(()).fewest
        if len(self._scores) < fewest:
            reason = f"{fewest} phones in {len(self._scores)} frames"
            words, self._words = self._words, []
            return [WordTime(word, reason=reason) for word, _ in words]
        score, back = self._searched(graph)
        ends = np.flatnonzero(np.arange(len(score)) >= np.flatnonzero(graph.words == count - 1)[0])
        if not following:
            ends = np.array(graph.last)
        path = traced(back, graph.predecessors, int(ends[score[ends].argmax()]))
        own = np.flatnonzero(graph.words[path] == count - 1)
        return self._given(count, graph, path[: own[-1] + 1])

    def _graph(self, following: Sequence[str]) -> PhoneGraph:
        return self.timer.graph([*(word for word, _ in self._words), *following])

    def _searched(self, graph: PhoneGraph) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        emitted = self._scores[:, graph.labels]
        return advanced(start(emitted[0], graph.first), emitted[1:], graph.predecessors)

    def _given(self, count: int, graph: PhoneGraph, path: NDArray[np.int64]) -> list[WordTime]:
        """The first words on a path to their end; they and these frames are forgotten."""
        found = self.timer.found([word for word, _ in self._words[:count]], graph, path, self._first)
        self._words = self._words[count:]
        self._scores = self._scores[len(path) :]
        self._first += len(path)
        return found


def _span(graph: PhoneGraph, path: NDArray[np.int64], word: int) -> tuple[int, int] | None:
    """The frames of a word on a path that has left it; None where the path has not."""
    at = np.flatnonzero(graph.words[path] == word)
    return (int(at[0]), int(at[-1]) + 1) if len(at) and at[-1] + 1 < len(path) else None
