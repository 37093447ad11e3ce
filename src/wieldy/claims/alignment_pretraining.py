"""A transducer that starts from alignments makes fewer errors after the same training and emits words earlier.

Every arm has the same budget of computing, counted in steps of the transducer loss: a step of pre-training is charged
what it costs relative to one, measured in the same run, and the arm trains on with what is left. Synthetic voices with
exactly known times speak words in random order, so that nothing but the sound tells which word comes; one arm has its
times moved at random, as those of a poor aligner.

Primary condition: encoder pre-training has at least 5 % fewer word errors than a random start, no more than a start
from CTC and a language model, and emits words at least 30 ms earlier than a random start.
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from lhotse.cut import CutSet, MonoCut
from lhotse.supervision import AlignmentItem
from torch import Tensor

from wieldy.claims.result import Arm, ClaimResult, Condition, Scale
from wieldy.metrics import stats
from wieldy.metrics.text import WordErrors, word_errors
from wieldy.report import Metric
from wieldy.speech import corpora
from wieldy.speech.aligners import Alignment, with_alignment
from wieldy.speech.augment import AugmentConfig
from wieldy.speech.batches import Batch, BatchConfig, Batches
from wieldy.speech.corpora import CorpusConfig
from wieldy.speech.corpus import aligned, text_of
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.decode.greedy import greedy
from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig
from wieldy.speech.features import LogMelConfig
from wieldy.speech.latency import EmissionLatency, emission_latency, emitted_words
from wieldy.speech.losses.transducer import TransducerLossConfig, transducer_loss
from wieldy.speech.networks.lstm import LstmConfig
from wieldy.speech.networks.predictors import LstmPredictorConfig
from wieldy.speech.networks.transducer import Transducer, TransducerConfig
from wieldy.speech.pretrain import AlignPretrainConfig, after_pretraining, pretrain
from wieldy.speech.pretrain.labels import Spanned, arc_mask, node_labels
from wieldy.speech.tokens import Tokenizer
from wieldy.training.loop import TrainConfig, train
from wieldy.training.schedules import Schedule

PACKAGES = ("lhotse", "numpy", "sentencepiece", "torch")

FEATURES = LogMelConfig(mels=40)  # frames of 30 ms
# Without masks a network of this size tells utterances apart by their noise, and learns what is said in each.
MASKS = AugmentConfig(speed=None, frequency_masks=2, frequency_width=10, time_masks=2, time_share=0.15)
FEWER_ERRORS, EARLIER_MS = 0.05, 30.0  # than a random start
JITTER_S = 0.06  # standard deviation by which one arm's word boundaries are off
MOST_PRETRAINING = 0.3  # of an arm's budget
STRINGS = 1  # seed of what is said; the settings below were chosen on strings of seed 0
WORDS = 46  # fewer than the grammar's 134, so that a random start learns them within the budget
HOMOPHONES = frozenset({"for", "to"})  # of four and two: nothing in strings of random words tells them apart
NEAR = 5  # frames before and after its span where an arm lets a token be emitted: 150 ms


@dataclass(frozen=True, kw_only=True)
class Start:
    """How an arm begins, and what else sets it apart."""

    pretraining: AlignPretrainConfig | None = None
    fastemit: float = 0.0
    near: bool = False  # tokens come near their place only
    jitter: bool = False


RANDOM, CTC, ENCODER, JITTERED = "random", "CTC and language model", "encoder", "encoder, times off by 60 ms"
STARTS: Mapping[str, Start] = {
    RANDOM: Start(),
    CTC: Start(pretraining=AlignPretrainConfig(target="ctc", predictor_lm=True)),
    ENCODER: Start(pretraining=AlignPretrainConfig(target="encoder")),
    "whole, all": Start(pretraining=AlignPretrainConfig(target="whole", variant="all")),
    "whole, correct": Start(pretraining=AlignPretrainConfig(target="whole", variant="correct")),
    "whole, path": Start(pretraining=AlignPretrainConfig(target="whole", variant="path")),
    "random, FastEmit 0.01": Start(fastemit=0.01),
    "random, near the alignment": Start(near=True),
    JITTERED: Start(pretraining=AlignPretrainConfig(target="encoder"), jitter=True),
}
PRIMARY = (RANDOM, CTC, ENCODER)
# Time of a step at most, relative to one of the transducer loss (the specification of the system).
MOST_COST = {ENCODER: 0.5, "whole, path": 0.7, "whole, all": 1.1, "whole, correct": 1.1}


@dataclass(frozen=True, kw_only=True)
class Size:
    train: int = 2000  # utterances
    dev: int = 60  # that tell when pre-training ends
    test: int = 300  # of the voices trained on
    unheard: int = 150  # of another voice
    budget: int = 3200  # steps of the transducer loss
    shares: tuple[float, ...] = (0.25, 0.5)  # of the budget, at which random and encoder are also compared
    seeds: int = 3  # of the primary arms; the others have one
    batch: int = 8
    hidden: int = 128
    pieces: int = 60
    rate: float = 4e-3
    costed: int = 20  # steps whose time is taken, three times
    workers: int = 2


SIZES: Mapping[Scale, Size] = {
    "smoke": Size(
        train=6, dev=2, test=2, unheard=2, budget=4, shares=(0.5,), seeds=1, batch=3, hidden=8, costed=1, workers=0
    ),
    "full": Size(),
    "extended": Size(budget=16_000),
}


@dataclass(frozen=True)
class Job:
    """One training. `costs` is what a step of pre-training costs, by arm."""

    size: Size
    arm: str
    seed: int
    share: float
    cost: float


@dataclass(frozen=True)
class Heard:
    """Errors of each utterance, and how late words came."""

    errors: tuple[WordErrors, ...] = ()
    latency: EmissionLatency = field(default_factory=EmissionLatency)

    def __add__(self, other: Heard) -> Heard:
        return Heard(self.errors + other.errors, self.latency + other.latency)

    @property
    def rate(self) -> float:
        total = sum(self.errors, WordErrors())
        return total.errors / total.words

    @property
    def late_ms(self) -> float:
        """A second where no word came right: nobody waits longer."""
        return 1000.0 if self.latency.mean_ms is None else self.latency.mean_ms


@dataclass(frozen=True)
class Outcome:
    job: Job
    pretraining: int  # steps
    steps: int  # of the transducer loss
    accuracy: float | None  # of frames or nodes at the end of pre-training
    discarded: float  # share of the utterances
    greedy: Heard
    beam: Heard
    unheard: Heard


def run(scale: Scale, seed: int) -> ClaimResult:
    """`full`: 2000 utterances of three voices, 3200 steps, 3 seeds of the arms that decide."""
    size = SIZES[scale]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers, so that costs are theirs
    try:
        costs, labels = _costs(size, seed)
        jobs = [
            Job(size, arm, seed + n, 1.0, costs.get(arm, 0.0))
            for n in range(size.seeds)
            for arm in STARTS
            if arm in PRIMARY or not n
        ]
        jobs += [Job(size, arm, seed, share, costs.get(arm, 0.0)) for share in size.shares for arm in (RANDOM, ENCODER)]
        outcomes = _worked(jobs, size.workers)
    finally:
        torch.set_num_threads(threads)
    return _result(scale, seed, size, costs, labels, outcomes)


def _worked(jobs: Sequence[Job], workers: int) -> list[Outcome]:
    if not workers:
        return list(map(outcome, jobs))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(outcome, jobs))


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    tokenizer: Tokenizer
    train: CutSet
    dev: CutSet
    test: CutSet
    unheard: CutSet


@functools.lru_cache(maxsize=1)
def material(size: Size) -> Material:
    """Strings of up to four of the commonest words of the commands, the same for every seed."""
    sentences = corpora.sentences("general", 2000)
    said = Counter(word for sentence in sentences for word in sentence.split() if word not in HOMOPHONES)
    words = sorted(word for word, _ in said.most_common(WORDS))
    rng = np.random.default_rng(STRINGS)
    parts = [
        [" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(count)]
        for count in (size.train, size.dev, size.test, size.unheard)
    ]
    config = CorpusConfig(noise_snr_db=(15.0, 30.0))
    voices = (corpora.VOICES, corpora.VOICES, corpora.VOICES, (corpora.HELD_OUT_VOICE,))
    # flite runs a few words together, whose times are then unknown.
    known, dev, test, unheard = (
        corpora.spoken(texts, own, config).filter(lambda cut: bool(cut.supervisions[0].alignment))
        for texts, own in zip(parts, voices, strict=True)
    )
    return Material(Tokenizer.train([*words, *parts[0]], "unigram", size.pieces), known, dev, test, unheard)


def jittered(cut: MonoCut, rng: np.random.Generator) -> MonoCut:
    """With word boundaries moved at random, in order all the same, and without phones."""
    items = aligned(cut)
    times = np.array([[item.start, item.end] for item in items]).ravel()
    places, of = np.unique(times.round(4), return_inverse=True)  # neighbours share a boundary
    moved = np.sort(places + rng.normal(0, JITTER_S, len(places))).clip(0, cut.duration).round(4)
    starts, ends = moved[of].reshape(-1, 2).T.tolist()
    words = zip(items, starts, ends, strict=True)
    return with_alignment(
        cut.drop_alignments(),
        Alignment(tuple(AlignmentItem(item.symbol, start, round(end - start, 4)) for item, start, end in words)),
    )


def _batches(cuts: Iterable[MonoCut], size: Size, seed: int, *, shuffle: bool = True) -> Batches:
    config = BatchConfig(max_utterances=size.batch if shuffle else 50, max_lattice_nodes=10**7, shuffle=shuffle)
    augment = MASKS if shuffle else None
    return Batches(CutSet.from_cuts(cuts), FEATURES, material(size).tokenizer, config, augment, seed)


@functools.lru_cache(maxsize=2)
def _kept(size: Size, seed: int) -> Batches:
    """Those of the exact times, whose features are computed once for the arms of a worker."""
    return _batches(material(size).train, size, seed)


@functools.lru_cache(maxsize=2)
def _tests(size: Size) -> dict[str, list[Batch]]:
    known = material(size)
    parts = {"dev": known.dev, "test": known.test, "unheard": known.unheard}
    return {name: list(_batches(cuts, size, 0, shuffle=False).epoch(0)) for name, cuts in parts.items()}


# --- one arm ---------------------------------------------------------------------------------------------------------


def network(size: Size, seed: int, data: Batches) -> Transducer:
    torch.manual_seed(seed)
    config = TransducerConfig(
        vocabulary=len(material(size).tokenizer),
        input_dim=FEATURES.dim,
        encoder=LstmConfig(layers=2, hidden=size.hidden, projection=0),
        predictor=LstmPredictorConfig(embedding=size.hidden, hidden=size.hidden),
        joint=size.hidden,
    )
    made = Transducer(config)
    made.measure_features_((batch.features, batch.feature_lens) for batch in data.epoch(0))
    return made


def outcome(job: Job) -> Outcome:
    """Train and test one arm."""
    size, start = job.size, STARTS[job.arm]
    known = material(size)
    data = _kept(size, job.seed)
    if start.jitter:
        rng = np.random.default_rng(job.seed)
        data = _batches([jittered(cut, rng) for cut in known.train], size, job.seed)
    model = network(size, job.seed, data)
    budget = max(1, round(job.share * size.budget))
    schedule = Schedule(peak=size.rate, shape="cosine", final=0.05)
    spent, accuracy, discarded = 0, None, 0.0
    if start.pretraining:
        most = max(1, int(MOST_PRETRAINING * budget / job.cost))
        config = replace(start.pretraining, max_steps=most, lr=size.rate, seed=job.seed, cpu=True)
        model, report = pretrain(model, data, known.tokenizer, config=config, dev=_tests(size)["dev"])
        figures = {metric.name: metric.median for metric in report.metrics}
        spent, discarded = int(figures["steps"]), figures.get("discarded", 0.0) / 100
        accuracy = next((value / 100 for name, value in figures.items() if name.startswith("right")), None)
        schedule = after_pretraining(schedule)
    steps = max(1, budget - round(spent * job.cost))
    train(
        model, data, _loss(start, known.tokenizer), TrainConfig(steps=steps, schedule=schedule, seed=job.seed, cpu=True)
    )
    hear = functools.partial(heard, model, tokenizer=known.tokenizer)
    tests = _tests(size)
    return Outcome(
        job,
        spent,
        steps,
        accuracy,
        discarded,
        greedy=hear(tests["test"]),
        beam=hear(tests["test"], beam=4),
        unheard=hear(tests["unheard"]),
    )


def _loss(start: Start, tokenizer: Tokenizer) -> Callable[[Any, Batch], Tensor]:
    config = TransducerLossConfig(fastemit=start.fastemit)
    spanned = Spanned(tokenizer, FEATURES.frame_s)

    def loss(model: Transducer, batch: Batch) -> Tensor:
        f, lens, g = model(batch.features, batch.feature_lens, batch.targets)
        arcs = arc_mask(batch, spanned(batch, lens), lens, before=NEAR, after=NEAR) if start.near else None
        return transducer_loss(f, g, model.joint, batch.targets, lens, batch.target_lens, config=config, arcs=arcs)

    return loss


@torch.inference_mode()
def heard(model: Transducer, batches: Sequence[Batch], tokenizer: Tokenizer, *, beam: int = 0) -> Heard:
    """What a model hears by greedy search, or with a beam."""
    found = Heard()
    for batch in batches:
        f, lens = model.encode(batch.features, batch.feature_lens)
        hypotheses: Sequence[TokenHypothesis] = (
            greedy(model, f, lens)
            if not beam
            else [best for best, *_ in TransducerBeam(model, TransducerBeamConfig(beam=beam)).decode(f, lens)]
        )
        for hypothesis, cut in zip(hypotheses, batch.cuts, strict=True):
            words = emitted_words(hypothesis, tokenizer)
            errors = word_errors(text_of(cut).split(), [word.text for word in words])
            found += Heard((errors,), emission_latency([words], [aligned(cut)], frame_s=FEATURES.frame_s))
    return found


# --- what steps cost -------------------------------------------------------------------------------------------------


def _costs(size: Size, seed: int) -> tuple[dict[str, float], float]:
    """Processor time of a step of each arm's pre-training, relative to one of the transducer loss on the same batches;
    and the share of the latter that building the label tensors takes. Medians of three."""
    known, data = material(size), _kept(size, seed)
    model = network(size, seed, data)

    def transducer() -> None:
        settings = TrainConfig(steps=size.costed, cpu=True)
        train(model, data, _loss(Start(), known.tokenizer), settings)

    def pretraining(config: AlignPretrainConfig) -> None:
        pretrain(model, data, known.tokenizer, config=replace(config, max_steps=size.costed, cpu=True))

    def labels() -> None:
        for batch in data.epoch(0)[: size.costed]:
            node_labels(batch, spanned(batch, batch.feature_lens), batch.feature_lens, "all", "end")

    spanned = Spanned(known.tokenizer, FEATURES.frame_s)
    labels()
    transducer()  # the first run of anything is slow
    ratios: dict[str, list[float]] = {}
    for _ in range(3):
        whole = _seconds(transducer)
        ratios.setdefault("labels", []).append(_seconds(labels) / whole)
        for arm, start in STARTS.items():
            if start.pretraining:
                ratios.setdefault(arm, []).append(_seconds(functools.partial(pretraining, start.pretraining)) / whole)
    medians = {arm: statistics.median(found) for arm, found in ratios.items()}
    return medians, medians.pop("labels")


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


# --- the verdict -----------------------------------------------------------------------------------------------------


def _result(
    scale: Scale, seed: int, size: Size, costs: Mapping[str, float], labels: float, outcomes: Sequence[Outcome]
) -> ClaimResult:
    whole = {arm: [one for one in outcomes if one.job.arm == arm and one.job.share == 1] for arm in STARTS}
    first = {arm: own[0] for arm, own in whole.items()}  # of the seed that all arms have
    rate = {arm: _pooled(own).rate for arm, own in whole.items()}
    late = {arm: _pooled(own).late_ms for arm, own in whole.items()}
    fewer = _fewer(rate[ENCODER], rate[RANDOM])
    earlier = late[RANDOM] - late[ENCODER]
    not_worse = _fewer(rate[ENCODER], rate[CTC])
    at_first = {arm: _fewer(one.greedy.rate, first[RANDOM].greedy.rate) for arm, one in first.items()}
    return ClaimResult(
        slug="alignment-pretraining",
        statement="A transducer whose encoder starts from alignments makes fewer errors after the same training and "
        "emits words earlier.",
        scale=scale,
        baseline=RANDOM,
        arms=(
            *(Arm(arm, tuple(_figures(own, costs.get(arm), seed))) for arm, own in whole.items()),
            *(
                Arm(f"{arm}, {share:.0%} of the budget", tuple(_figures(own, None, seed)))
                for share in size.shares
                for arm in (RANDOM, ENCODER)
                if (own := [one for one in outcomes if one.job.arm == arm and one.job.share == share])
            ),
        ),
        primary=Condition(
            f"the least of: share of errors fewer than from a random start, less {FEWER_ERRORS}; share fewer than from "
            f"{CTC}; seconds that words come earlier than from a random start, less {EARLIER_MS / 1000}",
            min(fewer - FEWER_ERRORS, not_worse, (earlier - EARLIER_MS) / 1000),
            ">=",
            0.0,
        ),
        secondary=(
            Condition("share of errors fewer than from a random start", fewer, ">=", FEWER_ERRORS),
            Condition(f"share of errors fewer than from {CTC}", not_worse, ">=", 0.0),
            Condition("ms that words come earlier than from a random start", earlier, ">=", EARLIER_MS),
            Condition(
                f"share of errors fewer than from a random start, {JITTERED}, one seed",
                at_first[JITTERED],
                ">=",
                FEWER_ERRORS,
            ),
            Condition(
                "change of that share from a quarter of the budget to all of it, one seed",
                at_first[ENCODER] - _at_share(outcomes, min(size.shares)),
                "<=",
                0.0,
            ),
            *(
                Condition(
                    f"cost of a step of pre-training, {arm}, of one of the transducer loss", costs[arm], "<=", most
                )
                for arm, most in MOST_COST.items()
            ),
            Condition("time of building the label tensors, of a step of the transducer loss", labels, "<=", 0.02),
        ),
        samples={
            "utterances to train on": size.train,
            "tested utterances": size.test,
            "tested utterances of another voice": size.unheard,
            "steps of the budget": size.budget,
        },
        seeds=tuple(range(seed, seed + size.seeds)),
        data=(
            f"strings of 1 to 4 of {WORDS} words of commands, by flite's slt, rms and awb, and kal16 as the other "
            "voice; noise at 15 to 30 dB, pace 0.9 to 1.1",
        ),
        notes=(
            f"{', '.join(PRIMARY)} have {size.seeds} seeds, the other arms one",
            "latency: end of the frame that a word's last piece is emitted on, less the end of the word; right words",
            f"at most {MOST_PRETRAINING:.0%} of the budget is pre-training; it ends where an epoch gains under 0.5 %",
        ),
    )


def _pooled(outcomes: Iterable[Outcome]) -> Heard:
    return sum((one.greedy for one in outcomes), Heard())


def _fewer(rate: float, of: float) -> float:
    """By what share errors are fewer."""
    return 1 - rate / of if of else 0.0


def _at_share(outcomes: Iterable[Outcome], share: float) -> float:
    rates = {one.job.arm: one.greedy.rate for one in outcomes if one.job.share == share}
    return _fewer(rates[ENCODER], rates[RANDOM])


def _figures(outcomes: Sequence[Outcome], cost: float | None, seed: int) -> list[Metric]:
    figures = [
        _error_rate("WER", [one.greedy for one in outcomes], seed),
        _error_rate("WER, beam 4", [one.beam for one in outcomes], seed),
        _error_rate("WER, another voice", [one.unheard for one in outcomes], seed),
    ]
    for name, own in (
        ("greedy", [one.greedy.latency for one in outcomes]),
        ("beam 4", [one.beam.latency for one in outcomes]),
    ):
        all_words = sum(own, EmissionLatency())
        for what, value in (
            ("mean", all_words.mean_ms),
            ("median", all_words.quantile_ms(0.5)),
            ("90 %", all_words.quantile_ms(0.9)),
            ("first words", all_words.first_ms),
        ):
            if value is not None:
                figures.append(Metric.of(f"latency, {name}, {what}", value, "ms", count=len(all_words.words)))
    if cost is not None:
        figures.append(Metric.of("cost of a step of pre-training", cost))
        figures.append(Metric("steps of pre-training", tuple(float(one.pretraining) for one in outcomes)))
        figures.append(Metric("discarded", tuple(100 * one.discarded for one in outcomes), "%"))
        if right := [100 * one.accuracy for one in outcomes if one.accuracy is not None]:
            figures.append(Metric("right labels after pre-training", tuple(right), "%"))
    figures.append(Metric("steps of the transducer loss", tuple(float(one.steps) for one in outcomes)))
    return figures


def _error_rate(name: str, heard: Sequence[Heard], seed: int) -> Metric:
    """Of all seeds together, the interval over utterances, each with what all seeds made of it."""
    utterances = [sum(own, WordErrors()) for own in zip(*(one.errors for one in heard), strict=True)]
    interval = stats.bootstrap([u.errors for u in utterances], [u.words for u in utterances], seed=seed)
    total = sum(utterances, WordErrors())
    return Metric.of(name, total.errors / total.words, count=total.words, interval=interval)
