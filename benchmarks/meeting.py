"""The meeting that several benchmarks work on, made by its recipe and kept in the user's cache."""

from __future__ import annotations

from pathlib import Path

from wieldy.cache import cache_root
from wieldy.speech import formats, simulate
from wieldy.speech.transcript import Transcript

RECIPE = simulate.MeetingRecipe(
    voices=("heart", "slt", "rms", "awb"), minutes=10.5, overlap=0.1, noise_db=20.0, seed=20, name="meeting"
)
DATA = f"a generated meeting of {RECIPE.minutes:g} min, voices {', '.join(RECIPE.voices)}, 10 % overlap, noise 20 dB"


def recording() -> Path:
    """The FLAC file. Raises `MissingError` where a voice is not installed."""
    audio, _ = simulate.meeting(RECIPE).save(cache_root() / "benchmarks" / "meeting.flac")
    return audio


def truth(audio: Path) -> Transcript:
    """What is said in it, by whom and when."""
    return formats.read(audio.with_suffix(".json"))
