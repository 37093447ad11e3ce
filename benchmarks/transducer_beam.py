"""Beam search of transducers against torchaudio's, on one model: encoder frames per second, the encoder not counted.

The model is trained before, for a minute, on made-up speech whose labels come in pairs that are hard to tell apart, so
that a search has something to decide. torchaudio has an environment of its own, where its `RNNT` is made of the same
predictor and of its own joiner with the same weights. It searches one utterance at a time, which is all it can; ours
takes them in batches, and is shown with one at a time as well. Both keep K hypotheses and rank them by their score; the
error rates of both where the score per token decides, which is torchaudio's default, are noted.

The model is so small that a second thread costs both sides more than it gives: one is used. The second case, on all
cores, is torchaudio's `emformer_rnnt_base` with random weights, of whose predictor and joiner ours is given a view, in
the same environment: no words, but the sizes of a real model.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.arms import CORES, Observation, observe
from benchmarks.peer_environment import python_of
from benchmarks.result import BenchmarkResult, shut
from wieldy.cache import cache_root
from wieldy.claims.result import Condition
from wieldy.errors import MissingError
from wieldy.metrics.text import WordErrors, word_errors
from wieldy.report import Metric

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from wieldy.speech.decode.transducer_beam import TransducerBeam
    from wieldy.speech.networks.transducer import Transducer

SUMMARY = "transducer beam search, beam 4: at least 5 times the frames per second of torchaudio's RNNTBeamSearch"
BAR = 5.0
GOAL = 10.0
PACKAGES = ("numpy", "torch")

BEAM = 4
MAX_SYMBOLS = 3
BATCH = 100
MAX_WER_APART = 0.002  # 0.2 points, either way: equal quality, not another trade of speed for words
MAX_SCORE_LOSS = 0.01  # nats per utterance that ours may find less, where there are no words to count
MAX_EXCESS = 1e-3  # nats by which a score may exceed the log-probability of its labels: float32
SEED = 0
PREDICTOR = {"embedding": 64, "hidden": 128}
# torchaudio's published size. Sharpness and blank are set so that a label comes on one frame in seven, about as often
# as word pieces in read speech at 25 frames per second.
BASE_VOCABULARY, BASE_BATCH, BASE_FRAMES = 4097, 32, 40
BASE_SHARPNESS, BASE_BLANK = 10.0, 25.0


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Words of 1 to 3 labels in sentences of 4 to 10; a label is 2 to 5 frames of 16 numbers around its mean."""

    labels: int = 40  # half begin words, half continue them; each two of a half sound alike
    words: int = 120
    successors: int = 6  # likely words after each word
    distance: float = 1.0  # of the means of two labels that sound alike, in standard deviations of a frame
    training: int = 4000  # sentences
    test: int = 1000
    steps: int = 400
    batch: int = 32


def ours(folder: Path) -> Observation:
    """`TransducerBeam.decode` on batches."""
    return _searched(folder, BATCH)


def ours_alone(folder: Path) -> Observation:
    """The same, one utterance at a time."""
    return _searched(folder, 1)


def ours_per_token(folder: Path) -> Observation:
    """The best of the K by their score per token."""
    return _searched(folder, BATCH, length_norm=1.0)


def naive(folder: Path) -> Observation:
    """The definition that the tests hold the search to, one utterance and one hypothesis at a time."""
    from tests.speech.decode.models import naive_beam

    model = _trained(folder)
    known: dict[tuple[int, ...], tuple[Tensor, Any]] = {}

    class View:
        blank, vocab = model.blank, model.vocab

        def log_p(self, frame: Tensor, tokens: tuple[int, ...]) -> Tensor:
            return model.join(frame[None], self._after(tokens)[0])[0].log_softmax(0)

        def _after(self, tokens: tuple[int, ...]) -> tuple[Tensor, Any]:
            if tokens not in known:
                last = torch.tensor(tokens[-1:])
                known[tokens] = model.advance(last, self._after(tokens[:-1])[1]) if tokens else model.start(1)
            return known[tokens]

    import torch

    def search(utterance: Tensor) -> tuple[list[int], float]:
        known.clear()
        tokens, score = naive_beam(View(), utterance, BEAM, MAX_SYMBOLS)[0]
        return list(tokens), score

    return _one_by_one(_encodings(folder), search)


def torchaudio(folder: Path) -> Observation:
    """`RNNTBeamSearch` on torchaudio's `RNNT` of the same weights."""
    return _peer(_torchaudio_model(folder), _encodings(folder))


def torchaudio_per_token(folder: Path) -> Observation:
    """With its own defaults, which divide by the number of tokens on every frame."""
    return _peer(_torchaudio_model(folder), _encodings(folder), options={})


def base_ours(_: Path) -> Observation:
    """`TransducerBeam.decode` on a view of torchaudio's `emformer_rnnt_base`."""
    from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig

    search = TransducerBeam(_torchaudio_view(_base()), TransducerBeamConfig(beam=BEAM, max_symbols=MAX_SYMBOLS))
    return _in_batches(search, _base_encodings(), BATCH, CORES)


def base_torchaudio(_: Path) -> Observation:
    """`RNNTBeamSearch` on it."""
    return _peer(_base(), _base_encodings(), CORES)


ARMS = {
    "ours": ours,
    "ours, one at a time": ours_alone,
    "torchaudio": torchaudio,
    "ours, base": base_ours,
    "torchaudio, base": base_torchaudio,
    "ours, per token": ours_per_token,
    "torchaudio, per token": torchaudio_per_token,
    "naive": naive,
}
IN_THE_PEER = ("torchaudio", "ours, base", "torchaudio, base", "torchaudio, per token")
TIMED = ("ours", "ours, one at a time", "torchaudio", "ours, base", "torchaudio, base")


def run(runs: int) -> BenchmarkResult:
    """Gate on words and scores, then `runs` rounds of those that are timed."""
    folder = _made()
    try:
        python_of("torchaudio")
    except MissingError as error:
        figures = {arm: _speed(_observed(arm, folder)) for arm in ("ours", "naive")}
        ratio = f"ours is {figures['ours'] / figures['naive']:.1f} times as fast as our naive search of one utterance"
        raise MissingError(f"{error.message}; {ratio}", hint=error.hint) from error
    first = {arm: _observed(arm, folder) for arm in ARMS if arm != "naive"}
    errors = {arm: _errors(folder, observed) for arm, observed in first.items() if "base" not in arm}
    gates = (
        Condition(
            "WER of ours and of torchaudio apart, at most 0.2 points",
            abs((errors["ours"].rate or 0.0) - (errors["torchaudio"].rate or 0.0)),
            "<=",
            MAX_WER_APART,
        ),
        Condition("nats by which a score exceeds minus the loss", _excess(folder, first["ours"]), "<=", MAX_EXCESS),
        Condition(
            "nats per utterance that ours finds less than torchaudio, emformer_rnnt_base",
            _mean_score(first["torchaudio, base"]) - _mean_score(first["ours, base"]),
            "<=",
            MAX_SCORE_LOSS,
        ),
    )
    bar = Condition("frames per second over torchaudio's", None, ">=", BAR, "not measured yet")
    details: dict[str, Any] = {
        "data": (f"{Speech().test} sentences of made-up speech; {BASE_BATCH} x {BASE_FRAMES} random encodings",),
        "notes": (
            *(f"WER of {arm}: {e.rate:.4f}, n = {e.words}, normaliser none" for arm, e in errors.items()),
            *(f"{arm}: {_mean_score(first[arm]):.3f} nats, {_rate(first[arm]):.2f} labels per frame" for arm in TIMED),
            f"the goal is {GOAL}",
        ),
    }
    if any(gate.verdict != "holds" for gate in gates):
        return shut("transducer_beam", SUMMARY, bar, gates, **details)
    rounds = [{arm: _speed(_observed(arm, folder)) for arm in TIMED} for _ in range(runs)]
    speed = {arm: Metric(arm, tuple(each[arm] for each in rounds), "frames/s") for arm in TIMED}
    base = speed["ours, base"].median / speed["torchaudio, base"].median
    return BenchmarkResult(
        name="transducer_beam",
        summary=SUMMARY,
        bar=Condition(bar.statement, speed["ours"].median / speed["torchaudio"].median, ">=", BAR),
        gates=gates,
        ours=speed["ours"],
        peer=speed["torchaudio"],
        beside=(
            *(speed[arm] for arm in TIMED if arm not in ("ours", "torchaudio")),
            Metric.of("ours over torchaudio, base", base),
        ),
        **details,
    )


def _observed(arm: str, folder: Path) -> Observation:
    return observe("transducer_beam", arm, folder, python_of("torchaudio") if arm in IN_THE_PEER else sys.executable)


def _speed(observed: Observation) -> float:
    return float(observed.output["frames"] / observed.seconds)


def _rate(observed: Observation) -> float:
    return sum(len(tokens) for tokens, _ in observed.output["best"]) / float(observed.output["frames"])


def _mean_score(observed: Observation) -> float:
    scores = [score for _, score in observed.output["best"]]
    return sum(scores) / len(scores)


def _errors(folder: Path, observed: Observation) -> WordErrors:
    total = WordErrors()
    references = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
    for reference, (tokens, _) in zip(references, observed.output["best"], strict=True):
        total += word_errors(_words(reference), _words(tokens))
    return total


def _words(labels: Sequence[int]) -> list[str]:
    """Labels 1 .. half begin a word."""
    words: list[list[int]] = []
    for label in labels:
        if label <= Speech.labels // 2 or not words:
            words.append([])
        words[-1].append(label)
    return ["-".join(map(str, word)) for word in words]


def _excess(folder: Path, observed: Observation) -> float:
    """The most by which a score exceeds minus the loss of its labels."""
    import torch

    from wieldy.speech.losses.transducer import transducer_loss

    model = _trained(folder)
    excess = []
    with torch.no_grad():
        for utterance, (tokens, score) in zip(_encodings(folder), observed.output["best"], strict=True):
            targets = torch.tensor([tokens], dtype=torch.int64).view(1, len(tokens))
            lens = torch.tensor([len(utterance)]), torch.tensor([len(tokens)])
            loss = transducer_loss(utterance[None], model.predict(targets), model.joint, targets, *lens)
            excess.append(score + float(loss))
    return max(excess)


def _searched(folder: Path, batch: int, length_norm: float = 0.0) -> Observation:
    from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig

    config = TransducerBeamConfig(beam=BEAM, max_symbols=MAX_SYMBOLS, length_norm=length_norm)
    return _in_batches(TransducerBeam(_trained(folder), config), _encodings(folder), batch)


def _in_batches(search: TransducerBeam, utterances: list[Tensor], batch: int, threads: int = 1) -> Observation:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    torch.set_num_threads(threads)
    order = sorted(range(len(utterances)), key=lambda n: len(utterances[n]))
    search.decode(utterances[0][None, :5], torch.tensor([5]))
    best: dict[int, tuple[list[int], float]] = {}
    started = time.perf_counter()
    for first in range(0, len(order), batch):
        chosen = [utterances[n] for n in order[first : first + batch]]
        lens = torch.tensor([len(utterance) for utterance in chosen])
        found = search.decode(pad_sequence(chosen, batch_first=True), lens)
        for n, nbest in zip(order[first : first + batch], found, strict=True):
            best[n] = list(nbest[0].tokens), nbest[0].score
    seconds = time.perf_counter() - started
    frames = sum(map(len, utterances))
    return Observation(seconds, {"frames": frames, "best": [best[n] for n in range(len(utterances))]})


def _one_by_one(
    utterances: list[Tensor], search: Callable[[Tensor], tuple[list[int], float]], threads: int = 1
) -> Observation:
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        search(utterances[0][:5])
        started = time.perf_counter()
        best = [search(utterance) for utterance in utterances]
        seconds = time.perf_counter() - started
    return Observation(seconds, {"frames": sum(map(len, utterances)), "best": best})


def _peer(model: Any, utterances: list[Tensor], threads: int = 1, options: dict[str, Any] | None = None) -> Observation:
    """`options` are those of the search; by default such that it looks for what ours looks for."""
    import torch
    from torchaudio.models import RNNTBeamSearch

    if options is None:
        options = {"hypo_sort_key": lambda hypothesis: hypothesis[3], "step_max_tokens": MAX_SYMBOLS}
    blank = model.joiner.linear.out_features - 1  # the search takes the last entry for the blank
    search = RNNTBeamSearch(model, blank, **options)

    def best(utterance: Tensor) -> tuple[list[int], float]:
        tokens, _, _, score = search(utterance, torch.tensor(len(utterance)), BEAM)[0]
        return [token + 1 for token in tokens[1:]], score  # without the blank it begins with; as ours are numbered

    return _one_by_one(utterances, best, threads)


def _torchaudio_model(folder: Path) -> Any:
    """The trained model as torchaudio's: its blank is last, and its predictor does the projection of the joint."""
    import numpy as np
    import torch
    from torch import nn
    from torchaudio.models import RNNT
    from torchaudio.models.rnnt import _Joiner

    from wieldy.speech.networks.predictors import LstmPredictor, LstmPredictorConfig

    with np.load(folder / "weights.npz") as stored:
        weights = {name: torch.from_numpy(stored[name]) for name in stored.files}
    vocabulary, width = weights["joint.output.weight"].shape

    class Predictor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = LstmPredictor(vocabulary, LstmPredictorConfig(**PREDICTOR))
            self.projection = nn.Linear(self.inner.output_dim, width, bias=False)

        def forward(self, input: Tensor, lengths: Tensor, state: Any) -> Any:  # noqa: A002
            before = tuple(state[0]) if state else self.inner.lstm.start(len(input), input.device)
            y, after = self.inner.lstm(self.inner.embedding((input + 1) % vocabulary), before)
            return self.projection(y), lengths, [list(after)]

    predictor, joiner = Predictor(), _Joiner(width, vocabulary, activation="tanh")
    inner = {k.removeprefix("predictor."): v for k, v in weights.items() if k.startswith("predictor.")}
    predictor.inner.load_state_dict(inner)
    predictor.projection.load_state_dict({"weight": weights["predictor_projection.weight"]})
    output = {"weight": weights["joint.output.weight"].roll(-1, 0), "bias": weights["joint.output.bias"].roll(-1, 0)}
    joiner.linear.load_state_dict(output)
    return RNNT(_encoded(), predictor, joiner).eval()


def _base() -> Any:
    """`emformer_rnnt_base` with random weights, whose blank is made likely enough for speech."""
    import torch
    from torchaudio.models import emformer_rnnt_base

    torch.manual_seed(SEED)
    model = emformer_rnnt_base(BASE_VOCABULARY).eval()
    model.transcriber = _encoded()
    with torch.no_grad():
        model.joiner.linear.weight.mul_(BASE_SHARPNESS)
        model.joiner.linear.bias[-1] += BASE_BLANK
    return model


def _base_encodings() -> list[Tensor]:
    import torch

    rng = torch.Generator().manual_seed(SEED)
    return list(torch.randn(BASE_BATCH, BASE_FRAMES, 1024, generator=rng))


def _torchaudio_view(model: Any) -> Any:
    """A `TransducerView` of torchaudio's `RNNT`."""
    import torch

    class View:
        vocab = model.joiner.linear.out_features
        blank = vocab - 1

        def start(self, n: int) -> tuple[Tensor, Any]:
            return self._predicted(torch.full((n,), self.blank), None)

        def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
            return self._predicted(tokens, state)

        def _predicted(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
            g, _, state = model.predict(tokens[:, None], torch.ones_like(tokens), state)
            return g[:, 0], state

        def select(self, state: Any, index: Tensor) -> Any:
            return [[part[index] for part in layer] for layer in state]

        def join(self, f: Tensor, g: Tensor) -> Tensor:
            ones = torch.ones(len(f), dtype=torch.int64)
            logits: Tensor = model.join(f[:, None], ones, g[:, None], ones)[0][:, 0, 0]
            return logits

    return View()


def _encoded() -> Any:
    """A transcriber for what is encoded already."""
    from torch import nn

    class Encoded(nn.Module):
        def forward(self, input: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # noqa: A002
            return input, lengths

    return Encoded()


def _trained(folder: Path) -> Transducer:
    from wieldy.speech.networks.transducer import Transducer

    return Transducer.load(folder / "model")


def _encodings(folder: Path) -> list[Tensor]:
    import numpy as np
    import torch

    with np.load(folder / "encodings.npz") as stored:
        return [torch.from_numpy(utterance) for utterance in np.split(stored["f"], stored["lens"].cumsum()[:-1])]


def _made() -> Path:
    """The folder of the trained model, its encodings of the test sentences and their labels; made if it is missing."""
    import numpy as np
    import torch

    recipe = "".join(map(inspect.getsource, (Speech, _speaker, _train))) + f"{PREDICTOR} {SEED} {torch.__version__}"
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    folder = cache_root() / "benchmarks" / f"transducer_beam-{key}"
    if (folder / "sentences.json").exists():  # written last
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    speech, rng = Speech(), np.random.default_rng(SEED)
    say = _speaker(speech, rng)
    model = _train(speech, [say() for _ in range(speech.training)], rng)
    model.save(folder / "model")
    state = model.state_dict()
    np.savez(folder / "weights.npz", **{k: v.numpy() for k, v in state.items() if not k.startswith("encoder")})
    spoken = [say() for _ in range(speech.test)]
    with torch.inference_mode():
        encoded = [model.encode(x[None], torch.tensor([len(x)]))[0][0].numpy() for x, _ in spoken]
    np.savez(folder / "encodings.npz", f=np.concatenate(encoded), lens=np.array([len(f) for f in encoded]))
    (folder / "sentences.json").write_text(json.dumps([labels for _, labels in spoken]), encoding="utf-8")
    return folder


def _speaker(speech: Speech, rng: np.random.Generator) -> Callable[[], tuple[Tensor, list[int]]]:
    """Says a random sentence: frames [T, 16] and labels."""
    import numpy as np
    import torch

    half = speech.labels // 2
    centres = np.repeat(rng.normal(0, 2.0, (half, 16)), 2, axis=0)
    apart = rng.normal(size=(half, 16))
    centres[1::2] += speech.distance * apart / np.linalg.norm(apart, axis=1, keepdims=True)
    lexicon: set[tuple[int, ...]] = set()
    while len(lexicon) < speech.words:
        tail = rng.integers(half + 1, speech.labels + 1, rng.integers(0, 3))
        lexicon.add((int(rng.integers(1, half + 1)), *tail.tolist()))
    words = sorted(lexicon)
    grammar = np.full((len(words), len(words)), 0.1 / len(words))
    for row in grammar:
        row[rng.choice(len(words), speech.successors, replace=False)] += 0.9 * rng.dirichlet([0.5] * speech.successors)

    def say() -> tuple[Tensor, list[int]]:
        word = int(rng.integers(len(words)))
        labels: list[int] = []
        means = [np.zeros((int(rng.integers(0, 4)), 16))]
        for _ in range(rng.integers(4, 11)):
            for label in words[word]:
                labels.append(label)
                means.append(np.tile(centres[label - 1], (int(rng.integers(2, 6)), 1)))
            means.append(np.zeros((int(rng.integers(0, 4)), 16)))
            word = int(rng.choice(len(words), p=grammar[word]))
        x = np.concatenate(means)
        return torch.from_numpy((x + rng.normal(size=x.shape)).astype(np.float32)), labels

    return say


def _train(speech: Speech, spoken: list[tuple[Tensor, list[int]]], rng: np.random.Generator) -> Transducer:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from wieldy.speech.losses.transducer import transducer_loss
    from wieldy.speech.networks.lstm import LstmConfig
    from wieldy.speech.networks.predictors import LstmPredictorConfig
    from wieldy.speech.networks.transducer import Transducer, TransducerConfig

    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # steps are so small that on a busy machine a second thread costs more than it gives
    model = Transducer(
        TransducerConfig(
            vocabulary=speech.labels + 1,
            input_dim=16,
            encoder=LstmConfig(layers=2, hidden=128, projection=0, stack=2),
            predictor=LstmPredictorConfig(**PREDICTOR),
            joint=128,
        )
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, speech.steps)
    for _ in range(speech.steps):
        chosen = [spoken[n] for n in rng.integers(len(spoken), size=speech.batch)]
        columns = [[torch.as_tensor(part) for part in column] for column in zip(*chosen, strict=True)]
        x, targets = (pad_sequence(column, batch_first=True) for column in columns)
        lens, target_lens = (torch.tensor([len(part) for part in column]) for column in columns)
        f, f_lens, g = model(x, lens, targets)
        loss = transducer_loss(f, g, model.joint, targets, f_lens, target_lens)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return model.eval()
