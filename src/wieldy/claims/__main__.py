"""`python -m wieldy.claims [SLUG...]` (`make claims`): run claims at full scale, one at a time, and store the results.

Ends with the worst exit status of all, as `wieldy reproduce` does for one.
"""

from __future__ import annotations

import sys

from wieldy.claims import record, reproduce, slugs
from wieldy.errors import WieldyError


def main(names: list[str]) -> int:
    """Run and record these claims, or all."""
    from rich.console import Console

    console = Console()
    worst = 0
    for name in names or slugs():
        try:
            result = reproduce(name, scale="full")
            console.print(result)
            console.print(f"wrote {record(result)}", soft_wrap=True)
            status = result.exit_status
        except WieldyError as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = error.exit_status
        worst = max(worst, status)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
