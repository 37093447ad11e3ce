"""Start a transducer from alignments: it learns from frames which token is spoken when, before it learns the rest.

For recordings with word times (from a hybrid recogniser, a CTC model, a synthetic voice): far fewer errors after the
same training. Without word times, target "ctc" starts the encoder from the transcripts alone, which was no better than
a random start here. Not for a model that is trained already: fine-tune that with the transducer loss.

Hu Hu et al. 2020, Exploring pre-training with alignments for RNN transducer based end-to-end speech recognition, arXiv
2005.00572. With A_t the frame labels, W a layer that is dropped afterwards, Y and w the classes and weights of lattice
nodes (`wieldy.speech.pretrain.labels`),

    encoder   loss = - sum_t s(A_t) log softmax(W Enc(x)_t)[A_t] / sum_t s(A_t)     s: silence counts less
    whole     loss = - sum_t,u w(t, u) log P(Y(t, u) | t, u) / sum w
    ctc       loss = - log P(y | softmax(W Enc(x)))                                 Graves et al. 2006

Afterwards train with the transducer loss on all weights, by `after_pretraining` of the usual schedule.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from wieldy.errors import InputError, UsageError
from wieldy.report import Metric, Plot, Report, Result, Series
from wieldy.speech.batches import Batch
from wieldy.speech.losses.joint_ce import chunked_joint_ce
from wieldy.speech.networks.transducer import Transducer
from wieldy.speech.pretrain.labels import SILENCE, Anchor, Spanned, Variant, labels_of, node_labels
from wieldy.speech.tokens import Tokenizer
from wieldy.training.loop import Data, TrainConfig, train
from wieldy.training.schedules import Schedule

Target = Literal["encoder", "whole", "ctc"]


@dataclass(frozen=True, kw_only=True)
class AlignPretrainConfig:
    """What is trained, on which labels, for how long. Where no source is named, the default is ours."""

    target: Target = "encoder"  # ctc: the encoder by transcripts alone
    variant: Variant = "path"  # of target whole: which lattice nodes are told what; path costs least
    anchor: Anchor = "end"  # of target whole: the frame of its span that a token is emitted at
    frame_shift_s: float = 0.03  # from one feature frame to the next, > 0 s
    label_delay_frames: int = 0  # encoder frames that labels come later, >= 0; 2 helps encoders without look-ahead
    keep_fc: bool = False  # the joint's projection of the encoder starts from the layer instead of at random
    predictor_lm: bool = False  # also train the predictor as a language model, on the transcripts
    blank_weight: float | Literal["auto"] = "auto"  # of blank nodes, > 0; auto: as much in all as the others have
    max_steps: int = 600  # >= 1; at most 30 % of the steps that follow
    min_gain: float = 0.005  # end when an epoch gains less accuracy on `dev` than this, >= 0; 0: never
    lr: float = 1e-3  # peak of the learning rate, > 0
    cpu: bool = False  # stay on the CPU where there is a GPU
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("target", Target), ("variant", Variant), ("anchor", Anchor)):
            if getattr(self, name) not in get_args(choices):
                raise UsageError(f"{name} {getattr(self, name)!r}", hint=f"choose {', '.join(get_args(choices))}")
        for name, least in (("label_delay_frames", 0), ("max_steps", 1), ("min_gain", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")
        for name in ("frame_shift_s", "lr"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must be above 0")
        if self.blank_weight != "auto" and not self.blank_weight > 0:
            raise UsageError(f"blank_weight is {self.blank_weight}", hint="it is above 0, or auto")
        if self.keep_fc and self.target == "whole":
            raise UsageError("keep_fc with target whole", hint="only targets encoder and ctc have such a layer")


def pretrain(
    model: Transducer,
    data: Data,
    tokenizer: Tokenizer,
    *,
    config: AlignPretrainConfig = AlignPretrainConfig(),
    dev: Sequence[Batch] = (),
) -> Result[Transducer]:
    """A copy of `model`, pre-trained on the batches of `data`, whose cuts have word times (not for target ctc).

    `dev` batches are measured after every epoch: the share of right frames, or for target whole of right nodes along
    the alignments. The report has that curve, the steps and seconds spent, and what was discarded because it has more
    tokens than frames. Raises `InputError` naming the utterance whose times are wrong, or when more than 20 % are
    discarded.
    """
    model = copy.deepcopy(model)
    spanned = Spanned(tokenizer, config.frame_shift_s * model.encoder.subsampling, delay=config.label_delay_frames)
    torch.manual_seed(config.seed)
    task = _TASKS[config.target](model, spanned, config)
    curve = _Curve(task, dev, len(data.epoch(0)), config)
    held = {parameter: parameter.requires_grad for parameter in model.parameters()}
    task.freeze_the_rest_()
    settings = TrainConfig(steps=config.max_steps, schedule=Schedule(peak=config.lr), seed=config.seed, cpu=config.cpu)
    began = time.perf_counter()
    try:
        train(task, data, _loss, settings, progress=curve.step)
    except _EnoughError:
        pass
    finally:
        for parameter, required in held.items():
            parameter.requires_grad_(required)
    seconds = time.perf_counter() - began
    _refuse_many_discarded(spanned)
    if config.keep_fc:
        _start_from_(model.encoder_projection, task.layer)
    return Result(model.eval(), _report(config, curve, spanned, seconds))


def after_pretraining(schedule: Schedule) -> Schedule:
    """The schedule of the transducer loss that follows: half the peak of training from scratch, warm-up in 5 % of the
    steps."""
    return replace(schedule, peak=schedule.peak / 2, warmup=0.05)


def _loss(task: Any, batch: Batch) -> Tensor:
    value: Tensor = task.loss(batch)
    return value


# --- targets ---------------------------------------------------------------------------------------------------------


class _Task(nn.Module):
    """A model with what is added to it for pre-training."""

    layer: nn.Linear  # what is dropped afterwards

    def __init__(self, model: Transducer, spanned: Spanned, config: AlignPretrainConfig) -> None:
        super().__init__()
        self.model, self.spanned, self.config = model, spanned, config
        self.language = nn.Linear(model.predictor.output_dim, model.vocab) if config.predictor_lm else None

    def freeze_the_rest_(self) -> None:
        """Parameters that this task does not train would stop several processes, which wait for their gradients."""
        trained = [self.model.encoder] if self.language is None else [self.model.encoder, self.model.predictor]
        self.model.requires_grad_(False)
        for module in trained:
            module.requires_grad_(True)

    def loss(self, batch: Batch) -> Tensor:
        value = self.own_loss(batch)
        if self.language is not None:
            moved = self.here(batch)
            said = torch.arange(moved.targets.shape[1], device=moved.targets.device) < moved.target_lens[:, None]
            logits = self.language(self.model.predictor(moved.targets)[:, :-1][said])
            value = value + functional.cross_entropy(logits, moved.targets[said])
        return value

    def own_loss(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def right(self, batch: Batch) -> tuple[float, float]:
        """How many labels are predicted right, and of how many. Target ctc has none."""
        raise NotImplementedError

    def frames(self, batch: Batch) -> Tensor:
        return self.model.encoder.output_lens(batch.feature_lens)

    def here(self, batch: Batch) -> Batch:
        return batch.to(next(self.parameters()).device)


class _Ctc(_Task):
    def __init__(self, model: Transducer, spanned: Spanned, config: AlignPretrainConfig) -> None:
        super().__init__(model, spanned, config)
        self.layer = nn.Linear(model.encoder.output_dim, model.vocab)

    def own_loss(self, batch: Batch) -> Tensor:
        batch = self.here(batch)
        y, lens = self.model.hear(batch.features, batch.feature_lens)
        log_p = self.layer(y).log_softmax(-1).transpose(0, 1)
        # An utterance of too few frames has no path and counts nothing.
        losses = functional.ctc_loss(
            log_p, batch.targets, lens, batch.target_lens, blank=SILENCE, reduction="none", zero_infinity=True
        )
        return losses.mean()


class _Encoder(_Ctc):
    def own_loss(self, batch: Batch) -> Tensor:
        logits, labels = self._labelled(batch)
        weight = logits.new_ones(logits.shape[1])
        if 2 * int((labels == SILENCE).sum()) > len(labels):
            weight[SILENCE] = 0.5
        if not len(labels):
            return logits.sum()
        return functional.cross_entropy(logits, labels, weight)

    def right(self, batch: Batch) -> tuple[float, float]:
        logits, labels = self._labelled(batch)
        return float((logits.argmax(1) == labels).sum()), float(len(labels))

    def _labelled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [n, V] and labels [n] of all frames that have one."""
        frames = self.frames(batch)
        labels = labels_of(batch, self.spanned(batch, frames), frames)
        batch = self.here(batch)
        y, _ = self.model.hear(batch.features, batch.feature_lens)
        labels = labels.to(y.device)
        known = labels >= 0
        return self.layer(y[known]), labels[known]


class _Whole(_Task):
    def freeze_the_rest_(self) -> None:
        """All of the model is trained."""

    def own_loss(self, batch: Batch) -> Tensor:
        f, g, labels, weights = self._labelled(batch)
        if not weights.any():
            return 0 * (f.sum() + g.sum())
        self._balance_(labels, weights)
        return chunked_joint_ce(f, g, self.model.joint, labels, weights, self.frames(batch), batch.target_lens)

    def right(self, batch: Batch) -> tuple[float, float]:
        """Along the alignments, blanks and tokens weighted as in the loss: nearly all of the nodes are blanks."""
        f, g, labels, _ = self._labelled(batch)
        frames = self.frames(batch)
        _, path = node_labels(batch, self.spanned(batch, frames), frames, "path", self.config.anchor)
        self._balance_(labels, path)
        n, t, u = path.nonzero(as_tuple=True)
        found = self.model.joint(f[n, t], g[n, u]).argmax(1).cpu()
        weights = path[n, t, u]
        return float(weights[found == labels[n, t, u]].sum()), float(weights.sum())

    def _balance_(self, labels: Tensor, weights: Tensor) -> None:
        """Give blank nodes their weight."""
        blank = (labels == SILENCE) & (weights > 0)
        if self.config.blank_weight == "auto":
            blanks = float(blank.sum())
            # Where there is hardly anything but blanks, they still count a hundredth.
            weights[blank] = min(1.0, max(0.01, (float(weights.sum()) - blanks) / max(1.0, blanks)))
        else:
            weights[blank] = self.config.blank_weight

    def _labelled(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f and g, classes and weights of the nodes."""
        frames = self.frames(batch)
        variant, anchor = self.config.variant, self.config.anchor
        labels, weights = node_labels(batch, self.spanned(batch, frames), frames, variant, anchor)
        moved = self.here(batch)
        f, _, g = self.model(moved.features, moved.feature_lens, moved.targets)
        return f, g, labels, weights


_TASKS: dict[Target, type[_Task]] = {"encoder": _Encoder, "whole": _Whole, "ctc": _Ctc}


@torch.no_grad()
def _start_from_(projection: nn.Linear, layer: nn.Linear) -> None:
    """Let `projection` begin as a random mixture of the outputs of `layer`: two linear layers in a row are one."""
    mixture = nn.Linear(layer.out_features, projection.out_features).to(layer.weight.device)
    projection.weight.copy_(mixture.weight @ layer.weight)
    projection.bias.copy_(mixture.weight @ layer.bias + mixture.bias)


# --- how it goes -----------------------------------------------------------------------------------------------------


class _EnoughError(Exception):
    """Ends the training loop when it gains no more."""


class _Curve:
    """The loss of every step and the accuracy on `dev` after every epoch."""

    def __init__(self, task: _Task, dev: Sequence[Batch], epoch_steps: int, config: AlignPretrainConfig) -> None:
        self.task, self.dev, self.epoch_steps, self.config = task, dev, epoch_steps, config
        self.losses: list[float] = []
        self.accuracy: dict[int, float] = {}

    def step(self, number: int, loss: float) -> None:
        self.losses.append(loss)
        if number % self.epoch_steps and number != self.config.max_steps:
            return
        _refuse_many_discarded(self.task.spanned)
        if not self.dev or self.config.target == "ctc":
            return
        self.task.eval()
        with torch.inference_mode():
            right, total = (sum(counts) for counts in zip(*map(self.task.right, self.dev), strict=True))
        before = max(self.accuracy.values(), default=-1.0)
        self.accuracy[number] = right / (total or 1.0)
        if self.config.min_gain and self.accuracy[number] - before < self.config.min_gain:
            raise _EnoughError


def _refuse_many_discarded(spanned: Spanned) -> None:
    if len(spanned.discarded) > 0.2 * spanned.seen:
        name, reason = next(iter(spanned.discarded.items()))
        raise InputError(
            f"{len(spanned.discarded)} of {spanned.seen} utterances have more tokens than frames, such as {name}: "
            f"{reason}",
            hint="use larger word pieces or less sub-sampling",
        )


def _report(config: AlignPretrainConfig, curve: _Curve, spanned: Spanned, seconds: float) -> Report:
    steps = len(curve.losses)
    metrics = [Metric.of("steps", steps), Metric.of("seconds", seconds, "s")]
    what = "right nodes along the alignments" if config.target == "whole" else "right frames"
    plots = [Plot("loss", (Series("loss", tuple(map(float, range(1, steps + 1))), tuple(curve.losses)),), "step")]
    if curve.accuracy:
        share = tuple(100 * accuracy for accuracy in curve.accuracy.values())
        metrics.append(Metric.of(what, share[-1], "%"))
        plots.append(Plot(what, (Series(what, tuple(map(float, curve.accuracy)), share),), "step", "%"))
    notes = []
    if config.target != "ctc":
        metrics.append(
            Metric.of("discarded", 100 * len(spanned.discarded) / max(1, spanned.seen), "%", count=spanned.seen)
        )
        if len(spanned.discarded) > 0.02 * spanned.seen:
            notes.append(
                f"{len(spanned.discarded)} of {spanned.seen} utterances were discarded: more tokens than frames"
            )
    return Report(
        f"Alignment pre-training of the {config.target}",
        tuple(metrics),
        plots=tuple(plots),
        notes=tuple(notes),
        details={"discarded": spanned.discarded, "config": str(config)},
    )
