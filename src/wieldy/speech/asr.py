"""Train a streaming recogniser on your own recordings: a folder of them in, a folder that `captions` takes out.

For closed vocabularies, languages and sounds that no ready model knows, from minutes of recordings on. For free English
speech take Whisper (`wieldy transcribe`), which has heard a hundred thousand times more.

The model is a transducer (`networks.transducer`). Where the recordings say when their words are spoken, the network is
first taught that (`pretrain`), which saves most of the steps; the transducer loss comes then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from lhotse.cut import Cut, CutSet
from torch import Tensor, nn

from wieldy.errors import InputError, UsageError, WieldyError
from wieldy.metrics.stats import bootstrap
from wieldy.metrics.text import WordErrors, word_errors
from wieldy.report import Metric, Plot, Report, Result, Series, Table
from wieldy.speech.augment import AugmentConfig
from wieldy.speech.batches import Batch, BatchConfig, Batches
from wieldy.speech.corpora import joined, said_by_voices
from wieldy.speech.corpus import Checked, checked, text_of
from wieldy.speech.decode.greedy import greedy
from wieldy.speech.decode.transducer_beam import TransducerBeam
from wieldy.speech.features import LogMelConfig
from wieldy.speech.losses.transducer import transducer_loss
from wieldy.speech.networks.transducer import Preset, Transducer, TransducerConfig
from wieldy.speech.pretrain import AlignPretrainConfig, pretrain
from wieldy.speech.recognize.transducer import TransducerRecognizer
from wieldy.speech.tokens import Kind, Tokenizer
from wieldy.training.loop import LAST, TrainConfig, Trained, train
from wieldy.training.schedules import Schedule

REPEATS = 0.2  # of joined recordings, say again what the one before says
SAVE_EVERY = 100  # steps
FEW_WORDS = 200  # up to so many different words are tokens of their own; beyond, unseen words need pieces


@dataclass(frozen=True, kw_only=True)
class AsrConfig:
    preset: Preset = "small"  # size of the network: tiny for a few dozen words, small for a laptop, large
    steps: int = 2000  # of the transducer loss, >= 1
    pretrain: float = 0.25  # steps before these, as a share of them, where all recordings have word times; 0: none
    rate: float = 2e-3  # highest learning rate, > 0
    tokens: Literal["auto"] | Kind = "auto"  # auto: words up to `FEW_WORDS` different ones, else unigram pieces
    pieces: int = 500  # of unigram and bpe, at most
    sample_rate: int | None = None  # Hz the network hears, 8000 or 16000; None: see `features_for`
    join: int = 1  # recordings of one speaker in a row are made one utterance, up to this many; 1: as they are
    synthetic: int = 0  # utterances of the same texts by synthetic voices, added to what is trained on
    held_out: str | None = None  # a speaker who is not trained on but tested
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            speed=(0.85, 1.15),
            warp=(0.8, 1.25),
            channel_db=3.0,
            room_rt60_s=(0.05, 0.3),
            noise_snr_db=(8.0, 40.0),
            level_db=(-10.0, 10.0),
            frequency_width=8,
        )
    )
    batches: BatchConfig = field(default_factory=lambda: BatchConfig(max_lattice_nodes=50_000, max_utterances=32))
    strict: bool = False  # a recording that cannot be used is an error
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("pretrain", 0), ("pieces", 2), ("join", 1), ("synthetic", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")
        if self.tokens not in ("auto", *get_args(Kind)):
            raise UsageError(f"tokens {self.tokens!r}", hint=f"choose auto, {', '.join(get_args(Kind))}")


def train_recognizer(
    cuts: CutSet,
    out: Path,
    config: AsrConfig = AsrConfig(),
    *,
    resume: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Result[TransducerRecognizer]:
    """Train on `cuts`, recordings with transcripts (`corpus.read_manifest`), into the folder `out`.

    A tenth of the recordings, at least one, is kept from training and decides which weights are kept; the report has
    the word error rate there and, with `held_out`, on that speaker. What cannot be used is listed in the report.
    An interrupted run goes on with `resume`. Raises `InputError` where too little can be used.
    """
    features = features_for(config.sample_rate or min((cut.sampling_rate for cut in cuts), default=16_000))
    tokenizer = tokenizer_for([text_of(cut) for cut in cuts], config)
    usable = checked(cuts, tokenizer, strict=config.strict, features=features)
    parts = split(usable.cuts, config)
    if config.synthetic:
        if progress:
            progress("synthetic voices", 0.0)
        phrases = [text_of(cut) for cut in usable.cuts]
        parts["train"] += said_by_voices(phrases, config.synthetic, (1, config.join), config.seed)
    learn = Batches(parts["train"], features, tokenizer, config.batches, config.augment, config.seed)
    develop = Batches(parts["develop"], features, tokenizer, config.batches)
    torch.manual_seed(config.seed)
    network = Transducer(TransducerConfig.preset(config.preset, len(tokenizer), features.dim))
    network.measure_features_((batch.features, batch.feature_lens) for batch in learn.epoch(0))
    training = out / "training"
    if config.pretrain and has_word_times(parts["train"]) and not (resume and (training / LAST).is_file()):
        if progress:
            progress("learn the times of words", 0.0)
        network, _ = pretrain(network, learn, tokenizer, config=_pretraining(config, features))

    def validate(_: nn.Module) -> dict[str, float]:
        return {"word error rate": sum(errors(network, tokenizer, develop), WordErrors()).rate or 0.0}

    run = train(
        network,
        learn,
        loss,
        TrainConfig(
            steps=config.steps,
            schedule=Schedule(peak=config.rate, shape="cosine"),
            weight_decay=0.01,
            validate_every=max(1, config.steps // 10),
            save_every=SAVE_EVERY,
            seed=config.seed,
        ),
        folder=training,
        resume=resume,
        validate=validate,
        progress=lambda step, _: progress("train", step / config.steps) if progress else None,
    )
    if run.diverged_at:
        raise WieldyError(f"the loss diverged at step {run.diverged_at}", hint="try half the learning rate, --rate")
    recognizer = TransducerRecognizer(network, features, tokenizer, model_id=out.name)
    found = {
        name: errors(network, tokenizer, Batches(own, features, tokenizer, config.batches), recognizer.beam)
        for name, own in parts.items()
        if name != "train"
    }
    report = _report(config, usable, run, found, learn.hours, out)
    recognizer.save(out, trained=report.to_json()["metrics"])
    report.save(out)
    return Result(recognizer, report)


def features_for(sample_rate: int) -> LogMelConfig:
    """Log-mel features at the lowest sampling rate among the recordings, at most 16 kHz: what is missing in some of
    them must not be what tells words apart."""
    if sample_rate < 8000:
        raise InputError(f"there are recordings of {sample_rate} samples a second", hint="speech needs 8000")
    rate = 16_000 if sample_rate >= 16_000 else 8000
    return LogMelConfig(sample_rate=rate, window=rate // 40, hop=rate // 100, mels=rate // 200)


def tokenizer_for(texts: Sequence[str], config: AsrConfig) -> Tokenizer:
    kind = config.tokens
    if kind == "auto":
        kind = "word" if len({word for text in texts for word in text.split()}) <= FEW_WORDS else "unigram"
    return Tokenizer.train(texts, kind, config.pieces if kind in ("unigram", "bpe") else None)


def split(cuts: CutSet, config: AsrConfig) -> dict[str, CutSet]:
    """`train`, `develop` (a tenth of the same speakers, at least one) and, of the held-out speaker, `test`."""
    rng = np.random.default_rng(config.seed)
    by_place: dict[str, list[Cut]] = {"train": [], "develop": [], "test": []}
    for cut in cuts:
        by_place["test" if config.held_out and _speaker(cut) == config.held_out else "train"].append(cut)
    if config.held_out and not by_place["test"]:
        known = ", ".join(sorted({_speaker(cut) for cut in cuts}))
        raise InputError(f"no recording is by {config.held_out!r}", hint=f"the speakers are {known}")
    rest = [by_place["train"][i] for i in rng.permutation(len(by_place["train"]))]
    if len(rest) < 2:
        raise InputError(f"{len(rest)} recordings to train on", hint="give at least two, and better a few hundred")
    kept = max(1, len(rest) // 10)
    by_place["develop"], by_place["train"] = rest[:kept], rest[kept:]
    found = {name: CutSet.from_cuts(own) for name, own in by_place.items() if own}
    if config.join == 1:
        return found
    # Every recording once, and in training twice, with other neighbours. People repeat themselves, which chance alone
    # shows too seldom to be learned: without `REPEATS`, half of the errors were a word of a pair left out.
    return {
        name: joined(
            own,
            rng,
            max(2, len(own) * (4 if name == "train" else 2) // (config.join + 1)),
            lengths=(1, config.join),
            repeats=REPEATS if name == "train" else 0.0,
        )
        for name, own in found.items()
    }


def has_word_times(cuts: CutSet) -> bool:
    return all(part.alignment and "word" in part.alignment for cut in cuts for part in cut.supervisions)


def _pretraining(config: AsrConfig, features: LogMelConfig) -> AlignPretrainConfig:
    return AlignPretrainConfig(
        target="whole",
        frame_shift_s=features.frame_s,
        max_steps=max(1, round(config.pretrain * config.steps)),
        min_gain=0.0,  # without a development set there is nothing to end early by
        lr=config.rate,
        seed=config.seed,
    )


def loss(network: nn.Module, batch: Batch) -> Tensor:
    """The transducer loss of a `Transducer`, mean over utterances."""
    assert isinstance(network, Transducer)
    batch = batch.to(network.feature_mean.device)
    f, f_lens, g = network(batch.features, batch.feature_lens, batch.targets)
    return transducer_loss(f, g, network.joint, batch.targets, f_lens, batch.target_lens)


@torch.inference_mode()
def errors(
    network: Transducer, tokenizer: Tokenizer, data: Batches, beam: TransducerBeam | None = None
) -> list[WordErrors]:
    """The errors of beam search, or of greedy search without one, in each utterance."""
    found = []
    for batch in data.epoch(0):
        batch = batch.to(network.feature_mean.device)
        f, f_lens = network.encode(batch.features, batch.feature_lens)
        answers = [nbest[0] for nbest in beam.decode(f, f_lens)] if beam else greedy(network, f, f_lens)
        for cut, best in zip(batch.cuts, answers, strict=True):
            found.append(word_errors(text_of(cut).split(), tokenizer.decode(best.tokens).split()))
    return found


def error_rate(name: str, found: Sequence[WordErrors]) -> Metric:
    """The word error rate with its 95 % interval over utterances and its number of words."""
    total = sum(found, WordErrors())
    counts = [utterance.words for utterance in found]
    interval = bootstrap([utterance.errors for utterance in found], counts) if len(found) > 1 else None
    return Metric.of(name, 100 * (total.rate or 0.0), "%", count=total.words, interval=interval and _percent(interval))


def _percent(interval: tuple[float, float]) -> tuple[float, float]:
    return 100 * interval[0], 100 * interval[1]


def _speaker(cut: Cut) -> str:
    return cut.supervisions[0].speaker or "unknown"


def _report(
    config: AsrConfig, usable: Checked, run: Trained, found: Mapping[str, list[WordErrors]], hours: float, out: Path
) -> Report:
    names = {"develop": "word error rate, recordings kept from training"}
    if config.held_out:
        names["test"] = f"word error rate, {config.held_out}, who was not trained on"
    skipped = len(usable.skipped)
    notes = [f"{usable.resampled} recordings were resampled"] if usable.resampled else []
    if skipped:
        notes.append(f"{skipped} recordings were left out: they are listed below")
    steps = tuple(run.validations)
    return Report(
        f"training of {out.name}",
        metrics=(
            Metric.of("sound to train on", hours * 60, "min"),
            Metric.of("recordings left out", skipped),
            *(error_rate(names[part], own) for part, own in found.items()),
        ),
        tables=(Table("left out", ("recording", "why"), usable.skipped),) if skipped else (),
        plots=(
            Plot(
                "loss", (Series("training", tuple(range(1, len(run.losses) + 1)), tuple(run.losses)),), "step", "nats"
            ),
            Plot(
                "word error rate, recordings kept from training",
                (Series("greedy", steps, tuple(100 * run.validations[step]["word error rate"] for step in steps)),),
                "step",
                "%",
            ),
        ),
        notes=tuple(notes),
        details={"best step": run.best_step, **asdict(config)},
    )
