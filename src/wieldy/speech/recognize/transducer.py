"""A transducer trained with `wieldy train asr`, as an engine for `transcribe`.

A folder holds all of it: the network (`config.json`, `model.safetensors`), how sound becomes features
(`recognizer.json`) and the word pieces (`tokens.model`). Nothing in it is executed. Words have the times at which the
network emitted them, which is a little after they were said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from wieldy.cache import write_text
from wieldy.errors import InputError, UsageError
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig
from wieldy.speech.features import LogMelConfig, log_mel
from wieldy.speech.networks.transducer import Transducer
from wieldy.speech.recognize import RECOGNIZER_FILE, SAMPLE_RATE, Capabilities, HeardWord, Hypothesis
from wieldy.speech.tokens import Tokenizer
from wieldy.weights import fingerprint
from wieldy.weights.folders import read_json

TOKENS_FILE = "tokens.model"
_FORMAT = "wieldy-transducer-1"


class TransducerRecognizer:
    """A trained transducer with its features and word pieces; a `Recognizer`."""

    name = "transducer"
    capabilities = Capabilities(
        word_times=True, token_scores=True, written_form=False, avoids_repeats=False, languages=None
    )

    def __init__(
        self,
        network: Transducer,
        features: LogMelConfig,
        tokenizer: Tokenizer,
        *,
        beam: TransducerBeamConfig = TransducerBeamConfig(),
        model_id: str = "transducer",
        model_files: Mapping[str, str] | None = None,
        language: str = "en",
    ) -> None:
        if network.config.input_dim != features.dim or network.vocab != len(tokenizer):
            raise UsageError(
                f"the network takes {network.config.input_dim} features and predicts {network.vocab} tokens, "
                f"but there are {features.dim} and {len(tokenizer)}"
            )
        self.network, self.features, self.tokenizer = network.eval(), features, tokenizer
        self.beam = TransducerBeam(network, beam)
        self.model_id, self.model_files = model_id, model_files or {}
        self.language = language

    @classmethod
    def load(
        cls, folder: Path | str, *, beam: TransducerBeamConfig = TransducerBeamConfig(), model_id: str | None = None
    ) -> TransducerRecognizer:
        """What `save` wrote. `InputError` says which file is missing or is something else."""
        folder = Path(folder)
        about = read_json(folder / RECOGNIZER_FILE)
        if about.get("format") != _FORMAT:
            raise InputError(f"{folder / RECOGNIZER_FILE} has the format {about.get('format')!r}, not {_FORMAT!r}")
        try:
            features, language = LogMelConfig(**about["features"]), str(about["language"])
        except (KeyError, TypeError, UsageError) as error:
            raise InputError(f"{folder / RECOGNIZER_FILE} does not describe features: {error}") from error
        return cls(
            Transducer.load(folder),
            features,
            Tokenizer.load(folder / TOKENS_FILE),
            beam=beam,
            model_id=model_id or folder.name,
            model_files=fingerprint(folder),
            language=language,
        )

    def save(self, folder: Path | str, **about: Any) -> None:
        """Write the folder. `about` is added to `recognizer.json`: what it was trained on, how well it does."""
        folder = Path(folder)
        self.network.save(folder)
        self.tokenizer.save(folder / TOKENS_FILE)
        data = {"format": _FORMAT, "features": asdict(self.features), "language": self.language, **about}
        write_text(folder / RECOGNIZER_FILE, json.dumps(data, indent=2) + "\n")

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        """One hypothesis per stretch of audio. It cannot avoid repeats, and says so in its capabilities."""
        if avoid_repeats:
            raise UsageError(f"{self.name} cannot avoid repeats")
        for samples in audio:
            yield self.heard(samples, SAMPLE_RATE)

    @torch.inference_mode()
    def heard(self, samples: np.ndarray, sample_rate: int) -> Hypothesis:
        """The best hypothesis of mono samples [n], which may be empty."""
        if sample_rate != self.features.sample_rate:
            samples = soxr.resample(samples, sample_rate, self.features.sample_rate)
        frames = log_mel(samples, self.features)
        if not len(frames):
            return Hypothesis((), self.language)
        x = torch.from_numpy(frames)[None]
        f, lens = self.network.encode(x, torch.tensor([len(frames)]))
        best = self.beam.decode(f, lens)[0][0]
        return Hypothesis(
            tuple(self.words(best)), self.language, best.acoustic / len(best.tokens) if best.tokens else None
        )

    @property
    def frame_s(self) -> float:
        """Seconds from one frame of the encoder to the next."""
        return self.features.frame_s * self.network.encoder.subsampling

    def words(
        self, best: TokenHypothesis, first: int = 0, last: int | None = None, offset_s: float = 0.0
    ) -> list[HeardWord]:
        """The words of tokens `first` to before `last`, with the times their tokens were emitted at, in seconds, frame
        0 lying at `offset_s`. A word is as sure as the least sure of its tokens."""
        last = len(best.tokens) if last is None else last
        starts = [i for i in range(first, last) if self.tokenizer.begins_word(best.tokens[i]) or i == first]
        words = []
        for start, end in zip(starts, [*starts[1:], last][: len(starts)], strict=True):
            confidence = float(np.exp(best.features.log_prob[start:end].min())) if best.features else None
            words.append(
                HeardWord(
                    self.tokenizer.decode(best.tokens[start:end]),
                    offset_s + best.frames[start] * self.frame_s,
                    offset_s + (best.frames[end - 1] + 1) * self.frame_s,
                    confidence,
                )
            )
        return words
