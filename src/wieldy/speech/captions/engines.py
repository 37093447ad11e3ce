"""Which engine makes the captions: `build` turns a config into a ready `StreamingEngine`."""

from __future__ import annotations

from dataclasses import dataclass, field

from wieldy.speech.captions import StreamingEngine
from wieldy.speech.captions.chunked import ChunkedConfig, ChunkedEngine
from wieldy.speech.recognize.engines import RecognitionConfig, trained_transducer
from wieldy.speech.recognize.engines import build as build_recognizer
from wieldy.speech.recognize.loop_guard import LoopGuardConfig


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """What recognises a stream, and how. Each part's own options are in its config."""

    # A beam of 5, best for recordings, costs a third more here and makes as many errors.
    recognition: RecognitionConfig = field(default_factory=lambda: RecognitionConfig(beam_size=1))
    chunked: ChunkedConfig = field(default_factory=ChunkedConfig)
    loop_guard: LoopGuardConfig = field(default_factory=LoopGuardConfig)
    offline: bool = False  # never download, not even a missing model


def build(config: CaptionConfig = CaptionConfig()) -> StreamingEngine:
    """Load the model into its engine. `MissingError` names what to run where it is not there."""
    recognizer = build_recognizer(config.recognition, offline=config.offline, workers=1)
    if trained_transducer(config.recognition):
        from wieldy.speech.captions.transducer import TransducerEngine
        from wieldy.speech.recognize.transducer import TransducerRecognizer

        assert isinstance(recognizer, TransducerRecognizer)
        return TransducerEngine(recognizer)
    return ChunkedEngine(recognizer, config.chunked, config.loop_guard, language=config.recognition.language)
