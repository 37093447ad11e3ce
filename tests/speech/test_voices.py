"""The speaker encoder as the pipeline uses it: windows, levels, silence; the real model on a real call."""

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wieldy
from wieldy.errors import InputError, UsageError
from wieldy.speech import formats, voices
from wieldy.speech.audio import Recording
from wieldy.speech.features import power_mel
from wieldy.speech.transcript import Span
from wieldy.speech.voices import SpeakerEncoder, Windows, unit, windows_over

NETWORK = Path(wieldy.__file__).parent / "weights/bundled/dvector/dvector.onnx"


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return SpeakerEncoder()


def hum(seconds: float, pitch: float, seed: int = 0) -> np.ndarray:
    """Harmonics of a wavering pitch in a little noise: enough of a voice for the encoder to tell from others."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * (pitch * time + 3 * np.sin(2 * time))
    sound = sum(np.sin(k * phase) / k for k in range(1, 12)) * (1.2 + np.sin(9 * time))
    return np.asarray(0.03 * sound + rng.normal(0, 0.001, len(time)), np.float32)


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 5000)), max_size=3),
    st.integers(50, 2000),
    st.integers(50, 2000),
)
def test_windows_cover_their_regions_and_nothing_else(gaps: list, window_ms: int, hop_ms: int) -> None:
    edge, regions = 0, []
    for gap, length in gaps:
        regions.append(Span(edge + gap, edge + gap + length))
        edge += gap + length
    windows = list(windows_over(regions, window_ms, hop_ms))
    assert windows == sorted(set(windows)), "in order, none twice"
    for region in regions:
        own = [w for w in windows if region.start_ms <= w[0] and w[1] <= region.end_ms and w[0] < w[1]]
        if region.duration_ms:
            assert own[0][0] == region.start_ms
            assert own[-1][1] == region.end_ms
            assert all(end - start == min(window_ms, region.duration_ms) for start, end in own)
            assert all(b[0] - a[0] <= hop_ms for a, b in itertools.pairwise(own))
        windows = [w for w in windows if w not in own]
    assert not windows


def test_voices_equal_those_of_a_window_by_window_computation(
    encoder: SpeakerEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voices, "_BLOCK_MS", 2000)  # several blocks
    samples = hum(6.0, 120)
    regions = [Span(330, 4000), Span(4200, 5100), Span(5500, 6000)]
    heard = encoder.embed_regions(Recording.from_array(samples, 16_000), regions, window_ms=1600, hop_ms=500)
    session = onnxruntime.InferenceSession(NETWORK, providers=["CPUExecutionProvider"])
    mel = power_mel(samples)
    assert [tuple(span) for span in heard.spans_ms.tolist()] == list(windows_over(regions, 1600, 500))
    for (start, end), vector in zip(heard.spans_ms.tolist(), heard.vectors, strict=True):
        level = np.mean(samples[start * 16 : end * 16].astype(float) ** 2)
        frames = mel[start // 10 : start // 10 + (end - start) // 50 * 5] * np.float32(1e-3 / level)
        (expected,) = session.run(None, {"mel": frames[None]})
        np.testing.assert_allclose(vector, expected[0], atol=1e-4)


def test_voices_do_not_depend_on_level(encoder: SpeakerEncoder) -> None:
    loud = hum(2.0, 150)
    first, second = encoder.embed([loud, 0.02 * loud])
    np.testing.assert_allclose(first, second, atol=1e-3)


def test_windows_without_energy_give_no_voice(encoder: SpeakerEncoder) -> None:
    samples = np.concatenate([hum(2.0, 200), np.zeros(48_000, np.float32), hum(2.0, 200)])
    heard = encoder.embed_regions(Recording.from_array(samples, 16_000), [Span(0, 7000)], hop_ms=800)
    assert 0 < len(heard) < len(list(windows_over([Span(0, 7000)], 1600, 800)))
    np.testing.assert_allclose(np.linalg.norm(heard.vectors, axis=1), 1.0, atol=1e-5)
    silent = [span for span in heard.spans_ms.tolist() if span[0] >= 2000 and span[1] <= 5000]
    assert not silent


@pytest.mark.parametrize("samples", [np.zeros(32_000, np.float32), np.zeros(0, np.float32)])
def test_an_utterance_without_a_voice_is_refused(encoder: SpeakerEncoder, samples: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"utterance 1 \(\d+ samples\) has no voice in it"):
        encoder.embed([hum(1.0, 100), samples])


def test_samples_that_are_not_finite_do_not_spread(encoder: SpeakerEncoder) -> None:
    samples = hum(4.0, 130)
    samples[20_000:20_100] = np.nan
    (voice,) = encoder.embed([samples])
    assert np.isfinite(voice).all()
    assert np.linalg.norm(voice) == pytest.approx(1, abs=1e-5)


def test_speakers_of_a_real_call_lie_apart(encoder: SpeakerEncoder, conversation: Path) -> None:
    """Windows in which one person of the call speaks: two of one speaker are more alike than two of both."""
    recording = Recording.open(conversation / "sample.wav")
    turns = formats.read(conversation / "sample.rttm").turns
    edges = sorted({edge for turn in turns for edge in (turn.start_ms, turn.end_ms)})
    vectors, speakers = [], []
    for stretch in itertools.starmap(Span, itertools.pairwise(edges)):
        active = [turn.speaker for turn in turns if turn.overlap_ms(stretch)]
        if len(active) == 1 and stretch.duration_ms >= 1000:
            heard = encoder.embed_regions(recording, [stretch])
            vectors.append(heard.vectors)
            speakers += active * len(heard)
    likeness = np.concatenate(vectors) @ np.concatenate(vectors).T
    pairs = np.triu_indices(len(speakers), 1)
    same = np.equal.outer(speakers, speakers)[pairs]
    alike, other = likeness[pairs][same], likeness[pairs][~same]
    assert len(speakers) >= 15
    assert np.mean(alike[:, None] > other[None]) > 0.9  # the area under the ROC curve


@pytest.mark.parametrize("vector", [np.zeros(3), np.array([1.0, np.nan, 0.0])])
def test_what_has_no_direction_has_no_unit_vector(vector: np.ndarray) -> None:
    with pytest.raises(InputError, match="zero or not finite"):
        unit(vector)


def test_spans_and_voices_must_match() -> None:
    with pytest.raises(UsageError, match="2 voices with spans of shape"):
        Windows(np.zeros((1, 2), np.int64), np.ones((2, 256), np.float32))


def test_bad_options_are_refused() -> None:
    with pytest.raises(UsageError, match="threads is 0"):
        SpeakerEncoder(threads=0)
    with pytest.raises(UsageError, match="hop_ms is 0"):
        list(windows_over([Span(0, 10)], 1600, 0))
