"""The rules that a cue keeps, and which of two gives way, over random meetings."""

import itertools

import pytest
from hypothesis import given, settings
from transcripts import transcripts

from wieldy.speech.formats.captions import Cue, cues
from wieldy.speech.formats.fields import names, units
from wieldy.speech.formats.subtitles import shortened
from wieldy.speech.transcript import Transcript, Word

# The figures that are promised, typed again: a test that reads them from the code would agree with any.
MAX_LINE, MAX_LABEL = 42, 24  # characters
MIN_MS, MAX_MS, MAX_LATE_MS, LONG_PAUSE_MS = 1000, 7000, 1000, 1000
MAX_PER_SECOND = 17  # characters


def labels_of(transcript: Transcript) -> dict[str, str]:
    return names(transcript, shortened, " ")


def check_words(transcript: Transcript, shown: list[Cue], labels: dict[str, str]) -> None:
    """Every word is in one cue, each speaker's in order, and the lines are the words after at most a label."""
    left: dict[str, list[Word]] = {}
    for unit in sorted((u for word in transcript.words for u in units(word)), key=lambda unit: unit.start_ms):
        left.setdefault(unit.speaker, []).append(unit)
    heard: dict[str, list[Word]] = {}
    for cue in shown:
        heard.setdefault(cue.phrase.speaker, []).extend(cue.phrase.words)
        assert {word.speaker for word in cue.phrase.words} == {cue.phrase.speaker}
        text = " ".join(word.text for word in cue.phrase.words)
        assert " ".join(cue.lines) in (text, f"{labels.get(cue.phrase.speaker)}: {text}")
    assert heard == left


def check_shape(cue: Cue) -> None:
    assert 1 <= len(cue.lines) <= 2
    for line in cue.lines:
        assert len(line) <= MAX_LINE or " " not in line
    assert 0 < cue.duration_ms <= MAX_MS


def check_times(row: list[Cue], starts: list[int]) -> None:
    """Rules 1 and 3 to 6 along a row of cues that wait for each other; `starts` are those of all cues."""
    for cue, after in itertools.pairwise(row):
        assert cue.end_ms <= after.start_ms, "overlap"
    for before, cue, after in zip([None, *row], row, [*row[1:], None], strict=False):
        late = cue.start_ms - cue.phrase.start_ms
        assert late >= 0, "shown before it is said"
        assert late <= MAX_LATE_MS or before.duration_ms == 1, "late without need"
        if cue.duration_ms < MIN_MS:
            assert after.start_ms == cue.end_ms, "short without need"
            assert after.start_ms - after.phrase.start_ms >= MAX_LATE_MS, "short without need"
        if len("\n".join(cue.lines)) * 1000 > MAX_PER_SECOND * cue.duration_ms and cue.duration_ms < MAX_MS:
            crowd = [start for start in starts if cue.phrase.start_ms <= start <= cue.end_ms]
            assert len(crowd) > 1, "too fast to read without need"  # one of them is the cue itself


def check_serial_rules(transcript: Transcript) -> None:
    labels = labels_of(transcript)
    shown = cues(transcript, labels)
    check_words(transcript, shown, labels)
    for cue in shown:
        check_shape(cue)
    check_times(shown, [cue.phrase.start_ms for cue in shown])
    for cue, after in itertools.pairwise(shown):
        if after.phrase.speaker != cue.phrase.speaker:
            assert " ".join(after.lines).startswith(labels[after.phrase.speaker] + ": ")


def check_overlapping_rules(transcript: Transcript) -> None:
    shown = cues(transcript, overlapping=True)
    check_words(transcript, shown, {})
    for cue in shown:
        check_shape(cue)
    for speaker in {cue.phrase.speaker for cue in shown}:
        row = [cue for cue in shown if cue.phrase.speaker == speaker]
        check_times(row, [cue.phrase.start_ms for cue in shown])


def check_silence_rules(transcript: Transcript) -> None:
    ends: dict[str, int] = {}
    for cue in cues(transcript, overlapping=True):
        for index, word in enumerate(cue.phrase.words):
            assert index == 0 or word.start_ms - ends[word.speaker] <= LONG_PAUSE_MS
            ends[word.speaker] = max(ends.get(word.speaker, 0), word.end_ms)


CHECKS = [check for name, check in list(globals().items()) if name.endswith("_rules")]


@settings(max_examples=40, deadline=None)
@given(transcripts())
def test_cues_keep_the_rules(transcript):
    for check in CHECKS:
        check(transcript)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(transcripts())
def test_cues_of_two_thousand_transcripts_keep_the_rules(transcript):
    for check in CHECKS:
        check(transcript)


def said(*parts: tuple[int, int, str, str]) -> Transcript:
    """A transcript of (start, end, speaker, text) stretches, words evenly spread."""
    words = []
    for start, end, speaker, text in parts:
        texts = text.split()
        step = (end - start) // len(texts)
        words += [Word(start + i * step, start + (i + 1) * step, word, speaker=speaker) for i, word in enumerate(texts)]
    return Transcript("m", tuple(sorted(words, key=lambda word: word.start_ms)))


def srt_cues(transcript: Transcript) -> list[tuple[int, int, str]]:
    return [(cue.start_ms, cue.end_ms, "|".join(cue.lines)) for cue in cues(transcript, labels_of(transcript))]


def test_a_word_of_sixty_letters_has_a_line_of_its_own():
    transcript = said((0, 3000, "Ada", f"the word {'a' * 60} is long"))
    assert srt_cues(transcript) == [(0, 1800, f"Ada: the word|{'a' * 60}"), (1800, 3000, "is long")]


def test_a_short_answer_stays_a_second_and_the_next_waits_for_it():
    transcript = said((0, 300, "Ada", "Really?"), (350, 700, "Bo", "Yes."), (2000, 2600, "Ada", "I see."))
    assert [cue[:2] for cue in srt_cues(transcript)] == [(0, 1000), (1000, 2000), (2000, 3000)]


def test_nobody_waits_for_more_than_a_second():
    transcript = said(*((index * 200, index * 200 + 150, "AB"[index % 2], "no") for index in range(12)))
    shown = cues(transcript, labels_of(transcript))
    assert all(cue.start_ms - index * 200 <= MAX_LATE_MS for index, cue in enumerate(shown))


def test_talking_at_once_overlaps_in_vtt_and_follows_in_srt():
    transcript = said((0, 4000, "Ada", "I think that we should wait until the spring"), (1500, 1800, "Bo", "Mhm."))
    assert [(cue.start_ms, cue.end_ms, " ".join(cue.lines)) for cue in cues(transcript, overlapping=True)] == [
        (0, 3996, "I think that we should wait until the spring"),
        (1500, 2500, "Mhm."),
    ]
    assert srt_cues(transcript) == [
        (0, 2500, "Ada: I think that we should|wait until the spring"),
        (2500, 3500, "Bo: Mhm."),
    ]


def test_a_sentence_that_reads_like_a_label_gets_one():
    transcript = said((0, 3000, "Ada", "Here goes."), (4500, 6000, "Ada", "Note: bring pens"))
    assert [cue[2] for cue in srt_cues(transcript)] == ["Ada: Here goes.", "Ada: Note: bring pens"]


def test_lines_break_where_speech_does():
    transcript = said((0, 5000, "Ada", "We moved the deadline, because the second supplier is late again."))
    assert srt_cues(transcript)[0][2] == "Ada: We moved the deadline,|because the second supplier is late again."


def test_long_names_are_cut_and_stay_apart():
    people = ["Participant number one of the first group", "Participant number one of the second group"]
    transcript = said((0, 1000, people[0], "yes"), (1000, 2000, people[1], "no"))
    labels = labels_of(transcript)
    assert len(set(labels.values())) == 3
    assert all(len(label) <= MAX_LABEL for label in labels.values())
