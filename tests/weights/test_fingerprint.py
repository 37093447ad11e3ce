"""The hashes of weights that reports carry."""

from wieldy.weights import fingerprint
from wieldy.weights.registry import registry


def test_the_pinned_recogniser_has_its_registered_hash(whisper_tiny):
    registered = {file.name: file.sha256 for file in registry()["whisper-tiny.en"].files}
    assert fingerprint(whisper_tiny) == {"model.bin": registered["model.bin"]}
