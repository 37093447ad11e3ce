"""Sentences put together from recordings: what is found, which way is cheapest, and how the joined sound is."""

import contextlib
import io
import itertools
import shutil

import lhotse
import numpy as np
import pytest

pytest.importorskip("torch")

import soundfile
from lhotse.cut import CutSet
from lhotse.supervision import AlignmentItem

from wieldy.errors import InputError, UsageError
from wieldy.speech import corpora, corpus, synthesize
from wieldy.speech.adapt.config import SpliceConfig
from wieldy.speech.adapt.cover import Piece, covers, join_cost
from wieldy.speech.adapt.joining import Clip, joined
from wieldy.speech.adapt.segments import SegmentStore, build_store
from wieldy.speech.adapt.splice import splice
from wieldy.speech.lexicon import Lexicon

RATE = 16_000
PITCH = {letter: 300 + 150 * number for number, letter in enumerate("abcdefgh")}
LETTER_S, PAUSE_S = 0.08, 0.05


def cut_of(name, line, *, speaker="one", level=0.2, rate=RATE, folder=None, times=True):
    """A letter is a tone with soft edges, a blank a pause; phones are the letters."""
    samples, words, phones = [np.zeros(round(PAUSE_S * rate))], [], []
    t = np.arange(round(LETTER_S * rate)) / rate
    edges = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)
    for word in line.split():
        start = sum(map(len, samples)) / rate
        for letter in word:
            phones.append(AlignmentItem(letter, sum(map(len, samples)) / rate, LETTER_S))
            samples.append(level * np.sin(2 * np.pi * PITCH[letter] * t) * edges)
        words.append(AlignmentItem(word, start, round(len(word) * LETTER_S, 6)))
        samples.append(np.zeros(round(PAUSE_S * rate)))
    sound = np.concatenate(samples) + np.random.default_rng(len(line)).normal(0, 1e-3, sum(map(len, samples)))
    if folder is None:
        file = io.BytesIO()
        soundfile.write(file, sound, rate, format="FLAC")
        source = lhotse.AudioSource(type="memory", channels=[0], source=file.getvalue())
    else:
        soundfile.write(folder / f"{name}.flac", sound, rate)
        source = lhotse.AudioSource(type="file", channels=[0], source=str(folder / f"{name}.flac"))
    recording = lhotse.Recording(
        id=name, sources=[source], sampling_rate=rate, num_samples=len(sound), duration=len(sound) / rate
    )
    alignment = {"word": words, "phone": phones} if times else None
    return corpus.cut_of(recording, line, speaker=speaker, alignment=alignment)


LINES = ["ab cd ef", "cd gh", "ef ab", "gh ef cd ab", "hh ab cd"]


@pytest.fixture(scope="module")
def store():
    lines = [(line, f"voice{i % 2}", 0.1 * (1 + i % 3)) for i, line in enumerate(LINES)]
    return build_store(
        CutSet.from_cuts(cut_of(f"cut{i}", line, speaker=s, level=v) for i, (line, s, v) in enumerate(lines))
    )


def said(store, row, length):
    symbols = [store.words.symbols[s - 1] for s in store.words.rows["symbol"][row : row + length] if s]
    return symbols if len(symbols) == length else None


# --- the store -------------------------------------------------------------------------------------------------------


def test_every_run_of_words_is_found_and_nothing_else():
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(["ab", "cd", "ef"], rng.integers(1, 7))) for _ in range(12)]
    store = build_store(CutSet.from_cuts(cut_of(f"cut{i}", line) for i, line in enumerate(lines)))
    for length in range(1, 6):
        for wanted in itertools.product(["ab", "cd", "ef", "zz"], repeat=length):
            naive = [row for row in range(len(store.words.rows)) if said(store, row, length) == list(wanted)]
            found = list(store.words.matches(wanted))
            assert sorted(found[length - 1].tolist() if len(found) == length else []) == naive


def test_a_store_is_read_from_disk_as_it_was_written(tmp_path):
    cuts = CutSet.from_cuts(cut_of(f"cut{i}", line, folder=tmp_path) for i, line in enumerate(LINES))
    store = build_store(cuts)
    store.save(tmp_path / "store")
    loaded = SegmentStore.load(tmp_path / "store")
    assert isinstance(loaded.words.rows, np.memmap)
    for mine, theirs in ((store.words, loaded.words), (store.phones, loaded.phones)):
        assert mine.symbols == theirs.symbols
        np.testing.assert_array_equal(mine.rows, theirs.rows)
        np.testing.assert_array_equal(mine.order, theirs.order)
    assert store.words.nbytes / store.words.occurrences(4) <= 40
    one, other = (
        splice(own, ["ef cd gh"], config=SpliceConfig(variants=1)).value[0].load_audio() for own in (store, loaded)
    )
    np.testing.assert_array_equal(one, other)
    (tmp_path / "store" / "words-order.npy").write_bytes(b"what")
    with pytest.raises(InputError, match=r"words-order\.npy cannot be read"):
        SegmentStore.load(tmp_path / "store")


def test_runs_are_counted(store):
    lengths = [len(line.split()) for line in LINES]
    assert store.words.occurrences(1) == sum(lengths)
    assert store.words.occurrences(2) == sum(length - 1 for length in lengths) + sum(lengths)


def test_recordings_that_cannot_be_used_are_named():
    with pytest.raises(InputError, match=r"late has no word times: .*AlignmentItem: see wieldy\.speech\.aligners"):
        build_store(CutSet.from_cuts([cut_of("late", "ab", times=False)]))
    cut = cut_of("late", "ab")
    cut.supervisions[0].alignment["word"] = [AlignmentItem("ab", 0.1, 5.0)]
    with pytest.raises(InputError, match=r"late: 'ab' from 0\.1 to 5\.1 s is outside of its 0\.26 s"):
        build_store(CutSet.from_cuts([cut]))
    with pytest.raises(InputError, match="there are no recordings"):
        build_store(CutSet.from_cuts([]))


def test_a_store_of_sound_in_memory_is_not_saved(store, tmp_path):
    with pytest.raises(InputError, match="the sound of cut0 is in memory only: write it to a file first"):
        store.save(tmp_path)


# --- the cheapest way ------------------------------------------------------------------------------------------------


def exhaustive(pieces, length):
    """All covers by trying every piece behind every beginning of one."""
    ways, whole = [(0.0, [])], []
    while ways:
        cost, way = ways.pop()
        at = way[-1].end if way else 0
        if at == length:
            whole.append((cost, way))
            continue
        ways += [
            (cost + piece.cost + (join_cost(way[-1], piece) if way else 0), [*way, piece])
            for piece in pieces
            if piece.begin == at
        ]
    return sorted(whole, key=lambda item: item[0])


@pytest.mark.parametrize("seed", range(12))
def test_the_cheapest_covers_are_those_of_an_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 7))
    pieces = []
    for number in range(int(rng.integers(4, 14))):
        begin = int(rng.integers(length))
        end = int(rng.integers(begin + 1, min(length, begin + 3) + 1))
        own, *levels = rng.uniform(-30, -10, 3)
        pieces.append(Piece(begin, end, 1.0 + (number % 3 == 0), f"voice{rng.integers(2)}", *levels, number))
    for k in (1, 3):
        found, expected = covers(pieces, length, k), exhaustive(pieces, length)
        assert [cost for cost, _ in found] == pytest.approx([cost for cost, _ in expected[:k]])
        for cost, way in found:
            assert [way[0].begin, *(piece.end for piece in way)] == [*(piece.begin for piece in way), length]
            own = sum(piece.cost for piece in way) + sum(map(join_cost, way, way[1:]))
            assert cost == pytest.approx(own)
        assert len({tuple(piece.source for piece in way) for _, way in found}) == len(found)


def test_a_join_costs_more_with_another_speaker_and_another_level():
    one, other = Piece(0, 1, 1.0, "a", -20, -20, 0), Piece(1, 2, 1.0, "b", -26, -26, 0)
    assert join_cost(one, one) == 0
    assert join_cost(one, other) == pytest.approx(0.5 + 0.2)
    assert covers([], 2, 3) == covers([one], 2, 3) == []


# --- the sound -------------------------------------------------------------------------------------------------------


def test_a_sentence_that_was_said_is_its_recording(store):
    for line, cut in zip(LINES, store.cuts, strict=True):
        (spliced,), report = splice(store, [line], config=SpliceConfig(variants=1))
        assert report.metric("joins per sentence").median == 0
        np.testing.assert_allclose(spliced.load_audio(), cut.load_audio(), atol=1e-4)
        assert [(w.symbol, w.start) for w in corpus.aligned(spliced)] == [
            (w.symbol, pytest.approx(w.start, abs=1e-4)) for w in corpus.aligned(cut)
        ]


def heard(samples, word):
    """The letters by their pitch in the middle of each."""
    found = ""
    first, last = round(word.start * RATE), round(word.end * RATE)
    letters = len(word.symbol)
    for k in range(letters):
        begin = first + round((k + 0.25) / letters * (last - first))
        part = samples[begin : begin + RATE * 4 // 100]
        hertz = np.abs(np.fft.rfft(part * np.hanning(len(part)), RATE)).argmax()
        found += min(PITCH, key=lambda letter: abs(PITCH[letter] - hertz))
    return found


@pytest.mark.parametrize("pause_ms", [0.0, 80.0])
def test_every_word_is_where_the_times_say_and_no_join_clicks(store, pause_ms):
    lines = ["cd ab ef gh", "gh gh ab", "ef cd hh", "ab"]
    cuts, report = splice(store, lines, config=SpliceConfig(pause_ms=pause_ms))
    jumps = np.concatenate([np.abs(np.diff(cut.load_audio()[0])) for cut in store.cuts])
    assert len(cuts) == 12
    for cut in cuts:
        samples, words = cut.load_audio()[0], corpus.aligned(cut)
        assert [word.symbol for word in words] == cut.supervisions[0].text.split()
        assert [heard(samples, word) for word in words] == [word.symbol for word in words]
        assert all(one.end <= other.start + 1e-6 for one, other in itertools.pairwise(words))
        assert words[0].start >= 0
        assert words[-1].end <= cut.duration + 1e-6
        # Levels are made equal, by 12 dB at most.
        assert np.abs(np.diff(samples)).max() <= 1.5 * np.quantile(jumps, 0.999)
    assert report.metric("words from runs of words").median == 100


def test_pieces_without_a_crossfade_click():
    t = np.arange(RATE // 5) / RATE
    tone = (0.5 * np.cos(2 * np.pi * 100 * t)).astype(np.float32)
    clips = [Clip(sign * tone, RATE, (AlignmentItem("a", 0.0, 0.2),), 0.0, 0.2) for sign in (1, -1)]

    def largest(crossfade_s):
        samples, _ = joined(clips, np.random.default_rng(0), crossfade_s=crossfade_s, pause_s=0)
        return np.abs(np.diff(samples)).max()

    assert largest(0.008) < 2 * np.abs(np.diff(tone)).max() < largest(0.0) or largest(0.008) <= largest(0.0)


def test_levels_are_made_equal_within_12_db():
    t = np.arange(RATE // 5) / RATE
    tone = np.sin(2 * np.pi * 200 * t).astype(np.float32)
    for loud, quiet, apart in ((0.4, 0.2, 0), (0.8, 0.001, 20 * np.log10(800) - 24)):
        clips = [Clip(level * tone, RATE, (AlignmentItem("a", 0.0, 0.2),)) for level in (loud, quiet)]
        samples, words = joined(clips, np.random.default_rng(0), crossfade_s=0, pause_s=0)
        levels = [np.square(samples[round(w.start * RATE) : round(w.end * RATE)]).mean() for w in words]
        assert 10 * np.log10(levels[0] / levels[1]) == pytest.approx(apart, abs=0.1)


def test_the_same_word_has_other_recordings_in_other_variants(store):
    config = SpliceConfig(variants=12, pause_ms=0.0, covers=6, temperature=2.0)
    cuts = list(splice(store, ["cd cd ab", "cd cd"], config=config).value)
    sounds = {cut.load_audio().tobytes() for cut in cuts[:12]}
    assert len(sounds) > 2
    again = list(splice(store, ["cd cd ab", "cd cd"], config=config).value)
    for cut, other in zip(cuts, again, strict=True):
        np.testing.assert_array_equal(cut.load_audio(), other.load_audio())


def test_cuts_are_written_into_a_folder(store, tmp_path):
    (cut,) = splice(store, ["ef cd"], config=SpliceConfig(variants=1), folder=tmp_path).value
    assert [path.name for path in tmp_path.iterdir()] == ["spliced-0-00000-0.flac"]
    assert cut.load_audio().shape[1] == cut.num_samples


def test_recordings_of_another_rate_are_resampled_and_counted():
    cuts = [cut_of("slow", "ab cd", rate=8000), cut_of("fast", "ef")]
    (cut,), report = splice(build_store(CutSet.from_cuts(cuts)), ["cd ef"], config=SpliceConfig(variants=1))
    assert cut.sampling_rate == RATE
    assert report.metric("recordings resampled").median == 1
    assert [heard(cut.load_audio()[0], word) for word in corpus.aligned(cut)] == ["cd", "ef"]


def test_noisy_recordings_can_be_left_out():
    quiet = cut_of("quiet", "ab", level=0.01)
    store = build_store(CutSet.from_cuts([quiet, cut_of("loud", "cd", level=0.3)]))
    config = SpliceConfig(min_snr_db=30.0, oov="skip", variants=1)
    cuts, report = splice(store, ["ab cd", "cd"], config=config)
    assert [cut.supervisions[0].text for cut in cuts] == ["cd"]
    assert report.tables[0].rows == (("ab", "1"),)


# --- words that nobody said ------------------------------------------------------------------------------------------

SPELT = Lexicon({"fed": [("f", "e", "d")], "abba": [("a", "b", "b", "a")]}, guess=False)


def test_a_word_that_nobody_said_is_made_of_phones(store):
    (cut, *_), report = splice(store, ["ab fed"], config=SpliceConfig(), lexicon=SPELT)
    words = corpus.aligned(cut)
    assert [word.symbol for word in words] == ["ab", "fed"]
    assert [heard(cut.load_audio()[0], word) for word in words] == ["ab", "fed"]
    assert report.metric("words from runs of words").median == 50
    (cut,) = splice(store, ["abba"], config=SpliceConfig(variants=1), lexicon=SPELT).value
    assert heard(cut.load_audio()[0], corpus.aligned(cut)[0]) == "abba"


def test_what_cannot_be_made_is_listed_or_refused(store):
    lines = ["ab zz", "ab", "zz yy"]
    cuts, report = splice(store, lines, config=SpliceConfig(variants=1), lexicon=SPELT)
    assert [cut.supervisions[0].text for cut in cuts] == ["ab"]
    words, sentences = report.tables
    assert words.rows == (("yy", "1"), ("zz", "2"))
    assert sentences.rows == (("ab zz", "zz"), ("zz yy", "zz, yy"))
    assert report.metric("sentences left out").median == 2
    with pytest.raises(
        InputError, match="no recording has 'yy', 'zz': leave out such text, or choose oov phones or tts"
    ):
        splice(store, lines, config=SpliceConfig(oov="error"))
    with pytest.raises(InputError, match=r"none of 1 sentences can be put together .* that cannot be made are 'zz'"):
        splice(store, ["zz"], config=SpliceConfig(oov="skip"))


def test_a_voice_says_what_nobody_said(store, monkeypatch):
    t = np.arange(RATE // 5) / RATE
    speech = synthesize.Speech(
        (0.2 * np.sin(2 * np.pi * PITCH["h"] * t)).astype(np.float32), RATE, (synthesize.SpokenWord("zz", 0.02, 0.18),)
    )
    monkeypatch.setattr(synthesize, "voice_named", lambda name: name)
    monkeypatch.setattr(synthesize, "say", lambda word, voice: speech)
    (cut,) = splice(store, ["ab zz"], config=SpliceConfig(oov="tts", variants=1)).value
    words = corpus.aligned(cut)
    assert [word.symbol for word in words] == ["ab", "zz"]
    assert words[1].duration == pytest.approx(0.16, abs=0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"oov": "guess"}, "oov 'guess': choose phones, tts, skip, error"),
        ({"variants": 0}, "variants is 0: it must be at least 1"),
        ({"temperature": -1.0}, "temperature is -1.0: it must be at least 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        SpliceConfig(**fields)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_forced_alignment_finds_the_words_where_splicing_put_them():
    from wieldy.speech.aligners.pocketsphinx import PocketSphinxAligner

    voices = ("slt", "rms")
    quiet = corpora.CorpusConfig(noise_snr_db=None)
    store = build_store(corpora.spoken(corpora.sentences("general", 120), voices, quiet))
    cuts = list(splice(store, corpora.sentences("rephrased", 12), config=SpliceConfig(variants=1, oov="skip")).value)
    aligner = PocketSphinxAligner()

    def apart(cuts):
        """Of word boundaries as they are and as they are found, in ms; few recordings may be beyond the aligner."""
        found = []
        for cut in cuts:
            with contextlib.suppress(InputError):
                words = aligner.align(corpus.samples_of(cut), corpus.text_of(cut)).words
                pairs = zip(corpus.aligned(cut), words, strict=True)
                found.append([(word.start - other.start, word.end - other.end) for word, other in pairs])
        assert len(found) >= 0.75 * len(cuts)
        return 1000 * np.abs([edge for own in found for edges in own for edge in edges])

    # The aligner is itself some tens of ms off: it must not be more so on spliced sound.
    assert np.mean(apart(cuts)) < np.mean(apart(store.cuts[:30])) + 15
    assert np.median(apart(cuts)) <= 30
