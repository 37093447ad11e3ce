"""`wieldy list` and `wieldy show SLUG`."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from wieldy.cli.options import Text
from wieldy.cli.output import print_json, show


@dataclass(frozen=True)
class List:
    """The systems wieldy carries, by room, with what each does for you and whether it is there yet."""

    room: Text = None
    """Only this room: speech, compress, generate, learn or trust."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from wieldy.catalog.show import listing, listing_json

        if self.json:
            print_json(listing_json(self.room))
        else:
            show(listing(self.room))
        return 0


@dataclass(frozen=True)
class Show:
    """One system: what it does, the paper behind it, how to call it, and how its claim fared."""

    system: Positional[str]
    """Slug or method, as in `wieldy list`."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from wieldy.catalog import find
        from wieldy.catalog.show import card, card_json

        system = find(self.system)
        if self.json:
            print_json(card_json(system))
        else:
            show(card(system))
        return 0
