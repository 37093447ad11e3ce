"""Options from a file: typed, and a typing error is named with what was meant."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wieldy.cli.config_file import load_config
from wieldy.cli.transcribe import Transcribe
from wieldy.errors import InputError, UsageError
from wieldy.speech.recognize.vocabulary import VocabularyConfig


@dataclass(frozen=True)
class Stage:
    reach_ms: int = 50
    share: float = 0.5
    temperatures: tuple[float, ...] = (0.2,)


@dataclass(frozen=True)
class Whole:
    stage: Stage = field(default_factory=Stage)
    language: str | None = None


def config_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "options.toml"
    path.write_text(text)
    return path


def test_what_is_set_is_set_and_the_rest_keeps_its_default(tmp_path: Path) -> None:
    path = config_file(tmp_path, 'language = "en"\n[stage]\nshare = 1\ntemperatures = [0.1, 0.3]\n')
    assert load_config(Whole, path) == Whole(Stage(50, 1.0, (0.1, 0.3)), "en")
    assert load_config(Whole, None) == Whole()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[stage]\nreach = 5", UsageError, "stage: there is no option 'reach': did you mean reach_ms?"),
        ("[stage]\nreach_ms = 5.5", UsageError, "stage: reach_ms is 5.5: it must be of type int"),
        ("[stage]\nreach_ms = true", UsageError, "stage: reach_ms is True: it must be of type int"),
        ("stage = 3", UsageError, "stage is 3: it must be a table"),
        ("language = 3", UsageError, "language is 3: it must be of type NoneType or str"),
        ("language", InputError, "is not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        load_config(Whole, config_file(tmp_path, text))
    assert message in str(caught.value)


def test_words_of_the_command_line_come_before_those_of_the_file(tmp_path):
    (tmp_path / "c.toml").write_text('[recognition.vocabulary]\nwords = ["Ada"]\nbonus = 3.0\nlm = "a.arpa"\n')
    both = Transcribe(files=(Path("a.wav"),), config=tmp_path / "c.toml", words="Grafana, Ada Lovelace")
    assert both.meeting_config().recognition.vocabulary == VocabularyConfig(
        words=("Grafana", "Ada Lovelace"), bonus=3.0, lm=Path("a.arpa")
    )
    alone = Transcribe(files=(Path("a.wav"),), config=tmp_path / "c.toml")
    assert alone.meeting_config().recognition.vocabulary.words == ("Ada",)
