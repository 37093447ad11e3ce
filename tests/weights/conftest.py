"""A package index of one folder, so that the real pip runs without a network."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wieldy.weights.registry import Asset


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder pip finds packages in; nothing else is configured."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr("wieldy.weights.carrier.PAUSES_S", ())
    return folder


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make wieldy know other assets than those it ships with."""

    def know(*assets: Asset) -> None:
        names = {asset.name: asset for asset in assets}
        for module in ("resolve", "models"):
            monkeypatch.setattr(f"wieldy.weights.{module}.registry", lambda: names)

    return know
