"""wieldy makes unwieldy models wieldy. Rooms load when they are first used: `import wieldy` costs nothing."""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = ("speech",)
__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"wieldy.{name}")
    raise AttributeError(f"module 'wieldy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
