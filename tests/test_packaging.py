"""What the code imports, what the package asks for and what is pinned are one list."""

import ast
import functools
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import wieldy

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# Packages that are asked for and never imported: plug-ins of another, and programs.
BEHIND_THE_SCENES = {
    "accelerate": "transformers loads models with it",
    "mkdocs-material": "theme of mkdocs",
    "mkdocstrings": "plug-in of mkdocs",
    "mkdocstrings-python": "plug-in of mkdocstrings",
    "mkdocs": "a program",
    "import-linter": "a program",
    "mypy": "a program",
    "pytest-timeout": "plug-in of pytest",
    "pytest-xdist": "plug-in of pytest",
    "ruff": "a program",
    "simplejson": "meeteval reads JSON files with it",
    "tokenizers": "transformers reads tokenizers with it",
    "urllib3": "lhotse imports it without asking for it",
}


providers_of_modules = functools.cache(metadata.packages_distributions)


def plain(requirement: str) -> str:
    """`Pyannote.core[x]>=1` as `pyannote-core`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def imported_packages(*folders: str) -> dict[str, set[str]]:
    """Third-party packages imported anywhere below the folders, each with the files that do."""
    providers = providers_of_modules()
    found: dict[str, set[str]] = {}
    for path in (path for folder in folders for path in (CHECKOUT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                names = [node.args[0].value]
            for name in names:
                top = name.partition(".")[0]
                if top in sys.stdlib_module_names or top in {"wieldy", "benchmarks", "conftest"}:
                    continue
                # Several packages may share one top name, as pyannote's do.
                candidates = {plain(one) for one in providers.get(top, [top])}
                exact = candidates & {plain(name)} or {one for one in candidates if plain(name).startswith(one)}
                for package in exact or (candidates if len(candidates) == 1 else ()):
                    found.setdefault(package, set()).add(str(path.relative_to(CHECKOUT)))
    return found


def declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {plain(line) for line in lines} - {"wieldy"}


def test_every_import_of_the_library_is_declared():
    asked_for = declared(*(set(EXTRAS) - {"dev", "docs"}))
    undeclared = {package: files for package, files in imported_packages("src").items() if package not in asked_for}
    assert not undeclared


def test_every_declared_package_is_used():
    used = set(imported_packages("src", "tests", "scripts", "benchmarks", "examples")) | set(BEHIND_THE_SCENES)
    assert declared(*EXTRAS) - used == set()


def test_every_declared_package_is_pinned_and_nothing_else():
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    build = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {plain(name) for name in pins} == declared(*EXTRAS) | {plain(line) for line in build}
    assert build == [f"{plain(line)}=={pins[plain(line)]}" for line in build]


def test_all_means_all_that_a_user_may_want():
    (everything,) = EXTRAS["all"]
    inner = set(re.search(r"\[(.*)\]", everything)[1].split(","))
    assert inner == set(EXTRAS) - {"all", "dev", "docs"}


def test_version_of_the_installation_is_that_of_the_code():
    assert metadata.version("wieldy") == wieldy.__version__


def test_native_functions_are_those_the_type_stub_names():
    native = pytest.importorskip("wieldy._native")
    stub = ast.parse((CHECKOUT / "src/wieldy/_native.pyi").read_text())
    named = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert {name for name in dir(native) if not name.startswith("_")} == named
