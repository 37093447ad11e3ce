"""Teach a trained recogniser a domain of which there is only text: new words, new phrases, none of the sound.

Product names, orders, medical terms: a page of sentences in, a recogniser of the same size and speed out. Not where
recordings of the domain exist, which teach more (`wieldy.speech.asr`), nor for a recogniser whose word pieces cannot
spell the new words: such lines are left out and listed.

Jinyu Li et al. 2020, Developing RNN-T models surpassing high-performance hybrid models with customization capability,
arXiv 2007.15188: of its ways, `tts` (the text is spoken by synthetic voices, predictor and joint learn it) and
`lm-branch` (the predictor learns it as a language model). Rui Zhao et al. 2021, On addressing practical challenges for
RNN-Transducer, arXiv 2105.00858: `splice` (the text is put together from recordings). Guards, ours: recordings of the
source are learnt beside the text, answers on them stay near the first model's, and the training ends when they are
recognised worse. With L the transducer loss, m the share of the source and D as in `wieldy.speech.losses.divergence`,

    loss = (1 - m) L(spoken text) + m L(source) + kl_weight D(first model, this one; source)
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from lhotse.cut import CutSet

from wieldy.errors import InputError, MissingError, UsageError
from wieldy.metrics.text import align
from wieldy.report import Metric, Plot, Report, Result, Series, Table
from wieldy.speech.adapt.config import AdaptConfig, Method, Part
from wieldy.speech.adapt.guard import DOMAIN, SOURCE, Guard, SourceWorseError, errors
from wieldy.speech.adapt.lm_branch import Sentences, train_as_language_model
from wieldy.speech.adapt.recordings import Answer, Recordings
from wieldy.speech.adapt.splice import build_store, splice
from wieldy.speech.adapt.text import DomainText, read_text
from wieldy.speech.adapt.tts import freeze_, speak, train_on_speech
from wieldy.speech.asr import error_rate
from wieldy.speech.augment import AugmentConfig
from wieldy.speech.corpus import checked, text_of
from wieldy.speech.networks.transducer import Transducer
from wieldy.speech.recognize.transducer import TransducerRecognizer

__all__ = ["AdaptConfig", "Method", "Part", "adapt", "new_words", "read_text"]

_TESTED = 5  # one in so many source recordings is kept for the guard: few words make a rate that jumps


def adapt(
    recognizer: TransducerRecognizer,
    texts: Iterable[str],
    *,
    source: CutSet | None = None,
    pieces: CutSet | None = None,
    config: AdaptConfig = AdaptConfig(),
    progress: Callable[[str, float], None] | None = None,
) -> Result[TransducerRecognizer]:
    """A copy of `recognizer` that knows the domain of `texts`, sentences written like its training transcripts.

    A tenth of the sentences is kept, spoken by a voice that is not learnt from, to measure the new domain; of `source`,
    recordings with transcripts of what it knew before, a fifth is, for the guard. Without `source` nothing holds it to
    what it was. Method splice takes words from `pieces`, recordings with word times, by default those of `source` that
    are learnt. The report has the word error rates before and after, the share of new words that are heard (those in
    no source transcript), and every line that was left out. Raises `InputError` where too little text or sound can be
    used and `MissingError` where the voices of method tts are not installed.
    """
    began = time.perf_counter()
    text = DomainText.of(texts, recognizer.tokenizer, config.seed)
    spoken, spliced = "tts" in config.method, "splice" in config.method
    if spoken and recognizer.language != "en":
        raise UsageError(f"the recogniser's language is {recognizer.language!r}", hint="the voices speak English")
    known = None if source is None else _Source.of(source, recognizer, config.seed)
    if spliced and pieces is None and known is None:
        raise UsageError("method splice without recordings", hint="name some with word times: --recordings")
    frozen = config.method == "lm-branch" or "encoder" not in config.update

    def recordings(cuts: CutSet, augment: AugmentConfig | None = None) -> Recordings:
        return Recordings(cuts, recognizer, config, frozen=frozen, augment=augment)

    notes = [] if known else ["without source recordings nothing held it to what it was"]
    tests = {SOURCE: recordings(known.test)} if known else {}
    if progress:
        progress("speak", 0.0)
    try:
        tests[DOMAIN] = recordings(speak(text.test, (config.test_voice,), config))
    except MissingError as error:
        if spoken:
            raise
        notes.append(f"errors in the new domain were not measured: {error}")
    network = copy.deepcopy(recognizer.network)
    guard = Guard(network, tests, config.max_worse)
    touched = freeze_(network, ("predictor",) if config.method == "lm-branch" else config.update)
    learn = recordings(known.learn, config.augment) if known else None
    joining = Report("")

    def step(number: int) -> None:
        if progress:
            progress("adapt", number / guard.steps)
        guard.step(number)

    try:
        if spoken or spliced:
            cuts = list(speak(text.learn, config.voices, config)) if spoken else []
            if spliced:
                made = splice(
                    build_store(pieces if pieces is not None else known.learn),  # type: ignore[union-attr]  # checked
                    text.learn,
                    config=replace(config.splice, sample_rate=recognizer.features.sample_rate, seed=config.seed),
                    progress=lambda done: progress("splice", done) if progress else None,
                )
                cuts += made.value
                joining = made.report
            domain = recordings(CutSet.from_cuts(cuts), config.augment)
            guard.watch(config.epochs * len(domain.epoch(0)))
            train_on_speech(network, domain, learn, config, steps=guard.steps, progress=step)
        else:
            beside = [text_of(cut) for cut in known.learn] if known else []
            sentences = Sentences(text.learn, beside, recognizer.tokenizer, config.seed)
            guard.watch(config.epochs * len(sentences.epoch(0)))
            train_as_language_model(network, sentences, config, steps=guard.steps, progress=step)
    except SourceWorseError:
        notes.append(
            f"ended at step {guard.stopped_at} of {guard.steps}, with more than {config.max_worse:.0%} more errors on "
            f"source recordings; the weights are those of step {guard.best_step}"
        )
    guard.restore_best()
    network.requires_grad_(True).cpu()
    if not bool(network.mean_encoding.isnan().any()):
        _measure_encoding_again_(network, learn)
    adapted = TransducerRecognizer(
        network,
        recognizer.features,
        recognizer.tokenizer,
        beam=recognizer.beam.config,
        model_id=f"{recognizer.model_id}-adapted",
        language=recognizer.language,
    )
    figures = (
        Metric.of("lines learnt", len(text.learn)),
        Metric.of("lines left out", len(text.skipped)),
        *joining.metrics,
        *_errors(guard),
        *(_recalls(guard, text.test, known.words) if known else ()),
        Metric.of("parameters touched", touched),
        Metric.of("parameters", sum(parameter.numel() for parameter in network.parameters())),
        Metric.of("seconds", time.perf_counter() - began, "s"),
    )
    report = _report(config, figures, text, known, guard, notes)
    return Result(adapted, replace(report, tables=(*report.tables, *joining.tables)))


@dataclass(frozen=True)
class _Source:
    """Recordings of what a recogniser knew before: to learn from, to test on, and why others were left out."""

    learn: CutSet
    test: CutSet
    skipped: tuple[tuple[str, str], ...]
    words: frozenset[str]

    @classmethod
    def of(cls, cuts: CutSet, recognizer: TransducerRecognizer, seed: int) -> _Source:
        usable = checked(cuts, recognizer.tokenizer, features=recognizer.features)
        every = list(usable.cuts)
        if len(every) < 2:
            raise InputError("one source recording", hint="give two at least, and better a hundred")
        order = np.random.default_rng(seed).permutation(len(every)).tolist()
        count = max(1, len(every) // _TESTED)
        learn, test = ([every[i] for i in part] for part in (order[count:], order[:count]))
        words = frozenset(word for cut in every for word in text_of(cut).split())
        return cls(CutSet.from_cuts(learn), CutSet.from_cuts(test), usable.skipped, words)


@torch.no_grad()
def _measure_encoding_again_(network: Transducer, learn: Recordings | None) -> None:
    """What stands for speech in the internal language model moves with the projection that was trained."""
    if learn is None:
        network.mean_encoding.fill_(torch.nan)
    else:
        network.measure_mean_encoding_((batch.features, batch.feature_lens) for batch in learn.epoch(0))


def _errors(guard: Guard) -> Iterator[Metric]:
    for name, before in guard.before.items():
        yield error_rate(f"word error rate, {name}, before", errors(before))
        yield error_rate(f"word error rate, {name}, after", errors(guard.after[name]))


def _recalls(guard: Guard, lines: Sequence[str], known: frozenset[str]) -> Iterator[Metric]:
    """The share of new words among those said that were heard, as far as there are any."""
    new = {word for line in lines for word in line.split()} - known
    for when, found in (("before", guard.before), ("after", guard.after)):
        said, heard = new_words(found.get(DOMAIN, ()), new)
        if said:
            yield Metric.of(f"new words heard, {when}", 100 * heard / said, "%", count=said)


def new_words(answers: Sequence[Answer], new: Collection[str]) -> tuple[int, int]:
    """How often words of `new` were said, and how often these were heard."""
    said = heard = 0
    for reference, hypothesis in answers:
        for i, j in align(reference, hypothesis):
            if i is not None and reference[i] in new:
                said += 1
                heard += j is not None and hypothesis[j] == reference[i]
    return said, heard


def _report(
    config: AdaptConfig,
    figures: tuple[Metric, ...],
    text: DomainText,
    known: _Source | None,
    guard: Guard,
    notes: Sequence[str],
) -> Report:
    tables = [Table("text left out", ("line", "why"), text.skipped)] if text.skipped else []
    if known and known.skipped:
        tables.append(Table("source recordings left out", ("recording", "why"), known.skipped))
    curves = tuple(
        Series(name, tuple(map(float, rates)), tuple(100 * rate for rate in rates.values()))
        for name, rates in guard.rates.items()
    )
    return Report(
        f"adaptation to text, {config.method}",
        figures,
        tuple(tables),
        (Plot("word error rate while adapting", curves, "step", "%"),) if curves else (),
        tuple(notes),
        {"best step": guard.best_step, **asdict(config)},
    )
