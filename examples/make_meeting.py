"""Makes `meeting.flac`, a minute of a project meeting spoken by four synthetic voices, and what was really said.

Needs `pip install 'wieldy[speech]'` for the voice of Maya and `apt install flite` for the other three. The reference
`meeting.seglst.json` has every word with its speaker and time, for `wieldy score`.
"""

from __future__ import annotations

from pathlib import Path

import soundfile

from wieldy.speech import formats, synthesize
from wieldy.speech.simulate import MeetingRecipe, meeting

PEOPLE = {"heart": "Maya", "rms": "Tom", "slt": "Ruth", "awb": "Neil"}

SCRIPT = (
    ("heart", "Good morning, everyone. We have three points today: the launch date, the budget, and the new office."),
    ("rms", "The website is almost finished. We tested it with 25 customers, and most liked it."),
    ("slt", "Two of them could not find the price list. I would move it to the first page."),
    ("awb", "That is a small change. I can do it before Thursday."),
    ("heart", "Great. Then let us keep the launch on the fourth of May. Does anyone disagree?"),
    ("slt", "No, that works for me. What about the money? We planned 12,000 dollars for advertising."),
    ("rms", "We have spent about half of it so far. I suggest we keep the rest until the summer."),
    ("heart", "So we decide to wait until July. Ruth, did you see the rooms in Park Street?"),
    (
        "slt",
        "Yes, I went there on Monday. They are bright and quiet. "
        "The rent is 900 dollars a month for at least two years.",
    ),
    ("awb", "Two years is a long time. Could you ask them for one year?"),
    ("heart", "Good idea. Ruth will ask for one year, and we meet again next Tuesday at ten. Thank you all."),
)


def make(folder: Path) -> None:
    unfit = [name for name in PEOPLE if not synthesize.voice_named(name).shippable]
    if unfit:
        raise SystemExit(f"these voices must not be handed on: {', '.join(unfit)}")
    recipe = MeetingRecipe(
        name="meeting", voices=tuple(PEOPLE), script=SCRIPT, overlap=0.04, backchannels=0.3, noise_db=40.0, seed=1
    )
    made = meeting(recipe, cached=False)
    path = folder / "meeting.flac"
    soundfile.write(path, made.samples, made.sample_rate, subtype="PCM_16", compression_level=1.0)
    reference = made.transcript.renamed(PEOPLE)
    formats.write(reference, folder / "meeting.seglst.json", "seglst", overwrite=True)
    print(f"{made.transcript.duration_ms / 1000:.0f} s, {len(reference.words)} words, overlap {made.overlap:.1%}")


if __name__ == "__main__":
    make(Path(__file__).parent)
