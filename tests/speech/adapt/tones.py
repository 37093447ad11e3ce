"""Speech of tones, a letter each, which a tiny recogniser learns in a second."""

import io
import re
from collections.abc import Sequence

import lhotse
import numpy as np
import soundfile
import torch
from lhotse.cut import Cut, CutSet
from lhotse.supervision import AlignmentItem

from wieldy.speech import asr, corpus
from wieldy.speech.batches import BatchConfig, Batches
from wieldy.speech.features import LogMelConfig
from wieldy.speech.networks.lstm import LstmConfig
from wieldy.speech.networks.predictors import LstmPredictorConfig
from wieldy.speech.networks.transducer import Transducer, TransducerConfig
from wieldy.speech.recognize.transducer import TransducerRecognizer
from wieldy.speech.tokens import Tokenizer
from wieldy.training.loop import TrainConfig, train
from wieldy.training.schedules import Schedule

RATE = 8000
FEATURES = LogMelConfig(sample_rate=RATE, window=200, hop=80, mels=20, stack=3)
LETTER = 720  # samples: three frames
SOURCE = [f"{one} {other}" for one in ("ab", "ba", "aab", "b", "abb") for other in ("b", "c", "bc", "ba")]
DOMAIN = [
    f"{one} {other}"
    for one in ("ca", "cab", "ac", "cca", "bac", "aca", "acc", "caa", "cac")
    for other in ("cab", "ac", "caca", "b", "aac")
]


def spoken(lines: Sequence[str], name: str = "tone") -> CutSet:
    """Each line as tones after one another."""
    return CutSet.from_cuts(_cut(f"{name}-{i}", line, i) for i, line in enumerate(lines))


def _cut(name: str, line: str, seed: int) -> Cut:
    t = np.arange(LETTER)
    hertz = {" ": 0, "a": 400, "b": 1000, "c": 2000}
    tones = [0.2 * np.sin(2 * np.pi * hertz[letter] / RATE * t) for letter in f" {line} "]
    samples = np.concatenate(tones) + np.random.default_rng(seed).normal(0, 0.003, LETTER * len(tones))
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    recording = lhotse.Recording(
        id=name,
        sources=[lhotse.AudioSource(type="memory", channels=[0], source=file.getvalue())],
        sampling_rate=RATE,
        num_samples=len(samples),
        duration=len(samples) / RATE,
    )
    letter_s = LETTER / RATE
    words = [
        AlignmentItem(found.group(), round((1 + found.start()) * letter_s, 5), round(len(found.group()) * letter_s, 5))
        for found in re.finditer(r"\w+", line)
    ]
    return corpus.cut_of(recording, line, speaker="tone", alignment={"word": words})


def recognizer(steps: int) -> TransducerRecognizer:
    """One that has been trained for some steps on `SOURCE`: the letter c, but never beside an a."""
    tokenizer = Tokenizer.train(["abc abc"], "char")
    torch.manual_seed(0)
    network = Transducer(
        TransducerConfig(
            vocabulary=len(tokenizer),
            input_dim=FEATURES.dim,
            encoder=LstmConfig(layers=1, hidden=24, projection=0),
            predictor=LstmPredictorConfig(embedding=8, hidden=8),
            joint=16,
        )
    )
    data = Batches(spoken(SOURCE), FEATURES, tokenizer, BatchConfig(max_utterances=10))
    network.measure_features_((batch.features, batch.feature_lens) for batch in data.epoch(0))
    if steps:
        train(network, data, asr.loss, TrainConfig(steps=steps, schedule=Schedule(peak=2e-2, shape="cosine"), cpu=True))
    return TransducerRecognizer(network, FEATURES, tokenizer, model_id="tones")
