"""`wieldy captions` as it is used: a scripted engine behind it, a microphone of its own, and a terminal."""

import json
import os
import pty
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile

from wieldy import cli
from wieldy.speech import formats
from wieldy.speech.captions import Heard
from wieldy.speech.transcript import Word

SPEECH = "We have three points today and little time. The launch date. The budget"
SENTENCES = SPEECH.split()


class Engine:
    """Hears a word of `SENTENCES` in each 300 ms of sound; a word is final when the next one is heard."""

    name, model_id, model_files = "scripted", "scripted", {}
    steps_ms = (100, 100)

    def __init__(self):
        self.samples = self.told = 0

    def push(self, samples, step_ms):
        self.samples += len(samples)
        heard = min(self.samples // 4800, len(SENTENCES))
        committed = self.words(self.told, heard - 1)
        self.told = max(self.told, heard - 1)
        return Heard(committed, self.words(self.told, heard))

    def flush(self):
        heard = min(self.samples // 4800, len(SENTENCES))
        return Heard(self.words(self.told, heard), pause=True, warnings=("the end",))

    def words(self, first, end):
        return tuple(Word(300 * i, 300 * i + 290, SENTENCES[i]) for i in range(first, end))


@pytest.fixture
def scripted(monkeypatch):
    engine = Engine()
    monkeypatch.setattr("wieldy.speech.captions.engines.build", lambda config: engine)
    return engine


@pytest.fixture
def talk(tmp_path):
    path = tmp_path / "talk.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((4 * 16_000, 2)), 16_000)
    return path


def test_lines_with_their_times_where_there_is_no_terminal(scripted, talk, capsys):
    assert cli.main(["captions", str(talk)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "[00:00:00] We have three points today and little time.",
        "[00:00:02] The launch date. The budget",
    ]
    assert "talk: the end" in printed.err


def test_files_are_written_at_the_end(scripted, talk, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["captions", str(talk), "--format", "srt,json", "--out", str(out)]) == 0
    assert [word.text for word in formats.read(out / "talk.json").words] == SENTENCES
    assert (out / "talk.srt").exists()
    assert "wrote" in capsys.readouterr().err
    assert cli.main(["captions", str(talk), "--format", "srt", "--out", str(out)]) == 2
    assert "is already there" in capsys.readouterr().err


def test_events_as_lines_of_json(scripted, talk, capsys):
    assert cli.main(["captions", str(talk), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    final = [word["text"] for event in events if event["event"] == "final" for word in event["words"]]
    assert final == SENTENCES
    assert {event["event"] for event in events} == {"partial", "final", "pause", "warning"}
    assert events[0] == {"event": "partial", "words": [{"text": "We", "start": 0.0, "end": 0.29, "confidence": None}]}


def test_a_recording_in_real_time_waits_for_its_sound(scripted, talk, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert cli.main(["captions", str(talk), "--realtime"]) == 0
    assert now[0] == pytest.approx(4.0)


def test_ctrl_c_ends_with_the_words_so_far(scripted, talk, tmp_path, monkeypatch, capsys):
    push = Engine.push

    def interrupted(self, samples, step_ms):
        heard = push(self, samples, step_ms)
        if self.samples == 2 * 16_000:
            os.kill(os.getpid(), signal.SIGINT)
        return heard

    monkeypatch.setattr(Engine, "push", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    assert cli.main(["captions", str(talk), "--format", "json", "--out", str(tmp_path)]) == 0
    assert signal.getsignal(signal.SIGINT) is handler
    assert scripted.samples == 2 * 16_000
    assert [word.text for word in formats.read(tmp_path / "talk.json").words] == SENTENCES[:6]


def test_on_a_terminal_the_line_is_rewritten(talk):
    code = (
        "import sys; sys.path.insert(0, 'tests/cli'); import test_captions_command as t, wieldy.cli\n"
        "import wieldy.speech.captions.engines as e; e.build = lambda config: t.Engine()\n"
        f"sys.exit(wieldy.cli.main(['captions', {str(talk)!r}]))"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=subprocess.PIPE, env=environment) as run:
        os.close(slave)
        shown = bytearray()
        while True:
            try:
                shown += os.read(master, 65536)
            except OSError:  # the other end is closed
                break
        assert run.wait() == 0, run.stderr.read()
    os.close(master)
    text = shown.decode()
    assert text.count("\x1b[2K") > 10, "the line is erased to be written anew"
    assert text.count("We have three") > 2
    assert text.index("The launch date.") > text.rindex("We have three")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "one recording or --microphone: wieldy captions talk.wav"),
        (["a.wav", "--microphone"], 2, "one recording or --microphone"),
        (["a.wav", "--device", "3"], 2, "--device goes with --microphone"),
        (["--microphone", "--realtime"], 2, "--realtime goes with FILE"),
        (["no-such.wav"], 3, "no-such.wav does not exist"),
        (["a.wav", "--format", "srr"], 2, "did you mean srt?"),
        (["a.wav", "--threads", "0"], 2, "--threads 0"),
    ],
)
def test_bad_requests_end_in_one_line(words, status, message, capsys):
    assert cli.main(["captions", *words]) == status
    assert message in capsys.readouterr().err.splitlines()[-1]


class TestMicrophone:
    DEVICES = (
        {"name": "Speakers", "index": 0, "max_input_channels": 0, "default_samplerate": 48_000.0},
        {"name": "Headset", "index": 1, "max_input_channels": 1, "default_samplerate": 48_000.0},
    )

    @pytest.fixture
    def library(self, monkeypatch):
        """PortAudio with one microphone, which hears four seconds and is then unplugged from the keyboard."""
        devices = self.DEVICES

        class InputStream:
            def __init__(self, *, samplerate, blocksize, device, channels, dtype, callback):
                assert (samplerate, blocksize, device, channels, dtype) == (48_000, 4800, 1, 1, "float32")
                self.hear = callback

            def __enter__(self):
                for _ in range(40):
                    self.hear(np.zeros((4800, 1), np.float32), 4800, None, None)
                signal.setitimer(signal.ITIMER_REAL, 0.3)

            def __exit__(self, *_):
                signal.setitimer(signal.ITIMER_REAL, 0)

        def query_devices(device=None, kind=None):
            if kind is None:
                return list(devices)
            if device not in (None, 1, "Headset"):
                raise ValueError(f"No input device matching {device!r}")
            return devices[1]

        module = types.SimpleNamespace(
            InputStream=InputStream,
            query_devices=query_devices,
            PortAudioError=type("PortAudioError", (Exception,), {}),
        )
        monkeypatch.setitem(sys.modules, "sounddevice", module)
        return module

    def test_is_heard_until_ctrl_c(self, library, scripted, capsys):
        def hear_no_more(*_):
            os.kill(os.getpid(), signal.SIGINT)

        before = signal.signal(signal.SIGALRM, hear_no_more)
        try:
            assert cli.main(["captions", "--microphone", "--device", "Headset"]) == 0
        finally:
            signal.signal(signal.SIGALRM, before)
        assert scripted.samples == pytest.approx(4 * 16_000, abs=1600)
        assert "launch date." in capsys.readouterr().out

    def test_those_there_are_can_be_listed(self, library, capsys):
        assert cli.main(["captions", "--device", "list"]) == 0
        assert capsys.readouterr().out == "1: Headset (1 channels)\n"

    def test_another_is_refused_with_those_there_are(self, library, scripted, capsys):
        assert cli.main(["captions", "--microphone", "--device", "Webcam"]) == 3
        assert "no microphone 'Webcam'" in (error := capsys.readouterr().err)
        assert "there are 1: Headset" in error

    def test_sound_that_nobody_takes_is_left_out_as_silence(self, library):
        from wieldy.speech.captions.microphone import MOST_BLOCKS, Microphone

        microphone = Microphone()
        for _ in range(MOST_BLOCKS + 20):
            microphone._take(np.full((4800, 1), 0.5, np.float32), 4800, None, None)
        assert microphone.lost_s == pytest.approx(2.0)
        library.InputStream.__enter__ = lambda self: None
        blocks = microphone.blocks()
        first = next(blocks)
        blocks.close()
        assert 2.0 * 16_000 < len(first) <= 2.1 * 16_000

    @pytest.mark.parametrize(
        ("failure", "hint"),
        [(ImportError("no module"), "pip install sounddevice"), (OSError("PortAudio"), "apt install libportaudio2")],
    )
    def test_what_is_missing_is_named(self, failure, hint, monkeypatch, capsys):
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "sounddevice":
                    raise failure

        monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
        assert cli.main(["captions", "--microphone"]) == 4
        assert hint in capsys.readouterr().err


def test_help_imports_no_engine():
    code = (
        "import sys, wieldy.cli\ntry: wieldy.cli.main(['captions', '--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(printed.splitlines()[-1].split()) & {"torch", "onnxruntime", "faster_whisper", "scipy", "numpy"}
