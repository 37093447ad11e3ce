"""Files are written whole or not at all, never by accident over another, and say where they are wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wieldy.cache import replacing
from wieldy.errors import InputError, OutputError, UsageError
from wieldy.speech import formats
from wieldy.speech.formats.page import EMBED_BELOW
from wieldy.speech.transcript import Transcript, Turn, Word

CALL = Transcript(
    "call",
    (Word(100, 400, "Hello", 0.9, "Ada"), Word(500, 900, "you.", 0.8, "Bo")),
    (Turn(100, 400, "Ada"), Turn(500, 900, "Bo")),
    duration_ms=1000,
)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_the_suffix_says_the_format_both_ways(tmp_path, name):
    path = tmp_path / f"call{formats.FORMATS[name].suffix}"
    assert formats.write(CALL, path) == path
    if formats.FORMATS[name].reader is None:
        with pytest.raises(InputError, match="no transcript that can be read"):
            formats.read(path)
    else:
        back = formats.read(path)
        assert [word.text for word in back.words] == ([] if name == "rttm" else ["Hello", "you."])
        assert [turn.speaker for turn in back.turns] == ([] if name == "ctm" else ["Ada", "Bo"])
        (tmp_path / "copy").write_bytes(path.read_bytes())
        assert formats.read(tmp_path / "copy").words == back.words, "told by its content"


def test_an_existing_file_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "call.txt"
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(UsageError, match="is already there: --overwrite replaces it") as refused:
        formats.write(CALL, path)
    assert refused.value.exit_status == 2
    assert path.read_text(encoding="utf-8") == "precious"
    formats.write(CALL, path, overwrite=True)
    assert path.read_text(encoding="utf-8") == "[00:00:00] Ada: Hello\n[00:00:00] Bo: you.\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_is_written_where_anybody_is_known(tmp_path):
    words = Word(100, 400, "Hello"), Word(500, 900, "you.", speaker="Bo")
    for people, txt, md in (
        (words[:1], "[00:00:00] Hello\n", "# a\n\n[00:00:00] Hello\n"),
        (
            words,
            "[00:00:00] unknown: Hello\n[00:00:00] Bo: you.\n",
            "# a\n\n[00:00:00] **unknown:** Hello\n\n[00:00:00] **Bo:** you.\n",
        ),
    ):
        found = Transcript("a", people, duration_ms=1000)
        assert formats.write(found, tmp_path / "a.txt", overwrite=True).read_text(encoding="utf-8") == txt
        assert formats.write(found, tmp_path / "a.md", overwrite=True).read_text(encoding="utf-8") == md


def test_a_format_or_suffix_nobody_knows_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no format is called 'stt': did you mean"):
        formats.write(CALL, tmp_path / "call.txt", "stt")
    with pytest.raises(UsageError, match=r"call\.docx has no suffix of a known format: there are \.json"):
        formats.write(CALL, tmp_path / "call.docx")


def test_several_sessions_in_one_file(tmp_path):
    path = tmp_path / "two.rttm"
    path.write_text(
        ";; two meetings\nSPEAKER a 1 0.5 1.25 <NA> <NA> Ada <NA> <NA>\nSPEAKER b 1 2 1 <NA> <NA> Bo <NA>\n",
        encoding="utf-8",
    )
    assert list(formats.read_sessions(path)) == ["a", "b"]
    assert formats.read(path, session="b").turns == (Turn(2000, 3000, "Bo"),)
    with pytest.raises(InputError, match=r"holds 2 sessions \(a, b\): say which one"):
        formats.read(path)
    with pytest.raises(InputError, match="has no session 'c': it has a, b"):
        formats.read(path, session="c")


def test_a_file_name_that_is_not_unicode_is_still_written(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    for kind, file in formats.FORMATS.items():
        path = formats.write(Transcript(name, CALL.words), tmp_path / f"x{file.suffix}", kind)
        holds_name = kind not in ("txt", "srt", "vtt")
        assert ("caf\ufffd" in path.read_text(encoding="utf-8").replace("\\", "")) == holds_name, kind


WRONG = {
    "a.json": [
        ('{"schema": "wieldy.transcript",\n"version": 2}', r"a.json:2: the transcript is of version 2: this wieldy"),
        ('{"text": "hello"}', r"a.json:1: this is not a transcript: its schema is None, not 'wieldy.transcript'"),
        ("[1, 2", r"a.json:1: a SegLST entry is an object, not 1"),
        ("", r"a.json:1: this is not JSON of this kind: '\{' is missing here"),
        ('{"schema": 1,\n\n"schema": 2}', r"a.json:3: 'schema' is here a second time"),
        ("{" * 100_000, r"a.json:1: this is not JSON: Expecting property name"),
        ("[" * 100_000, r"a.json:1: this is not JSON"),
    ],
    "a.rttm": [
        ("\nSPEAKER a 1 0.5\n", r"a.rttm:2: an RTTM line has 9 or 10 fields, this one 4"),
        ("SPEAKER a 1 -1 2 <NA> <NA> x <NA> <NA>", r"a.rttm:1: '-1' is not a time in seconds from 0 up"),
        ("SPEAKER a 1 nan 2 <NA> <NA> x <NA> <NA>", r"a.rttm:1: 'nan' is not a time"),
        ("SPEAKER a 1 1e9 2 <NA> <NA> x <NA> <NA>", r"a.rttm:1: '1e9' is not a time"),
    ],
    "a.ctm": [
        ("a 1 0 1\n", r"a.ctm:1: a CTM line has 5 or 6 fields, this one 4"),
        ("a 1 0 1 word 1.5\n", r"a.ctm:1: '1.5' is not a confidence between 0 and 1"),
        ("a ? 0 1 word\n", r"a.ctm:1: '\?' is not a channel: channels are numbers"),
        ("a 1 * * <ALT>\n", r"a.ctm:1: '\*' is not a time"),
    ],
    "a.stm": [
        ("a 1 Ada 3 2 words\n", r"a.stm:1: the utterance ends at 2 s, before it starts at 3 s"),
        ("a 1 Ada\n", r"a.stm:1: an STM line has at least 5 fields, this one 3"),
    ],
    "a.srt": [
        ("1\n00:00:01,000 -> 00:00:02,000\nx\n", r"a.srt:2: '00:00:01,000 -> 00:00:02,000' is not `start --> end`"),
        ("1\n00:00:02,000 --> 00:00:01,000\nx\n", r"a.srt:2: .* is not `start --> end`"),
        ("\n\n1\n", r"a.srt:3: '1' stands alone: a cue has a number, a time line and text"),
    ],
    "a.vtt": [
        ("00:01.000 --> 00:02.000\nx\n", r"a.vtt:1: the file does not begin with WEBVTT"),
        ("WEBVTT\n\n00:61.000 --> 00:02.000\nx\n", r"a.vtt:3: .* is not `start --> end`"),
    ],
    "a.seglst.json": [
        ('[{"session_id": "a"}]', r"a.seglst.json:1: the entry has no 'speaker'"),
        (
            '[{"session_id": "a", "speaker": 1, "start_time": 0, "end_time": 1, "words": "a b", "word_times": []}]',
            r"a.seglst.json:1: 2 words have 0 word_times",
        ),
        (
            '[\n{"session_id": "a", "speaker": 1, "start_time": NaN, "end_time": 1, "words": "a"}]',
            r"a.seglst.json:2: this is not JSON: NaN is no number",
        ),
    ],
    "a.html": [("<!doctype html><p>hello</p>", r"a.html:1: this page has no transcript in it")],
    "a.xyz": [("hello", r"a.xyz is no transcript that can be read: readable are \.json")],
}


@pytest.mark.parametrize(("name", "text", "message"), [(n, t, m) for n, cases in WRONG.items() for t, m in cases])
def test_what_is_wrong_is_said_with_its_line(tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"^{message}") as found:
        formats.read(name)
    assert found.value.exit_status == 3
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"end_ms": 400', '"end": 400', r"call.json:11: a word has no key 'end': did you mean 'end_ms'\?"),
        ('"end_ms": 400', '"end_ms": 4.5', r"call.json:11: 'end_ms' of a word is 4.5, not whole milliseconds"),
        ('"end_ms": 400', '"end_ms": 50', r"call.json:11: Word runs from 100 ms to 50 ms"),
        (
            '"confidence": 0.9',
            '"confidence": 2',
            r"call.json:11: 'confidence' of a word is 2, not a number from 0 to 1",
        ),
        (', "speaker": "Bo"}\n  ],', "}\n  ],", r"call.json:12: a word lacks 'speaker'"),
        ('"language": "en"', '"langauge": "en"', r"call.json:5: a transcript has no key 'langauge': did you mean"),
        ('"duration_ms": 1000', '"words": []', r"call.json:10: 'words' is here a second time"),
        ('"meta": {}', '"meta": []', r"call.json:8: 'meta' of a transcript is \[\], not an object"),
        ('"report": null', '"report": {"title": 1}', r"call.json:9: the report in the transcript cannot be read"),
        ('"start_ms": 500', '"start_ms": 50', r"call.json: words out of order"),
        ("}\n  ]\n}", "}\n  ]\n} x", r"call.json:18: this is not JSON: more text follows its end"),
    ],
)
def test_a_transcript_file_that_was_edited_wrongly(tmp_path, monkeypatch, old, new, message):
    monkeypatch.chdir(tmp_path)
    formats.write(CALL, "call.json")
    text = Path("call.json").read_text(encoding="utf-8")
    assert old in text
    Path("call.json").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=f"^{message}"):
        formats.read("call.json")


def test_unreadable_files_are_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*gone\.srt: No such file"):
        formats.read(tmp_path / "gone.srt")
    (tmp_path / "latin.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nna\u00efve".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.srt:3: byte 0xef is not UTF-8: save the file as UTF-8"):
        formats.read(tmp_path / "latin.srt")


def test_what_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match="a confidence is nan"):
        formats.write(Transcript("m", (Word(0, 1, "x", float("nan")),)), tmp_path / "a.json")
    with pytest.raises(InputError, match="'meta' of the transcript cannot be written as JSON"):
        formats.write(Transcript("m", meta={"model": object()}), tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_foreign_captions_are_read(tmp_path):
    (tmp_path / "a.srt").write_bytes(
        b"\xef\xbb\xbf1\r\n00:00:01,000 --> 00:00:03,000 X1:40\r\n<i>Here we</i>\r\n- are\r\n\r\n\r\n"
        b"00:00:04.000 --> 00:00:05.000\r\nThe point: none has a label\r\n"
    )
    words = formats.read(tmp_path / "a.srt").words
    assert " ".join(word.text for word in words) == "Here we - are The point: none has a label"
    assert {word.speaker for word in words} == {"unknown"}
    (tmp_path / "a.vtt").write_text(
        "WEBVTT - a title\n\nSTYLE\n::cue { color: red }\n\nNOTE\nnothing\n\nintro\n01.5 --> x\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"a\.vtt:10:"):
        formats.read(tmp_path / "a.vtt")
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\nintro\n00:01.000 --> 00:03.000 align:start\n"
        "<v.loud Ada &amp; Co>Hi <c.x>there</c></v> <v Bo>Yes<00:00:02.500>!\n",
        encoding="utf-8",
    )
    found = formats.read(tmp_path / "a.vtt")
    assert [(word.text, word.speaker) for word in found.words] == [
        ("Hi", "Ada & Co"),
        ("there", "Ada & Co"),
        ("Yes!", "Bo"),
    ]
    assert (found.words[0].start_ms, found.words[-1].end_ms) == (1000, 3000)


def test_words_without_times_are_spread_over_their_stretch(tmp_path):
    path = tmp_path / "a.seglst.json"
    path.write_text(
        '[{"session_id": "s", "speaker": 0, "start_time": "1.5", "end_time": 2, "words": "ab cde", "tool": "x"}]',
        encoding="utf-8",
    )
    words = formats.read(path).words
    assert [(word.start_ms, word.end_ms, word.text, word.speaker, word.source) for word in words] == [
        (1500, 1700, "ab", "0", "interpolated"),
        (1700, 2000, "cde", "0", "interpolated"),
    ]


# The recording beside the page ---------------------------------------------------------------------------------------


def test_a_small_recording_goes_into_the_page_and_a_large_one_beside_it(tmp_path):
    small, large = tmp_path / "small.flac", tmp_path / "an hour & more.wav"
    small.write_bytes(b"fLaC")
    large.touch()
    os.truncate(large, EMBED_BELOW)
    page = formats.write(CALL, tmp_path / "pages" / "call.html", audio=small)
    assert ' src="data:audio/flac;base64,ZkxhQw=="' in page.read_text(encoding="utf-8")
    formats.write(CALL, page, audio=large, overwrite=True)
    assert ' src="../an%20hour%20%26%20more.wav"' in page.read_text(encoding="utf-8")
    formats.write(CALL, page, audio=small, embed_audio=False, overwrite=True)
    assert ' src="../small.flac"' in page.read_text(encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot read .*gone\.wav"):
        formats.write(CALL, page, audio=tmp_path / "gone.wav", overwrite=True)


def test_the_page_names_nothing_on_a_network(tmp_path):
    text = formats.write(CALL, tmp_path / "call.html").read_text(encoding="utf-8")
    addresses = [line for line in text.splitlines() if "://" in line]
    assert all("http://www.w3.org/2000/svg" in line for line in addresses)
    assert len(text) < 80_000


# Trouble with the disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path):
    """A real file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small file system that this test fills")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_full_disk_leaves_the_old_file(full_disk, name):
    path = full_disk / f"call{formats.FORMATS[name].suffix}"
    path.write_text("the old file", encoding="utf-8")
    words = tuple(Word(index * 3000, index * 3000 + 90, "word" * 5, 0.5, "Ada") for index in range(3000))
    long = Transcript("call", words, tuple(Turn(word.start_ms, word.end_ms, "Ada") for word in words))
    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device: free some space") as failed:
        formats.write(long, path, overwrite=True)
    assert failed.value.exit_status == 1
    assert path.read_text(encoding="utf-8") == "the old file"
    assert list(full_disk.iterdir()) == [path]


def test_two_processes_at_one_file_leave_one_whole_file(tmp_path):
    path = tmp_path / "call.txt"
    program = """if True:
        import sys
        from wieldy.speech import formats
        from wieldy.speech.transcript import Transcript, Word
        path, speaker = sys.argv[1:]
        words = tuple(Word(i * 3000, i * 3000 + 9, "x" * 50, speaker=speaker) for i in range(2000))
        for _ in range(15):
            formats.write(Transcript("call", words), path, overwrite=True)
        """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), speaker], env=environment) for speaker in ("A", "B")
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_text(encoding="utf-8"))
    assert [writer.returncode for writer in writers] == [0, 0]
    for text in {*seen, path.read_text(encoding="utf-8")}:
        lines = text.splitlines()
        assert len(lines) == 2000
        assert len({line.split()[1] for line in lines}) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        formats.write(CALL, tmp_path / "file" / "call.txt")
    with replacing(tmp_path / "whole.txt") as temporary:
        temporary.write_text("whole", encoding="utf-8")
    assert (tmp_path / "whole.txt").read_text(encoding="utf-8") == "whole"
