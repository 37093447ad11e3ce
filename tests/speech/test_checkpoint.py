"""Work that was stopped goes on; work that is done leaves nothing behind."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import soundfile

from wieldy import cli
from wieldy.cache import cache_root
from wieldy.speech import formats
from wieldy.speech.audio import Recording
from wieldy.speech.checkpoint import Checkpoint
from wieldy.speech.meeting import MeetingConfig, Transcriber
from wieldy.speech.recognize import HeardWord, Hypothesis
from wieldy.speech.transcript import Span


def test_a_stage_is_computed_once(tmp_path: Path) -> None:
    calls = []
    for _ in range(2):
        stages = Checkpoint(tmp_path / "work", resume=True)
        assert stages.once("find", lambda: calls.append(1) or [[0, 5]], Span(0, 5)) == [[0, 5]]
    assert len(calls) == 1
    assert stages.once("find", lambda: [], Span(0, 6)) == []  # other inputs, another result
    stages.clear()
    assert not (tmp_path / "work").exists()


def test_without_resume_earlier_results_are_not_used(tmp_path: Path) -> None:
    Checkpoint(tmp_path, resume=True).store("find", [1])
    assert Checkpoint(tmp_path).load("find") is None
    assert Checkpoint(None, resume=True).load("find") is None


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    stages = Checkpoint(tmp_path, resume=True)
    stages.store("find", [1, 2])
    (stored,) = (tmp_path / "find").iterdir()
    stored.write_text("[1, ")
    assert stages.once("find", lambda: [3]) == [3]


def test_another_process_that_finishes_first_does_no_harm(tmp_path: Path) -> None:
    """It deletes the folder again and again while this one stores: what is stored is whole or gone."""
    done = threading.Event()

    def finish_again_and_again() -> None:
        while not done.is_set():
            Checkpoint(tmp_path / "work").clear()

    other = threading.Thread(target=finish_again_and_again)
    other.start()
    try:
        stages = Checkpoint(tmp_path / "work", resume=True)
        for number in range(500):
            stages.store("find", [number], number)
            assert stages.load("find", number) in (None, [number])
    finally:
        done.set()
        other.join()


def test_a_hypothesis_survives_json() -> None:
    whole = Hypothesis((HeardWord("so", 0.1, 0.2, 0.9), HeardWord("it")), "en", -0.3, 1, (1,), ("loop",))
    assert Hypothesis.from_json(json.loads(json.dumps(whole.to_json()))) == whole


class Counting:
    """An engine that counts what it is asked to recognise."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.name, self.model_id, self.model_files = engine.name, engine.model_id, engine.model_files
        self.capabilities = engine.capabilities
        self.stretches = 0

    def transcribe(self, audio, *, avoid_repeats=False):
        def counted():
            for samples in audio:
                self.stretches += 1
                yield samples

        return self.engine.transcribe(counted(), avoid_repeats=avoid_repeats)


def test_a_resumed_run_recognises_nothing_twice(fresh_cache: Path, whisper_tiny: Path, conversation: Path) -> None:
    transcriber = Transcriber(MeetingConfig(offline=True))
    whole = transcriber.run(conversation / "sample.wav")
    transcriber.recognizer = counting = Counting(transcriber.recognizer)

    class StoppedError(Exception):
        pass

    def stop(stage: str, _share: float) -> None:
        if stage == "find speakers":
            raise StoppedError

    with pytest.raises(StoppedError):
        transcriber.run(conversation / "sample.wav", keep_stages=True, progress=stop)
    before = counting.stretches
    assert before > 0
    for keep in (True, False):  # kept, as where it cannot be written, it is there for another time
        resumed = transcriber.run(conversation / "sample.wav", resume=True, keep_stages=keep)
        assert counting.stretches == before
        assert (resumed.words, resumed.turns) == (whole.words, whole.turns)
    assert not list((cache_root() / "unfinished").iterdir())


def test_what_cannot_be_written_is_not_lost(
    fresh_cache: Path, whisper_tiny: Path, conversation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the folder should be: the work is done by then, and --resume uses it."""
    (tmp_path / "out").touch()
    command = ["transcribe", str(conversation / "sample.wav"), "--offline", "--resume", "--format", "txt", "--out"]
    assert cli.main([*command, str(tmp_path / "out")]) == 1
    assert "cannot write" in capsys.readouterr().err.splitlines()[-1]
    (kept,) = (fresh_cache / "unfinished").iterdir()
    stages = {path: path.stat().st_mtime_ns for path in kept.glob("*/*.json")}
    assert {path.parent.name for path in stages} == {"find speech", "recognise", "find speakers"}
    transcriber = Transcriber(MeetingConfig(offline=True))
    transcriber.run(conversation / "sample.wav", resume=True, keep_stages=True)
    assert {path: path.stat().st_mtime_ns for path in kept.glob("*/*.json")} == stages, "nothing was computed again"
    assert cli.main([*command, str(tmp_path / "elsewhere")]) == 0
    assert not list((fresh_cache / "unfinished").iterdir())


@pytest.mark.slow
def test_two_processes_on_one_recording(
    fresh_cache: Path, whisper_tiny: Path, conversation: Path, tmp_path: Path
) -> None:
    """The same recording, cache and outputs at the same time, three times: everybody finishes with the same files."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "wieldy", "transcribe", str(conversation / "sample.wav"), "--out", str(out)]
    command += ["--offline", "--format", "json,rttm,html", "--overwrite"]
    for options in ([], ["--resume"], ["--resume"]):
        both = [
            subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=200) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert said[0][0] == said[1][0]
        assert sorted(path.name for path in out.iterdir()) == ["sample.html", "sample.json", "sample.rttm"]
        written = formats.read(out / "sample.json")
        assert written.words == formats.read(out / "sample.html").words
        assert written.turns
        assert not list((fresh_cache / "unfinished").iterdir())
    alone = Transcriber(MeetingConfig(offline=True)).run(conversation / "sample.wav")
    assert (written.words, written.turns) == (alone.words, alone.turns)


@pytest.mark.slow
def test_kill_9_at_ten_random_moments(
    fresh_cache: Path, whisper_tiny: Path, conversation: Path, tmp_path: Path
) -> None:
    """A meeting of two minutes, killed ten times and resumed, gives what an undisturbed run gives."""
    samples, rate = soundfile.read(conversation / "sample.wav", dtype="float32")
    meeting = tmp_path / "meeting.wav"
    with soundfile.SoundFile(meeting, "w", rate, 1) as file:
        for _ in range(4):
            file.write(samples)
    expected = Transcriber(MeetingConfig(offline=True)).run(Recording.open(meeting))

    out = tmp_path / "out"
    command = [sys.executable, "-m", "wieldy", "transcribe", str(meeting), "--out", str(out), "--offline"]
    command += ["--resume", "--overwrite", "--format", "json"]
    draw = random.Random(0)
    stored: set[Path] = set()
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
        time.sleep(draw.uniform(0.5, 6.0))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0 or list(out.glob("*")) == [out / "meeting.json"]:  # it was done, or all but
            break
        now = {path for path in (fresh_cache / "unfinished").glob("*/*/*.json") if not path.name.startswith(".")}
        assert stored <= now, "a finished stage was lost"
        stored = now
        assert not list(out.glob("*")), "a killed run left a file"

    def check_written() -> None:
        written = json.loads((out / "meeting.json").read_text())
        assert [word["text"] for word in written["words"]] == [word.text for word in expected.words]

    if (out / "meeting.json").exists():
        check_written()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    check_written()
    assert not list((fresh_cache / "unfinished").glob("*"))


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(fresh_cache: Path, whisper_tiny: Path, conversation: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wieldy", "transcribe", str(conversation / "sample.wav"), "--offline"]
    command += ["--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "recognise" in line:
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on from there" in said
    assert said.splitlines()[-1] == "wieldy: interrupted; no half-written file is left"
    assert not (tmp_path / "out").exists()
