"""How a download shows on a terminal; elsewhere it is silent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


def on_terminal() -> bool:
    """Whether someone is watching: only then does wieldy fetch what is missing without being told to."""
    return sys.stderr.isatty()


def megabytes(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1e6:.1f} MB" if size < 1e7 else f"{size / 1e6:.0f} MB"


@contextlib.contextmanager
def bar(title: str, total_bytes: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; yields the function that is told how many bytes have arrived in all."""
    if not (shown and on_terminal()):
        yield lambda _arrived: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as drawn:
        task = drawn.add_task(title, total=total_bytes)
        yield lambda arrived: drawn.update(task, completed=arrived)
        drawn.update(task, completed=total_bytes)
