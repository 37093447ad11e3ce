"""The recogniser that comes with wieldy, on a synthetic voice; its card says how it does on people."""

import pytest

from wieldy import weights
from wieldy.metrics.text import word_errors
from wieldy.speech import synthesize
from wieldy.speech.audio import Recording
from wieldy.speech.captions import CaptionSession
from wieldy.speech.captions.engines import CaptionConfig, build
from wieldy.speech.recognize.engines import RecognitionConfig
from wieldy.speech.recognize.transducer import TransducerRecognizer

SAID = "seven three nine zero one eight four two six five three three"


@pytest.fixture(scope="module")
def spoken():
    if not any(voice.name == "heart" for voice in synthesize.voices()):
        pytest.skip("the voice engine hibari is not installed")
    speech = synthesize.say(SAID, "heart")
    recording = Recording.from_array(speech.samples, speech.sample_rate)
    return recording.read(0, recording.duration_ms)


def test_it_hears_digits_live(spoken):
    session = CaptionSession(build(CaptionConfig(recognition=RecognitionConfig(model="digits-commands"), offline=True)))
    for start in range(0, len(spoken), 1600):
        session.push(spoken[start : start + 1600])
    heard = [word.text for word in session.finish().words]
    assert word_errors(SAID.split(), heard).errors <= 1


def test_it_is_small_and_its_card_has_its_error_on_people():
    folder = weights.locate("digits-commands", offline=True)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    pieces = TransducerRecognizer.load(folder).tokenizer.pieces[1:]
    assert all(piece.removeprefix("▁") in card for piece in pieces)
    assert " ".join(card.split()).count("n = ") == 6  # synthetic voices and five people
