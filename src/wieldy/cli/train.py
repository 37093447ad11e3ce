"""`wieldy train asr MANIFEST`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from wieldy.cli.options import Text
from wieldy.cli.output import progress_bar, say, show
from wieldy.errors import MissingError, UsageError

Manifest = Positional[Annotated[Path, arg(metavar="MANIFEST", help_behavior_hint="")]]
OutFolder = Annotated[Path, arg(metavar="DIR")]


@dataclass(frozen=True)
class Train:
    """Train a streaming recogniser (asr) on recordings with transcripts.

    MANIFEST is a lhotse manifest, a folder with transcripts.tsv, a folder of recordings with a .txt file beside each,
    or, with --named, a folder of recordings that are named by what is said in them: 7_anna_0.wav, turn-on_ben_3.wav.
    Then: wieldy captions FILE --model DIR
    """

    kind: Positional[Literal["asr"]]
    """What to train: asr, a recogniser."""
    manifest: Manifest
    """Where the recordings are listed, or the folder they are in."""
    out: OutFolder
    """Folder for the recogniser and the report on its training."""
    preset: Literal["tiny", "small", "large"] = "small"
    """Size of the network: tiny for a few dozen words, small for a laptop, large with a GPU."""
    named: bool = False
    """Recordings are named by what is said in them, and by whom: 7_anna_0.wav."""
    join: int = 1
    """Up to this many recordings of a speaker are joined to one utterance. For recordings of single words."""
    synthetic: int = 0
    """So many utterances of the same texts by synthetic voices are trained on too. For recordings of few people."""
    held_out: Text = None
    """A speaker who is not trained on; the report says how well the recogniser does on them."""
    steps: int = 2000
    """Steps of training."""
    rate: float = 2e-3
    """Highest learning rate."""
    strict: bool = False
    """A recording that cannot be used is an error. Default: it is left out and listed."""
    resume: bool = False
    """Go on where an interrupted training into the same folder stopped."""
    seed: int = 0
    """Another seed, another recogniser."""

    def run(self) -> int:
        try:
            from wieldy.speech.asr import AsrConfig, train_recognizer
            from wieldy.speech.corpora import digits_corpus
            from wieldy.speech.corpus import read_manifest
        except ModuleNotFoundError as error:
            raise MissingError(f"training needs {error.name}", hint="pip install 'wieldy[torch]'") from error
        if (self.out / "config.json").exists() and not self.resume:
            raise UsageError(f"{self.out} holds a model already", hint="choose another folder with --out")
        config = AsrConfig(
            preset=self.preset,
            join=self.join,
            synthetic=self.synthetic,
            held_out=self.held_out,
            steps=self.steps,
            rate=self.rate,
            strict=self.strict,
            seed=self.seed,
        )
        cuts = digits_corpus(self.manifest) if self.named else read_manifest(self.manifest)
        try:
            with progress_bar(self.out.name) as progress:
                _, report = train_recognizer(cuts, self.out, config, resume=self.resume, progress=progress)
        except KeyboardInterrupt:
            say("what is trained so far is kept; the same command with --resume goes on from there")
            raise
        show(report)
        say(f"wrote {self.out}; now: wieldy captions FILE --model {self.out}")
        return 0
