"""Train a digits recogniser five times, each time without one speaker, and write how well it hears them into the docs.

    python scripts/digits_folds.py FOLDER [--work DIR]

FOLDER is the Free Spoken Digit Dataset (CC BY-SA 4.0, Jakobovski et al.). What is trained, and how, is what
docs/train-a-recogniser.md tells a newcomer to run. A fold that was finished in DIR before is only read.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from wieldy.report import Report
from wieldy.speech import corpora
from wieldy.speech.asr import AsrConfig, train_recognizer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "train-a-recogniser.md"
STEPS, JOIN, SYNTHETIC = 1500, 6, 2000  # as on the page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("digits-folds"), help="folder for the five recognisers")
    options = parser.parse_args()
    cuts = corpora.digits_corpus(options.folder)
    rows = []
    for speaker in sorted({cut.supervisions[0].speaker for cut in cuts}):
        out = options.work / speaker
        if not (out / "report.json").is_file():
            config = AsrConfig(preset="tiny", steps=STEPS, join=JOIN, synthetic=SYNTHETIC, held_out=speaker)
            train_recognizer(cuts, out, config, resume=True)
        report = Report.from_json(json.loads((out / "report.json").read_text(encoding="utf-8")))
        rows.append(f"| {speaker} | {report.metric(f'word error rate, {speaker}, who was not trained on')} |")
        print(rows[-1])
    table = "\n".join(("| speaker never heard | digit error rate, 95 % interval, digits |", "| --- | --- |", *rows))
    page = PAGE.read_text(encoding="utf-8")
    filled = re.sub(r"(<!-- folds -->\n).*(<!-- /folds -->)", rf"\1{table}\n\2", page, flags=re.S)
    PAGE.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
