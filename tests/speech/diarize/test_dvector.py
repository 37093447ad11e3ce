"""The default diariser: its parts against naive references, the whole on a real call and on made conversations."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.metrics.turns import TimeErrors, turn_errors
from wieldy.speech import formats
from wieldy.speech.audio import Recording
from wieldy.speech.diarize import Diarizer, SpeakerCount, dvector
from wieldy.speech.diarize.dvector import (
    PRIOR_PRODUCT,
    DVectorConfig,
    DVectorDiarizer,
    best_path,
    cosines_of_voices,
    count_speakers,
    cut_turns,
    kmeans,
    likest,
    merge_alike,
    partition,
    purest,
    ward,
)
from wieldy.speech.transcript import Span
from wieldy.speech.vad import detect_speech
from wieldy.speech.voices import Windows, unit

CONFIG = DVectorConfig()


def find_speakers(windows: Windows, count: SpeakerCount = SpeakerCount()) -> tuple[np.ndarray, float]:
    """A speaker for each window, and how sure their number is."""
    number, confidence = count_speakers(windows, count, CONFIG)
    return partition(windows, np.ones(len(windows)), ward(windows), number), confidence


def voices_around(centres: np.ndarray, labels: np.ndarray, spread: float, seed: int = 0) -> np.ndarray:
    """Unit vectors scattered around the centre of each label."""
    noise = np.random.default_rng(seed).normal(0, spread, (len(labels), centres.shape[1]))
    return unit(centres[labels] + noise / np.sqrt(centres.shape[1]))


def windows_of(vectors: np.ndarray, hop_ms: int = 400) -> Windows:
    starts = np.arange(len(vectors)) * hop_ms
    return Windows(np.stack([starts, starts + hop_ms], axis=1), vectors.astype(np.float32))


def test_the_best_path_is_the_best_of_all_paths() -> None:
    rng = np.random.default_rng(0)
    for steps, speakers, stay in itertools.product((1, 2, 4), (1, 2, 3), (0.5, 0.9)):
        scores = rng.normal(size=(steps, speakers))

        def total(path: tuple[int, ...], scores: np.ndarray = scores, stay: float = stay) -> float:
            changed = sum(a != b for a, b in itertools.pairwise(path))
            kept = len(path) - 1 - changed
            others = max(scores.shape[1] - 1, 1)
            chosen = sum(row[k] for row, k in zip(scores, path, strict=True))
            return chosen + changed * np.log((1 - stay) / others) + kept * np.log(stay)

        best = max(itertools.product(range(speakers), repeat=steps), key=total)
        assert total(tuple(best_path(scores, stay).tolist())) == pytest.approx(total(best))


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 99))
def test_kmeans_ends_where_no_unit_is_nearer_to_another_mean(count: int, clusters: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, weights = rng.normal(size=(count, 3)), rng.integers(1, 5, count).astype(float)
    labels, means = kmeans(vectors, weights, rng.integers(0, clusters, count), rounds=200)
    assert set(labels.tolist()) == set(range(len(means)))
    for k, mean in enumerate(means):
        own = labels == k
        np.testing.assert_allclose(mean, np.average(vectors[own], axis=0, weights=weights[own]))
    distance = ((vectors[:, None] - means[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(distance[np.arange(count), labels], distance.min(axis=1), atol=1e-9)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 99))
def test_merged_units_stand_for_all_windows(count: int, limit: int, seed: int) -> None:
    windows = windows_of(unit(np.random.default_rng(seed).normal(1, 1, (count, 4))))
    units, weights = merge_alike(windows, limit)
    assert len(units) == min(count, limit)
    assert weights.sum() == count
    assert units.spans_ms[0, 0] == windows.spans_ms[0, 0]
    assert units.spans_ms[-1, 1] == windows.spans_ms[-1, 1]
    first = 0
    for weight, vector in zip(weights.astype(int), units.vectors, strict=True):
        own = windows.vectors[first : first + weight]
        np.testing.assert_allclose(vector, unit(own.astype(float).mean(axis=0)), atol=1e-6)
        first += weight


def test_merging_keeps_the_changes_of_speaker() -> None:
    centres = unit(np.array([[1.0, 0, 0], [0.3, 1, 0]]))
    labels = np.repeat([0, 1, 0, 1], 10)
    windows = windows_of(voices_around(centres, labels, 0.05))
    units, _ = merge_alike(windows, 4)
    assert units.spans_ms[:, 0].tolist() == [0, 4000, 8000, 12000]


@pytest.mark.parametrize("speakers", [1, 2, 3, 5])
def test_the_number_of_voices_is_found(speakers: int) -> None:
    rng = np.random.default_rng(speakers)
    centres = unit(rng.normal(size=(speakers, 256)) + 0.8 * rng.normal(size=256))
    labels = rng.integers(0, speakers, 40 * speakers)
    vectors = voices_around(centres, labels, 0.6)
    found, confidence = find_speakers(windows_of(vectors))
    assert len(set(found.tolist())) == speakers
    assert len(set(zip(found.tolist(), labels.tolist(), strict=True))) == speakers  # one to one
    assert 0 <= confidence <= 1


@pytest.mark.parametrize(
    ("count", "expected"),
    [(SpeakerCount(exactly=4), 4), (SpeakerCount(at_least=3), 3), (SpeakerCount(at_most=1), 1)],
)
def test_what_is_said_about_the_number_is_kept(count: SpeakerCount, expected: int) -> None:
    centres = unit(np.eye(8)[:2])
    vectors = voices_around(centres, np.repeat([0, 1], 20), 0.3)
    found, confidence = find_speakers(windows_of(vectors), count)
    assert len(set(found.tolist())) == expected
    if count.exactly:
        assert confidence == 1.0


def test_three_thousand_units_are_clustered() -> None:
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(4, 256)) + rng.normal(size=256))
    labels = rng.integers(0, 4, 3000)
    found, _ = find_speakers(windows_of(voices_around(centres, labels, 0.6)))
    assert len(set(zip(found.tolist(), labels.tolist(), strict=True))) == 4


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_voices_are_compared_over_pairs_that_share_no_audio(count: int, clusters: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.integers(0, 5000, count))
    windows = Windows(np.stack([starts, starts + 1600], axis=1), unit(rng.normal(1, 1, (count, 4))).astype(np.float32))
    weights = rng.integers(1, 4, count).astype(float)
    labels = np.unique(rng.integers(0, clusters, count), return_inverse=True)[1]
    clusters = int(labels.max()) + 1
    s = np.ones((clusters, clusters))
    for k, m in itertools.product(range(clusters), repeat=2):
        pairs = [
            (weights[i] * weights[j], float(windows.vectors[i].astype(float) @ windows.vectors[j].astype(float)))
            for i, j in itertools.product(np.flatnonzero(labels == k), np.flatnonzero(labels == m))
            if abs(starts[i] - starts[j]) >= 1600
        ] + ([(2.0, PRIOR_PRODUCT)] if k == m else [])
        if pairs:
            s[k, m] = np.average([product for _, product in pairs], weights=[weight for weight, _ in pairs])
    length = np.sqrt(np.maximum(s.diagonal(), 1e-6))
    expected = np.clip(s / length[:, None] / length, -1, 1)
    np.testing.assert_allclose(cosines_of_voices(windows, weights, labels, 2.0), expected, atol=1e-9)


@settings(max_examples=30)
@given(st.integers(2, 5), st.integers(0, 99))
def test_likest_is_the_best_of_many_mixtures(clusters: int, seed: int) -> None:
    means = unit(np.random.default_rng(seed).normal(0.7, 1, (clusters, 4)))
    tried = max(
        float(means[k] @ unit(np.cos(angle) * means[i] + np.sin(angle) * means[j]))
        for k, i, j in itertools.product(range(clusters), repeat=3)
        if k not in (i, j) and (i != j or clusters == 2)
        for angle in np.linspace(0, np.pi / 2, 200)
    )
    assert likest(means @ means.T) == pytest.approx(tried, abs=1e-3)


def test_one_voice_is_like_no_other() -> None:
    assert likest(np.ones((1, 1))) == -1.0


@pytest.mark.parametrize("minutes", [1, 10])
def test_somebody_who_talks_for_long_stays_one_person(minutes: int) -> None:
    """A voice drifts and has moods, here along one direction: halves of it differ however much is heard."""
    rng = np.random.default_rng(minutes)
    count = 75 * minutes
    voice, mood = unit(rng.normal(size=(2, 256)))
    drift = np.sin(np.arange(count) / 7)[:, None]
    vectors = unit(voice + 0.2 * drift * mood + rng.normal(0, 0.5 / 16, (count, 256)))
    found, _ = find_speakers(windows_of(vectors, 800))
    assert len(set(found.tolist())) == 1


@pytest.mark.parametrize(("third_is_a_mixture", "expected"), [(True, 2), (False, 3)])
def test_windows_in_which_two_people_speak_are_no_third_person(third_is_a_mixture: bool, expected: int) -> None:
    rng = np.random.default_rng(0)
    three = unit(rng.normal(size=(3, 256)) + rng.normal(size=256))
    if third_is_a_mixture:
        three[2] = unit(three[:2].sum(axis=0))
    windows = windows_of(voices_around(three, np.repeat([0, 1, 2], [40, 40, 12]), 0.4))
    found, _ = find_speakers(windows)
    assert len(set(found.tolist())) == expected


@settings(max_examples=50)
@given(st.integers(0, 40), st.floats(0.1, 1.0), st.integers(0, 99))
def test_the_purest_windows_are_most_like_a_neighbour(count: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.choice(60_000, count, replace=False))
    windows = Windows(np.stack([starts, starts + 1600], axis=1), unit(rng.normal(1, 1, (count, 4))).astype(np.float32))
    best: dict[int, float] = {}
    for i in range(count):
        after = [j for j in range(count) if starts[j] >= starts[i] + 1600]
        if after and starts[after[0]] - starts[i] - 1600 < 1600:
            likeness = float(windows.vectors[i] @ windows.vectors[after[0]])
            for k in (i, after[0]):
                best[k] = max(best.get(k, -1.0), likeness)
    limit = np.quantile(list(best.values()), 1 - share) if best else -2.0
    kept = set(purest(windows, share).spans_ms[:, 0].tolist())
    for i, start in enumerate(starts.tolist()):
        if abs(best.get(i, 2.0) - limit) > 1e-6:  # else rounding decides
            assert (start in kept) == (best.get(i, 2.0) > limit)


def test_turns_cover_the_speech_and_nothing_else() -> None:
    centres = unit(np.array([[1.0, 0.2], [0.2, 1.0]]))
    labels = np.repeat([0, 1], 10)
    windows = windows_of(voices_around(centres, labels, 0.05))
    speech = [Span(0, 3000), Span(3500, 8000), Span(20_000, 20_100)]
    turns, voices = cut_turns(speech, windows, labels, windows, CONFIG)
    assert sum(turn.duration_ms for turn in turns) == 7600
    assert set(voices) == {"S1", "S2"} == {turn.speaker for turn in turns}
    (change,) = [turn.end_ms for turn in turns if turn.speaker == "S1"][-1:]
    assert change == pytest.approx(4000, abs=200)
    assert all(0.5 < turn.confidence <= 1 for turn in turns)


@pytest.fixture(scope="module")
def diarizer() -> DVectorDiarizer:
    return DVectorDiarizer()


def test_a_real_call_has_two_speakers(diarizer: DVectorDiarizer, conversation: Path) -> None:
    """The call took no part in the calibration; here it is only evaluated."""
    assert isinstance(diarizer, Diarizer)
    recording = Recording.open(conversation / "sample.wav")
    found = diarizer.diarize(recording, detect_speech(recording))
    assert set(found.voices) == {"S1", "S2"}
    reference = formats.read(conversation / "sample.rttm")
    blocks, _ = turn_errors(reference.turns, found.turns)
    assert sum(blocks, TimeErrors()).rate < 0.25
    for voice in found.voices.values():
        assert np.linalg.norm(voice) == pytest.approx(1, abs=1e-4)


def test_one_person_is_one_speaker(diarizer: DVectorDiarizer, conversation: Path) -> None:
    """Two long turns of one person of the real call, without what the other says between them."""
    recording = Recording.open(conversation / "sample.wav")
    own = [Span(14_700, 17_900), Span(21_900, 27_800)]
    assert len(diarizer.diarize(recording, own).voices) == 1


def test_more_speakers_than_voices_is_said(diarizer: DVectorDiarizer) -> None:
    tone = 0.1 * np.sin(np.arange(16_000) / 20).astype(np.float32)
    found = diarizer.diarize(Recording.from_array(tone, 16_000), [Span(0, 1000)], SpeakerCount(exactly=3))
    assert found.warnings == ("3 speakers were asked for and 1 can be told apart",)


def test_silence_has_no_speakers(diarizer: DVectorDiarizer) -> None:
    silent = Recording.from_array(np.zeros(32_000, np.float32), 16_000)
    assert diarizer.diarize(silent, []).turns == ()
    assert diarizer.diarize(silent, [Span(0, 2000)]).turns == ()


@pytest.mark.parametrize(
    "options",
    [
        {"stay": 1.0},
        {"enough": 0},
        {"kept": 0.0},
        {"prior_pairs": 0.0},
        {"max_likeness": 1.1},
        {"turn_hop_ms": 900},
        {"threads": 0},
    ],
)
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))} is"):
        DVectorConfig(**options)


@pytest.mark.parametrize(("pitch", "doubted"), [(1.0, False), (1.19, True)])
def test_a_doubtful_number_of_speakers_is_said(
    diarizer: DVectorDiarizer, conversation: Path, monkeypatch: pytest.MonkeyPatch, pitch: float, doubted: bool
) -> None:
    """One person, then the same again or in a voice raised until it is hardly another one."""
    monkeypatch.setattr(dvector, "UNSURE", 0.9)
    own = Recording.open(conversation / "sample.wav").read(21_900, 27_800)
    raised = np.interp(np.arange(0, len(own) - 1, pitch), np.arange(len(own)), own).astype(np.float32)
    recording = Recording.from_array(np.concatenate([own, raised]), 16_000)
    found = diarizer.diarize(recording, [Span(0, 5900), Span(5900, recording.duration_ms)])
    assert any("is a guess" in warning for warning in found.warnings) == doubted
