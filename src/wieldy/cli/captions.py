"""`wieldy captions FILE|--microphone`."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from wieldy.cli.config_file import load_config
from wieldy.cli.options import File, Number, Text
from wieldy.cli.output import say
from wieldy.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType

    from wieldy.speech.captions import CaptionSession, Event
    from wieldy.speech.captions.engines import CaptionConfig
    from wieldy.speech.captions.microphone import Microphone
    from wieldy.speech.transcript import Word

BLOCK_S = 0.1  # a file is pushed in blocks as long as a microphone's
LINE_CHARACTERS = 72  # of text; with the time in front a line fits a terminal of 80 columns and has room to change
ENOUGH_CHARACTERS = 40  # a sentence that ends after as many closes its line
SENTENCE_ENDS = (".", "?", "!")
LONG_PAUSE_MS = 1500  # of silence; what comes after it gets a line of its own, with its time


@dataclass(frozen=True)
class Captions:
    """Write down what is said while it is being said, from a microphone or a recording.

    Words appear as soon as they are heard, and a moment later they are final. Nothing leaves this machine.
    """

    file: Positional[Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]] = None
    """Recording to caption as if it were live: wav, flac, mp3, m4a, ogg, mkv, ..."""
    microphone: bool = False
    """Listen to a microphone until Ctrl-C."""
    device: Text = None
    """Which microphone: its number or a part of its name. list: print those there are. Default: the system's."""
    realtime: bool = False
    """Play FILE at the speed it was recorded. Default: as fast as this machine can."""
    format: Text = None
    """Files to write at the end, separated by commas: srt, vtt, txt, json, ... Default: none."""
    out: Path = Path()
    """Folder for the files."""
    overwrite: bool = False
    """Replace files that are already there."""
    model: str = "whisper-tiny.en"
    """A name from `wieldy models list`, a faster-whisper name, a hub id, or a local folder."""
    language: Text = None
    """Code such as de. Default: English for an English-only model, otherwise detected."""
    threads: Number = None
    """Cores to use. Default: all."""
    offline: bool = False
    """Never download anything, not even a missing model."""
    config: File = None
    """TOML file with further options, one table per part (see docs/captions.md)."""
    json: bool = False
    """Print every event as a line of JSON."""

    def run(self) -> int:
        """Caption until the recording ends or somebody presses Ctrl-C, then write the files."""
        if self.device == "list":
            return _list_microphones()
        if self.microphone == (self.file is not None):
            raise UsageError("one recording or --microphone", hint="wieldy captions talk.wav")
        for option, given, source in (("--device", self.device, "--microphone"), ("--realtime", self.realtime, "FILE")):
            if given and self.microphone != (source == "--microphone"):
                raise UsageError(f"{option} goes with {source}")
        from wieldy.speech import formats
        from wieldy.speech.captions import CaptionSession
        from wieldy.speech.captions.engines import build

        name = self.file.stem if self.file else "captions"
        chosen = {kind: formats.named(kind) for kind in self.format.split(",")} if self.format else {}
        paths = {kind: self.out / f"{name}{known.suffix}" for kind, known in chosen.items()}
        for path in paths.values():
            formats.refuse_existing(path, overwrite=self.overwrite)
        config = self.caption_config()
        with contextlib.ExitStack() as open_things:
            blocks = self._blocks(open_things)
            session = CaptionSession(build(config), name=name, adapt=self.microphone or self.realtime)
            if self.realtime:
                blocks = _in_real_time(blocks)
            if self.microphone:
                say("listening; Ctrl-C ends")
            show = _show_json if self.json else open_things.enter_context(_Lines(name)).show
            for events in _events(session, blocks):
                for event in events:
                    show(event)
        transcript = session.finish()
        for kind, path in paths.items():
            say(f"wrote {formats.write(transcript, path, kind, overwrite=self.overwrite, audio=self.file)}")
        return 0

    def caption_config(self) -> CaptionConfig:
        """The library's config these options stand for."""
        import dataclasses

        from wieldy.speech.captions.engines import CaptionConfig

        base = load_config(CaptionConfig, self.config)
        recognition = dataclasses.replace(
            base.recognition, model=self.model, language=self.language, threads=self.threads
        )
        return dataclasses.replace(base, recognition=recognition, offline=self.offline)

    def _blocks(self, open_things: contextlib.ExitStack) -> Iterator[np.ndarray]:
        """The sound, float32 [n] at 16 kHz; where it comes from is checked at once and closed with `open_things`."""
        if self.file is None:
            from wieldy.speech.captions.microphone import Microphone

            microphone = Microphone(self.device)
            open_things.callback(_say_what_was_lost, microphone)
            return open_things.enter_context(contextlib.closing(microphone.blocks()))
        from wieldy.speech.audio import Recording
        from wieldy.speech.channels import choose_channels

        recording = open_things.enter_context(Recording.open(self.file))
        plan = choose_channels(recording, "mono")
        for warning in (*recording.warnings, *plan.warnings):
            say(f"{recording.name}: {warning}")
        return (block[0] for block in plan.view(recording).blocks(BLOCK_S))


def _events(session: CaptionSession, blocks: Iterable[np.ndarray]) -> Iterator[list[Event]]:
    """What the session says to each block, and at the end; Ctrl-C is the end too."""
    with _until_interrupted() as interrupted:
        for block in blocks:
            yield session.push(block)
            if interrupted():
                break
        yield session.flush()


@contextlib.contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C is a wish to stop, which the caller asks for; a second one interrupts."""
    wished = False

    def wish(*_: object) -> None:
        nonlocal wished
        wished = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, wish)
    try:
        yield lambda: wished
    finally:
        signal.signal(signal.SIGINT, before)


def _in_real_time(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Each block when a microphone would have heard the end of it."""
    from wieldy.speech.audio import SAMPLE_RATE

    started, samples = time.monotonic(), 0
    for block in blocks:
        samples += len(block)
        time.sleep(max(0.0, started + samples / SAMPLE_RATE - time.monotonic()))
        yield block


class _Lines:
    """Captions as lines of text with their times; on a terminal the last line is written anew as it changes."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._name = name
        self._console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._line: list[Word] = []  # final words of the line that is not full yet

    def __enter__(self) -> _Lines:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close_line()
        self._live.update("", refresh=True)
        self._live.stop()

    def show(self, event: Event) -> None:
        """Print the lines that are finished, and on a terminal also what is not."""
        from wieldy.speech.captions import Final, Partial, Pause

        partial: tuple[Word, ...] = ()
        if isinstance(event, Final):
            for word in event.words:
                self._add(word)
        elif isinstance(event, Partial):
            partial = event.words
        elif isinstance(event, Pause):
            self._close_line()
        else:
            say(f"{self._name}: {event.text}")
            return
        self._live.update(self._drawn(partial), refresh=True)

    def _add(self, word: Word) -> None:
        if self._line and (
            len(_text([*self._line, word])) > LINE_CHARACTERS or word.start_ms - self._line[-1].end_ms > LONG_PAUSE_MS
        ):
            self._close_line()
        self._line.append(word)
        if word.text.endswith(SENTENCE_ENDS) and len(_text(self._line)) >= ENOUGH_CHARACTERS:
            self._close_line()

    def _close_line(self) -> None:
        if self._line:
            self._console.print(self._drawn())
            self._line = []

    def _drawn(self, partial: Sequence[Word] = ()) -> RenderableType:
        from rich.text import Text

        from wieldy.speech.formats.clock import hours

        words = [*self._line, *partial]
        if not words:
            return ""
        time = (f"[{hours(words[0].start_ms)}] ", "dim")
        return Text.assemble(time, _text(self._line), " " if self._line and partial else "", (_text(partial), "dim"))


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _show_json(event: Event) -> None:
    from wieldy.speech.captions import to_json

    print(json.dumps(to_json(event), ensure_ascii=False), flush=True)


def _list_microphones() -> int:
    from wieldy.speech.captions.microphone import microphones

    for line in microphones():
        print(line)
    return 0


def _say_what_was_lost(microphone: Microphone) -> None:
    if microphone.lost_s:
        say(f"{microphone.lost_s:.1f} s of sound were left out: this machine is too slow for them")
