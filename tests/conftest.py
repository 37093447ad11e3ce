"""What tests share: real recordings, the pinned recogniser, and folders of their own to write to.

A test that lacks an optional part is skipped by name. With `WIELDY_REQUIRE_MODELS=1`, as in CI, one that is skipped
for want of a model fails instead: a green run has then used the real models.
"""

import ipaddress
import os
import socket
from pathlib import Path

import hypothesis
import pytest

from wieldy import errors, weights
from wieldy.cache import cache_root

CHECKOUT = Path(__file__).resolve().parents[1]

# The same examples in every run and no time limits. `pytest --hypothesis-profile default` looks for new ones.
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Nothing is downloaded inside a test: a connection to another machine is refused before it is tried."""
    connect = socket.socket.connect

    def connect_on_this_machine(self: socket.socket, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            name = address[0]
            if name != "localhost" and not ipaddress.ip_address(name).is_loopback:
                raise ConnectionRefusedError(f"a test tried to reach {name}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_on_this_machine)
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real data: `conversation/`, `fsdd/`, `ami_rttm/`."""
    folder = Path(os.environ.get("WIELDY_DATA") or CHECKOUT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data: set WIELDY_DATA to a folder with conversation/, fsdd/ and ami_rttm/")
    return folder


@pytest.fixture(scope="session")
def conversation() -> Path:
    """The folder of the real telephone call: `sample.wav`, `sample.stm`, `sample.rttm`."""
    return asset("conversation")


@pytest.fixture(scope="session")
def whisper_tiny() -> Path:
    """The folder of the pinned recogniser, Whisper tiny.en for CTranslate2."""
    return asset("whisper-tiny.en")


@pytest.fixture(scope="session")
def real_sounds() -> Path:
    """The folder of real sounds without speech: `house_lo.ogg` (music), `secosmic_lo.wav`, `boom.wav`."""
    return asset("pygame-sounds")


@pytest.fixture
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own with nothing in it, not even models."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("WIELDY_CACHE", str(folder))
    return folder


@pytest.fixture
def fresh_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own that finds the user's models and has no results yet."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "models").symlink_to(cache_root() / "models")
    monkeypatch.setenv("WIELDY_CACHE", str(folder))
    return folder


def asset(name: str) -> Path:
    """Where the registered asset lies; skips the test that asks where it has not been fetched."""
    try:
        return weights.locate(name, offline=True)
    except errors.MissingError as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and os.environ.get("WIELDY_REQUIRE_MODELS") == "1" and call.excinfo is not None:
        reason = str(call.excinfo.value)
        if "wieldy models get" in reason:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} needs a model: {reason}"
    return report
