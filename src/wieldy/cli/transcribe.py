"""`wieldy transcribe FILE...`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wieldy.cli.config_file import load_config
from wieldy.cli.options import File, Files, Folder, Number, Text
from wieldy.cli.output import print_json, progress_bar, say, show_transcript
from wieldy.errors import UsageError

if TYPE_CHECKING:
    from wieldy.speech.meeting import MeetingConfig


@dataclass(frozen=True)
class Transcribe:
    """Write down who said what and when, for each recording.

    Prints the transcript and writes it as a page to read and edit in a browser (html) and as data (json). Nothing
    leaves this machine.
    """

    files: Files
    """Recordings: wav, flac, mp3, m4a, ogg, mkv, ..."""
    format: Text = None
    """Files to write, separated by commas: html, json, seglst, rttm, ctm, stm, srt, vtt, txt, md, or none. Default:
    html,json."""
    out: Path = Path()
    """Folder for the files."""
    overwrite: bool = False
    """Replace files that are already there."""
    model: str = "whisper-tiny.en"
    """A name from `wieldy models list`, a faster-whisper name (large-v3-turbo), a hub id, or a local folder."""
    engine: Literal["auto", "faster-whisper", "transformers", "pocketsphinx"] = "auto"
    """What runs the model. auto: faster-whisper, unless an option needs token scores."""
    language: Text = None
    """Code such as de. Default: English for an English-only model, otherwise detected."""
    words: Text = None
    """Names and phrases to expect, separated by commas, written as they are to come out: "Kubernetes,Ada Lovelace"."""
    lm: File = None
    """Language model of your text, an ARPA file of words. See docs/vocabulary.md."""
    voices: Folder = None
    """Folder of enrolled people, whose names their speakers get. enrolled: the one of `wieldy voices enroll`."""
    channels: Literal["auto", "mono", "split"] = "auto"
    """mono: one signal with everyone in it; split: one speaker per channel; auto: listen and decide."""
    speakers: Number = None
    """Exactly this many people speak. Default: find out."""
    min_speakers: int = 1
    """At least this many people speak."""
    max_speakers: Number = None
    """At most this many people speak."""
    threads: Number = None
    """Cores to use. Default: all."""
    resume: bool = False
    """Go on where an interrupted run with the same recording and options stopped."""
    offline: bool = False
    """Never download anything, not even a missing model."""
    config: File = None
    """TOML file with further options, one table per stage (see docs/transcribe.md)."""
    json: bool = False
    """Print the transcripts as JSON on standard output, and write no files unless --format says so."""

    def run(self) -> int:
        """Transcribe every file; the first that fails stops the run, those before it are kept."""
        from wieldy.speech import formats
        from wieldy.speech.audio import check_is_file
        from wieldy.speech.meeting import Transcriber

        if not self.files:
            raise UsageError("no recording given", hint="wieldy transcribe meeting.wav")
        wanted = self.format or ("none" if self.json else "html,json")
        chosen = {} if wanted == "none" else {name: formats.named(name) for name in wanted.split(",")}
        targets = output_paths(self.files, self.out, [kind.suffix for kind in chosen.values()])
        for path in itertools.chain(*targets):
            formats.refuse_existing(path, overwrite=self.overwrite)
        config = self.meeting_config()
        for file in self.files:
            check_is_file(file)
        transcriber = Transcriber(config)
        transcripts = []
        for file, paths in zip(self.files, targets, strict=True):
            try:
                with progress_bar(file.name) as progress:
                    transcript = transcriber.run(file, progress=progress, resume=self.resume, keep_stages=True)
            except KeyboardInterrupt:
                say(f"{file.name}: what is finished is kept; the same command with --resume goes on from there")
                raise
            transcripts.append(transcript)
            for name, path in zip(chosen, paths, strict=True):
                formats.write(transcript, path, name, overwrite=self.overwrite, audio=file)
            transcriber.forget(file)
            if not self.json:
                show_transcript(transcript, heading=len(self.files) > 1)
            for path in paths:
                say(f"wrote {path}")
        if self.json:
            print_json([json.loads(formats.FORMATS["json"].writer(transcript)) for transcript in transcripts])
        return 0

    def meeting_config(self) -> MeetingConfig:
        """The library's config these options stand for."""
        import dataclasses

        from wieldy.speech.diarize import SpeakerCount
        from wieldy.speech.meeting import MeetingConfig

        base = load_config(MeetingConfig, self.config)
        vocabulary = base.recognition.vocabulary
        return dataclasses.replace(
            base,
            recognition=dataclasses.replace(
                base.recognition,
                model=self.model,
                engine=self.engine,
                language=self.language,
                threads=self.threads,
                vocabulary=dataclasses.replace(
                    vocabulary,
                    words=tuple(word.strip() for word in self.words.split(",")) if self.words else vocabulary.words,
                    lm=self.lm or vocabulary.lm,
                ),
            ),
            diarization=dataclasses.replace(base.diarization, threads=self.threads),
            channels=self.channels,
            count=SpeakerCount(self.speakers, self.min_speakers, self.max_speakers),
            voices=self.voices or base.voices,
            offline=self.offline,
        )


def output_paths(files: Sequence[Path], folder: Path, suffixes: Sequence[str]) -> list[list[Path]]:
    """Where each file's results go: `folder/stem.suffix`. Two recordings must not write the same file."""
    stems = [file.stem for file in files]
    for stem in stems:
        if stems.count(stem) > 1 and suffixes:
            raise UsageError(
                f"two recordings are called {stem!r} and would write the same files",
                hint="transcribe them one at a time with different --out folders",
            )
    return [[folder / f"{stem}{suffix}" for suffix in suffixes] for stem in stems]
