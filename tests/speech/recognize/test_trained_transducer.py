import json

import numpy as np
import pytest
import soxr
import torch

from wieldy.errors import InputError, UsageError
from wieldy.speech.captions.engines import CaptionConfig
from wieldy.speech.captions.engines import build as build_streaming
from wieldy.speech.captions.transducer import TransducerEngine, TransducerEngineConfig
from wieldy.speech.features import LogMelConfig
from wieldy.speech.networks.bilstm import BlstmConfig
from wieldy.speech.networks.lstm import LstmConfig
from wieldy.speech.networks.predictors import LstmPredictorConfig
from wieldy.speech.networks.transducer import Transducer, TransducerConfig
from wieldy.speech.recognize import RECOGNIZER_FILE, SAMPLE_RATE, Recognizer
from wieldy.speech.recognize.engines import RecognitionConfig, build
from wieldy.speech.recognize.transducer import TransducerRecognizer
from wieldy.speech.tokens import Tokenizer

FEATURES = LogMelConfig(mels=40)
TOKENIZER = Tokenizer.train(["turn the light on", "turn it off"], "word")


def recognizer(encoder=None, seed=1):
    """Untrained, but for joint weights large enough that it emits tokens now and then."""
    torch.manual_seed(seed)
    network = Transducer(
        TransducerConfig(
            vocabulary=len(TOKENIZER),
            input_dim=FEATURES.dim,
            encoder=encoder or LstmConfig(layers=2, hidden=128, projection=0),
            predictor=LstmPredictorConfig(embedding=64, hidden=64),
            joint=64,
        )
    )
    with torch.no_grad():
        network.encoder_projection.weight.mul_(10)
        network.joint.output.weight.mul_(10)
        network.joint.output.bias[0] += 7
    return TransducerRecognizer(network, FEATURES, TOKENIZER)


def sound(seconds=3.0, seed=0):
    """Tones of random pitch and level, ten a second."""
    rng = np.random.default_rng(seed)
    t = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
    tones = [10 ** rng.uniform(-4, -0.5) * np.sin(rng.uniform(600, 2e4) * t) for _ in range(round(10 * seconds))]
    return (np.concatenate(tones) + rng.normal(0, 1e-4, len(t) * len(tones))).astype(np.float32)


def timed(words):
    return [(word.text, pytest.approx(word.start, abs=1e-3)) for word in words]


def test_it_is_a_recognizer_and_hears_something():
    engine = recognizer()
    assert isinstance(engine, Recognizer)
    first, nothing, again = engine.transcribe([sound(), np.zeros(0, np.float32), sound()])
    assert first.words
    assert first == again
    assert nothing.words == ()
    starts = [word.start for word in first.words]
    assert starts == sorted(starts)
    assert all(0 <= word.start < word.end <= 3.0 and 0 < word.confidence <= 1 for word in first.words)


def test_a_folder_brings_it_back(tmp_path):
    engine = recognizer()
    engine.save(tmp_path, trained_on="noise")
    back = build(RecognitionConfig(model=str(tmp_path)))
    assert isinstance(back, TransducerRecognizer)
    assert back.heard(sound(), SAMPLE_RATE) == engine.heard(sound(), SAMPLE_RATE)
    assert back.features == FEATURES
    assert set(back.model_files) == {"model.safetensors"}
    assert json.loads((tmp_path / RECOGNIZER_FILE).read_text())["trained_on"] == "noise"


def test_captions_take_such_a_folder_too(tmp_path):
    recognizer().save(tmp_path)
    engine = build_streaming(CaptionConfig(recognition=RecognitionConfig(model=str(tmp_path))))
    assert isinstance(engine, TransducerEngine)
    assert engine.model_files


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"has no {RECOGNIZER_FILE}"):
        TransducerRecognizer.load(tmp_path)
    recognizer().save(tmp_path)
    (tmp_path / RECOGNIZER_FILE).write_text('{"format": "wieldy-transducer-1", "features": {"mel": 3}}')
    with pytest.raises(InputError, match="does not describe features"):
        TransducerRecognizer.load(tmp_path)
    (tmp_path / RECOGNIZER_FILE).write_text('{"format": "other"}')
    with pytest.raises(InputError, match="has the format 'other'"):
        TransducerRecognizer.load(tmp_path)


def test_parts_that_do_not_fit_are_refused():
    network = recognizer().network
    with pytest.raises(UsageError, match="takes 120 features"):
        TransducerRecognizer(network, LogMelConfig(), TOKENIZER)


@pytest.mark.parametrize("pieces", [1, 7, 40])
def test_a_stream_is_heard_as_the_whole_is(pieces):
    """Without a pause the search is one, so the words are those of the recording heard whole."""
    engine = TransducerEngine(recognizer(), TransducerEngineConfig(pause_ms=10**6, longest_ms=10**6))
    samples, committed = sound(), []
    for part in np.array_split(samples, pieces):
        heard = engine.push(part, 160)
        committed += heard.committed
    committed += engine.flush().committed
    # The stream also hears what the flush adds, silence for the network to look ahead to.
    whole = recognizer().heard(np.concatenate([samples, np.zeros(FEATURES.window, np.float32)]), SAMPLE_RATE)
    assert [(word.text, word.start) for word in committed] == timed(whole.words)
    assert len(committed) > 3


def test_sound_is_brought_to_the_rate_of_the_features():
    slow = TransducerRecognizer(
        recognizer().network, LogMelConfig(sample_rate=8000, window=200, hop=80, mels=40), TOKENIZER
    )
    assert slow.heard(sound(), SAMPLE_RATE) == slow.heard(soxr.resample(sound(), SAMPLE_RATE, 8000), 8000)
    engine = TransducerEngine(slow)
    for part in np.array_split(sound(), 9):
        engine.push(part, 160)
    engine.flush()  # what the resampler holds back comes out too
    assert engine._frames == pytest.approx(3.0 / 0.03, abs=1)


def test_words_are_final_after_a_pause_and_never_said_twice():
    engine = TransducerEngine(recognizer(), TransducerEngineConfig(pause_ms=90))
    seen, pauses = [], 0
    for part in np.array_split(sound(6.0, seed=1), 60):
        heard = engine.push(part, 100)
        seen += heard.committed
        pauses += heard.pause
        assert not (heard.pause and heard.partial)
    seen += engine.flush().committed
    assert pauses > 1
    starts = [word.start_ms for word in seen]
    assert starts == sorted(starts)


def test_a_search_without_a_pause_begins_afresh_in_time():
    engine = TransducerEngine(recognizer(), TransducerEngineConfig(pause_ms=10**6, longest_ms=500))
    heard = [engine.push(part, 100) for part in np.array_split(sound(4.0), 40)]
    assert sum(len(each.committed) for each in heard) > 3
    assert engine._search.partial()[0].tokens == () or engine._frames - engine._first <= 500 / 30 + 4


def test_what_hears_whole_recordings_only_cannot_caption():
    with pytest.raises(UsageError, match="hears whole recordings only"):
        TransducerEngine(recognizer(BlstmConfig()))
