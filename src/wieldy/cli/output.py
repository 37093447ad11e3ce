"""How commands talk: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wieldy.speech.transcript import Transcript

# Colours of 16 that read on dark and light terminals, one per speaker in turn.
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def say(line: str) -> None:
    """A line for the person at the terminal, not part of the result."""
    print(line, file=sys.stderr)


def show(drawn: RenderableType) -> None:
    """Something rich can draw, on standard output."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120, soft_wrap=not sys.stdout.isatty()).print(drawn)


def print_json(value: Any) -> None:
    """JSON on standard output."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    print()


def show_transcript(transcript: Transcript, *, heading: bool = False) -> None:
    """Who said what, a paragraph per utterance; warnings go to standard error."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    if heading:
        console.print(Text(transcript.name, style="bold"))
    colours = {speaker: _COLOURS[i % len(_COLOURS)] for i, speaker in enumerate(transcript.speakers)}
    for utterance in transcript.utterances():
        minutes, seconds = divmod(utterance.start_ms // 1000, 60)
        hours, minutes = divmod(minutes, 60)
        line = Text(f"[{hours:02}:{minutes:02}:{seconds:02}] ", style="dim")
        line.append(f"{utterance.speaker}: ", style=f"bold {colours.get(utterance.speaker, 'white')}")
        line.append(utterance.text)
        console.print(line)
    show_names(transcript)
    for warning in transcript.warnings:
        say(f"{transcript.name}: {warning}")


def show_names(transcript: Transcript) -> None:
    """Which enrolled people the speakers are, and how sure that is, on standard error."""
    if "voices" in transcript.meta:
        from wieldy.speech.voices.enrolled import describe

        for line in describe(transcript.meta["voices"]):
            say(f"{transcript.name}: {line}")


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Callable[[str, float], None]]:
    """Stage, share done and time left: a bar on a terminal, one line per stage elsewhere."""
    if not sys.stderr.isatty():
        seen: list[str] = []

        def log(stage: str, share: float) -> None:
            del share
            if stage not in seen:
                seen.append(stage)
                say(f"{name}: {stage}")

        yield log
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.fields[name]}  {task.description:<14}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("read", name=name, total=1.0)
        current = ""

        def draw(stage: str, share: float) -> None:
            nonlocal current
            if stage != current:
                current = stage
                bar.reset(task, description=stage, total=1.0, name=name)
            bar.update(task, completed=share)

        yield draw
