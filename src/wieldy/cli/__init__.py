"""The command line: `wieldy VERB INPUT... [options]`.

Help for all verbs is printed from the table below without importing anything; a verb's own module is imported when it
is the one that was asked for. Each of those modules holds one frozen dataclass whose fields are the options (`tyro`
turns them into flags) and whose `run` does the work and returns the exit status.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from wieldy import __version__, errors


@dataclass(frozen=True)
class Verb:
    """Where a verb is implemented and what it does for the user."""

    module: str
    command: str
    summary: str


VERBS = {
    "transcribe": Verb("wieldy.cli.transcribe", "Transcribe", "write down who said what and when"),
    "captions": Verb("wieldy.cli.captions", "Captions", "write down what is said while it is said"),
    "diarize": Verb("wieldy.cli.diarize", "Diarize", "find out who spoke when, without the words"),
    "voices": Verb("wieldy.cli.voices", "Voices", "enroll people, whose names transcripts then carry"),
    "align": Verb("wieldy.cli.align", "Align", "find out when each word of a known text was said"),
    "train": Verb("wieldy.cli.train", "Train", "train a recogniser on your own recordings"),
    "adapt": Verb("wieldy.cli.adapt", "Adapt", "teach a recogniser a domain of which there is only text"),
    "score": Verb("wieldy.cli.score", "Score", "compare a transcript with a reference"),
    "models": Verb("wieldy.cli.models", "Models", "list, get, verify and locate models"),
    "list": Verb("wieldy.cli.catalog", "List", "list the systems, by room"),
    "show": Verb("wieldy.cli.catalog", "Show", "describe one system"),
    "reproduce": Verb("wieldy.cli.reproduce", "Reproduce", "run the experiment behind a system's claim"),
    "doctor": Verb("wieldy.cli.doctor", "Doctor", "say what this machine can do and what is missing"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit statuses are those of `wieldy.errors`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"wieldy {__version__}")
        return 0
    try:
        return _run(words[0], words[1:])
    except errors.WieldyError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted; no half-written file is left", 130)
    except BrokenPipeError:  # the reader of our output, such as head, had enough
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            raise
        return _fail(
            f"internal error: {type(error).__name__}: {error} (run again with --debug and report it)", errors.INTERNAL
        )


def _run(name: str, words: list[str]) -> int:
    verb = VERBS.get(name)
    if verb is None:
        import difflib

        near = difflib.get_close_matches(name, VERBS, n=1)
        meant = f"did you mean {near[0]}?" if near else "wieldy --help lists the commands"
        raise errors.UsageError(f"there is no command {name!r}", hint=meant)
    import tyro

    command = getattr(importlib.import_module(verb.module), verb.command)
    options = tyro.cli(command, prog=f"wieldy {name}", args=words, config=(tyro.conf.FlagCreatePairsOff,))
    status: int = options.run()
    return status


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return f"""wieldy {__version__}: makes unwieldy models wieldy

usage: wieldy VERB INPUT... [options]

{verbs}

  wieldy VERB --help    what one command takes
  --debug               with any command: the whole traceback of an error

Try: wieldy transcribe meeting.wav"""


def _fail(message: str, status: int) -> int:
    print(f"wieldy: {message}", file=sys.stderr)
    return status
