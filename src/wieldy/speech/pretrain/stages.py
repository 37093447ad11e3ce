"""Train a small transducer in few steps where the times of words are known: what hears, then what decides, then all.

For experiments and closed vocabularies, where two thousand recordings and some minutes have to do: by the transducer
loss alone the same network still makes nine errors in ten words after as many steps. With hours of recordings and more
steps, `wieldy.speech.asr` is simpler.
"""

from __future__ import annotations

from dataclasses import dataclass

from wieldy.errors import UsageError
from wieldy.speech import asr
from wieldy.speech.networks.transducer import Transducer
from wieldy.speech.pretrain import AlignPretrainConfig, Target, pretrain
from wieldy.speech.tokens import Tokenizer
from wieldy.training.loop import Data, TrainConfig, train
from wieldy.training.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class StagesConfig:
    """Rates are highest learning rates, found on 1500 recordings of synthetic voices."""

    steps: int = 1600  # in all, >= 4: half for the encoder, a quarter for the rest, a quarter for all
    target: Target = "encoder"  # of the first stage, as in `AlignPretrainConfig`
    predictor_lm: bool = False  # likewise
    frame_shift_s: float = 0.03  # from one feature frame to the next, > 0 s
    encoder_rate: float = 4e-3  # by the tokens of frames, > 0
    rest_rate: float = 1e-2  # of predictor and joint, while the encoder stays, > 0
    rate: float = 4e-3  # of all, > 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 4:
            raise UsageError(f"steps is {self.steps}", hint="it must be at least 4")
        for name in ("frame_shift_s", "encoder_rate", "rest_rate", "rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="it must be above 0")


def train_in_stages(
    network: Transducer, data: Data, tokenizer: Tokenizer, config: StagesConfig = StagesConfig()
) -> Transducer:
    """A trained copy of `network`, on the CPU; the cuts in the batches of `data` have word times.

    Raises `InputError` as `pretrain` does.
    """
    first, second = config.steps // 2, config.steps // 4
    settings = AlignPretrainConfig(
        target=config.target,
        predictor_lm=config.predictor_lm,
        frame_shift_s=config.frame_shift_s,
        max_steps=first,
        lr=config.encoder_rate,
        cpu=True,
        seed=config.seed,
    )
    network = pretrain(network, data, tokenizer, config=settings).value
    # A random joint would spoil the encoder before it has learnt to listen to it.
    network.encoder.requires_grad_(False)
    train(network, data, asr.loss, _schedule(second, config.rest_rate, config.seed))
    network.encoder.requires_grad_(True)
    train(network, data, asr.loss, _schedule(config.steps - first - second, config.rate, config.seed))
    return network.eval()


def _schedule(steps: int, rate: float, seed: int) -> TrainConfig:
    return TrainConfig(steps=steps, schedule=Schedule(peak=rate, shape="cosine", warmup=0.05), cpu=True, seed=seed)
