"""Which engine runs which model: `build` turns a model name and an engine choice into a ready `Recognizer`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from wieldy import weights
from wieldy.errors import MissingError, UsageError
from wieldy.speech.recognize import RECOGNIZER_FILE, EngineName, Recognizer
from wieldy.speech.recognize.vocabulary import VocabularyConfig

DEFAULT_MODEL = "whisper-tiny.en"
MULTILINGUAL_MODEL = "large-v3-turbo"  # what the error for other languages recommends


@dataclass(frozen=True, kw_only=True)
class RecognitionConfig:
    """What recognises, and how. Model and engine are separate choices: most engines run most Whisper models."""

    model: str = DEFAULT_MODEL  # name in `wieldy models list`, faster-whisper or hub name, or a local folder
    engine: EngineName = "auto"  # auto: faster-whisper, or transformers where there is a vocabulary
    language: str | None = None  # code such as "de"; None: English with an English-only model, else detected
    beam_size: int = 5  # hypotheses kept while decoding, >= 1; Whisper's own default
    threads: int | None = None  # cores to use; None: all
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)  # words to expect

    def __post_init__(self) -> None:
        if self.engine not in get_args(EngineName):
            raise UsageError(f"--engine {self.engine}", hint=f"choose one of {', '.join(get_args(EngineName))}")
        if self.language is not None and not re.fullmatch("[a-z]{2,3}", self.language):
            raise UsageError(f"--language {self.language}", hint="give a code of two or three letters, such as en")
        if self.beam_size < 1:
            raise UsageError(f"beam_size is {self.beam_size}", hint="it must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads {self.threads}", hint="it must be at least 1")


def choose_engine(config: RecognitionConfig) -> tuple[EngineName, str]:
    """The engine that will run, and one line saying why where it was our choice and not the obvious one."""
    if config.engine != "auto":
        if config.vocabulary and config.engine != "transformers":
            raise UsageError(
                f"--engine {config.engine} cannot be told which words to expect",
                hint="leave --engine at auto or choose transformers",
            )
        return config.engine, ""
    if config.vocabulary:
        return "transformers", "engine transformers: faster-whisper cannot be told which words to expect"
    return "faster-whisper", ""


def build(
    config: RecognitionConfig = RecognitionConfig(), *, offline: bool = False, workers: int | None = None
) -> Recognizer:
    """Load the model into its engine. `MissingError` names what to run where model or engine is not there.

    `workers` is how many stretches faster-whisper decodes at once, by default one per core: 1 is slower in all, but
    faster for a single stretch.
    """
    engine, _ = choose_engine(config)
    recognizer: Recognizer
    if config.engine == "auto" and (folder := trained_transducer(config)):
        from wieldy.speech.recognize.transducer import TransducerRecognizer

        recognizer = TransducerRecognizer.load(folder, model_id=config.model, vocabulary=config.vocabulary)
    elif engine == "pocketsphinx":
        from wieldy.speech.recognize.pocketsphinx import PocketSphinx

        recognizer = PocketSphinx()
    elif engine == "transformers":
        from wieldy.speech.recognize.transformers import TransformersRecognizer

        folder = weights.as_transformers(weights.locate(config.model, offline=offline))
        recognizer = TransformersRecognizer(
            folder,
            model_id=config.model,
            language=config.language,
            beam_size=config.beam_size,
            threads=config.threads,
            vocabulary=config.vocabulary,
        )
    else:
        from wieldy.speech.recognize.faster_whisper import FasterWhisper

        folder = weights.as_ctranslate2(weights.locate(config.model, offline=offline))
        recognizer = FasterWhisper(
            folder,
            model_id=config.model,
            language=config.language,
            beam_size=config.beam_size,
            threads=config.threads,
            workers=workers,
        )
    languages = recognizer.capabilities.languages
    if config.language is None or languages is None or config.language in languages:
        return recognizer
    if len(languages) > 1:
        raise UsageError(
            f"model {config.model} does not know language {config.language!r}", hint=f"it knows {', '.join(languages)}"
        )
    raise MissingError(
        f"model {config.model} knows no language but {languages[0]!r}, not {config.language!r}",
        hint=f"run: wieldy models get {MULTILINGUAL_MODEL}, then use --model {MULTILINGUAL_MODEL}",
    )


def trained_transducer(config: RecognitionConfig) -> Path | None:
    """The folder of a recogniser of `wieldy train asr`, where that is what the config's model is."""
    folder = weights.where(config.model)
    return folder if folder and (folder / RECOGNIZER_FILE).is_file() else None
