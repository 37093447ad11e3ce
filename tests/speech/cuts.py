"""Cuts for tests: tones on disk or in memory whose words have known times."""

from collections.abc import Sequence
from pathlib import Path

import lhotse
import numpy as np
import soundfile
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from wieldy.speech import corpus


def spoken(path: Path, seconds: float, text: str, *, rate: int = 16_000, speaker: str | None = None) -> Cut:
    """A tone over noise in a file, its words sharing the time evenly."""
    length = round(seconds * rate)
    rng = np.random.default_rng(length)
    samples = 0.3 * np.sin(np.arange(length) * 0.2) + rng.normal(0, 0.02, length)
    soundfile.write(path, samples, rate)
    recording = lhotse.Recording(
        id=path.stem,
        sources=[lhotse.AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=rate,
        num_samples=length,
        duration=length / rate,
    )
    return corpus.cut_of(recording, text, speaker=speaker, alignment={"word": shared_out(text.split(), seconds)})


def shared_out(words: Sequence[str], seconds: float) -> list[AlignmentItem]:
    each = seconds / max(1, len(words))
    return [AlignmentItem(word, round(i * each, 6), round(each, 6)) for i, word in enumerate(words)]
