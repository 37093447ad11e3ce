"""The whole `Transcript` as JSON: nothing is lost, and a reader of another version says so instead of guessing.

One word and one turn a line, so that versions can be compared line by line; values that are the usual ones are left
out. The HTML page carries this very text, which is why the characters that HTML could trip over are escaped in it.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar, get_args

from wieldy.errors import InputError, WieldyError
from wieldy.report import Report
from wieldy.speech.formats.located import Located, members
from wieldy.speech.formats.source import Source
from wieldy.speech.transcript import SCHEMA_VERSION, Transcript, Turn, Word, WordSource

SCHEMA = "wieldy.transcript"
T = TypeVar("T", Word, Turn)
_HTML_UNSAFE = re.compile("[<>&\u2028\u2029]")


def write_json(transcript: Transcript) -> str:
    """The file's text. Raises `InputError` for a `meta` or confidence that JSON cannot hold (NaN, an object)."""
    head = {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "name": transcript.name,
        "language": transcript.language,
        "duration_ms": transcript.duration_ms,
        "warnings": transcript.warnings,
        "meta": dict(transcript.meta),
        "report": None if transcript.report is None else transcript.report.to_json(),
    }
    lines = [f'  "{key}": {_encode(value, key)},\n' for key, value in head.items()]
    words = _list("words", map(_word, transcript.words))
    turns = _list("turns", map(_turn, transcript.turns))
    return "{\n" + "".join(lines) + f"{words},\n{turns}\n}}\n"


def _list(key: str, entries: Iterable[str]) -> str:
    text = ",\n".join(entries)
    return f'  "{key}": [\n{text}\n  ]' if text else f'  "{key}": []'


def _word(word: Word) -> str:
    text = f'    {{"start_ms": {word.start_ms}, "end_ms": {word.end_ms}, "text": {_string(word.text)}'
    if word.confidence is not None:
        text += f', "confidence": {_number(word.confidence)}'
    text += f', "speaker": {_string(word.speaker)}'
    if word.speaker_confidence is not None:
        text += f', "speaker_confidence": {_number(word.speaker_confidence)}'
    if word.source != "asr":
        text += f', "source": "{word.source}"'
    return text + (f', "stream": {word.stream}}}' if word.stream else "}")


def _turn(turn: Turn) -> str:
    text = f'    {{"start_ms": {turn.start_ms}, "end_ms": {turn.end_ms}, "speaker": {_string(turn.speaker)}'
    if turn.confidence != 1:
        text += f', "confidence": {_number(turn.confidence)}'
    if turn.overlap:
        text += ', "overlap": true'
    return text + (f', "stream": {turn.stream}}}' if turn.stream else "}")


def _number(value: float) -> str:
    """A float as JavaScript writes it, so that the page's export has the same bytes: 1 for 1.0, 1e-7 for 1e-07."""
    text = repr(float(value))
    if "e" not in text and "n" not in text:
        return text.removesuffix(".0")
    if not math.isfinite(value):
        raise InputError(f"a confidence is {value}", hint="confidences are numbers from 0 to 1, or None")
    return format(Decimal(text), "f") if abs(value) >= 1e-6 else text.replace("e-0", "e-")


_plain_string = json.JSONEncoder(ensure_ascii=False).encode


@functools.lru_cache(maxsize=4096)  # most words of a long transcript are a few hundred different ones
def _string(text: str) -> str:
    return _html_safe(_plain_string(text))


def _html_safe(text: str) -> str:
    return _HTML_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _encode(value: Any, key: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key!r} of the transcript cannot be written as JSON: {error}") from error
    return _html_safe(text)


def read_json(source: Source) -> list[Transcript]:
    """The transcript, exactly as it was written. Unknown keys, other versions and wrong types are refused."""
    data = members(source, "words", "turns")
    _check_version(source, data)
    _check(source, "transcript", _TRANSCRIPT, {key: found.value for key, found in data.items()}, data)
    values = {key: data[key].value for key in ("name", "language", "duration_ms", "meta")}
    words = tuple(_built(source, Word, _WORD, entry) for entry in data["words"].value)
    turns = tuple(_built(source, Turn, _TURN, entry) for entry in data["turns"].value)
    report = _report(source, data["report"])
    try:
        return [Transcript(words=words, turns=turns, warnings=tuple(data["warnings"].value), report=report, **values)]
    except WieldyError as error:
        raise InputError(f"{source.path}: {error.message}", hint=error.hint) from error


def _check_version(source: Source, data: dict[str, Located]) -> None:
    schema, version = data.get("schema", Located(1, None)), data.get("version", Located(1, None))
    if schema.value != SCHEMA:
        raise source.error(schema.line, f"this is not a transcript: its schema is {schema.value!r}, not {SCHEMA!r}")
    if version.value != SCHEMA_VERSION:
        hint = f"this wieldy reads version {SCHEMA_VERSION}"
        raise source.error(version.line, f"the transcript is of version {version.value!r}", hint=hint)


class _Key(NamedTuple):
    """What a key may hold: `what` for the error message, `allows` to decide."""

    what: str
    allows: Callable[[Any], bool]
    required: bool = True


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_whole(value: Any) -> bool:
    return type(value) is int  # not a bool, which Python counts as one


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


_SOURCES = get_args(WordSource)
_TIME = _Key("whole milliseconds", _is_whole)
_TEXT = _Key("text", _is_text)
_SHARE = _Key("a number from 0 to 1", _is_share, required=False)
_STREAM = _Key("a whole number", _is_whole, required=False)
_LIST = _Key("a list", lambda value: type(value) is list)
_TRANSCRIPT = {
    "schema": _TEXT,
    "version": _Key("a whole number", _is_whole),
    "name": _TEXT,
    "language": _TEXT,
    "duration_ms": _TIME,
    "warnings": _Key("a list of texts", lambda value: type(value) is list and all(map(_is_text, value))),
    "meta": _Key("an object", lambda value: type(value) is dict),
    "report": _Key("an object or null", lambda value: value is None or type(value) is dict),
    "words": _LIST,
    "turns": _LIST,
}
_WORD = {
    "start_ms": _TIME,
    "end_ms": _TIME,
    "text": _TEXT,
    "confidence": _SHARE,
    "speaker": _TEXT,
    "speaker_confidence": _SHARE,
    "source": _Key("one of " + ", ".join(_SOURCES), _SOURCES.__contains__, required=False),
    "stream": _STREAM,
}
_TURN = {
    "start_ms": _TIME,
    "end_ms": _TIME,
    "speaker": _TEXT,
    "confidence": _SHARE,
    "overlap": _Key("true or false", lambda value: type(value) is bool, required=False),
    "stream": _STREAM,
}


def _built(source: Source, kind: type[T], keys: dict[str, _Key], entry: Located) -> T:
    """A word or turn from its JSON object."""
    what, line = kind.__name__.lower(), entry.line
    if not isinstance(entry.value, dict):
        raise source.error(line, f"a {what} is an object, not {json.dumps(entry.value)[:40]}")
    _check(source, what, keys, entry.value, dict.fromkeys(entry.value, entry))
    try:
        return kind(**entry.value)
    except WieldyError as error:
        raise source.error(line, error.message, hint=error.hint) from error


def _check(
    source: Source, what: str, keys: dict[str, _Key], values: dict[str, Any], places: Mapping[str, Located]
) -> None:
    """Refuse a key that is unknown, missing or of the wrong kind; `places` says on which line each key is."""
    for name, value in values.items():
        if (key := keys.get(name)) is None:
            near = difflib.get_close_matches(name, keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"a {what} has {', '.join(keys)}"
            raise source.error(places[name].line, f"a {what} has no key {name!r}", hint=hint)
        if not key.allows(value):
            shown = json.dumps(value, ensure_ascii=False)[:40]
            raise source.error(places[name].line, f"{name!r} of a {what} is {shown}, not {key.what}")
    for name, key in keys.items():
        if key.required and name not in values:
            line = next(iter(places.values())).line if places else 1
            raise source.error(line, f"a {what} lacks {name!r}")


def _report(source: Source, found: Located) -> Report | None:
    if found.value is None:
        return None
    try:
        return Report.from_json(found.value)
    except (KeyError, TypeError, ValueError) as error:
        raise source.error(found.line, f"the report in the transcript cannot be read: {error}") from error
