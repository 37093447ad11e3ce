"""How a recogniser is adapted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from wieldy.errors import UsageError
from wieldy.speech.batches import BatchConfig
from wieldy.speech.corpora import HELD_OUT_VOICE, VOICES, CorpusConfig

Method = Literal["tts", "lm-branch"]
Part = Literal["encoder", "predictor", "joint"]


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Where no source is named, the default is that of rnnt-surpass-hybrid."""

    method: Method = "tts"  # tts: speak the text and train on that; lm-branch: the predictor alone, on the text alone
    update: tuple[Part, ...] = ("predictor", "joint")  # what method tts trains; the joint with its projections
    epochs: int = 2  # times that the text is gone through, >= 1; 1 to 3
    rate: float = 1e-4  # highest learning rate, > 0
    source_mix: float = 0.5  # what source recordings count in the loss, [0, 1); the new domain counts the rest
    kl_weight: float = 0.1  # of tts: what the divergence from the first model counts, on source recordings, >= 0
    max_worse: float = 0.02  # relative growth of the error rate on source recordings that ends the training, >= 0
    voices: tuple[str, ...] = VOICES  # that speak the text in turn, of `synthesize.voices()`
    test_voice: str = HELD_OUT_VOICE  # speaks the lines that are kept for testing; none of `voices`
    sound: CorpusConfig = field(default_factory=CorpusConfig)  # how the text is spoken
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
