"""A plug-in for the reference pages: the comment behind a field or constant becomes its description.

Configs say what each option means in a comment on its line (`beam_size: int = 5  # hypotheses kept, >= 1`).
mkdocstrings reads docstrings only; with this it shows those comments too, so that they are written once.
"""

from __future__ import annotations

import io
import tokenize
from typing import Any

import griffe


class CommentsAsDocstrings(griffe.Extension):
    """Gives every attribute without a docstring the comment on its own line, if there is one."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called by griffe for each attribute it has read."""
        if attr.docstring is None and (comment := trailing_comment(attr.source)):
            attr.docstring = griffe.Docstring(comment, lineno=attr.lineno, parent=attr)


def trailing_comment(source: str) -> str:
    """The text of the last comment in one statement's lines, without its hash and without what tools read."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, IndentationError):
        return ""
    comments = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    return "" if not comments or comments[-1].startswith(("type:", "noqa")) else comments[-1]
