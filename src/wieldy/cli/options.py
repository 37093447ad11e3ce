"""Types of options that several commands take, with how `--help` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

# Without a default to print: each help text says what happens when the option is left out.
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]
Files = Positional[Annotated[tuple[Path, ...], arg(metavar="FILE ...", help_behavior_hint="")]]
Names = Positional[Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="")]]
