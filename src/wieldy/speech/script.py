"""Sentences from a grammar, never the same one twice; without another one, plain English for simulated meetings.

A grammar is a mapping of "templates" and the "lists" that fill them, as in `script.toml`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import numpy as np

from wieldy.errors import WieldyError


@functools.cache
def _grammar() -> dict[str, Any]:
    return tomllib.loads(resources.files("wieldy.speech").joinpath("script.toml").read_text(encoding="utf-8"))


def sentences(rng: np.random.Generator, grammar: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Sentences without end, all different, templates and words drawn evenly."""
    grammar = grammar or _grammar()
    said: set[str] = set()
    while True:
        for _ in range(1000):
            sentence = _expand(_pick(grammar["templates"], rng), grammar["lists"], rng)
            if sentence not in said:
                break
        else:
            raise WieldyError(f"after {len(said)} sentences the script has nothing new to say")
        said.add(sentence)
        yield sentence


def backchannel(rng: np.random.Generator) -> str:
    """A word or two that a listener says while another talks, such as "Right."."""
    return _pick(_grammar()["backchannels"], rng)


def _expand(template: str, lists: dict[str, list[str]], rng: np.random.Generator) -> str:
    used: set[str] = set()

    def fill(slot: re.Match[str]) -> str:
        name = slot[1]
        # Two slots of one list in one sentence must differ ("Anna and Anna").
        choices = [entry for entry in lists[name.lower()] if entry not in used]
        entry = _pick(choices, rng)
        used.add(entry)
        text = re.sub(r"\{(\w+)\}", fill, entry)
        return text[0].upper() + text[1:] if name[0].isupper() else text

    return re.sub(r"\{(\w+)\}", fill, template)


def _pick(choices: list[str], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]
