"""Adaptation by synthetic speech: the text is spoken, and the transducer loss teaches all but the encoder.

Rui Zhao, Jinyu Li et al. find this the best of the ways in arXiv 2007.15188: what a synthetic voice sounds like is kept
from the encoder, and what it says reaches predictor and joint together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from lhotse.cut import CutSet
from torch import Tensor, nn

from wieldy.speech import corpora
from wieldy.speech.adapt.config import AdaptConfig, Part
from wieldy.speech.adapt.recordings import Pair, Pairs, Recordings
from wieldy.speech.batches import Batch
from wieldy.speech.losses.divergence import Lattice, lattice_divergence
from wieldy.speech.losses.transducer import transducer_loss
from wieldy.speech.networks.transducer import Transducer
from wieldy.training.loop import TrainConfig, train
from wieldy.training.schedules import Schedule

PARTS: dict[Part, tuple[str, ...]] = {
    "encoder": ("encoder",),
    "predictor": ("predictor",),
    "joint": ("encoder_projection", "predictor_projection", "joint"),
}


def speak(lines: tuple[str, ...], voices: tuple[str, ...], config: AdaptConfig) -> CutSet:
    """The lines, spoken by the voices in turn; in the cache where they were spoken before."""
    return corpora.spoken(lines, voices, config.sound)


def freeze_(network: Transducer, trained: tuple[Part, ...]) -> int:
    """Let only these parts be trained, and count their parameters."""
    network.requires_grad_(False)
    for name in (name for part in trained for name in PARTS[part]):
        network.get_submodule(name).requires_grad_(True)
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def train_on_speech(
    network: Transducer,
    domain: Recordings,
    source: Recordings | None,
    config: AdaptConfig,
    *,
    steps: int,
    progress: Callable[[int], None],
) -> None:
    """Train what `freeze_` left of `network` for `steps` steps, `progress` being called after each."""
    first = copy.deepcopy(network).requires_grad_(False).eval()

    def lattice(model: Transducer, data: Recordings, batch: Batch) -> tuple[Lattice, Tensor]:
        y, lens = data.hear(model, batch)
        return Lattice(model.encoder_projection(y), model.predict(batch.targets), model.joint), lens

    def loss_in(own: Lattice, batch: Batch, lens: Tensor) -> Tensor:
        return transducer_loss(own.f, own.g, own.joint, batch.targets, lens, batch.target_lens)

    def loss(model: nn.Module, pair: Pair) -> Tensor:
        assert isinstance(model, Transducer)
        device = model.feature_mean.device
        spoken, recorded = pair[0].to(device), pair[1] and pair[1].to(device)
        own, lens = lattice(model, domain, spoken)
        total = loss_in(own, spoken, lens)
        if source is None or recorded is None:
            return total
        own, lens = lattice(model, source, recorded)
        total = (1 - config.source_mix) * total + config.source_mix * loss_in(own, recorded, lens)
        if config.kl_weight:
            with torch.no_grad():
                was, _ = lattice(first.to(device), source, recorded)
            apart = lattice_divergence(was, own, recorded.targets, lens, recorded.target_lens)
            total = total + config.kl_weight * apart
        return total

    settings = TrainConfig(steps=steps, schedule=Schedule(peak=config.rate, shape="cosine"), seed=config.seed)
    train(network, Pairs(domain, source), loss, settings, progress=lambda step, _: progress(step))
