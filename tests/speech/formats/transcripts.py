"""Random transcripts with everything that has ever tripped a writer, and what each format can keep of them."""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

from wieldy.speech.transcript import UNKNOWN, Transcript, Turn, Word, merge_turns

THREE_HOURS_MS = 3 * 3600 * 1000

NAMES = (
    "S1",
    "S2",
    "Ada Lovelace",
    "Ada_Lovelace",
    "Dr: Who",
    "<v Bo>",
    'O"Neil & Söhne',
    "李雷",
    "שָׁרָה",
    "مريم\u200f",
    "a" * 60,
    UNKNOWN,
)
TEXTS = (
    "yes", "I", "budget,", "that's", "right.", "Well,", "3.50", "€20", "naïve", "Straße", "日本語", "👩‍👩‍👧", "a" * 60,
    "New York", "</script>", "<!--", "-->", "<i>", "&amp;", "&", "*star*", "_x_", "#1", "Note:", "[laughs]", "a\u2028b",
    "a\tb\n", "{\\an8}", "'quoted'", '"so."', "\\", "\x00", "…", "12:30", "00:00:01,000", ";;", "<o,f0>x", "\ufeff",
    "שלום", "مرحبا،", "\u202eback", "e\u0301", "]]>", "{{style}}", "![x](y)",
)  # fmt: skip


def texts() -> st.SearchStrategy[str]:
    free = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda text: text.strip())
    return st.one_of(st.sampled_from(TEXTS), free)


def names() -> st.SearchStrategy[str]:
    free = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
    return st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), free)


@st.composite
def transcripts(draw: st.DrawFn, max_words: int = 40) -> Transcript:
    """Several people, talking in turn or at once, fast or slowly, somewhere in the first three hours."""
    people = draw(st.lists(names(), min_size=1, max_size=4, unique=True))
    clock = draw(st.sampled_from((0, 0, 1234, THREE_HOURS_MS)))
    words: list[Word] = []
    for _ in range(draw(st.integers(0, max_words))):
        clock += draw(st.sampled_from((0, 0, 10, 90, 200, 350, 900, 1500, 4000)))
        words.append(
            Word(
                clock,
                clock + draw(st.sampled_from((0, 1, 60, 180, 400, 950, 9000))),
                draw(texts()),
                draw(st.none() | st.floats(0, 1)),
                people[draw(st.integers(0, len(people) - 1))],
                draw(st.none() | st.floats(0, 1)),
                draw(st.sampled_from(("asr", "aligned", "interpolated"))),
                draw(st.integers(0, 2)),
            )
        )
    return Transcript(
        draw(st.sampled_from(("meeting", "a b", ";; x", "büro", ""))),
        tuple(words),
        draw(turns(people)),
        language=draw(st.sampled_from(("en", "de"))),
        duration_ms=clock + 10_000,
        meta={"model": {"name": "tiny.en", "seed": 2**60, "3": [1.0, 1e-7], "note": "</script><!--\u2028"}},
        warnings=tuple(draw(st.lists(texts(), max_size=2))),
    )


@st.composite
def turns(draw: st.DrawFn, people: list[str]) -> tuple[Turn, ...]:
    found = []
    for speaker in people:
        clock = draw(st.integers(0, THREE_HOURS_MS))
        for _ in range(draw(st.integers(0, 3))):
            clock += draw(st.integers(0, 3000))
            end = clock + draw(st.integers(0, 5000))
            found.append(Turn(clock, end, speaker, draw(st.floats(0, 1)), stream=draw(st.integers(0, 1))))
            clock = end
    return merge_turns(found, max_gap_ms=-1)


@st.composite
def edited(draw: st.DrawFn, max_words: int = 40) -> Transcript:
    """A transcript after up to six of the things that people do to one in an editor."""
    transcript = draw(transcripts(max_words))
    for _ in range(draw(st.integers(0, 6))):
        transcript = EDITS[draw(st.integers(0, len(EDITS) - 1))](draw, transcript)
    return transcript


def rename(draw: st.DrawFn, transcript: Transcript) -> Transcript:
    """Somebody gets another name, perhaps that of somebody else: then the two are one."""
    old = draw(st.sampled_from((*transcript.speakers, UNKNOWN)))
    return transcript.renamed({old: draw(names() | st.sampled_from((*transcript.speakers, UNKNOWN)))})


def retype(draw: st.DrawFn, transcript: Transcript) -> Transcript:
    return changed(draw, transcript, text=draw(texts()))


def give_to(draw: st.DrawFn, transcript: Transcript) -> Transcript:
    return changed(draw, transcript, speaker=draw(st.sampled_from((*transcript.speakers, UNKNOWN))))


def stretch(draw: st.DrawFn, transcript: Transcript) -> Transcript:
    """A word that ends when it begins, or lies over all those after it."""
    return changed(draw, transcript, duration_ms=draw(st.sampled_from((0, 1, 20_000))))


def delete(draw: st.DrawFn, transcript: Transcript) -> Transcript:
    keep = draw(st.lists(st.booleans(), min_size=len(transcript.words), max_size=len(transcript.words)))
    words = tuple(word for word, kept in zip(transcript.words, keep, strict=True) if kept)
    return dataclasses.replace(transcript, words=words)


def repeat(draw: st.DrawFn, transcript: Transcript) -> Transcript:
    """Every word twice at the same time, as two who say the same."""
    return dataclasses.replace(transcript, words=tuple(word for word in transcript.words for _ in range(2)))


def drop_turns(draw: st.DrawFn, transcript: Transcript) -> Transcript:
    return dataclasses.replace(transcript, turns=())


EDITS = (rename, rename, retype, retype, give_to, stretch, delete, repeat, drop_turns)


def changed(draw: st.DrawFn, transcript: Transcript, **fields) -> Transcript:
    """One word, if there is any, with other fields."""
    if not transcript.words:
        return transcript
    words = list(transcript.words)
    index = draw(st.integers(0, len(words) - 1))
    duration_ms = fields.pop("duration_ms", words[index].duration_ms)
    words[index] = dataclasses.replace(words[index], end_ms=words[index].start_ms + duration_ms, **fields)
    return dataclasses.replace(transcript, words=tuple(words))
