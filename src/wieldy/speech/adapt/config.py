"""How a recogniser is adapted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from wieldy.errors import UsageError
from wieldy.speech.augment import AugmentConfig
from wieldy.speech.batches import BatchConfig
from wieldy.speech.corpora import HELD_OUT_VOICE, SAMPLE_RATE, VOICES, CorpusConfig

Method = Literal["tts", "lm-branch", "splice", "splice+tts"]
Part = Literal["encoder", "predictor", "joint"]
Unheard = Literal["phones", "tts", "skip", "error"]


@dataclass(frozen=True, kw_only=True)
class SpliceConfig:
    """How sentences are put together from recordings. Where no source is named, a default is rnnt-practical's."""

    variants: int = 3  # recordings of each sentence, >= 1
    covers: int = 3  # cheapest ways to put a sentence together, among which one is drawn, >= 1
    temperature: float = 0.5  # of that draw, in units of cost, >= 0; 0: the cheapest
    candidates: int = 8  # recordings of a run of words that are compared, >= 1; ours: time goes by its square
    longest: int = 16  # words taken in one piece, >= 1; ours: hardly a sentence has more in common with another
    oov: Unheard = "phones"  # words that nobody said: from runs of phones, by `voice`, or leave the sentence out
    voice: str = "slt"  # that speaks such words with oov tts, of `synthesize.voices()`
    crossfade_ms: float = 8.0  # in which one piece goes over into the next, >= 0; 5 to 10
    pause_ms: float = 80.0  # longest pause put between pieces of different recordings, >= 0
    min_snr_db: float | None = None  # recordings with less speech over noise are not used; None: all are
    sample_rate: int = SAMPLE_RATE  # Hz of the result, > 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.oov not in get_args(Unheard):
            raise UsageError(f"oov {self.oov!r}", hint=f"choose {', '.join(get_args(Unheard))}")
        for name, least in (
            *((name, 1) for name in ("variants", "covers", "candidates", "longest", "sample_rate")),
            *((name, 0) for name in ("temperature", "crossfade_ms", "pause_ms")),
        ):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Where no source is named, the default is that of rnnt-surpass-hybrid."""

    # tts: speak the text and train on that; splice: put it together from recordings and train on that; splice+tts: on
    # both; lm-branch: the predictor alone, on the text alone
    method: Method = "tts"
    update: tuple[Part, ...] = (
        "predictor",
        "joint",
    )  # but of lm-branch: what is trained; joint: with projections
    epochs: int = 2  # times that the text is gone through, >= 1; 1 to 3
    rate: float = 1e-4  # highest learning rate, > 0
    source_mix: float = 0.5  # what source recordings count in the loss, [0, 1); the new domain counts the rest
    kl_weight: float = 0.1  # but of lm-branch: of the divergence from the first model on source recordings, >= 0
    max_worse: float = 0.02  # relative growth of the error rate on source recordings that ends the training, >= 0
    voices: tuple[str, ...] = VOICES  # that speak the text in turn, of `synthesize.voices()`
    test_voice: str = HELD_OUT_VOICE  # speaks the lines that are kept for testing; none of `voices`
    sound: CorpusConfig = field(default_factory=CorpusConfig)  # how the text is spoken
    splice: SpliceConfig = field(default_factory=SpliceConfig)  # how it is put together
    augment: AugmentConfig | None = None  # of what is learnt, anew each time; None: as it is, ours
    # As in training a recogniser from nothing.
    batches: BatchConfig = field(default_factory=lambda: BatchConfig(max_lattice_nodes=50_000, max_utterances=32))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(f"method {self.method!r}", hint=f"choose {', '.join(get_args(Method))}")
        if not self.update or not set(self.update) <= set(get_args(Part)):
            raise UsageError(f"update is {self.update}", hint=f"name some of {', '.join(get_args(Part))}")
        for name, least in (("epochs", 1), ("kl_weight", 0), ("max_worse", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"it must be at least {least}")
        if not self.rate > 0:
            raise UsageError(f"rate is {self.rate}", hint="it must be above 0")
        if not 0 <= self.source_mix < 1:
            raise UsageError(f"source_mix is {self.source_mix}", hint="it lies in [0, 1)")
        if not self.voices or self.test_voice in self.voices:
            raise UsageError(
                f"voices {self.voices} and test_voice {self.test_voice!r}", hint="test with a voice that is not heard"
            )
