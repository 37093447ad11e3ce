"""Which encoder, at which latency: candidates of equal size trained alike, compared by errors, look-ahead and speed.

For whoever has recordings with phone times (`corpora.spoken` makes some) and must choose an encoder, a norm, an
initialisation or a way to stream before the long training starts. Orders of candidates on small data need not be those
on much data: repeat the last two or three at full size.

After the comparisons of Liang Lu et al. 2020, Exploring transformers for large-scale speech recognition, arXiv
2005.09684. A run that diverges is a result, not an error.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from lhotse.cut import Cut, CutSet
from torch import Tensor, nn

from wieldy.errors import InputError, UsageError
from wieldy.metrics.text import WordErrors, word_errors
from wieldy.report import Metric, Plot, Report, Result, Series, Table
from wieldy.speech.batches import Batch, BatchConfig, Batches
from wieldy.speech.corpus import aligned, text_of
from wieldy.speech.features import LogMelConfig
from wieldy.speech.networks.acoustic_model import UNKNOWN, AcousticModel, collapsed, parameters
from wieldy.speech.networks.bilstm import BlstmConfig
from wieldy.speech.networks.encoders import EncoderConfig
from wieldy.speech.networks.streaming_config import StreamingConfig
from wieldy.speech.tokens import Tokenizer
from wieldy.training.loop import TrainConfig, train
from wieldy.training.schedules import Schedule

SILENCE = 0  # what is said where no phone is
MEASURED_STEPS = 5  # whose time tells how many fit into a time, after two that warm up


@dataclass(frozen=True, kw_only=True)
class Candidate:
    encoder: EncoderConfig
    schedule: Schedule = field(default_factory=Schedule)  # of the learning rate


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    steps: int = 1000  # of each candidate, >= 1
    seconds: float | None = None  # > 0: each trains for about so long instead, however many steps that is
    tolerance: float = 0.05  # by which share sizes of encoders may differ from the first one's, >= 0
    ctc_weight: float = 0.3  # of word pieces beside phones in the loss, >= 0
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in ("tolerance", "ctc_weight"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must be at least 0")
        if self.steps < 1 or not self.seeds:
            raise UsageError(f"steps {self.steps}, seeds {self.seeds}", hint="there is at least one of each")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"seconds is {self.seconds}", hint="it must be above 0")


class PhoneTask:
    """Recordings to learn phones and word pieces from, and others to test on; all have phone times."""

    def __init__(
        self,
        training: CutSet,
        test: CutSet,
        tokenizer: Tokenizer,
        features: LogMelConfig = LogMelConfig(mels=40),
        batch: int = 16,
    ) -> None:
        self.features, self.tokenizer = features, tokenizer
        self.symbols = ("<silence>", *sorted({phone.symbol for cut in training for phone in aligned(cut, "phone")}))
        if len(self.symbols) < 2:
            raise InputError("there is not one phone to learn")
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        alike = BatchConfig(max_lattice_nodes=10**8, max_utterances=batch)
        self.training = Batches(training, features, tokenizer, alike)
        tested = dataclasses.replace(alike, max_utterances=50, shuffle=False)
        self.test = list(Batches(test, features, tokenizer, tested).epoch(0))
        self._labels: dict[str, tuple[float, Tensor]] = {}

    @property
    def sound_s(self) -> float:
        """Seconds of sound in the test."""
        return float(sum(cut.duration for batch in self.test for cut in batch.cuts))

    def labels(self, batch: Batch, frames: Tensor, subsampling: int) -> Tensor:
        """The phone spoken in the middle of each frame of an encoder, int64 [B, T'], `UNKNOWN` beyond the end and where
        it was not among those trained on."""
        rows = torch.full((len(batch), int(frames.max())), UNKNOWN)
        for row, cut, count in zip(rows, batch.cuts, frames.tolist(), strict=True):
            row[:count] = self._of(cut, count, subsampling * self.features.frame_s)
        return rows

    def _of(self, cut: Cut, frames: int, frame_s: float) -> Tensor:
        known = self._labels.get(cut.id)
        if known is None or known[0] != frame_s or len(known[1]) != frames:
            phones = aligned(cut, "phone")
            middles = (np.arange(frames) + 0.5) * frame_s
            starts, ends = (np.array([getattr(phone, of) for phone in phones]) for of in ("start", "end"))
            numbers = np.array([self._numbers.get(phone.symbol, UNKNOWN) for phone in phones], np.int64)
            place = np.searchsorted(starts, middles, side="right") - 1
            spoken = (place >= 0) & (middles < ends[place]) if len(phones) else np.zeros(frames, bool)
            known = frame_s, torch.from_numpy(np.where(spoken, numbers[place], SILENCE) if len(phones) else 0 * place)
            self._labels[cut.id] = known
        return known[1]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one candidate did with one seed. Errors are of each tested utterance: of frames (wrong ones of all), of
    phones in a row, of words from its pieces."""

    candidate: str
    seed: int
    parameters: int
    steps: int
    seconds: float  # of training
    diverged_at: int | None  # the step at which its run was ended
    losses: tuple[float, ...]
    frames: tuple[WordErrors, ...]
    phones: tuple[WordErrors, ...]
    words: tuple[WordErrors, ...]
    look_ahead_ms: float  # the worst that its outputs look ahead; infinite where they need all
    rtf: float  # computing over sound in the test, on this machine

    @property
    def final_loss(self) -> float:
        """Median of the last twentieth of the steps: what one batch more or less says does not matter."""
        return statistics.median(self.losses[-max(1, len(self.losses) // 20) :])

    @property
    def frame_error(self) -> float:
        return sum(self.frames, WordErrors()).rate or 0.0


def study(
    candidates: Mapping[str, Candidate],
    task: PhoneTask,
    config: StudyConfig = StudyConfig(),
    *,
    progress: Callable[[str], None] | None = None,
) -> Result[tuple[Trial, ...]]:
    """Train every candidate with every seed, and compare them. `progress` is told of each trial that has ended.

    Encoders are brought to the size of the first (`sized`). The report has the table (candidate, parameters, converged
    or diverged, errors, look-ahead, real-time factor) and the Pareto set of errors and look-ahead.
    """
    if not candidates:
        raise UsageError("there is no candidate")
    size = parameters(task.features.dim, next(iter(candidates.values())).encoder)
    alike = {
        name: dataclasses.replace(one, encoder=sized(one.encoder, size, task.features.dim, config.tolerance))
        for name, one in candidates.items()
    }
    trials = []
    for name, candidate in alike.items():
        for seed in config.seeds:
            trials.append(trial(name, candidate, task, config, seed))
            if progress:
                progress(f"{name}, seed {seed}: {100 * trials[-1].frame_error:.1f} % of frames wrong")
    return Result(tuple(trials), study_report(trials))


def sized(encoder: EncoderConfig, size: int, input_dim: int, tolerance: float = 0.05) -> EncoderConfig:
    """The same with as many weights as comes closest to `size`: the feed-forward layers or the cells grow or shrink.

    Raises `UsageError` where that is further off than `tolerance`.
    """

    def of(width: int) -> EncoderConfig:
        if isinstance(encoder, StreamingConfig):
            return dataclasses.replace(encoder, feed_forward=width)
        if isinstance(encoder, BlstmConfig) or not encoder.projection:
            return dataclasses.replace(encoder, hidden=width)
        return dataclasses.replace(encoder, hidden=width, projection=max(1, width // 2))

    # Their number is a polynomial of second degree in the width.
    widths = np.array([2, 4, 8])
    curve = np.polyfit(widths, [parameters(input_dim, of(int(width))) for width in widths], 2)
    roots = np.roots(curve - [0, 0, size])
    width = max([int(root.real) for root in roots if abs(root.imag) < 1e-6] or [0])
    best = min((of(max(2, width + more)) for more in (0, 1)), key=lambda one: abs(parameters(input_dim, one) - size))
    found = parameters(input_dim, best)
    if abs(found - size) > tolerance * size:
        raise UsageError(
            f"{type(encoder).__name__} has {found} weights at the nearest, not {size}",
            hint=f"within {tolerance:.0%}: name it first, or choose other layers or sizes",
        )
    return best


def trial(name: str, candidate: Candidate, task: PhoneTask, config: StudyConfig, seed: int) -> Trial:
    """Train one candidate as it is, on one thread's device, and test it."""
    steps = config.steps
    if config.seconds is not None:
        steps = max(1, round(config.seconds / _step_seconds(candidate, task, config)))
    model = _model(candidate, task, config, seed)
    settings = TrainConfig(steps=steps, schedule=candidate.schedule, cpu=True, seed=seed)
    began = time.perf_counter()
    run = train(model, task.training, _Loss(task, config), settings)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    errors = _tested(model.eval(), task)
    rtf = (time.perf_counter() - began) / max(1e-9, task.sound_s)
    return Trial(
        candidate=name,
        seed=seed,
        parameters=sum(parameter.numel() for parameter in model.encoder.parameters()),
        steps=steps,
        seconds=seconds,
        diverged_at=run.diverged_at,
        losses=tuple(run.losses),
        frames=tuple(own[0] for own in errors),
        phones=tuple(own[1] for own in errors),
        words=tuple(own[2] for own in errors),
        look_ahead_ms=1000 * task.features.frame_s * model.latency().worst,
        rtf=rtf,
    )


def _model(candidate: Candidate, task: PhoneTask, config: StudyConfig, seed: int) -> AcousticModel:
    torch.manual_seed(seed)
    pieces = len(task.tokenizer) if config.ctc_weight else 0
    model = AcousticModel(task.features.dim, candidate.encoder, len(task.symbols), pieces)
    model.measure_features_((batch.features, batch.feature_lens) for batch in task.training.epoch(0))
    return model


def _step_seconds(candidate: Candidate, task: PhoneTask, config: StudyConfig) -> float:
    """The median of some steps of a model that is not used otherwise."""
    model, times = _model(candidate, task, config, 0), [time.perf_counter()]
    settings = TrainConfig(steps=2 + MEASURED_STEPS, schedule=candidate.schedule, cpu=True)
    train(
        model,
        task.training,
        _Loss(task, config),
        settings,
        progress=lambda *_: times.append(time.perf_counter()),
    )
    return statistics.median(np.diff(times[2:]).tolist())


class _Loss:
    """Of a batch, for the training loop."""

    def __init__(self, task: PhoneTask, config: StudyConfig) -> None:
        self.task, self.config = task, config

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, AcousticModel)
        frames = model.encoder.output_lens(batch.feature_lens)
        phones = self.task.labels(batch, frames, model.encoder.subsampling)
        return model.loss(
            batch.features, batch.feature_lens, phones, batch.targets, batch.target_lens, self.config.ctc_weight
        )


def _tested(model: AcousticModel, task: PhoneTask) -> list[tuple[WordErrors, WordErrors, WordErrors]]:
    """Errors of frames, of phones and of words in each tested utterance."""
    found = []
    for batch in task.test:
        with torch.inference_mode():
            by_frame, by_piece, lens = model(batch.features, batch.feature_lens)
        labels = task.labels(batch, lens, model.encoder.subsampling)
        best = by_frame.nan_to_num().argmax(-1)
        pieces = None if by_piece is None else by_piece.nan_to_num().argmax(-1)
        for n, (cut, count) in enumerate(zip(batch.cuts, lens.tolist(), strict=True)):
            own, heard = labels[n, :count], best[n, :count]
            known = own != UNKNOWN
            wrong = int((own != heard)[known].sum())
            said = [str(phone) for phone in collapsed(own.tolist())]
            words = WordErrors()
            if pieces is not None:
                text = task.tokenizer.decode(collapsed(pieces[n, :count].tolist()))
                words = word_errors(text_of(cut).split(), text.split())
            found.append(
                (
                    WordErrors(int(known.sum()), substitutions=wrong),
                    word_errors(said, [str(phone) for phone in collapsed(heard.tolist())]),
                    words,
                )
            )
    return found


# --- what was found --------------------------------------------------------------------------------------------------


def pareto(points: Mapping[str, tuple[float, ...]]) -> tuple[str, ...]:
    """The names of those that no other beats: none is at most as high in every figure, and lower in one."""

    def beaten(name: str) -> bool:
        own = points[name]
        return any(all(x <= y for x, y in zip(other, own, strict=True)) and other != own for other in points.values())

    return tuple(name for name in points if not beaten(name))


def study_report(trials: Sequence[Trial]) -> Report:
    """The table of trials, and which candidates are the best for some latency."""
    names = list(dict.fromkeys(one.candidate for one in trials))
    rows, points, series = [], {}, []
    for name in names:
        own = [one for one in trials if one.candidate == name]
        diverged = sum(one.diverged_at is not None for one in own)
        error = statistics.fmean(one.frame_error for one in own)
        if not diverged:
            points[name] = (error, own[0].look_ahead_ms)
        phones, words = (
            sum((errors for one in own for errors in getattr(one, of)), WordErrors()) for of in ("phones", "words")
        )
        rows.append(
            (
                name,
                f"{own[0].parameters:,}",
                f"{own[0].steps}" if len({one.steps for one in own}) == 1 else "by time",
                f"{diverged} of {len(own)} diverged" if diverged else "converged",
                _percent(sum((errors for one in own for errors in one.frames), WordErrors())),
                _percent(phones),
                _percent(words),
                f"{own[0].look_ahead_ms:.0f}",
                f"{statistics.median(one.rtf for one in own):.4f}",
            )
        )
        losses = own[0].losses
        series.append(Series(name, tuple(map(float, range(1, len(losses) + 1))), losses))
    best = pareto(points)
    columns = ("candidate", "parameters", "steps", "training", "frames wrong, %", "phone errors, %", "word errors, %")
    return Report(
        title="encoders compared",
        metrics=tuple(
            Metric(
                f"frames wrong, {name}", tuple(100 * one.frame_error for one in trials if one.candidate == name), "%"
            )
            for name in names
        ),
        tables=(
            Table("Candidates", (*columns, "look-ahead, ms", "real-time factor"), tuple(rows)),
            Table(
                "Best for their look-ahead",
                ("candidate", "frames wrong, %", "look-ahead, ms"),
                tuple(
                    (name, f"{100 * points[name][0]:.1f}", f"{points[name][1]:.0f}")
                    for name in sorted(best, key=lambda name: points[name][1])
                ),
            ),
        ),
        plots=(Plot("loss, first seed", tuple(series), "step"),),
        notes=("the real-time factor is that of whole utterances in batches",),
    )


def _percent(errors: WordErrors) -> str:
    return "none" if errors.rate is None else f"{100 * errors.rate:.1f}"
