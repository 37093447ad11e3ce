"""Which words are committed: by example, and for hypotheses of all kinds."""

from hypothesis import given
from hypothesis import strategies as st

from wieldy.speech.captions.agreement import LocalAgreement
from wieldy.speech.transcript import Word

FOREVER = 10**9


def heard(text: str, begin_ms: int = 0, word_ms: int = 300) -> list[Word]:
    starts = (begin_ms + i * word_ms for i in range(100))
    return [Word(start, start + word_ms, word) for start, word in zip(starts, text.split(), strict=False)]


def text(words: list[Word]) -> str:
    return " ".join(word.text for word in words)


def test_what_two_hypotheses_begin_with_is_committed():
    agreement = LocalAgreement()
    assert agreement.update(heard("I think that"), FOREVER) == []
    assert text(agreement.update(heard("I think this is it"), FOREVER)) == "I think"
    assert text(agreement.pending) == "this is it"
    assert text(agreement.update(heard("I think this is a"), FOREVER)) == "this is"
    assert text(agreement.commit_all()) == "a"


def test_case_and_punctuation_do_not_matter_and_the_newer_ones_count():
    agreement = LocalAgreement()
    agreement.update(heard("hello. how"), FOREVER)
    assert text(agreement.update(heard("Hello, How are"), FOREVER)) == "Hello, how"


def test_a_word_has_the_capital_that_suits_the_one_before():
    agreement = LocalAgreement()
    agreement.update(heard("much difference, at least"), FOREVER)
    assert text(agreement.update(heard("much difference, At"), FOREVER)) == "much difference, at"
    agreement = LocalAgreement()
    agreement.update(heard("finished, we"), FOREVER)
    assert text(agreement.update(heard("finished. We"), FOREVER)) == "finished. We"
    agreement = LocalAgreement()
    agreement.update(heard("did, Ruth"), FOREVER)
    assert text(agreement.update(heard("did, Ruth go"), FOREVER)) == "did, Ruth", "both heard a name"


def test_a_word_at_the_end_of_the_sound_waits():
    agreement = LocalAgreement()
    agreement.update(heard("so we think"), 900)
    assert text(agreement.update(heard("so we think"), 899)) == "so we"


def test_committed_words_are_found_again_where_a_hypothesis_has_them_otherwise():
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.update(heard("so what comes in"), FOREVER)
    # "what comes in" is gone, "I" is another word at another time.
    agreement.replace([*heard("so"), *heard("I don't hear", 1300)])
    assert text(agreement.pending) == "I don't hear"
    # One word was heard as two, at the same time.
    agreement.replace([*heard("so what"), *heard("com sin", 600), *heard("here", 1300)])
    assert text(agreement.pending) == "here"


def test_words_that_are_said_twice_stay():
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.update(heard("for two years."), FOREVER)
    agreement.replace(heard("for two years. Two years is long"))
    assert text(agreement.pending) == "Two years is long"


def test_words_heard_again_after_a_cut_are_dropped():
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.update(heard("the new office."), FOREVER)
    agreement.forget_until(850)
    assert agreement.kept == []
    agreement.replace(heard("Office. So we", 860))
    assert text(agreement.pending) == "So we"
    agreement.replace(heard("Office. So we", 1500))
    assert text(agreement.pending) == "Office. So we", "much later it is another one"


hypotheses = st.lists(
    st.lists(
        st.builds(
            lambda start, length, text: Word(start, start + length, text),
            st.integers(0, 5000),
            st.integers(0, 400),
            st.sampled_from(["a", "b", "B.", "c,", "d?"]),
        ),
        max_size=8,
    ).map(lambda words: sorted(words, key=lambda word: word.start_ms)),
    max_size=8,
)


@given(hypotheses, st.integers(0, 6000), st.integers(0, 6000))
def test_committed_words_never_go_back(hypotheses, stable_ms, cut_ms):
    """Whatever is heard: starts do not go back, what waits comes after what is committed, nothing is kept twice."""
    agreement, committed = LocalAgreement(), []
    for index, hypothesis in enumerate(hypotheses):
        committed += agreement.update(hypothesis, stable_ms)
        if index % 3 == 2:
            agreement.forget_until(cut_ms)
        starts = [word.start_ms for word in (*committed, *agreement.pending)]
        assert starts == sorted(starts)
        assert agreement.kept == committed[len(committed) - len(agreement.kept) :] or index >= 2
    committed += agreement.commit_all()
    assert agreement.pending == []
    assert [word.start_ms for word in committed] == sorted(word.start_ms for word in committed)
