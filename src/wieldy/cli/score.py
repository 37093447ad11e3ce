"""`wieldy score HYPOTHESIS REFERENCE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from wieldy.cli.options import Files, Folder
from wieldy.cli.output import print_json, say, show


@dataclass(frozen=True)
class Score:
    """Compare a transcript with a reference: WER, cpWER, tcpWER, ORC-WER, DER, JER, and the worst minutes.

    Both may be json, seglst, stm, ctm, rttm, srt or vtt; what a format does not hold is left out and said.
    """

    hypothesis: Positional[Path]
    """The transcript to judge."""
    reference: Files
    """What was really said: one file, or one with words (stm) and one with turns (rttm)."""
    normalize: Literal["basic", "whisper", "none"] = "basic"
    """basic: lower case, no punctuation, apostrophes kept; whisper: OpenAI's English normaliser."""
    tcp_collar: float = 5.0
    """tcpWER: words may only match within this many seconds."""
    der_collar: float = 0.0
    """DER and JER: seconds left out around each reference boundary."""
    skip_overlap: bool = False
    """DER and JER: leave out time in which several people talk."""
    seed: int = 0
    """For the bootstrap intervals."""
    out: Folder = None
    """Folder for report.json and report.html."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from wieldy.speech import formats
        from wieldy.speech.score import score, split_references

        reference, turns = split_references([formats.read(path) for path in self.reference])
        result = score(
            formats.read(self.hypothesis),
            reference,
            reference_turns=turns,
            normalize=self.normalize,
            tcp_collar_s=self.tcp_collar,
            der_collar_s=self.der_collar,
            skip_overlap=self.skip_overlap,
            seed=self.seed,
        )
        report = result.report
        if self.json:
            print_json(report.to_json())
        else:
            show(report)
        if self.out is not None:
            for path in report.save(self.out):
                say(f"wrote {path}")
        return 0
