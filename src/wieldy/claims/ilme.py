"""A language model of new text helps a recogniser most when the language it had learnt before is taken away.

A recogniser learns made-up speech of one domain, in which sounds are told from their doubles by language alone; of
another domain with the same words there is only text. Compared are no language model, shallow fusion, density ratio,
LODR and the internal language model, each with weights found in the same way on the same recordings.

Primary condition: with a transducer, the internal language model makes at least 5 % fewer word errors in the new domain
than shallow fusion, the paired interval of the difference below 0. Secondary: no more than 1 % more errors than shallow
fusion in the old domain with a language model of its own; fewer errors than shallow fusion with an encoder-decoder; the
internal language model finds text of its own domain likelier than that of the other.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wieldy.claims.confusable_speech import DOMAINS, ConfusableSpeech, Domain, Sentence, Spoken
from wieldy.claims.result import Arm, ClaimResult, Condition, Scale
from wieldy.metrics import stats
from wieldy.metrics.text import WordErrors
from wieldy.report import Metric
from wieldy.speech.decode import PrefixScorer, TokenHypothesis
from wieldy.speech.decode.aed_beam import AedBeam, AedBeamConfig
from wieldy.speech.decode.lm.fusion import DecoderLM, FusionConfig, Method, fusion, internal_log_p
from wieldy.speech.decode.lm.kneser_ney import KneserNeyConfig
from wieldy.speech.decode.lm.kneser_ney import train as count
from wieldy.speech.decode.lm.ngram import NgramLM
from wieldy.speech.decode.lm.tune import Tuning, tune
from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig
from wieldy.speech.losses.transducer import transducer_loss
from wieldy.speech.networks.aed import Aed, AedConfig
from wieldy.speech.networks.lstm import LstmConfig
from wieldy.speech.networks.predictors import LstmPredictorConfig
from wieldy.speech.networks.transducer import Transducer, TransducerConfig
from wieldy.training.loop import TrainConfig, train
from wieldy.training.schedules import Schedule

PACKAGES = ("numpy", "torch")

Kind = Literal["transducer", "encoder-decoder"]
KINDS: tuple[Kind, ...] = ("transducer", "encoder-decoder")
NONE, SHALLOW, ILME = "no language model", "shallow", "ilme"
METHODS: tuple[Method, ...] = ("shallow", "density-ratio", "lodr", "ilme")
FEWER, MORE_IN_SOURCE = 0.05, 0.01  # relative to shallow fusion
TRIED = 1  # languages whose settings were looked at: those of seeds 0 to TRIED - 1 are not tested


@dataclass(frozen=True, kw_only=True)
class Size:
    train: int = 12_000  # sentences that are spoken to train on
    text: int = 20_000  # of the new domain, not spoken
    dev: int = 300  # recordings of each domain that weights are found on
    test: int = 600
    steps: int = 1500
    batch: int = 32
    hidden: int = 128
    nbest: int = 32
    beam: int = 4
    rate: float = 3e-3
    seeds: int = 3
    workers: int = 2


SIZES: Mapping[Scale, Size] = {
    "smoke": Size(train=40, text=60, dev=4, test=4, steps=3, batch=4, hidden=8, nbest=3, beam=2, seeds=1, workers=0),
    "full": Size(),
    "extended": Size(train=48_000, steps=6000),
}


@dataclass(frozen=True)
class Outcome:
    """Errors of each utterance, by method, in the new domain and with a language model of its own in the old one;
    perplexities of the internal language model on both; weights by method."""

    kind: Kind
    target: Mapping[str, tuple[WordErrors, ...]]
    source: Mapping[str, tuple[WordErrors, ...]]
    perplexity: Mapping[Domain, float]
    weights: Mapping[str, tuple[float, float]]


def run(scale: Scale, seed: int) -> ClaimResult:
    """`full`: 12,000 spoken sentences, 1500 steps, two kinds of recognisers, 3 languages."""
    size = SIZES[scale]
    jobs = [(size, kind, seed + TRIED + n) for n in range(size.seeds) for kind in KINDS]
    if size.workers:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(size.workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            outcomes = list(pool.map(outcome, *zip(*jobs, strict=True)))
    else:
        outcomes = [outcome(*job) for job in jobs]
    return _result(scale, seed, size, outcomes)


# --- one recogniser --------------------------------------------------------------------------------------------------


def outcome(size: Size, kind: Kind, seed: int) -> Outcome:
    """Train a recogniser of one language and search with every method."""
    speech = ConfusableSpeech(seed=seed)
    said = {domain: speech.sentences(domain, size.dev + size.test, seed=1) for domain in DOMAINS}
    known = speech.sentences("source", size.train, seed=2)
    text = speech.sentences("target", size.text, seed=3)
    torch.manual_seed(seed)
    model = _transducer(speech, size) if kind == "transducer" else _encoder_decoder(speech, size)
    settings = TrainConfig(
        steps=size.steps, schedule=Schedule(peak=size.rate, shape="cosine", final=0.05), seed=seed, cpu=True
    )
    train(model, speech.stream(known, size.batch, seed), _LOSSES[kind], settings)
    model.eval()
    search = _Search(speech, model, size)
    lms: Mapping[Domain, NgramLM] = {"target": _lm(speech, text), "source": _lm(speech, known)}
    bigram = _lm(speech, known, order=2)
    errors: dict[Domain, dict[str, tuple[WordErrors, ...]]] = {}
    weights: dict[str, tuple[float, float]] = {}
    methods_of: Mapping[Domain, tuple[Method, ...]] = {"target": METHODS, "source": ("shallow", "ilme")}
    for domain, methods in methods_of.items():
        dev, test = (
            search.encoded(part, [seed, n])
            for n, part in enumerate((said[domain][: size.dev], said[domain][size.dev :]))
        )
        errors[domain] = {NONE: search.errors(test, None)}
        for method in methods:
            source = {"density-ratio": lms["source"], "lodr": bigram}.get(method)
            tuned = search.tuned(dev, FusionConfig(method=method), lms[domain], source)
            errors[domain][method] = search.errors(test, fusion(model, lms[domain], tuned.config, source))
            if domain == "target":
                weights[method] = tuned.config.lm_weight, tuned.config.ilm_weight * (method != "shallow")
    perplexity = {domain: search.perplexity(said[domain]) for domain in DOMAINS}
    return Outcome(kind, errors["target"], errors["source"], perplexity, weights)


def _lm(speech: ConfusableSpeech, sentences: Sequence[Sentence], order: int = 4) -> NgramLM:
    pieces = [[speech.pieces[label] for label in speech.labels(sentence)] for sentence in sentences]
    return NgramLM(count(pieces, KneserNeyConfig(order=order, vocabulary=speech.pieces[1:])), speech.pieces)


def _encoder(size: Size) -> LstmConfig:
    return LstmConfig(layers=2, hidden=size.hidden, projection=0, stack=2)


def _transducer(speech: ConfusableSpeech, size: Size) -> Transducer:
    return Transducer(
        TransducerConfig(
            vocabulary=len(speech.pieces),
            input_dim=speech.config.features,
            encoder=_encoder(size),
            predictor=LstmPredictorConfig(embedding=size.hidden // 2, hidden=size.hidden),
            joint=size.hidden,
        )
    )


def _encoder_decoder(speech: ConfusableSpeech, size: Size) -> Aed:
    return Aed(
        AedConfig(
            vocabulary=len(speech.pieces),
            input_dim=speech.config.features,
            encoder=_encoder(size),
            layers=2,
            size=size.hidden,
            feed_forward=2 * size.hidden,
        )
    )


def _transducer_loss(model: Transducer, batch: Spoken) -> Tensor:
    f, lens, g = model(batch.features, batch.feature_lens, batch.targets)
    return transducer_loss(f, g, model.joint, batch.targets, lens, batch.target_lens)


def _decoder_loss(model: Aed, batch: Spoken) -> Tensor:
    """Cross-entropy of each label and the end, which is 0, as what lies beyond it."""
    logits = model(batch.features, batch.feature_lens, batch.targets)
    wanted = functional.pad(batch.targets, (0, 1))
    beyond = torch.arange(wanted.shape[1]) > batch.target_lens[:, None]
    return functional.cross_entropy(logits.transpose(1, 2), wanted.masked_fill(beyond, -100))


_LOSSES: Mapping[Kind, Any] = {"transducer": _transducer_loss, "encoder-decoder": _decoder_loss}


@dataclass(frozen=True)
class _Encoded:
    sentences: Sequence[Sentence]
    f: Tensor
    lens: Tensor


class _Search:
    def __init__(self, speech: ConfusableSpeech, model: Transducer | Aed, size: Size) -> None:
        self.speech, self.model, self.size = speech, model, size

    @torch.inference_mode()
    def encoded(self, sentences: Sequence[Sentence], seed: Sequence[int]) -> _Encoded:
        said = self.speech.spoken(sentences, np.random.default_rng(seed))
        return _Encoded(sentences, *self.model.encode(said.features, said.feature_lens))

    def found(self, data: _Encoded, scorer: PrefixScorer | None, beam: int, nbest: int) -> list[list[TokenHypothesis]]:
        if isinstance(self.model, Transducer):
            config = TransducerBeamConfig(beam=beam, nbest=nbest)
            return TransducerBeam(self.model, config, scorer).decode(data.f, data.lens)
        most = max(map(len, map(self.speech.labels, data.sentences))) + 10
        return AedBeam(self.model, AedBeamConfig(beam=beam, nbest=nbest, max_tokens=most), scorer).decode(
            data.f, data.lens
        )

    def errors(self, data: _Encoded, scorer: PrefixScorer | None) -> tuple[WordErrors, ...]:
        """Of the best answer to each utterance."""
        return tuple(
            self.speech.errors(sentence, nbest[0].tokens if nbest else ())
            for sentence, nbest in zip(data.sentences, self.found(data, scorer, self.size.beam, 1), strict=True)
        )

    def tuned(self, data: _Encoded, config: FusionConfig, lm: NgramLM, source: NgramLM | None) -> Tuning:
        def decode(weighted: FusionConfig) -> list[list[TokenHypothesis]]:
            first = weighted == config  # the list that all weights rank; those that it promises are searched as tested
            beam, nbest = (self.size.nbest, self.size.nbest) if first else (self.size.beam, 1)
            return self.found(data, fusion(self.model, lm, weighted, source), beam, nbest)

        def errors(number: int, tokens: tuple[int, ...]) -> WordErrors:
            return self.speech.errors(data.sentences[number], tokens)

        return tune(decode, errors, config)

    @torch.inference_mode()
    def perplexity(self, sentences: Sequence[Sentence]) -> float:
        """Of labels, by the internal language model."""
        found: list[Tensor] = []
        for sentence in sentences:
            labels = torch.tensor([self.speech.labels(sentence)])
            if isinstance(self.model, Transducer):
                g = self.model.predict(labels)[0, :-1]
                log_p = internal_log_p(self.model, g)
            else:
                log_p = self._decoder_log_p(labels[0])
            found.append(log_p.gather(1, labels[0][:, None])[:, 0])
        return float(torch.cat(found).mean().neg().exp())

    def _decoder_log_p(self, labels: Tensor) -> Tensor:
        assert isinstance(self.model, Aed)
        lm = DecoderLM(self.model)
        rows, state = lm.start(1)
        log_p = [rows]
        for label in labels[:-1]:
            rows, state = lm.advance(label[None], state)
            log_p.append(rows)
        return torch.cat(log_p)


# --- the verdict -----------------------------------------------------------------------------------------------------


def _result(scale: Scale, seed: int, size: Size, outcomes: Sequence[Outcome]) -> ClaimResult:
    by_kind = {kind: [own for own in outcomes if own.kind == kind] for kind in KINDS}
    transducers = by_kind["transducer"]
    over_shallow = {kind: _ratio(own, "target", ILME, SHALLOW) for kind, own in by_kind.items()}
    return ClaimResult(
        slug="ilme",
        statement="A language model of new text makes fewer errors when what the recogniser has learnt of its own "
        "domain's language is taken away.",
        scale=scale,
        baseline=f"transducer, {SHALLOW}",
        arms=tuple(
            Arm(f"{kind}, {method}", _figures(own, method, seed))
            for kind, own in by_kind.items()
            for method in (NONE, *METHODS)
        ),
        primary=Condition(
            f"the larger of: errors over {1 - FEWER:g} of shallow fusion's; 1 + upper end of the 95 % interval of the "
            "difference",
            max(over_shallow["transducer"] / (1 - FEWER), 1 + _difference(transducers, seed)[1]),
            "<=",
            1.0,
        ),
        secondary=(
            Condition(
                "errors in the old domain over shallow fusion's, a language model of that domain",
                _ratio(transducers, "source", ILME, SHALLOW),
                "<=",
                1 + MORE_IN_SOURCE,
            ),
            Condition("errors over shallow fusion's, encoder-decoder", over_shallow["encoder-decoder"], "<", 1.0),
            *(
                Condition(
                    f"perplexity of the internal language model on its own domain over that on the other, {kind}",
                    max(one.perplexity["source"] / one.perplexity["target"] for one in own),
                    "<",
                    1.0,
                )
                for kind, own in by_kind.items()
            ),
        ),
        samples={"tested utterances of each domain and language": size.test, "sentences of text": size.text},
        seeds=tuple(range(seed + TRIED, seed + TRIED + size.seeds)),
        data=(f"made-up speech, {size.train} utterances to train on; another language for every seed",),
        notes=(
            f"weights of every method: a list of {size.nbest} answers to {size.dev} recordings ranked anew, the best "
            "three cells searched",
            f"settings were chosen on languages of seeds below {TRIED}",
        ),
    )


def _total(outcomes: Sequence[Outcome], domain: Domain, method: str) -> WordErrors:
    return sum((one for own in outcomes for one in getattr(own, domain)[method]), WordErrors())


def _ratio(outcomes: Sequence[Outcome], domain: Domain, method: str, of: str) -> float:
    return _total(outcomes, domain, method).errors / max(1, _total(outcomes, domain, of).errors)


def _difference(outcomes: Sequence[Outcome], seed: int) -> tuple[float, float]:
    """The interval of the word error rate with the internal language model less that of shallow fusion."""
    ours, theirs = ([one for own in outcomes for one in own.target[method]] for method in (ILME, SHALLOW))
    return stats.paired_bootstrap(
        [one.errors for one in ours], [one.errors for one in theirs], [one.words for one in ours], seed=seed
    )


def _figures(outcomes: Sequence[Outcome], method: str, seed: int) -> tuple[Metric, ...]:
    figures = []
    for domain in DOMAINS:
        if method in getattr(outcomes[0], domain):
            utterances = [one for own in outcomes for one in getattr(own, domain)[method]]
            total = _total(outcomes, domain, method)
            interval = stats.bootstrap([one.errors for one in utterances], [one.words for one in utterances], seed=seed)
            name = f"word error rate, {'new' if domain == 'target' else 'old'} domain"
            figures.append(Metric.of(name, total.errors / total.words, count=total.words, interval=interval))
    if method in METHODS:
        for n, name in enumerate(("lm_weight", "ilm_weight")):
            figures.append(Metric(name, tuple(own.weights[method][n] for own in outcomes)))
    if method == ILME:
        for domain in DOMAINS:
            name = f"perplexity of the internal language model, {domain}"
            figures.append(Metric(name, tuple(own.perplexity[domain] for own in outcomes)))
    return tuple(figures)
