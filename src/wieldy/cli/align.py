"""`wieldy align MANIFEST --out FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from wieldy.cli.output import progress_bar, say
from wieldy.errors import MissingError, UsageError

Manifest = Positional[Annotated[Path, arg(metavar="MANIFEST", help_behavior_hint="")]]
OutFile = Annotated[Path, arg(metavar="FILE")]
Times = Annotated[Path | None, arg(metavar="FILE|DIR", help_behavior_hint="")]
SHOWN = 5  # of the recordings that are left out


@dataclass(frozen=True)
class Align:
    """Find out when each word of recordings with transcripts was said.

    MANIFEST is a lhotse manifest or a folder of recordings, as for `wieldy train`. What is written is a lhotse manifest
    with times of words and phones, from which training starts better and speech can be spliced. English is aligned with
    PocketSphinx; for other languages bring the times of another program.
    """

    manifest: Manifest
    """Where the recordings are listed, or the folder they are in."""
    out: OutFile
    """Manifest to write: a .jsonl.gz or .jsonl file."""
    times: Times = None
    """Take the times from here: a CTM file, or a folder with a NAME.TextGrid for each recording."""
    strict: bool = False
    """A recording that cannot be aligned is an error. Default: it is left out and listed."""

    def run(self) -> int:
        try:
            from wieldy.speech.aligners import align_cuts, aligner_times
            from wieldy.speech.aligners.files import times_in
            from wieldy.speech.aligners.pocketsphinx import PocketSphinxAligner
            from wieldy.speech.corpus import read_manifest
        except ModuleNotFoundError as error:
            raise MissingError(f"aligning needs {error.name}", hint="pip install 'wieldy[torch]'") from error
        from wieldy.cache import replacing

        if not self.out.name.endswith((".jsonl", ".jsonl.gz")):
            raise UsageError(f"{self.out} is no name for a manifest", hint="end it with .jsonl.gz")
        cuts = read_manifest(self.manifest)
        times = aligner_times(PocketSphinxAligner()) if self.times is None else times_in(self.times)
        with progress_bar(self.manifest.name) as progress:
            found = align_cuts(cuts, times, strict=self.strict, progress=progress)
        with replacing(self.out) as temporary:
            # The manifest may be read from another folder than this.
            found.cuts.with_recording_path_prefix(Path.cwd()).to_file(temporary)
        for name, reason in found.skipped[:SHOWN]:
            say(f"left out {name}: {reason}")
        if len(found.skipped) > SHOWN:
            say(f"left out {len(found.skipped) - SHOWN} more; --strict stops at the first")
        say(f"wrote {self.out}: word times of {len(found.cuts)}, {len(found.skipped)} left out")
        return 0
