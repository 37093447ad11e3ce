"""`wieldy voices enroll|list|remove`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg, subcommand

from wieldy.cli.options import Files, Folder
from wieldy.cli.output import print_json, progress_bar, say, show
from wieldy.errors import UsageError

Name = Positional[Annotated[str, arg(metavar="NAME", help_behavior_hint="")]]


@dataclass(frozen=True)
class Enroll:
    """Learn what a person sounds like, so that transcripts carry their name.

    Give recordings in which nobody else speaks, 40 s of speech or more in all (10 s at least), best with the
    microphone of the meetings. A person who is enrolled already gains the recordings. What is kept is a voice print,
    not the sound; it stays on this machine. Then: wieldy transcribe meeting.wav --voices enrolled
    """

    name: Name
    """What transcripts shall call the person; in quotes if it has spaces."""
    files: Files
    """Recordings of this person alone: wav, flac, mp3, m4a, ogg, mkv, ..."""
    voices: Folder = None
    """Folder to keep the voice in. Default: your own, which other commands call --voices enrolled."""
    replace: bool = False
    """Forget the person's earlier recordings."""

    def run(self) -> int:
        from wieldy.speech.voices.enrolled import ADVISED_SPEECH_MS, checked_name, enroll

        name = checked_name(self.name)
        if not self.files:
            raise UsageError("no recording given", hint="wieldy voices enroll NAME FILE")
        with progress_bar(name) as progress:
            progress("listen", 0.0)
            voice = enroll(name, self.files, self.voices, replace=self.replace)
        speech_ms, count = int(voice.speech_ms.sum()), len(voice.recordings)
        recordings = "one recording" if count == 1 else f"{count} recordings"
        print(f"{name} is enrolled with {speech_ms / 1000:.0f} s of speech from {recordings}")
        if speech_ms < ADVISED_SPEECH_MS:
            advised = f"{ADVISED_SPEECH_MS // 1000} s or more"
            say(f"more speech is recognised more surely: enroll another recording to get to {advised}")
        return 0


@dataclass(frozen=True)
class List:
    """Who is enrolled, and with how much speech."""

    voices: Folder = None
    """Folder the voices are in. Default: your own."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from wieldy.report import Report, Table
        from wieldy.speech.voices import SpeakerEncoder
        from wieldy.speech.voices.enrolled import folder_of, read_folder

        folder = folder_of(self.voices)
        current = SpeakerEncoder().fingerprint
        people = [
            {
                "name": voice.name,
                "speech_s": int(voice.speech_ms.sum()) / 1000,
                "recordings": len(voice.recordings),
                "usable": voice.encoder == current,
                "file": str(path),
            }
            for path, voice in read_folder(folder).items()
        ]
        if self.json:
            print_json(people)
        elif people:
            rows = tuple(
                (
                    str(person["name"]),
                    f"{person['speech_s']:.0f} s",
                    str(person["recordings"]),
                    "yes" if person["usable"] else "no: another encoder, enroll again with --replace",
                    str(person["file"]),
                )
                for person in people
            )
            show(Report("", tables=(Table("", ("name", "speech", "recordings", "usable", "file"), rows),)))
        else:
            say(f"nobody is enrolled in {folder}: wieldy voices enroll NAME FILE --voices {folder}")
        return 0


@dataclass(frozen=True)
class Remove:
    """Delete a person's voice print."""

    name: Name
    """As `wieldy voices list` shows it."""
    voices: Folder = None
    """Folder the voice is in. Default: your own."""

    def run(self) -> int:
        from wieldy.speech.voices.enrolled import remove

        print(f"deleted {remove(self.name, self.voices)}")
        return 0


@dataclass(frozen=True)
class Voices:
    """People whose voices wieldy knows: enroll them, list them, remove them."""

    action: Annotated[
        Annotated[Enroll, subcommand("enroll")]
        | Annotated[List, subcommand("list")]
        | Annotated[Remove, subcommand("remove")],
        arg(name=""),
    ]

    def run(self) -> int:
        return self.action.run()
