"""What a format has room for comes back from it, also when somebody else's parser reads it."""

import dataclasses
import html
import json
import math
import random
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import meeteval
import pytest
import srt
import webvtt
from hypothesis import given, settings
from markdown_it import MarkdownIt
from transcripts import edited

from wieldy.errors import InputError
from wieldy.report import Metric, Report
from wieldy.speech.formats import FORMATS
from wieldy.speech.formats.captions import cues
from wieldy.speech.formats.clock import seconds
from wieldy.speech.formats.fields import names, plain, token, turns_of, units
from wieldy.speech.formats.source import Source
from wieldy.speech.formats.subtitles import shortened
from wieldy.speech.transcript import UNKNOWN, Transcript, Turn, Word, merge_turns


def there_and_back(transcript: Transcript, name: str) -> Transcript:
    file = FORMATS[name]
    found = file.reader(Source(f"meeting{file.suffix}", file.writer(transcript)))
    assert len(found) <= 1
    return found[0] if found else Transcript(transcript.name)


def pieces(transcript: Transcript) -> list[Word]:
    return [unit for word in transcript.words for unit in units(word)]


def spans(events) -> list[tuple[int, int, str]]:
    return [(event.start_ms, event.end_ms, event.speaker) for event in events]


def check_json_keeps_everything(transcript: Transcript) -> None:
    assert there_and_back(transcript, "json") == transcript


def check_html_keeps_everything(transcript: Transcript) -> None:
    assert there_and_back(transcript, "html") == transcript


def check_the_standard_librarys_json_reads_what_we_write(transcript: Transcript) -> None:
    found = json.loads(FORMATS["json"].writer(transcript), parse_constant=pytest.fail)
    assert [(word["start_ms"], word["end_ms"], word["text"], word["speaker"]) for word in found["words"]] == [
        (word.start_ms, word.end_ms, word.text, word.speaker) for word in transcript.words
    ]
    entries = json.loads(FORMATS["seglst"].writer(transcript), parse_constant=pytest.fail)
    assert sum(len(entry["words"].split(" ")) for entry in entries if entry["words"]) == len(pieces(transcript))


class Elements(HTMLParser):
    """The tags of a page in order, with what may do something, and its text by the tag it stands in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def check_what_people_say_makes_no_element_of_the_page(transcript: Transcript) -> None:
    """Between the elements of the empty page are only those of paragraphs, for whoever parses it."""
    found, empty = (
        Elements(FORMATS["html"].writer(each)) for each in (transcript, dataclasses.replace(transcript, words=()))
    )
    frame = Counter(empty.tags)
    added = Counter(found.tags) - frame
    assert {tag for tag, _ in added} <= {"article", "header", "p", "b", "time", "span"}
    assert not any(name.startswith("on") or name in ("href", "src") for _, names in added for name in names)
    shown = " ".join(" ".join(found.texts).split())
    for part in transcript.utterances():
        assert plain(part.text) in shown


def check_text_is_a_line_an_utterance(transcript: Transcript) -> None:
    lines = FORMATS["txt"].writer(transcript).split("\n")
    assert lines.pop() == ""
    utterances = transcript.utterances()
    assert len(lines) == len(utterances)
    for line, part in zip(lines, utterances, strict=True):
        assert re.fullmatch(r"\[\d\d:\d\d:\d\d\] .+", line)
        assert line[11:] == f"{plain(part.speaker)}: {plain(part.text)}"


def check_markdown_it_reads_what_we_write(transcript: Transcript) -> None:
    """A heading and paragraphs of plain text with a name in bold, whatever was said."""
    tokens = MarkdownIt("commonmark").parse(FORMATS["md"].writer(transcript))
    inline = [token.children or [] for token in tokens if token.type == "inline"]
    assert {token.type for token in tokens} <= {
        "heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline",
    }  # fmt: skip
    title, *paragraphs = ["".join(child.content for child in children) for children in inline] or [""]
    assert title == plain(transcript.name)
    assert [text[11:] for text in paragraphs] == [
        f"{plain(part.speaker)}: {plain(part.text)}" for part in transcript.utterances()
    ]
    for children in inline[1:]:
        assert {child.type for child in children} == {"text", "strong_open", "strong_close"}


def test_json_keeps_the_report():
    report = Report("meeting", (Metric("seconds", (1.5, 2.0), "s"),), notes=("a </script> note",))
    back = there_and_back(Transcript("m", report=report), "json")
    assert back.report == report


def check_seglst_keeps_words_times_and_speakers(transcript: Transcript) -> None:
    back = there_and_back(transcript, "seglst")
    kept = [(word.start_ms, word.end_ms, word.text, word.speaker) for word in back.words]
    assert kept == sorted(
        ((unit.start_ms, unit.end_ms, unit.text, unit.speaker) for unit in pieces(transcript)), key=lambda unit: unit[0]
    )
    if not transcript.words:
        assert spans(back.turns) == spans(transcript.turns)


def check_ctm_keeps_words_times_streams_and_thousandths_of_confidence(transcript: Transcript) -> None:
    back = there_and_back(transcript, "ctm")
    expected = sorted(pieces(transcript), key=lambda unit: unit.start_ms)
    assert [(word.start_ms, word.end_ms, word.text, word.stream, word.speaker) for word in back.words] == [
        (unit.start_ms, unit.end_ms, unit.text, unit.stream, UNKNOWN) for unit in expected
    ]
    for word, unit in zip(back.words, expected, strict=True):
        assert (word.confidence is None) == (unit.confidence is None)
        assert unit.confidence is None or math.isclose(word.confidence, unit.confidence, abs_tol=0.000_500_1)


def check_stm_keeps_utterances(transcript: Transcript) -> None:
    back, shaped = there_and_back(transcript, "stm"), names(transcript, token, "_")
    utterances = transcript.utterances()
    found = merge_turns(
        (Turn(part.start_ms, part.end_ms, shaped[part.speaker], stream=part.words[0].stream) for part in utterances),
        max_gap_ms=-1,
    )
    assert spans(back.turns) == spans(found)
    for speaker, name in shaped.items():
        said = [plain(word.text) for part in utterances if part.speaker == speaker for word in part.words]
        heard = [word.text for word in back.words if word.speaker == name]
        assert sorted(" ".join(heard).split()) == sorted(" ".join(said).split())


def check_rttm_keeps_turns(transcript: Transcript) -> None:
    back, shaped = there_and_back(transcript, "rttm"), names(transcript, token, "_")
    turns = [dataclasses.replace(turn, speaker=shaped[turn.speaker]) for turn in turns_of(transcript)]
    assert sorted(spans(back.turns)) == sorted(span for span in spans(turns) if span[1] > span[0])


def said(words, shape) -> dict[str, list[str]]:
    """Everybody's words as a bag: cues that share a moment may come back in another order."""
    found: dict[str, list[str]] = {}
    for word in words:
        found.setdefault(word.speaker, []).append(shape(word.text))
    return {speaker: sorted(texts) for speaker, texts in found.items()}


def check_vtt_keeps_who_says_what_and_every_cue(transcript: Transcript) -> None:
    back = there_and_back(transcript, "vtt")
    shaped = names(transcript, plain, " ")
    expected = said(pieces(transcript), str)
    assert said(back.words, str) == {shaped[speaker]: texts for speaker, texts in expected.items()}
    shown = [(cue.start_ms, cue.end_ms, shaped[cue.phrase.speaker]) for cue in cues(transcript, overlapping=True)]
    assert sorted(spans(back.turns)) == sorted(shown)


def check_srt_keeps_who_says_what_and_every_cue(transcript: Transcript) -> None:
    back = there_and_back(transcript, "srt")
    labels = names(transcript, shortened, " ")
    legible = {speaker: label.replace("<", "‹").replace("-->", "--›") for speaker, label in labels.items()}
    expected = said(pieces(transcript), lambda text: re.sub("<(?=[A-Za-z/])", "‹", text).replace("-->", "--›"))
    found = said(back.words, str)
    assert {name.replace("<", "‹"): texts for name, texts in found.items()} == {
        legible[speaker]: texts for speaker, texts in expected.items()
    }
    shown = [(cue.start_ms, cue.end_ms) for cue in cues(transcript, labels)]
    assert [(turn.start_ms, turn.end_ms) for turn in back.turns] == shown


def check_meeteval_reads_what_we_write(transcript: Transcript) -> None:
    readers = {"seglst": meeteval.io.SegLST, "rttm": meeteval.io.RTTM, "ctm": meeteval.io.CTM, "stm": meeteval.io.STM}
    for name, reader in readers.items():
        text = FORMATS[name].writer(transcript)
        ours = there_and_back(transcript, name)
        theirs = reader.parse(text, parse_float=float).to_seglst()
        assert {entry["session_id"] for entry in theirs} <= {ours.name}
        if name == "rttm":
            heard = sorted((round(entry["start_time"] * 1000), entry["speaker"]) for entry in theirs)
            assert heard == sorted((turn.start_ms, turn.speaker) for turn in ours.turns)
        else:
            heard = sorted((entry.get("speaker", UNKNOWN), word) for entry in theirs for word in entry["words"].split())
            assert heard == sorted((word.speaker, word.text) for word in ours.words)
        if name == "ctm":
            assert sorted(round(entry["start_time"] * 1000) for entry in theirs) == [w.start_ms for w in ours.words]


def check_the_srt_package_reads_what_we_write(transcript: Transcript) -> None:
    written = FORMATS["srt"].writer(transcript)
    theirs = list(srt.parse(written))
    assert [cue.index for cue in theirs] == list(range(1, written.count(" --> ") + 1))
    assert srt.compose(theirs, reindex=False, strict=False).strip() == written.strip()


def check_webvtt_py_reads_what_we_write(transcript: Transcript) -> None:
    theirs = list(webvtt.from_string(FORMATS["vtt"].writer(transcript)))
    ours = cues(transcript, overlapping=True)
    shaped = names(transcript, plain, " ")
    assert [(html.unescape(cue.voice or UNKNOWN), html.unescape(cue.text)) for cue in theirs] == [
        (shaped[cue.phrase.speaker], "\n".join(cue.lines)) for cue in ours
    ]


def check_damage_is_an_input_error_or_harmless(transcript: Transcript, edits: int = 3) -> None:
    dice = random.Random(len(transcript.words))
    for file in FORMATS.values():
        if file.reader is None:
            continue
        text = file.writer(transcript)
        for _ in range(edits):
            at, size = dice.randrange(len(text) + 1), dice.choice((0, 0, 1, 5, 40))
            junk = dice.choice(("", "\n", " ", ":", "-", "9" * 12, '"', "[", "]}", "x", "\x00", "{" * 50, "NaN", "-->"))
            damaged = text[:at] + junk + text[at + size :]
            try:
                found = file.reader(Source(f"meeting{file.suffix}", damaged))
            except InputError as error:
                located = str(error).startswith(f"meeting{file.suffix}:")
            else:
                located = all(isinstance(each, Transcript) for each in found)
            assert located


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]


@settings(max_examples=20, deadline=None)
@given(edited())
def test_every_format_keeps_what_it_has_room_for(transcript):
    for check in CHECKS:
        check(transcript)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(edited())
def test_every_format_on_a_thousand_transcripts(transcript):
    for check in CHECKS:
        check(transcript)


def test_names_that_lose_their_difference_stay_apart():
    words = tuple(Word(ms, ms + 10, "x", speaker=name) for ms, name in enumerate(("A B", "A_B", "A  B", "unknown ")))
    transcript = Transcript("m", words)
    assert names(transcript, token, "_") == {
        "unknown": "unknown",
        "A B": "A_B",
        "A_B": "A_B_2",
        "A  B": "A_B_3",
        "unknown ": "unknown_2",
    }


def test_a_word_with_a_space_becomes_two_in_time():
    transcript = Transcript("m", (Word(1000, 2000, "New York", 0.5, "Ada"),))
    assert FORMATS["ctm"].writer(transcript) == "m 1 1.000 0.428 New 0.500\nm 1 1.428 0.572 York 0.500\n"


def test_what_the_formats_look_like():
    """The shape of every file, once, on one small meeting."""
    transcript = Transcript(
        "board meeting",
        (
            Word(0, 400, "Shall", 0.98, "Ada Lovelace"),
            Word(400, 650, "we?", None, "Ada Lovelace"),
            Word(3_723_004, 3_723_500, "Yes", 0.0625, "Bo", stream=1),
        ),
        (Turn(0, 700, "Ada Lovelace"), Turn(3_723_000, 3_723_500, "Bo", 0.75)),
        duration_ms=3_724_000,
    )
    written = {name: file.writer(transcript) for name, file in FORMATS.items() if name != "html"}
    assert written == {
        "json": """{
  "schema": "wieldy.transcript",
  "version": 1,
  "name": "board meeting",
  "language": "en",
  "duration_ms": 3724000,
  "warnings": [],
  "meta": {},
  "report": null,
  "words": [
    {"start_ms": 0, "end_ms": 400, "text": "Shall", "confidence": 0.98, "speaker": "Ada Lovelace"},
    {"start_ms": 400, "end_ms": 650, "text": "we?", "speaker": "Ada Lovelace"},
    {"start_ms": 3723004, "end_ms": 3723500, "text": "Yes", "confidence": 0.0625, "speaker": "Bo", "stream": 1}
  ],
  "turns": [
    {"start_ms": 0, "end_ms": 700, "speaker": "Ada Lovelace"},
    {"start_ms": 3723000, "end_ms": 3723500, "speaker": "Bo", "confidence": 0.75}
  ]
}
""",
        "seglst": """[
{"session_id": "board meeting", "speaker": "Ada Lovelace", "start_time": 0, "end_time": 0.65, "words": "Shall we?", \
"word_times": [[0, 0.4], [0.4, 0.65]]},
{"session_id": "board meeting", "speaker": "Bo", "start_time": 3723.004, "end_time": 3723.5, "words": "Yes", \
"word_times": [[3723.004, 3723.5]]}
]
""",
        "rttm": """SPEAKER board_meeting 1 0.000 0.700 <NA> <NA> Ada_Lovelace <NA> <NA>
SPEAKER board_meeting 1 3723.000 0.500 <NA> <NA> Bo <NA> <NA>
""",
        "ctm": """board_meeting 1 0.000 0.400 Shall 0.980
board_meeting 1 0.400 0.250 we?
board_meeting 2 3723.004 0.496 Yes 0.063
""",
        "stm": """board_meeting 1 Ada_Lovelace 0.000 0.650 Shall we?
board_meeting 2 Bo 3723.004 3723.500 Yes
""",
        "srt": """1
00:00:00,000 --> 00:00:01,353
Ada Lovelace: Shall we?

2
01:02:03,004 --> 01:02:04,004
Bo: Yes
""",
        "vtt": """WEBVTT

00:00:00.000 --> 00:00:01.000
<v Ada Lovelace>Shall we?

01:02:03.004 --> 01:02:04.004
<v Bo>Yes
""",
        "txt": """[00:00:00] Ada Lovelace: Shall we?
[01:02:03] Bo: Yes
""",
        "md": """# board meeting

[00:00:00] **Ada Lovelace:** Shall we?

[01:02:03] **Bo:** Yes
""",
    }


def test_markdown_shows_the_words_and_not_their_markup():
    transcript = Transcript("a_b", (Word(0, 1, "*star*", speaker="<v>"), Word(1, 2, "&amp;", speaker="<v>")))
    assert FORMATS["md"].writer(transcript) == "# a\\_b\n\n[00:00:00] **\\<v\\>:** \\*star\\* \\&amp;\n"


def test_no_words_and_no_turns_is_still_a_file():
    for name, file in FORMATS.items():
        text = file.writer(Transcript("m"))
        if name not in ("json", "html"):
            assert text in ("", "[]\n", "WEBVTT\n", "# m\n")


def test_the_real_reference_reads_as_it_is_written(conversation):
    """The reference of the real call: 81 words, of which every one gets a time and a speaker."""
    stm = FORMATS["stm"].reader(Source.open(conversation / "sample.stm"))[0]
    assert (stm.name, stm.speakers, len(stm.words)) == ("sample", ("Diane", "Sheila"), 81)
    rttm = FORMATS["rttm"].reader(Source.open(conversation / "sample.rttm"))[0]
    lines = (conversation / "sample.rttm").read_text(encoding="utf-8").splitlines()
    assert [f"SPEAKER sample 1 {seconds(t.start_ms)} {seconds(t.duration_ms)}" for t in rttm.turns] == [
        line.split(" <NA>")[0] for line in lines
    ]


def test_json_of_a_transcript_is_json(tmp_path: Path):
    transcript = Transcript("m", (Word(0, 1, "</script>\u2028", 1e-7, "Ada"),))
    text = FORMATS["json"].writer(transcript)
    assert json.loads(text)["words"] == [
        {"start_ms": 0, "end_ms": 1, "text": "</script>\u2028", "confidence": 1e-7, "speaker": "Ada"}
    ]
    assert "<" not in text
    assert "\u2028" not in text
