"""Teach a trained recogniser when words are said: branches on its encoder, and how late its tokens come.

`add_phone_branch` needs recordings with phone times (PocketSphinx aligns English ones), `add_ctc_branch` transcripts
alone, `fit_emission_shift` word times. The encoder stays as it is, so that what is recognised stays the same; once
learnt, a branch serves every recogniser that is adapted with this encoder. See `word_times` for what is learnt.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from lhotse.cut import Cut, CutSet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import InputError, UsageError
from wieldy.metrics.text import align
from wieldy.report import Metric, Plot, Report, Result, Series
from wieldy.speech.asr import loss as transducer_loss
from wieldy.speech.batches import Batch, BatchConfig, Batches
from wieldy.speech.corpus import SAMPLE_RATE, aligned, samples_of
from wieldy.speech.decode.frame_branch import FrameBranch, FrameBranchConfig, Tap, tap_of
from wieldy.speech.decode.word_times import CtcTimer, PhoneTimer, Said, Timing
from wieldy.speech.lexicon import SILENCE, Lexicon, phone_of
from wieldy.speech.networks.transducer import Transducer
from wieldy.speech.recognize.transducer import TransducerRecognizer
from wieldy.training.loop import TrainConfig, train
from wieldy.training.schedules import Schedule

PADDING = -1
_OUTPUT = "encoder_projection"  # whose input is the encoder's own output


@dataclass(frozen=True, kw_only=True)
class PhoneBranchConfig:
    """Where no source is named, the default is that of rnnt-practical."""

    tap: str | None = None  # module of the network; None: two thirds of the way up, or what the encoder puts out
    layers: int = 1  # before the linear one, >= 0
    dim: int = 256  # their width, >= 1
    context: int = 2  # encoder frames that a layer sees to either side, >= 0; ours
    frame_shift_s: float = 0.03  # from one answer to the next, > 0: longer encoder frames have several
    prior_weight: float = 1.0  # >= 0
    joint_weight: float = 0.0  # of the branch beside the transducer loss; 0: encoder and transducer stay; 0.1 is usual
    steps: int = 400  # >= 1; ours
    rate: float = 3e-3  # highest learning rate, > 0; ours
    batches: BatchConfig = field(default_factory=lambda: BatchConfig(max_lattice_nodes=50_000, max_utterances=32))
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("prior_weight", 0), ("joint_weight", 0), ("steps", 1)):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")
        for name in ("frame_shift_s", "rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must be above 0")


def add_phone_branch(
    recognizer: TransducerRecognizer,
    cuts: CutSet,
    lexicon: Lexicon | None = None,
    *,
    config: PhoneBranchConfig = PhoneBranchConfig(),
    progress: Callable[[float], None] | None = None,
) -> Result[TransducerRecognizer]:
    """`recognizer` with a branch of phones, trained on `cuts`, recordings with transcripts and phone times.

    `lexicon` pronounces what will be recognised, by default as it is in `cuts`, and as the CMU dictionary's rules guess
    elsewhere. With `joint_weight` a copy of the network is trained along, and recognises other things than before. The
    report has the share of right frames on a tenth of the cuts. Raises `InputError` naming a cut without phone times.
    """
    lexicon = lexicon or Lexicon.of_cuts(cuts)
    labelled = [(cut, _phones(cut)) for cut in cuts]
    names = (SILENCE, *sorted({phone for _, phones in labelled for phone, _, _ in phones} - {SILENCE}))
    frame_s = recognizer.frame_s
    per_frame = max(1, round(frame_s / config.frame_shift_s))
    labels = _Labels({id(cut): phones for cut, phones in labelled}, names, frame_s / per_frame)

    def loss(branch: FrameBranch, frames: Tensor, lens: Tensor, batch: Batch) -> Tensor:
        wanted = labels(batch, lens * branch.config.per_frame).to(frames.device)
        return functional.cross_entropy(branch(frames, lens).flatten(0, 1), wanted.flatten(), ignore_index=PADDING)

    def right(branch: FrameBranch, frames: Tensor, lens: Tensor, batch: Batch) -> tuple[int, int]:
        wanted = labels(batch, lens * branch.config.per_frame)
        known = wanted >= 0
        return int((branch(frames, lens).argmax(2) == wanted)[known].sum()), int(known.sum())

    learnt = _learn(recognizer, cuts, config, per_frame, len(names), loss, progress)
    counts, mean_s = _statistics(labelled, names, frame_s / per_frame)
    timer = PhoneTimer(
        learnt.branch,
        names,
        np.log(counts / counts.sum()).astype(np.float32),
        mean_s,
        lexicon,
        frame_s / per_frame,
        config.prior_weight,
    )
    hits, frames = (sum(column) for column in zip(*learnt.measured(right), strict=True))
    report = learnt.report(
        "phone branch", config, (Metric.of("right frames", 100 * hits / max(1, frames), "%", count=frames),)
    )
    return Result(_with(recognizer, learnt, phones=timer, method="phone"), report)


def add_ctc_branch(
    recognizer: TransducerRecognizer,
    cuts: CutSet,
    *,
    config: PhoneBranchConfig = PhoneBranchConfig(frame_shift_s=1.0),
    progress: Callable[[float], None] | None = None,
) -> Result[TransducerRecognizer]:
    """`recognizer` with a branch of its own word pieces, trained on `cuts`, recordings with transcripts, by the CTC
    loss. Its times are worse than those of a phone branch and need no alignment."""
    per_frame = max(1, round(recognizer.frame_s / config.frame_shift_s))

    def loss(branch: FrameBranch, frames: Tensor, lens: Tensor, batch: Batch) -> Tensor:
        log_p = branch(frames, lens).log_softmax(2).transpose(0, 1)
        lens = lens * branch.config.per_frame
        # A recording of too few frames has no path and counts nothing.
        return functional.ctc_loss(log_p, batch.targets, lens, batch.target_lens, zero_infinity=True)

    learnt = _learn(recognizer, cuts, config, per_frame, recognizer.network.vocab, loss, progress)
    timer = CtcTimer(learnt.branch, recognizer.frame_s / per_frame)
    method = "phone" if recognizer.timing and recognizer.timing.phones else "ctc"
    return Result(_with(recognizer, learnt, tokens=timer, method=method), learnt.report("CTC branch", config, ()))


def fit_emission_shift(recognizer: TransducerRecognizer, cuts: CutSet) -> Result[TransducerRecognizer]:
    """`recognizer` with the medians of what words start and end after the emission of their first and last token, over
    the words of `cuts`, recordings with word times, that are recognised right. Raises `InputError` without any."""
    late: list[tuple[float, float]] = []
    plain = Timing(_OUTPUT, recognizer.frame_s, "emission")
    for cut in cuts:
        words = aligned(cut)
        nbest, _ = recognizer.searched(samples_of(cut), SAMPLE_RATE)
        said = recognizer.said(nbest[0]) if nbest else Said((), (), (), ())
        emitted = plain.emission_spans(said)
        for r, h in align([word.symbol for word in words], said.words):
            if r is not None and h is not None and words[r].symbol == said.words[h]:
                start_s, end_s = emitted[h]
                late.append((words[r].start - start_s, words[r].end - end_s))
    if not late:
        raise InputError("no word of these recordings is recognised right", hint="give recordings it knows")
    begin, end = np.median(np.array(late), axis=0).tolist()
    timing = replace(recognizer.timing or plain, shift_s=(begin, end))
    figures = (Metric.of("shift of starts", 1000 * begin, "ms"), Metric.of("shift of ends", 1000 * end, "ms"))
    return Result(recognizer.changed(timing=timing), Report("emission times", figures))


# --- what branches learn from ----------------------------------------------------------------------------------------

Phones = list[tuple[str, float, float]]  # with start and end in seconds from the start of the cut


def _phones(cut: Cut) -> Phones:
    return [(phone_of(item.symbol), float(item.start), float(item.end)) for item in aligned(cut, "phone")]


class _Labels:
    """The phone in the middle of each answer."""

    def __init__(self, phones: dict[int, Phones], names: Sequence[str], answer_s: float) -> None:
        number = {name: index for index, name in enumerate(names)}
        self._times = {
            cut: (np.array([[start, end] for _, start, end in own]), np.array([number[name] for name, _, _ in own]))
            for cut, own in phones.items()
        }
        self._answer_s = answer_s

    def __call__(self, batch: Batch, lens: Tensor) -> Tensor:
        """int64 [B, t], 0 for silence, `PADDING` behind the `lens` [B] answers of each utterance."""
        labels = torch.full((len(batch), int(lens.max())), PADDING)
        for row, cut, length in zip(labels, batch.cuts, lens.tolist(), strict=True):
            row[:length] = torch.from_numpy(labels_at(*self._times[id(cut)], length, self._answer_s))
        return labels


def labels_at(times: NDArray[np.float64], numbers: NDArray[np.int64], frames: int, frame_s: float) -> NDArray[np.int64]:
    """Of each of `frames` the one of `numbers` [n] in whose `times` [n, 2], in order, its middle lies, or else 0."""
    if not len(numbers):
        return np.zeros(frames, np.int64)
    middles = (np.arange(frames) + 0.5) * frame_s
    place = np.maximum(np.searchsorted(times[:, 0], middles, side="right") - 1, 0)
    inside = (middles >= times[place, 0]) & (middles < times[place, 1])
    return np.where(inside, numbers[place], 0)


def _statistics(
    labelled: Sequence[tuple[Cut, Phones]], names: Sequence[str], answer_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """How many answers each phone has, at least one, and how long it lasts on average in seconds."""
    seconds, times = Counter[str](), Counter[str]()
    for cut, phones in labelled:
        for name, start, end in phones:
            seconds[name] += end - start  # type: ignore[assignment]
            times[name] += 1
        seconds[SILENCE] += cut.duration - sum(end - start for _, start, end in phones)
    counts = np.array([max(1.0, seconds[name] / answer_s) for name in names])
    means = [seconds[name] / max(1, times[name]) for name in names]
    return counts, np.array(means, np.float32)


# --- training --------------------------------------------------------------------------------------------------------

BranchLoss = Callable[[FrameBranch, Tensor, Tensor, Batch], Tensor]


class _Tapped:
    """Batches of recordings with the frames of a tapped layer, [B, T, D] and their lengths, computed once."""

    def __init__(self, network: Transducer, tap: str, data: Batches, *, keep: bool) -> None:
        self._network, self._tap, self._data, self._keep = network, tap, data, keep
        self._kept: dict[int, Tensor] = {}

    def epoch(self, number: int) -> Sequence[Batch]:
        return self._data.epoch(number)

    def lens(self, batch: Batch) -> Tensor:
        return self._network.encoder.output_lens(batch.feature_lens)

    def frames(self, batch: Batch) -> tuple[Tensor, Tensor]:
        lens = self.lens(batch)
        if self._keep and all(id(cut) in self._kept for cut in batch.cuts):
            return nn.utils.rnn.pad_sequence([self._kept[id(cut)] for cut in batch.cuts], batch_first=True), lens
        self._network.eval()
        with Tap(self._network, self._tap) as tap, torch.no_grad():
            self._network.encode(batch.features, batch.feature_lens)
        frames = tap.taken()
        if self._keep:
            for cut, row, length in zip(batch.cuts, frames, lens.tolist(), strict=True):
                self._kept[id(cut)] = row[:length].clone()
        return frames, lens


@dataclass(frozen=True)
class _Learnt:
    network: Transducer
    branch: FrameBranch
    tap: str
    losses: tuple[float, ...]
    seconds: float
    test: _Tapped

    @torch.no_grad()
    def measured(self, measure: Callable[..., tuple[int, int]]) -> list[tuple[int, int]]:
        return [measure(self.branch, *self.test.frames(batch), batch) for batch in self.test.epoch(0)]

    def report(self, title: str, config: PhoneBranchConfig, figures: tuple[Metric, ...]) -> Report:
        steps = tuple(float(step) for step in range(1, len(self.losses) + 1))
        return Report(
            title,
            (
                *figures,
                Metric.of("parameters of the branch", sum(p.numel() for p in self.branch.parameters())),
                Metric.of("seconds", self.seconds, "s"),
            ),
            plots=(Plot("loss", (Series("training", steps, self.losses),), "step", "nats"),),
            details={**asdict(config), "tap": self.tap},
        )


def _learn(
    recognizer: TransducerRecognizer,
    cuts: CutSet,
    config: PhoneBranchConfig,
    per_frame: int,
    classes: int,
    loss: BranchLoss,
    progress: Callable[[float], None] | None,
) -> _Learnt:
    """Train a branch on nine tenths of the cuts."""
    began = time.perf_counter()
    every = list(cuts)
    if len(every) < 2:
        raise InputError(f"{len(every)} recordings to learn times from", hint="give two at least, and better a hundred")
    order = np.random.default_rng(config.seed).permutation(len(every)).tolist()
    kept = max(1, len(every) // 10)
    test, learn = (
        Batches(
            CutSet.from_cuts([every[i] for i in part]),
            recognizer.features,
            recognizer.tokenizer,
            config.batches,
            seed=config.seed,
        )
        for part in (order[:kept], order[kept:])
    )
    together = config.joint_weight > 0
    network = copy.deepcopy(recognizer.network) if together else recognizer.network
    tap = config.tap or (recognizer.timing.tap if recognizer.timing else _usual_tap(network, test.epoch(0)[0]))
    with Tap(network, tap) as probe, torch.no_grad():
        batch = test.epoch(0)[0]
        network.encode(batch.features, batch.feature_lens)
    frames, wanted = probe.taken(), network.encoder.output_lens(batch.feature_lens)
    if frames.shape[1] != int(wanted.max()):
        raise UsageError(
            f"{tap} puts out {frames.shape[1]} frames where the encoder has {int(wanted.max())}", hint="tap another"
        )
    torch.manual_seed(config.seed)
    branch = FrameBranch(
        FrameBranchConfig(
            input_dim=frames.shape[2],
            classes=classes,
            layers=config.layers,
            dim=config.dim,
            context=config.context,
            per_frame=per_frame,
        )
    )
    source = _Tapped(network, tap, learn, keep=not together)
    model = nn.ModuleDict({"branch": branch, "network": network}) if together else branch

    def objective(_: nn.Module, batch: Batch) -> Tensor:
        if not together:
            return loss(branch, *source.frames(batch), batch)
        with Tap(network, tap) as own:
            whole = transducer_loss(network, batch)
        return whole + config.joint_weight * loss(branch, own.taken(), source.lens(batch), batch)

    run = train(
        model,
        source,
        objective,
        TrainConfig(
            steps=config.steps, schedule=Schedule(peak=config.rate, shape="cosine"), seed=config.seed, cpu=True
        ),
        progress=lambda step, _: progress(step / config.steps) if progress else None,
    )
    return _Learnt(
        network.eval(),
        branch.eval(),
        tap,
        tuple(run.losses),
        time.perf_counter() - began,
        _Tapped(network, tap, test, keep=False),
    )


def _usual_tap(network: Transducer, batch: Batch) -> str:
    frames = int(network.encoder.output_lens(batch.feature_lens).max())

    def run() -> None:
        with torch.no_grad():
            network.encode(batch.features, batch.feature_lens)

    return tap_of(network, "encoder", run, frames) or _OUTPUT


def _with(recognizer: TransducerRecognizer, learnt: _Learnt, **parts: object) -> TransducerRecognizer:
    """A recogniser with the branch beside those it has, which must listen at the same place."""
    timing = recognizer.timing
    if timing is None or timing.tap != learnt.tap or learnt.network is not recognizer.network:
        shift = timing.shift_s if timing and learnt.network is recognizer.network else (0.0, 0.0)
        timing = Timing(learnt.tap, recognizer.frame_s, "emission", shift)
    return recognizer.changed(network=learnt.network, timing=replace(timing, **parts))  # type: ignore[arg-type]
