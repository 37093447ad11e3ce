"""The voices' colours can be seen on the page and told apart, also by those who see fewer colours.

Colour blindness is simulated with the matrices of G. M. Machado, M. M. Oliveira and L. A. F. Fernandes, "A
Physiologically-based Model for Simulation of Color Vision Deficiency", 2009 (severity 1, on linear RGB). Distances
are in Oklab (B. Ottosson, 2020), where 0.02 is about the least that can be seen; contrast is WCAG's.
"""

import itertools
import re
from importlib import resources

import numpy as np
import pytest

CSS = resources.files("wieldy.speech.formats.page").joinpath("page.css").read_text(encoding="utf-8")
LIGHT, DARK = CSS.split("@media (prefers-color-scheme: dark)")[:2]
SIGHT = {
    "full": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def colours(theme: str) -> dict[str, np.ndarray]:
    """Every colour variable of a theme in linear RGB."""
    found = {}
    for name, value in re.findall(r"--([\w-]+): #([0-9a-f]{6});", theme.split("\n.")[0]):
        rgb = np.array([int(value[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        found[name] = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return found


def oklab(rgb: np.ndarray) -> np.ndarray:
    cones = np.array(
        [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.6806995, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
    )
    lab = np.array(
        [
            [0.21045426, 0.79361779, -0.00407205],
            [1.9779985, -2.42859221, 0.45059371],
            [0.02590404, 0.78277177, -0.80867577],
        ]
    )
    return lab @ np.cbrt(cones @ rgb)


def contrast(first: np.ndarray, second: np.ndarray) -> float:
    light = sorted(float(colour @ [0.2126, 0.7152, 0.0722]) for colour in (first, second))
    return (light[1] + 0.05) / (light[0] + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_paper(theme):
    found = colours(theme)
    for name, colour in found.items():
        if name.startswith("voice-"):
            assert contrast(colour, found["paper"]) >= 3, name  # WCAG 1.4.11, parts of a drawing
    for paper in ("paper", "raised", "now", "hit", "hit-now", "wash"):
        assert contrast(found["ink"], found[paper]) >= 4.5, paper  # WCAG 1.4.3, text
    assert contrast(found["soft"], found["paper"]) >= 4.5


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_voices_are_told_apart(theme, sight):
    found = colours(theme)
    seen = [oklab(np.clip(np.array(SIGHT[sight]) @ found[f"voice-{index}"], 0, 1)) for index in range(8)]
    apart = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in itertools.combinations(range(8), 2)}
    assert min(apart.values()) > 0.065
    assert min(value for pair, value in apart.items() if max(pair) < 4) > 0.12, "most meetings have at most four"
