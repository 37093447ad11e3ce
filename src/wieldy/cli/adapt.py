"""`wieldy adapt MODEL --text FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from wieldy.cli.options import File
from wieldy.cli.output import progress_bar, say, show
from wieldy.errors import MissingError, UsageError

Model = Positional[Annotated[Path, arg(metavar="MODEL", help_behavior_hint="")]]
Text = Annotated[Path, arg(metavar="FILE|DIR")]
OutFolder = Annotated[Path, arg(metavar="DIR")]


@dataclass(frozen=True)
class Adapt:
    """Teach a recogniser a domain of which there is only text.

    MODEL is the folder of a recogniser that was trained with `wieldy train asr`; it stays as it is. The text is written
    like the transcripts it was trained on, a sentence a line.
    """

    model: Model
    """Folder of the recogniser."""
    text: Text
    """The sentences: a file, or a folder of .txt files."""
    out: OutFolder
    """Folder for the adapted recogniser and the report on it."""
    method: Literal["tts", "lm-branch", "splice", "splice+tts"] = "tts"
    """tts: synthetic voices speak the text. splice: it is put together from your recordings. splice+tts: both.
    lm-branch: without any sound, for a smaller gain."""
    recordings: File = None
    """Recordings with word times that method splice takes words from; by default those of --source."""
    source: File = None
    """Recordings with transcripts of what it knew before, as for `wieldy train`: it must go on doing well on them."""
    update: tuple[Literal["encoder", "predictor", "joint"], ...] = ("predictor", "joint")
    """Parts of the recogniser that are trained, but by lm-branch."""
    epochs: int = 2
    """Times that the text is gone through."""
    rate: float = 1e-4
    """Highest learning rate."""
    seed: int = 0
    """Another seed, other sentences to test on."""

    def run(self) -> int:
        try:
            from wieldy.speech.adapt import AdaptConfig, adapt, read_text
            from wieldy.speech.corpus import read_manifest
            from wieldy.speech.recognize.transducer import TransducerRecognizer
        except ModuleNotFoundError as error:
            raise MissingError(f"adapting needs {error.name}", hint="pip install 'wieldy[torch]'") from error
        if (self.out / "config.json").exists():
            raise UsageError(f"{self.out} holds a model already", hint="choose another folder with --out")
        config = AdaptConfig(method=self.method, update=self.update, epochs=self.epochs, rate=self.rate, seed=self.seed)
        recognizer, texts = TransducerRecognizer.load(self.model), read_text(self.text)
        source, pieces = (None if path is None else read_manifest(path) for path in (self.source, self.recordings))
        with progress_bar(self.out.name) as progress:
            adapted, report = adapt(recognizer, texts, source=source, pieces=pieces, config=config, progress=progress)
        adapted.save(self.out, adapted=report.to_json()["metrics"])
        report.save(self.out)
        show(report)
        say(f"wrote {self.out}; now: wieldy captions FILE --model {self.out}")
        return 0
