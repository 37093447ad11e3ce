"""What a listener waits for: figures by hand, and time taken of what streams."""

import math

import pytest

torch = pytest.importorskip("torch")

from wieldy.errors import UsageError  # noqa: E402
from wieldy.speech.networks.bilstm import BlstmConfig, BlstmEncoder  # noqa: E402
from wieldy.speech.networks.latency_report import latency_report  # noqa: E402
from wieldy.speech.networks.streaming_config import StreamingConfig  # noqa: E402
from wieldy.speech.networks.streaming_transformer import StreamingEncoder  # noqa: E402


def test_figures_by_hand() -> None:
    config = StreamingConfig(mode="chunk", chunk=4, left=8, right=1, subsampling=2, layers=1)
    found = latency_report(config, 30, window_ms=45)
    # The first of 8 input frames sees them and 2 more; the frame it sees last is heard whole after 45 ms.
    assert found.worst_ms == 9 * 30 + 45
    assert found.mean_ms == pytest.approx(9 * 30 - 3.5 * 30 + 45 - 15)
    assert found.chunk_ms == 8 * 30
    assert found.left_s == pytest.approx(((8 + 3) * 2 + 1) * 0.03)
    assert (found.compute_ms, found.perceived_ms, found.keeps_up) == ((), None, None)
    mask = latency_report(StreamingConfig(mode="mask", layers=3, left=5, right=2), 10)
    assert (mask.worst_ms, mask.mean_ms, mask.chunk_ms) == (70, 65, 10)


def test_time_is_taken_of_what_streams() -> None:
    encoder = StreamingEncoder(6, StreamingConfig(chunk=4, left=8, layers=2, size=8, heads=2)).train()
    found = latency_report(encoder, 30, steps=3)
    assert len(found.compute_ms) == 3
    assert min(found.compute_ms) > 0
    assert found.perceived_ms == found.worst_ms + sorted(found.compute_ms)[1]
    assert found.report.metric("waits at worst, with computing").median == found.perceived_ms
    assert encoder.training
    whole = latency_report(BlstmEncoder(6, BlstmConfig(layers=1, hidden=4)), 30)
    assert (whole.worst_ms, whole.chunk_ms, whole.compute_ms) == (math.inf, math.inf, ())


def test_what_cannot_be_meant() -> None:
    config = StreamingConfig()
    with pytest.raises(UsageError, match="frames of 20 ms, 30 ms apart"):
        latency_report(config, 30, window_ms=20)
    with pytest.raises(UsageError, match="steps is 0"):
        latency_report(config, 30, steps=0)
