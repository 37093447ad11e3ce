"""What README and documentation say is run: Python is executed, commands are parsed, generated parts are up to date."""

import dataclasses
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
import tyro

from wieldy import catalog, cli

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)


@dataclasses.dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(CHECKOUT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(page, line, match["language"], match["title"] or "", match["text"]))
    return found


def commands() -> Iterator[tuple[str, str]]:
    """Every command line in the pages with where it stands."""
    for block in blocks("console"):
        for line in block.text.splitlines():
            if line.startswith("$ "):
                yield str(block), line.removeprefix("$ ")


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_block_has_a_language_that_is_checked():
    languages = {block.language for block in blocks("", "python", "console", "toml", "text", "bash", "sh", "shell")}
    assert languages == {"python", "console", "toml", "text"}


@pytest.mark.parametrize(
    "page", sorted({block.page for block in blocks("python") if not block.title}), ids=lambda page: page.stem
)
def test_python_on_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, request):
    own = [block for block in blocks("python") if block.page == page]
    if any("meeting.wav" in block.text for block in own):
        request.getfixturevalue("whisper_tiny")
        samples, rate = soundfile.read(request.getfixturevalue("conversation") / "sample.wav", frames=10 * 16_000)
        soundfile.write(tmp_path / "meeting.wav", samples, rate)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in own:
        exec(compile(block.text, str(block), "exec"), namespace)


def test_the_system_added_step_by_step_works(tmp_path, monkeypatch):
    """The files of `add-a-system.md`, laid over the packages they belong to, do what the page says."""
    files = {block.title: block.text for block in blocks("python", "toml") if block.title}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if name.endswith(".py") and name.startswith("src/"):
            package = ".".join(Path(name).parent.parts[1:])
            monkeypatch.setattr(
                importlib.import_module(package),
                "__path__",
                [*importlib.import_module(package).__path__, str(path.parent)],
            )
    (system,) = catalog.read(tmp_path.glob("src/wieldy/catalog/systems/*.toml"))
    module, function = system.entry.split(":")
    assert callable(getattr(importlib.import_module(module), function))
    claim = importlib.import_module(system.claim)
    result = claim.run("smoke", 0)
    assert result.slug == system.slug
    assert result.holds
    (test_file,) = tmp_path.glob("tests/**/*.py")
    namespace: dict[str, object] = {"__name__": test_file.stem}
    exec(compile(test_file.read_text(), test_file, "exec"), namespace)
    for name, test in namespace.items():
        if name.startswith("test_"):
            test()
    for name in (module, system.claim):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("block", [b for b in blocks("toml") if not b.title], ids=str)
def test_toml_is_a_configuration_that_loads(block, tmp_path):
    from wieldy.cli.config_file import load_config
    from wieldy.speech.meeting import MeetingConfig

    path = tmp_path / "meeting.toml"
    path.write_text(block.text)
    assert load_config(MeetingConfig, path) != MeetingConfig()


@pytest.mark.parametrize(("place", "command"), list(commands()))
def test_a_command_on_a_page_can_be_given(place, command):
    words = shlex.split(command)
    if words[0] == "wieldy":
        verb = cli.VERBS[words[1]]
        options = getattr(importlib.import_module(verb.module), verb.command)
        tyro.cli(options, args=words[2:], config=(tyro.conf.FlagCreatePairsOff,))
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (CHECKOUT / "Makefile").read_text(), re.M)
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert words[2:4] == ["-c", "constraints.txt"]
        assert set(re.findall(r"\w+", words[4])) <= set(extras)
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2])
    else:
        assert command == "echo $?", f"{place} has a command that nothing checks: {command}"


def test_errors_on_their_page_are_the_errors_one_gets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status = None
    for block in blocks("console"):
        if block.page.name != "errors.md":
            continue
        for entry in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
            command, _, expected = entry.partition("\n")
            if command == "echo $?":
                assert f"{status}\n" == expected, block
                continue
            status = cli.main(shlex.split(command)[1:])
            printed = capsys.readouterr()
            assert printed.out == ""
            assert printed.err.splitlines()[-1:] == expected.splitlines(), block
    assert status is not None


def test_the_table_in_the_readme_is_up_to_date():
    pages = load_script("catalog_pages")
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert pages.with_section(text, pages.readme_section()) == text, "run `make readme`"
    for system in catalog.systems():
        assert f"`{system.slug}`" in text


def test_a_readme_without_its_markers_is_refused():
    pages = load_script("catalog_pages")
    with pytest.raises(SystemExit, match="lost a marker"):
        pages.with_section("# wieldy\n", pages.readme_section())


def test_links_and_folders_named_in_the_readme_exist():
    for page in (CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"):
        text = page.read_text(encoding="utf-8")
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("https://")]
        folders = re.findall(r"`([\w./]+/)`", text)
        missing = [name for name in (*links, *folders) if not (CHECKOUT / name).exists()]
        # Made by `make docs` and `make claims`, and the environment itself.
        assert set(missing) <= {"site/"}, page


class RemoteAssets(HTMLParser):
    """Collects what a page would load from another host by itself; links that a reader may follow are fine."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        loaded = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
        for name, value in attrs:
            if loaded.get(tag) == name and re.match(r"(https?:)?//", value or ""):
                self.found.append(f"<{tag} {name}={value}>")


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.glob("site/**/*.html"))
    names = {path.relative_to(tmp_path / "site").as_posix() for path in pages}
    assert {"index.html", "transcribe.html", "systems/index.html", "systems/speech-pipeline.html"} <= names
    # What an option means is written in a comment beside it and must reach the reader.
    assert "hypotheses kept while decoding" in (tmp_path / "site/api/recognize.html").read_text(encoding="utf-8")
    for path in pages:
        parser = RemoteAssets()
        parser.feed(path.read_text(encoding="utf-8"))
        assert parser.found == [], path
    for path in tmp_path.glob("site/**/*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_a_remote_asset_would_be_found():
    parser = RemoteAssets()
    parser.feed(
        '<script src="https://cdn.example/x.js"></script><link href="//fonts.example"><a href="https://x">x</a>'
    )
    assert len(parser.found) == 2
