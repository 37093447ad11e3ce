"""`wieldy doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from wieldy.cli.output import print_json, show


@dataclass(frozen=True)
class Doctor:
    """Say what this machine can do, what is installed, what is missing and what to run about it."""

    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from wieldy import doctor

        report = doctor.report()
        if self.json:
            print_json(report.details)
        else:
            show(report)
        return 0
