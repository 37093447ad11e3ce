"""Every error wieldy raises on purpose, and the exit status each one has on the command line.

A message is one line and says what is wrong, with which value; `hint` says what to do about it.
Anything that is not a `WieldyError` is a bug of ours and exits with `INTERNAL`.
"""

INTERNAL = 5


class WieldyError(Exception):
    """The work failed. `str(error)` is the whole line a user sees: message, then hint."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}: {hint}" if hint else message)
        self.message = message
        self.hint = hint


class UsageError(WieldyError, ValueError):
    """An option or a config field has a value that cannot be meant."""

    exit_status = 2


class InputError(WieldyError, ValueError):
    """A file or array that was handed in cannot be worked with."""

    exit_status = 3


class MissingError(WieldyError):
    """A model, peer, system package or optional dependency is not there; the hint says what to run."""

    exit_status = 4


class OutputError(WieldyError, OSError):
    """A result could not be written; what was there before is untouched."""
