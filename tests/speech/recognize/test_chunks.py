"""Packing never loses speech, never overfills a window, and every time finds its way back."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.speech.audio import Recording
from wieldy.speech.recognize.chunks import ChunkConfig, cut, pack
from wieldy.speech.transcript import Span

gaps_and_lengths = st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 28_000)), max_size=40)


def regions(drawn: list[tuple[int, int]]) -> tuple[list[Span], int]:
    spans, clock = [], 0
    for gap, length in drawn:
        spans.append(Span(clock + gap, clock + gap + length))
        clock += gap + length
    return spans, clock + 300


@given(gaps_and_lengths)
def test_every_region_is_in_exactly_one_chunk_and_no_chunk_is_too_long(drawn: list[tuple[int, int]]) -> None:
    speech, duration_ms = regions(drawn)
    chunks = pack(speech, duration_ms)
    assert all(chunk.duration_ms <= ChunkConfig().max_ms for chunk in chunks)
    pieces = [piece for chunk in chunks for piece in chunk.pieces]
    for region in speech:
        holding = [p for p in pieces if p.start_ms <= region.start_ms and region.end_ms <= p.end_ms]
        assert holding, f"{region} is in no piece"
    for earlier, later in itertools.pairwise(speech):
        home = [i for i, c in enumerate(chunks) for p in c.pieces if p.overlap_ms(earlier) == earlier.duration_ms]
        next_home = [i for i, c in enumerate(chunks) for p in c.pieces if p.overlap_ms(later) == later.duration_ms]
        assert min(home) <= min(next_home)


@given(gaps_and_lengths.filter(bool), st.data())
def test_times_return_to_the_recording(drawn: list[tuple[int, int]], data: st.DataObject) -> None:
    speech, duration_ms = regions(drawn)
    for chunk in pack(speech, duration_ms):
        for start, piece in zip(chunk.starts_ms, chunk.pieces, strict=True):
            if piece.duration_ms == 0:
                continue
            offset = data.draw(st.integers(0, piece.duration_ms - 1))
            back = chunk.original(Span(start + offset, min(start + offset + 1, start + piece.duration_ms)))
            assert back.start_ms == piece.start_ms + offset


def test_long_silence_is_cut_out_and_short_pauses_are_kept() -> None:
    speech = [Span(1000, 2000), Span(2500, 3000), Span(9000, 10_000)]
    (chunk,) = pack(speech, 20_000)
    assert chunk.pieces == (Span(800, 3200), Span(8800, 10_200))


def test_a_word_across_a_cut_is_not_stretched_over_the_silence() -> None:
    (chunk,) = pack([Span(1000, 2000), Span(9000, 10_000)], 20_000)
    word = chunk.original(Span(1300, 1500))  # 100 ms before the cut at 1400, 100 ms after
    assert word.duration_ms <= 200
    assert word.end_ms <= 2200


def test_chunks_end_at_the_longest_pause() -> None:
    speech = [Span(0, 9000), Span(9200, 18_000), Span(20_000, 27_000), Span(27_100, 36_000)]
    first, second = pack(speech, 36_000)
    assert first.pieces[-1].end_ms == 18_200
    assert second.pieces[0].start_ms == 19_800


def test_cut_gives_the_pieces_in_order() -> None:
    samples = np.arange(16_000 * 12, dtype=np.float32) / (16_000 * 12)
    recording = Recording.from_array(samples, 16_000, name="ramp")
    (chunk,) = pack([Span(1000, 2000), Span(9000, 10_000)], 12_000)
    cut_out = cut(recording, chunk)
    assert len(cut_out) == 16 * chunk.duration_ms
    np.testing.assert_allclose(cut_out[:16], samples[800 * 16 : 801 * 16], atol=1e-6)
    np.testing.assert_allclose(cut_out[-16:], samples[10_200 * 16 - 16 : 10_200 * 16], atol=1e-6)


def test_no_speech_is_no_chunk() -> None:
    assert pack([], 60_000) == []


@pytest.mark.parametrize("options", [{"max_ms": 0}, {"min_fill": 0.0}, {"margin_ms": -1}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(UsageError):
        ChunkConfig(**options)
