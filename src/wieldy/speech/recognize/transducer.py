"""A transducer trained with `wieldy train asr`, as an engine for `transcribe`.

A folder holds all of it: the network (`config.json`, `model.safetensors`), how sound becomes features
(`recognizer.json`) and the word pieces (`tokens.model`). Nothing in it is executed. Words have the times at which the
network emitted them, which is a little after they were said, and are as sure as the least likely of their tokens; a
recogniser that was taught better (`decode.learn_times`, `decode.learn_confidence`) keeps that in its folder, too.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from wieldy.cache import write_text
from wieldy.errors import InputError, UsageError
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.decode.confidence import Confidence
from wieldy.speech.decode.frame_branch import Tap
from wieldy.speech.decode.transducer_beam import TransducerBeam, TransducerBeamConfig
from wieldy.speech.decode.word_times import Said, Timing
from wieldy.speech.features import LogMelConfig, log_mel
from wieldy.speech.networks.transducer import Transducer
from wieldy.speech.recognize import RECOGNIZER_FILE, SAMPLE_RATE, Capabilities, HeardWord, Hypothesis
from wieldy.speech.recognize.vocabulary import VocabularyConfig
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
        timing: Timing | None = None,
        confidence: Confidence | None = None,
        vocabulary: VocabularyConfig = VocabularyConfig(),
    ) -> None:
        if network.config.input_dim != features.dim or network.vocab != len(tokenizer):
            raise UsageError(
                f"the network takes {network.config.input_dim} features and predicts {network.vocab} tokens, "
                f"but there are {features.dim} and {len(tokenizer)}"
            )
        self.network, self.features, self.tokenizer = network.eval(), features, tokenizer
        if confidence is not None:
            beam = replace(beam, nbest=max(beam.nbest, min(confidence.nbest, beam.beam)))
        self.vocabulary = vocabulary
        self.beam = TransducerBeam(network, beam, vocabulary.scorer(tokenizer) if vocabulary else None)
        self.timing, self.confidence = timing, confidence
        self.model_id, self.model_files = model_id, model_files or {}
        self.language = language

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        beam: TransducerBeamConfig = TransducerBeamConfig(),
        model_id: str | None = None,
        vocabulary: VocabularyConfig = VocabularyConfig(),
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
            timing=Timing.load(folder) if Timing.in_folder(folder) else None,
            confidence=Confidence.load(folder) if Confidence.in_folder(folder) else None,
            vocabulary=vocabulary,
        )

    def changed(self, **parts: Any) -> TransducerRecognizer:
        """The same with other parts, named as when it is made."""
        own = {
            "network": self.network,
            "features": self.features,
            "tokenizer": self.tokenizer,
            "beam": self.beam.config,
            "model_id": self.model_id,
            "model_files": {} if "network" in parts else self.model_files,
            "language": self.language,
            "timing": self.timing,
            "confidence": self.confidence,
            "vocabulary": self.vocabulary,
        }
        return TransducerRecognizer(**{**own, **parts})

    def save(self, folder: Path | str, **about: Any) -> None:
        """Write the folder. `about` is added to `recognizer.json`: what it was trained on, how well it does."""
        folder = Path(folder)
        self.network.save(folder)
        self.tokenizer.save(folder / TOKENS_FILE)
        data = {"format": _FORMAT, "features": asdict(self.features), "language": self.language, **about}
        if self.timing:
            self.timing.save(folder)
        if self.confidence:
            self.confidence.save(folder)
        write_text(folder / RECOGNIZER_FILE, json.dumps(data, indent=2) + "\n")

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        """One hypothesis per stretch of audio. It cannot avoid repeats, and says so in its capabilities."""
        if avoid_repeats:
            raise UsageError(f"{self.name} cannot avoid repeats")
        for samples in audio:
            yield self.heard(samples, SAMPLE_RATE)

    def heard(self, samples: np.ndarray, sample_rate: int) -> Hypothesis:
        """The best hypothesis of mono samples [n], which may be empty."""
        nbest, tapped = self.searched(samples, sample_rate)
        if not nbest:
            return Hypothesis((), self.language)
        best = nbest[0]
        words = self.placed(self.words(best), best, tapped)
        if self.confidence:
            words = self.confidence.marked(words, self.confidence.seen(self, nbest, words))
        return Hypothesis(tuple(words), self.language, best.acoustic / len(best.tokens) if best.tokens else None)

    @torch.inference_mode()
    def searched(self, samples: np.ndarray, sample_rate: int) -> tuple[list[TokenHypothesis], torch.Tensor | None]:
        """The N-best list of mono samples [n], empty for less than a frame of them, and the frames [1, T, D] that word
        times are made of."""
        if sample_rate != self.features.sample_rate:
            samples = soxr.resample(samples, sample_rate, self.features.sample_rate)
        frames = log_mel(samples, self.features)
        if not len(frames):
            return [], None
        x, lens = torch.from_numpy(frames)[None], torch.tensor([len(frames)])
        with contextlib.ExitStack() as stack:
            tap = stack.enter_context(Tap(self.network, self.timing.tap)) if self.timing else None
            f, f_lens = self.network.encode(x, lens)
        return self.beam.decode(f, f_lens)[0], tap.taken() if tap else None

    @property
    def frame_s(self) -> float:
        """Seconds from one frame of the encoder to the next."""
        return self.features.frame_s * self.network.encoder.subsampling

    def said(self, best: TokenHypothesis) -> Said:
        """The words of a hypothesis with the tokens and frames that they are made of."""
        starts = [i for i, token in enumerate(best.tokens) if self.tokenizer.begins_word(token) or not i]
        pieces = zip(starts, [*starts, len(best.tokens)][1:], strict=True)
        words = [(self.tokenizer.decode(best.tokens[first:after]).strip(), first) for first, after in pieces]
        # A character tokenizer begins words with a blank, behind which nothing may have come.
        kept = [(word, first) for word, first in words if word]
        return Said(tuple(word for word, _ in kept), tuple(first for _, first in kept), best.tokens, best.frames)

    def placed(self, words: list[HeardWord], best: TokenHypothesis, tapped: torch.Tensor | None) -> list[HeardWord]:
        """The words of a hypothesis with the times of `timing`; those that it cannot tell keep theirs."""
        if self.timing is None or tapped is None:
            return words
        times = self.timing.times(self.said(best), tapped)
        return [
            word if time.start_s is None else replace(word, start=time.start_s, end=time.end_s)
            for word, time in zip(words, times, strict=True)
        ]

    def words(
        self, best: TokenHypothesis, first: int = 0, last: int | None = None, offset_s: float = 0.0
    ) -> list[HeardWord]:
        """The words of tokens `first` to before `last`, with the times their tokens were emitted at, in seconds, frame
        0 lying at `offset_s`. A word is as sure as the least sure of its tokens."""
        last = len(best.tokens) if last is None else last
        starts = [i for i in range(first, last) if self.tokenizer.begins_word(best.tokens[i]) or i == first]
        words = []
        for start, end in zip(starts, [*starts[1:], last][: len(starts)], strict=True):
            text = self.tokenizer.decode(best.tokens[start:end]).strip()
            if not text:
                continue
            confidence = float(np.exp(best.features.log_prob[start:end].min())) if best.features else None
            words.append(
                HeardWord(
                    text,
                    offset_s + best.frames[start] * self.frame_s,
                    offset_s + (best.frames[end - 1] + 1) * self.frame_s,
                    confidence,
                )
            )
        return words
