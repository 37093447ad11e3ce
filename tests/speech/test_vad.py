import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.errors import MissingError, UsageError
from wieldy.speech import vad
from wieldy.speech.audio import SAMPLE_RATE, Recording
from wieldy.speech.transcript import Span
from wieldy.speech.vad import FRAME_MS, SpeechMonitor, VadConfig, detect_speech, segment, speech_probability


def plainly_segmented(probabilities, duration_ms: int, config: VadConfig) -> list[Span]:
    """The rule as one would say it: a state machine over the frames, then padding, then cuts."""
    found: list[list[int]] = []
    speaking = False
    for index, p in enumerate(probabilities):
        if not speaking and p >= config.on:
            speaking = True
            start = index * FRAME_MS
            if found and start - found[-1][1] < config.min_silence_ms:
                start = found.pop()[0]  # the pause was too short to count
            found.append([start, duration_ms])
        elif speaking and p < config.off:
            speaking = False
            found[-1][1] = min(index * FRAME_MS, duration_ms)
    found = [span for span in found if span[1] - span[0] >= config.min_speech_ms]

    padded = [list(span) for span in found]
    for index, (start, end) in enumerate(found):
        floor = (found[index - 1][1] + start) // 2 if index else 0
        ceiling = (end + found[index + 1][0]) // 2 if index + 1 < len(found) else duration_ms
        padded[index] = [max(floor, start - config.pad_ms), min(ceiling, end + config.pad_ms)]

    pieces = []
    for start, end in padded:
        while end - start > config.max_segment_ms:
            allowed = {}
            for i in range(len(probabilities)):
                middle = i * FRAME_MS + FRAME_MS // 2
                fits = start + config.max_segment_ms // 2 <= middle <= start + config.max_segment_ms
                if fits and middle <= end - config.min_speech_ms:
                    allowed[i] = middle
            cut = allowed[min(allowed, key=lambda i: probabilities[i])]
            pieces.append(Span(start, cut))
            start = cut
        pieces.append(Span(start, end))
    return pieces


@st.composite
def situations(draw):
    """Probabilities that stay around one level for a while, as real ones do, with any configuration."""
    stretches = st.tuples(st.integers(1, 60), st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.7, 1.0]))
    levels = draw(st.lists(stretches, min_size=1, max_size=12))
    probabilities = np.repeat([level for _, level in levels], [count for count, _ in levels])
    seed = draw(st.integers(0, 2**32 - 1))
    jitter = np.random.default_rng(seed).uniform(-0.1, 0.1, len(probabilities)) * draw(st.booleans())
    on = draw(st.floats(0.3, 0.8))
    config = VadConfig(
        on=on,
        off=draw(st.floats(0.1, on)),
        min_speech_ms=draw(st.integers(0, 250) | st.sampled_from([32, 96, 224])),
        min_silence_ms=draw(st.integers(0, 400) | st.sampled_from([32, 96, 320])),  # also as long as a pause can be
        pad_ms=draw(st.integers(0, 400)),
        max_segment_ms=draw(st.integers(1000, 5000)),
    )
    duration_ms = len(probabilities) * FRAME_MS - draw(st.integers(0, FRAME_MS - 1))
    return np.clip(probabilities + jitter, 0, 1).astype(np.float32), duration_ms, config


@given(situations())
@settings(max_examples=150)
def test_segments_are_those_of_the_plain_rule(situation):
    probabilities, duration_ms, config = situation
    assert list(segment(probabilities, duration_ms, config)) == plainly_segmented(probabilities, duration_ms, config)


@given(situations())
@settings(max_examples=100)
def test_segments_are_in_order_and_short_enough(situation):
    probabilities, duration_ms, config = situation
    spans = segment(probabilities, duration_ms, config)
    edges = [edge for span in spans for edge in (span.start_ms, span.end_ms)]
    assert edges == sorted(edges)
    assert all(0 < span.duration_ms <= config.max_segment_ms for span in spans)
    assert not edges or (edges[0] >= 0 and edges[-1] <= duration_ms)


def test_the_rule_by_example():
    """A click, a word with a breath in it, and a pause long enough to end the segment."""
    p = np.repeat([0.0, 0.9, 0.0, 0.9, 0.4, 0.1, 0.9, 0.0, 0.9, 0.0], [10, 4, 20, 10, 5, 3, 10, 10, 20, 20])
    spans = segment(p, len(p) * FRAME_MS)
    # The 128 ms click is dropped; 0.4 goes on, 96 ms of 0.1 are bridged; 320 ms of silence are not.
    assert spans == (
        Span(34 * 32 - 100, 62 * 32 + 100),
        Span(72 * 32 - 100, 92 * 32 + 100),
    )


def test_a_long_segment_is_cut_where_speech_is_least_likely():
    p = np.full(1500, 0.9)
    p[600] = 0.5  # 19.2 s, in the second half of the first 28 s
    p[100] = 0.4  # lower, but too early to be worth a cut
    spans = segment(p, 48_000)
    assert spans == (Span(0, 600 * 32 + 16), Span(600 * 32 + 16, 600 * 32 + 16 + spans[1].duration_ms), *spans[2:])
    assert spans[-1].end_ms == 48_000
    assert max(span.duration_ms for span in spans) <= 28_000


@pytest.mark.parametrize("probabilities", [np.zeros(0), np.zeros(50)])
def test_no_speech_no_segments(probabilities):
    assert segment(probabilities, 1600) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": 1.0}, "on is 1.0: a probability between 0 and 1"),
        ({"off": 0.6}, "off is 0.6: above 0 and no higher than on, 0.5"),
        ({"off": 0.0}, "off is 0.0"),
        ({"min_speech_ms": -1}, "min_speech_ms is -1: a number of milliseconds"),
        ({"pad_ms": -5}, "pad_ms is -5"),
        ({"max_segment_ms": 999}, "max_segment_ms is 999: at least 1000 ms"),
        (
            {"min_speech_ms": 501, "max_segment_ms": 2000},
            "min_speech_ms is 501: at most a quarter of max_segment_ms, 2000",
        ),
        ({"detector": "webrtc"}, "detector is 'webrtc': auto, silero or energy"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UsageError, match=message) as raised:
        VadConfig(**options)
    assert raised.value.exit_status == 2


@pytest.fixture(scope="module")
def call(conversation):
    return Recording.open(conversation / "sample.wav")


class TestSilero:
    def test_agrees_with_faster_whispers_own_use_of_it(self, call):
        """The same network behind independent code for framing, context and state."""
        from faster_whisper.vad import get_vad_model

        samples = call.read(0, call.duration_ms)
        expected = get_vad_model()(np.pad(samples, (0, -len(samples) % 512)))
        np.testing.assert_allclose(speech_probability(call), expected, atol=1e-5)

    @pytest.mark.parametrize("frames", [1, 7, 300])
    def test_blocks_carry_their_state(self, call, monkeypatch, frames):
        short = Recording.from_array(call.read(8000, 14_000), SAMPLE_RATE)
        whole = speech_probability(short)
        monkeypatch.setattr(vad, "BLOCK_FRAMES", frames)
        np.testing.assert_allclose(speech_probability(short), whole, atol=1e-5)

    @pytest.mark.parametrize("pushed", [100, 512, 1600, 50_000])
    def test_a_stream_has_the_probabilities_of_the_whole(self, call, pushed):
        samples = call.read(8000, 14_000)
        monitor = SpeechMonitor()
        heard = [monitor.push(samples[first : first + pushed]) for first in range(0, len(samples), pushed)]
        whole = speech_probability(Recording.from_array(samples, SAMPLE_RATE))
        complete = len(samples) // 512
        np.testing.assert_allclose(np.concatenate(heard), whole[:complete], atol=1e-5)

    def test_finds_the_turns_of_a_real_conversation(self, call, conversation):
        """Speech in the reference and speech found differ in less than an eighth of the time."""
        milliseconds = np.zeros((2, call.duration_ms), bool)
        for line in (conversation / "sample.rttm").read_text().splitlines():
            start, length = (round(1000 * float(field)) for field in line.split()[3:5])
            milliseconds[0, start : start + length] = True
        for span in detect_speech(call):
            milliseconds[1, span.start_ms : span.end_ms] = True
        assert np.mean(milliseconds[0] != milliseconds[1]) < 0.125

    def test_each_channel_is_heard_alone(self, call):
        speech = call.read(0, 20_000)
        stereo = Recording.from_array(np.stack([np.zeros_like(speech), speech]), SAMPLE_RATE)
        mono = Recording.from_array(speech, SAMPLE_RATE)
        assert detect_speech(stereo, channel=0) == ()
        assert detect_speech(stereo, channel=1) == detect_speech(mono) != ()

    def test_one_probability_per_frame(self):
        for samples, frames in ((512, 1), (513, 2), (1024, 2), (5000, 10)):
            assert speech_probability(Recording.from_array(np.zeros(samples), SAMPLE_RATE)).shape == (frames,)


class TestWithoutOnnxruntime:
    @pytest.fixture(autouse=True)
    def no_onnxruntime(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        vad._silero.cache_clear()
        yield
        vad._silero.cache_clear()

    def test_energy_serves_and_says_so(self, call, caplog, monkeypatch):
        by_energy = speech_probability(call)
        assert "speech is detected by energy" in caplog.text
        monkeypatch.undo()
        vad._silero.cache_clear()
        by_silero = speech_probability(call)
        assert by_energy.shape == by_silero.shape
        assert np.mean((by_energy >= 0.5) == (by_silero >= 0.5)) > 0.9

    def test_energy_serves_a_stream(self, call, caplog, monkeypatch):
        samples = call.read(0, call.duration_ms)
        monitor = SpeechMonitor()
        by_energy = np.concatenate([monitor.push(block) for block in np.array_split(samples, 300)])
        assert "speech is detected by energy" in caplog.text
        monkeypatch.undo()
        vad._silero.cache_clear()
        by_silero = speech_probability(call)[: len(by_energy)]
        assert np.mean((by_energy >= 0.5) == (by_silero >= 0.5)) > 0.85

    def test_silero_on_demand_is_missing(self, call):
        with pytest.raises(MissingError, match="cannot run: pip install onnxruntime faster-whisper") as raised:
            detect_speech(call, VadConfig(detector="silero"))
        with pytest.raises(MissingError, match="cannot run"):
            SpeechMonitor("silero")
        assert raised.value.exit_status == 4

    def test_steady_noise_and_silence_are_not_speech(self):
        noise = 0.05 * np.random.default_rng(0).standard_normal(5 * SAMPLE_RATE)
        for samples in (noise, np.zeros(5 * SAMPLE_RATE)):
            assert detect_speech(Recording.from_array(samples, SAMPLE_RATE)) == ()
