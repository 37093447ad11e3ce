"""`wieldy reproduce SLUG`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from wieldy.cli.options import Folder
from wieldy.cli.output import print_json, say, show


@dataclass(frozen=True)
class Reproduce:
    """Run the scaled-down experiment behind a system's claim against its baseline. It can fail; then the exit
    status is 1."""

    system: Positional[str]
    """Slug or method, as in `wieldy list`."""
    scale: Literal["smoke", "full", "extended"] = "smoke"
    """smoke: seconds, every part runs; full: at most 20 minutes, decides; extended: at most 2 hours."""
    seed: int = 0
    """Where the random numbers begin."""
    out: Folder = None
    """Folder for the result as JSON and the report as a page."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from wieldy.claims import reproduce

        result = reproduce(self.system, scale=self.scale, seed=self.seed)
        if self.json:
            print_json(result.to_json())
        else:
            show(result)
        if self.out is not None:
            for path in result.save(self.out):
                say(f"wrote {path}")
        return result.exit_status
