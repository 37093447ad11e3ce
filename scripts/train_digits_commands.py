"""Train the recogniser that wieldy ships, `digits-commands`, on synthetic speech alone, and write its card.

    python scripts/train_digits_commands.py [--steps N] [--fsdd FOLDER]

Ten digits and ten commands, said by every voice of flite, hibari and espeak-ng that may be handed on. With the Free
Spoken Digit Dataset (CC BY-SA 4.0, Jakobovski et al.) its error on people is measured and printed on the card; none of
that is trained on. Takes about a quarter of an hour on two cores, most of it training.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
from lhotse.cut import CutSet

from wieldy.metrics.text import word_errors
from wieldy.report import Metric
from wieldy.speech import corpora, corpus
from wieldy.speech.asr import AsrConfig, error_rate, train_recognizer
from wieldy.speech.recognize.transducer import TransducerRecognizer

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OUT = Path(__file__).resolve().parents[1] / "src" / "wieldy" / "weights" / "bundled" / "digits-commands"
UTTERANCES = 4000
STRINGS = 100  # of each person, to measure on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--fsdd", type=Path, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--work", type=Path, default=Path("digits-commands"), help="folder for checkpoints and report")
    options = parser.parse_args()
    config = AsrConfig(
        preset="tiny",
        steps=options.steps,
        sample_rate=8000,  # telephone speech is heard as well as any other
    )
    recognizer, report = train_recognizer(synthetic_speech(), options.work, config, resume=True, progress=print_stage)
    people = error_on_people(recognizer, options.fsdd) if options.fsdd else []
    recognizer.save(OUT, trained_on=f"{UTTERANCES} utterances of synthetic voices")
    (OUT / "README.md").write_text(card(report.metrics[-1], people), encoding="utf-8")
    print((OUT / "README.md").read_text(encoding="utf-8"))


def synthetic_speech() -> CutSet:
    """Digits in a row, as in numbers, and one to three commands."""
    digits = corpora.said_by_voices(corpora.DIGITS, UTTERANCES * 3 // 4, (1, 7))
    return digits + corpora.said_by_voices(COMMANDS, UTTERANCES // 4, (1, 3))


def error_on_people(recognizer: TransducerRecognizer, folder: Path) -> list[Metric]:
    """The word error rate on strings of one to seven digits of each person."""
    cuts = corpora.digits_corpus(folder)
    metrics = []
    for speaker in sorted({cut.supervisions[0].speaker for cut in cuts}):
        own = CutSet.from_cuts(cut for cut in cuts if cut.supervisions[0].speaker == speaker)
        found = []
        for string in corpora.joined(own, np.random.default_rng(0), STRINGS):
            heard = recognizer.heard(corpus.samples_of(string, 8000), 8000)
            found.append(word_errors(corpus.text_of(string).split(), heard.text.split()))
        metrics.append(error_rate(speaker, found))
    return metrics


def card(synthetic: Metric, people: list[Metric]) -> str:
    rows = "\n".join(f"| {metric.name} | {metric} |" for metric in people)
    words = f"{', '.join(corpora.DIGITS)}; {', '.join(COMMANDS)}"
    paragraphs = (
        f"A streaming recogniser of twenty words: {words}. A transducer of wieldy's, trained by "
        "`scripts/train_digits_commands.py` on synthetic speech only.",
        "It hears **nothing else**: any other word comes out as one of these, or not at all. It has never heard a "
        "person, and it is worse with people than a recogniser that has: train one on recordings of those who will "
        "speak (docs/train-a-recogniser.md).",
        f"Word error rate, with its 95 % interval, on synthetic speech that was kept from training: {synthetic}. On "
        "people, in strings of one to seven digits joined from single recordings (Free Spoken Digit Dataset, CC BY-SA "
        "4.0, Jakobovski et al.):",
    )
    text = "\n\n".join(textwrap.fill(paragraph, 120, break_on_hyphens=False) for paragraph in paragraphs)
    table = f"| speaker | word error rate |\n| --- | --- |\n{rows}"
    return f"# digits-commands\n\n{text}\n\n{table}\n\nApache-2.0, as wieldy.\n"


def print_stage(stage: str, share: float) -> None:
    print(f"{stage}: {share:.0%}", end="\r", flush=True)


if __name__ == "__main__":
    main()
