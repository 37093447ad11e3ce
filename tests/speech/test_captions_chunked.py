"""Captions from a recogniser of stretches: with a scripted one at the protocol, and with Whisper."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wieldy.errors import UsageError
from wieldy.metrics.text import normalizer, word_errors
from wieldy.speech import formats
from wieldy.speech.audio import SAMPLE_RATE, Recording
from wieldy.speech.captions import CaptionSession, Final, Partial, Pause, Warned, engines
from wieldy.speech.captions.chunked import ChunkedConfig, ChunkedEngine
from wieldy.speech.recognize import Capabilities, HeardWord, Hypothesis
from wieldy.speech.recognize.loop_guard import LoopGuardConfig
from wieldy.speech.transcript import Word
from wieldy.speech.vad import FRAME_SAMPLES

# Not so much alike that they look like a loop.
LONG_SPEECH = ["".join(letters) for letters in np.random.default_rng(1).choice(list("abcdefghijklm"), (300, 5))]
CLOCK = 2.0**22  # a sample's value times this is its number in the stream: the recogniser knows what it is given


UNGUARDED = LoopGuardConfig(max_compression=1000, max_repeats=1000)  # these speakers do repeat themselves


def stream(milliseconds: int) -> np.ndarray:
    return (np.arange(milliseconds * 16) / CLOCK).astype(np.float32)


class Script:
    """Hears the words whose middle lies in the sound, at times that jitter; the last of them differently each time."""

    name, model_id, model_files = "script", "script", {"model.bin": "0" * 64}
    capabilities = Capabilities(word_times=True, token_scores=False, written_form=True, avoids_repeats=False)

    def __init__(
        self,
        words: Iterable[Word],
        jitter_ms: int = 0,
        unsure_ms: int = 0,
        made_up: str = "",
        log_probability: float | None = None,
    ) -> None:
        self.words = tuple(words)
        self.jitter_ms, self.unsure_ms, self.made_up = jitter_ms, unsure_ms, made_up
        self.log_probability = log_probability
        self.draw = np.random.default_rng(0)
        self.lengths: list[float] = []

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        for samples in audio:
            begin, seconds = samples[0] * CLOCK / SAMPLE_RATE, len(samples) / SAMPLE_RATE
            self.lengths.append(seconds)
            heard = []
            for word in self.words:
                if not begin <= (word.start + word.end) / 2 < begin + seconds:
                    continue
                start, end = (
                    min(max(time - begin + self.draw.uniform(-1, 1) * self.jitter_ms / 1000, 0), seconds)
                    for time in (word.start, word.end)
                )
                known = not self.unsure_ms or word.end + self.unsure_ms / 1000 < begin + seconds
                text = word.text if known else f"{word.text}-{len(self.lengths)}"
                heard.append(HeardWord(text, min(start, end), max(start, end), 0.9))
            if self.made_up:
                heard.append(HeardWord(self.made_up, seconds - 0.1, seconds, 0.5))
            yield Hypothesis(tuple(heard), log_probability=self.log_probability)


class Monitor:
    """Speech while a word is spoken, told by the samples' own times."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = words
        self.rest = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        waiting = np.concatenate([self.rest, samples])
        complete = len(waiting) // FRAME_SAMPLES * FRAME_SAMPLES
        self.rest = waiting[complete:]
        middles = waiting[FRAME_SAMPLES // 2 : complete : FRAME_SAMPLES] * CLOCK / 16
        speech = [any(word.start_ms <= middle < word.end_ms for word in self.words) for middle in middles]
        return np.where(speech, 0.9, 0.05).astype(np.float32)


def spoken(*timed: tuple[str, int, int]) -> tuple[Word, ...]:
    return tuple(Word(start, end, text) for text, start, end in timed)


def sentence(begin_ms: int, text: str, word_ms: int = 300) -> tuple[Word, ...]:
    starts = itertools.count(begin_ms, word_ms)
    return tuple(Word(start, start + word_ms, word) for start, word in zip(starts, text.split(), strict=False))


def caption(script: Script, until_ms: int, block_ms: int = 100, config=ChunkedConfig(), loop_guard=LoopGuardConfig()):
    """All events with the time they came at, and the transcript."""
    session = CaptionSession(ChunkedEngine(script, config, loop_guard, monitor=Monitor(script.words)), adapt=False)
    samples, events = stream(until_ms), []
    for first in range(0, len(samples), block_ms * 16):
        for event in session.push(samples[first : first + block_ms * 16]):
            events.append((session.now_ms, event))
    events += [(session.now_ms, event) for event in session.flush()]
    return events, session.finish()


def texts(words: Iterable[Word]) -> list[str]:
    return [word.text for word in words]


def test_two_hearings_make_a_word_final():
    words = sentence(1000, "one two three four five six seven eight nine ten")
    events, transcript = caption(Script(words), 6000)
    assert texts(transcript.words) == texts(words)
    assert [(word.start_ms, word.end_ms) for word in transcript.words] == [(w.start_ms, w.end_ms) for w in words]
    at, first = next((at, event) for at, event in events if isinstance(event, Partial))
    assert at <= 1000 + 600 + 100
    assert texts(first.words) == ["one", "two"]
    at, final = next((at, event) for at, event in events if isinstance(event, Final))
    assert at <= 1000 + 1600 + 100
    assert texts(final.words) == ["one", "two"]
    assert [type(event) for _, event in events][-1] is Pause
    assert events[-1][0] <= words[-1].end_ms + 700 + 100


def test_what_only_one_hearing_had_is_never_final():
    words = sentence(500, "a b c d e f g h i j k l", word_ms=400)
    events, transcript = caption(Script(words, unsure_ms=500), 8000)
    assert texts(transcript.words) == texts(words)
    partials = [word.text for _, event in events if isinstance(event, Partial) for word in event.words]
    assert any("-" in text for text in partials)


@st.composite
def speeches(draw):
    """Words of a small vocabulary with pauses of all lengths between them."""
    vocabulary = st.sampled_from(["no", "yes", "so", "we", "wait.", "well,"])
    at, words = draw(st.integers(0, 2000)), []
    for text in draw(st.lists(vocabulary, min_size=1, max_size=120)):
        length = draw(st.sampled_from([160, 200, 320, 480]))
        words.append(Word(at, at + length, text))
        at += length + draw(st.sampled_from([0, 0, 0, 0, 40, 160, 400, 900, 3000]))
    return tuple(words), at + draw(st.sampled_from([0, 300, 2000]))


@given(speeches(), st.sampled_from([30, 100, 170, 5000]), st.sampled_from([1000, 2500]), st.sampled_from([0, 60]))
@settings(max_examples=40)
def test_every_word_is_final_once_and_in_order(speech, block_ms, step_ms, jitter_ms):
    """Whatever is said, however it comes in: nothing is lost, repeated or changed at a cut or a pause."""
    words, until_ms = speech
    config = ChunkedConfig(step_ms=step_ms, cut_ms=5000, max_ms=10_000)
    script = Script(words, jitter_ms=jitter_ms)
    events, transcript = caption(script, until_ms, block_ms, config, UNGUARDED)
    final = [word for _, event in events if isinstance(event, Final) for word in event.words]
    assert tuple(final) == transcript.words
    assert [text.strip(".,") for text in texts(final)] == [text.strip(".,") for text in texts(words)]
    assert all(a.start_ms <= b.start_ms for a, b in itertools.pairwise(final))
    assert max(script.lengths, default=0) <= 10.0


def test_sound_without_an_end_of_a_sentence_is_cut_all_the_same():
    words = sentence(0, " ".join(LONG_SPEECH))
    script = Script(words, jitter_ms=40)
    _, transcript = caption(script, 90_000)
    assert texts(transcript.words) == texts(words)
    assert max(script.lengths) <= 20.0


def test_hearings_that_never_agree_do_not_fill_the_memory():
    words = sentence(0, " ".join(LONG_SPEECH))
    script = Script(words, unsure_ms=60_000)
    caption(script, 90_000)
    assert max(script.lengths) <= 20.0


def test_long_sound_without_a_word_is_dropped():
    hum = (Word(0, 60_000, "hum"),)
    script = Script(())
    engine = ChunkedEngine(script, monitor=Monitor(hum))
    for block in np.split(stream(60_000), 600):
        assert engine.push(block, 1000).committed == ()
    assert max(script.lengths) <= 20.0


def test_silence_is_never_heard():
    script = Script((), made_up="Thanks.")
    events, transcript = caption(script, 30_000)
    assert (events, transcript.words, script.lengths) == ([], (), [])


def test_a_click_is_no_utterance():
    script = Script(spoken(("tick", 1000, 1064)), made_up="You")
    events, _ = caption(script, 4000)
    assert (events, script.lengths) == ([], [])


def test_a_loop_is_cut_out_and_said():
    words = sentence(500, "yes yes yes yes yes yes yes yes")
    events, transcript = caption(Script(words), 5000)
    assert texts(transcript.words) == ["yes"]
    (warning,) = (event for _, event in events if isinstance(event, Warned))
    assert "'yes' repeated 8 times" in warning.text
    assert transcript.warnings == (f"00:00:03 {warning.text}",)


def test_another_language_is_said_once():
    words = sentence(0, " ".join(LONG_SPEECH[:30])) + sentence(20_000, "und noch ein paar")
    script = Script(words, log_probability=-1.4)
    events, transcript = caption(script, 30_000)
    (warning,) = (event for _, event in events if isinstance(event, Warned))
    assert "does not sound like English, the only language of model script (mean log-probability -1.40)" in warning.text
    assert warning.text.endswith("if it is English, say --language en")
    assert len(transcript.words) == 34
    named = ChunkedEngine(Script(words, log_probability=-1.4), language="en", monitor=Monitor(words))
    for block in np.split(stream(30_000), 300):
        assert named.push(block, 1000).warnings == ()


def test_a_longer_step_hears_less_often():
    words = sentence(0, "a b c d e f g h i j k l m n o p q r s t u v w x y z")
    counts = []
    for step_ms in (1000, 4000):
        script = Script(words)
        engine = ChunkedEngine(script, monitor=Monitor(words))
        for block in np.split(stream(8000), 80):
            engine.push(block, step_ms)
        engine.flush()
        counts.append(len(script.lengths))
    assert counts[1] <= counts[0] / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_ms": 0}, "step_ms is 0: at least 32 ms"),
        ({"max_step_ms": 500}, "max_step_ms is 500: at least step_ms, 1000"),
        ({"max_ms": 30_000}, "max_ms is 30000: from cut_ms, 10000, to 25000"),
        ({"cut_ms": 24_000}, "max_ms is 20000: from cut_ms, 24000, to 25000"),
        ({"on": 2.0}, "on is 2.0"),
        ({"detector": "ear"}, "detector is 'ear'"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UsageError, match=message):
        ChunkedConfig(**options)


class TestWhisper:
    """The model is on the last line of defence: whole words, in order, about as right as in a transcript."""

    @pytest.fixture
    def engine(self, whisper_tiny):
        return engines.build(engines.CaptionConfig(offline=True))

    def test_the_beginning_of_a_meeting(self, engine):
        recording = Recording.open("examples/meeting.flac")
        session = CaptionSession(engine, adapt=False)
        events = [e for start in range(0, 3500, 100) for e in session.push(recording.read(start, start + 100))]
        assert any(isinstance(event, Final) for event in events)
        said = normalizer("basic")(" ".join(texts(session.finish().words)))
        assert said.startswith("good morning everyone we have three")

    @pytest.mark.slow
    def test_a_real_conversation_is_readable(self, engine, conversation):
        recording = Recording.open(conversation / "sample.wav")
        session = CaptionSession(engine, adapt=False)
        for block in recording.blocks(0.1):
            session.push(block[0])
        basic = normalizer("basic")
        said, heard = (
            basic(" ".join(texts(transcript.words))).split()
            for transcript in (formats.read(conversation / "sample.stm"), session.finish())
        )
        assert word_errors(said, heard).rate < 0.25
