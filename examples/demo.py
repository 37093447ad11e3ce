"""What `make demo` runs: a real telephone conversation and an example meeting, written down by speaker.

Each step is a command you can type yourself; it is printed before it runs and timed after. Downloads happen once
(Whisper 71 MB, the conversation 1 MB), later runs need no network.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from wieldy import weights
from wieldy.cli import main

OUT = Path("wieldy-demo")
MEETING = Path(__file__).parent / "meeting.flac"


def step(*words: object) -> None:
    """Run one `wieldy` command and say how long it took; end the demo with its status if it fails."""
    arguments = [str(word) for word in words]
    print(f"\n$ wieldy {' '.join(arguments)}", flush=True)
    start = time.perf_counter()
    if status := main(arguments):
        sys.exit(status)
    print(f"  ({time.perf_counter() - start:.1f} s)", flush=True)


def demo() -> None:
    start = time.perf_counter()
    if missing := [name for name in ("whisper-tiny.en", "conversation") if weights.where(name) is None]:
        step("models", "get", *missing)
    conversation = weights.locate("conversation")
    step("transcribe", conversation / "sample.wav", MEETING, "--out", OUT, "--overwrite")
    print("\nHow right is the conversation? (81 words of a noisy telephone line, and the smallest Whisper model)")
    step("score", OUT / "sample.json", conversation / "sample.stm", conversation / "sample.rttm")
    pages = " and ".join(str((OUT / f"{name}.html").resolve()) for name in ("sample", MEETING.stem))
    print(f"\nRead, listen and correct in your browser: {pages}")
    print(f"Everything after the installation took {time.perf_counter() - start:.0f} s.")
    print("Now yours: .venv/bin/wieldy transcribe YOUR-RECORDING")


if __name__ == "__main__":
    demo()
