"""Damaged recordings of a real call through `wieldy transcribe`, each made from its seed alone.

    python transcribe_mutated.py FIRST LAST FOLDER

A program, like `mutate.py`, so that a crash or a hang ends a child and names its seed. `FOLDER/cache` is its cache.
"""

import contextlib
import faulthandler
import functools
import io
import os
import sys
from collections import Counter
from pathlib import Path

import mutate
import soundfile

SECONDS_OF_SPEECH = 5
SECONDS_PER_FILE = 60  # none takes a tenth of that
SUFFIXES = {"json": ".json", "srt": ".srt", "html": ".html"}


def transcribe_all(first: int, last: int, folder: Path) -> None:
    """Transcribe the recordings of seeds `first` to `last` - 1 and print how many ended with which exit status."""
    from wieldy import cli, weights

    call, rate = soundfile.read(weights.locate("conversation", offline=True) / "sample.wav", dtype="float32")
    speech = call[6 * rate : (6 + SECONDS_OF_SPEECH) * rate, None].repeat(2, axis=1)
    whole = functools.cache(lambda kind: mutate.encoded(speech, rate, kind))
    ended: Counter[int] = Counter()
    words = 0
    with (folder / "in-flight").open("w") as in_flight:
        for seed in range(first, last):
            print(seed, file=in_flight, flush=True)
            faulthandler.dump_traceback_later(SECONDS_PER_FILE, exit=True)
            ending, content = mutate.mutated(seed, whole)
            path = folder / f"{seed}.{ending}"
            path.write_bytes(content)
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                status = cli.main(
                    ["transcribe", str(path), "--offline", "--format", ",".join(SUFFIXES), "--out", str(folder / "out")]
                )
            words += check(path, status, said.getvalue(), folder / "out")
            ended[status] += 1
            path.unlink()
    print(f"{ended[0]} transcribed, {ended[3]} not audio, {ended[4]} not English, {words} words")


def check(path: Path, status: int, said: str, out: Path) -> int:
    """Whole files or none, and one line that says why; the number of words. Removes what was written."""
    from wieldy.speech import formats

    written = sorted(out.glob("*")) if out.is_dir() else []
    if status == 0:
        if [file.name for file in written] != sorted(f"{path.stem}{suffix}" for suffix in SUFFIXES.values()):
            raise ValueError(f"{path}: wrote {written}")
        found = formats.read(out / f"{path.stem}.json")
        texts = [word.text for word in found.words]
        if [word.text for word in formats.read(out / f"{path.stem}.html").words] != texts:
            raise ValueError(f"{path}: the page and the data differ")
        if any(word.end_ms > found.duration_ms for word in found.words):
            raise ValueError(f"{path}: words after the end")
        formats.read(out / f"{path.stem}.srt")
        for file in written:
            file.unlink()
        return len(texts)
    lines = [line for line in said.splitlines() if line.startswith("wieldy: ")]
    if status not in (3, 4) or written or len(lines) != 1 or "Traceback" in said:
        raise ValueError(f"{path}: exit status {status}, wrote {written}, said {said!r}")
    return 0


if __name__ == "__main__":
    os.environ["WIELDY_CACHE"] = str(Path(sys.argv[3]) / "cache")
    transcribe_all(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
