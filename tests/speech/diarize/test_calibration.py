"""The default diariser's constants are those the calibration found."""

import json
from importlib.resources import files

from wieldy.speech.diarize.dvector import DVectorConfig


def test_the_defaults_are_the_calibrated_constants() -> None:
    text = (files("wieldy.speech.diarize") / "dvector_calibration.json").read_text(encoding="utf-8")
    constants = json.loads(text)["constants"]
    assert set(constants) == {"enough", "kept", "max_likeness", "prior_pairs", "sharpness", "stay"}
    config = DVectorConfig()
    assert {name: getattr(config, name) for name in constants} == constants
