"""The transducer lattice: both forms against all paths written out, and against each other."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.devices import cpu
from wieldy.kernels.transducer_lattice import Lattices, fast, naive

FORMS = [naive.lattices, fast.lattices]


def paths(frames: int, symbols: int, *, modified: bool) -> list[list[tuple[str, int, int]]]:
    """Every way through the lattice, as arcs (kind, t, u)."""
    found = []
    for kinds in set(itertools.permutations("b" * (frames - modified * symbols) + "l" * symbols)):
        t = u = 0
        arcs = []
        for kind in kinds:
            arcs.append((kind, t, u))
            t += kind == "b" or modified
            u += kind == "l"
        if all(t < frames for _, t, _ in arcs):
            found.append(arcs)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("modified", [False, True])
@pytest.mark.parametrize(("frames", "symbols"), [(1, 0), (1, 1), (3, 0), (2, 2), (4, 1), (4, 3), (1, 3)])
def test_all_paths_are_summed(form, modified: bool, frames: int, symbols: int) -> None:
    rng = np.random.default_rng(0)
    nodes = frames * (symbols + 1)
    e, l = np.log(rng.uniform(0.1, 0.5, (2, nodes)))  # noqa: E741
    weights, taken_blank, taken_label = [], np.zeros(nodes), np.zeros(nodes)
    for arcs in paths(frames, symbols, modified=modified) if symbols <= frames or not modified else []:
        at = [(kind, t * (symbols + 1) + u) for kind, t, u in arcs]
        weight = np.exp(sum((e if kind == "b" else l)[i] for kind, i in at))
        weights.append(weight)
        for kind, i in at:
            (taken_blank if kind == "b" else taken_label)[i] += weight
    found = form(e, l, np.array([frames]), np.array([symbols]), modified=modified)
    if not weights:
        assert found.log_z.tolist() == [-np.inf]
        assert not found.blank.any()
        return
    total = sum(weights)
    np.testing.assert_allclose(found.log_z, np.log(total))
    np.testing.assert_allclose(found.log_z_backward, np.log(total))
    np.testing.assert_allclose(found.blank, taken_blank / total, atol=1e-12)
    np.testing.assert_allclose(found.label, taken_label / total, atol=1e-12)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 6)), max_size=5), st.booleans(), st.integers(0, 99))
def test_the_forms_agree_and_utterances_do_not_meet(shapes: list, modified: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, symbols = (np.array([shape[i] for shape in shapes], np.int64) for i in (0, 1))
    nodes = int((frames * (symbols + 1)).sum())
    e, l = rng.normal(-2, 2, (2, nodes))  # noqa: E741
    e[rng.uniform(size=nodes) < 0.1] = -np.inf
    both: list[Lattices] = [form(e, l, frames, symbols, modified=modified) for form in FORMS]
    for name in ("log_z", "log_z_backward", "blank", "label"):
        np.testing.assert_allclose(*(getattr(found, name) for found in both), atol=1e-12)
    first = 0
    for n, (t, u) in enumerate(shapes):
        own = slice(first, first := first + t * (u + 1))
        alone = naive.lattices(e[own], l[own], frames[n : n + 1], symbols[n : n + 1], modified=modified)
        np.testing.assert_allclose(alone.blank, both[1].blank[own], atol=1e-12)


@pytest.mark.parametrize("level", cpu.levels())
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 99))
def test_softmax_rows_agree_at_every_level(level: str, vocabulary: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 10, (30, vocabulary)).astype(np.float32)
    logits[rng.uniform(size=logits.shape) < 0.05] = -np.inf
    logits[:, 0] = 0.0
    rows, labels = rng.permutation(30)[:count], rng.integers(-1, vocabulary, count)
    occupied = rng.uniform(0, 1, (2, count))
    occupied[1][labels < 0] = 0
    expected = naive.emissions(logits, rows, labels, 0)
    wanted, out = np.full_like(logits, 7), np.full_like(logits, 7)
    naive.gradient(logits, rows, labels, 0, expected.lse, *occupied, wanted)
    with cpu.forced_level(level):
        found = fast.emissions(logits, rows, labels, 0, threads=2)
        fast.gradient(logits, rows, labels, 0, found.lse, *occupied, out, threads=2)
    for name in ("lse", "blank", "label"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(out, wanted, atol=1e-6)


def test_what_is_no_number_is_seen() -> None:
    logits = np.zeros((3, 20), np.float32)
    logits[0, 17], logits[1, 3], logits[2, 19] = np.nan, np.nan, np.inf
    rows = np.arange(3)
    assert not np.isfinite(fast.emissions(logits, rows, np.zeros(3, np.int64), 0).lse).any()
