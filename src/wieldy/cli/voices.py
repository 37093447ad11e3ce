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
    """Folder to keep the voice in. Default: the user's own, which --voices enrolled means elsewhere."""
    replace: bool = False
    """Forget the person's earlier recordings."""

    def run(self) -> int:
        from wieldy.speech.voices.enrolled import enroll

        if not self.files:
            raise UsageError("no recording given", hint="wieldy voices enroll NAME FILE")
        with progress_bar(self.name) as progress:
            progress("listen", 0.0)
            voice = enroll(self.name, self.files, self.voices, replace=self.replace)
        seconds = int(voice.speech_ms.sum()) / 1000
        print(f"{voice.name} is enrolled with {seconds:.0f} s of speech from {_recordings(len(voice.recordings))}")
        if seconds < 40:
            say("more speech is recognised more surely: enroll another recording to get to 40 s or more")
        return 0


@dataclass(frozen=True)
class List:
    """Who is enrolled, and with how much speech."""

    voices: Folder = None
    """Folder the voices are in. Default: the user's own."""
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
            say(f"nobody is enrolled in {folder}: wieldy voices enroll NAME FILE")
        return 0


@dataclass(frozen=True)
class Remove:
    """Delete a person's voice print."""

    name: Name
    """As `wieldy voices list` shows it."""
    voices: Folder = None
    """Folder the voice is in. Default: the user's own."""

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


def _recordings(count: int) -> str:
    return "one recording" if count == 1 else f"{count} recordings"
