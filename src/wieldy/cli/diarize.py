"""`wieldy diarize FILE...`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wieldy.cli.options import Files, Folder, Number
from wieldy.cli.output import progress_bar, say, show_names
from wieldy.cli.transcribe import output_paths
from wieldy.errors import UsageError


@dataclass(frozen=True)
class Diarize:
    """Find out who spoke when, without the words, and write it as RTTM; needs no recognition model."""

    files: Files
    """Recordings: wav, flac, mp3, m4a, ogg, mkv, ..."""
    out: Path = Path()
    """Folder for the .rttm files."""
    overwrite: bool = False
    """Replace files that are already there."""
    speakers: Number = None
    """Exactly this many people speak. Default: find out."""
    min_speakers: int = 1
    """At least this many people speak."""
    max_speakers: Number = None
    """At most this many people speak."""
    voices: Folder = None
    """Folder of enrolled people, whose names their speakers get. enrolled: the one of `wieldy voices enroll`."""
    channels: Literal["auto", "mono", "split"] = "auto"
    """mono: one signal with everyone in it; split: one speaker per channel; auto: listen and decide."""

    def run(self) -> int:
        from wieldy.speech import formats
        from wieldy.speech.audio import check_is_file
        from wieldy.speech.diarize import SpeakerCount
        from wieldy.speech.meeting import MeetingConfig, diarize

        if not self.files:
            raise UsageError("no recording given", hint="wieldy diarize meeting.wav")
        targets = output_paths(self.files, self.out, [formats.FORMATS["rttm"].suffix])
        for (path,) in targets:
            formats.refuse_existing(path, overwrite=self.overwrite)
        count = SpeakerCount(self.speakers, self.min_speakers, self.max_speakers)
        config = MeetingConfig(channels=self.channels, count=count, voices=self.voices)
        for file in self.files:
            check_is_file(file)
        for file, (path,) in zip(self.files, targets, strict=True):
            with progress_bar(file.name) as progress:
                transcript = diarize(file, config, progress=progress)
            formats.write(transcript, path, "rttm", overwrite=self.overwrite)
            for speaker in transcript.speakers:
                own = [turn for turn in transcript.turns if turn.speaker == speaker]
                print(f"{speaker}: {len(own)} turns, {sum(turn.duration_ms for turn in own) / 1000:.1f} s")
            show_names(transcript)
            for warning in transcript.warnings:
                say(f"{transcript.name}: {warning}")
            say(f"wrote {path}")
        return 0
