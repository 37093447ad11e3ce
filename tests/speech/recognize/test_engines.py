"""Every engine hears a real recording; what an engine cannot do is said before it is asked."""

from pathlib import Path

import numpy as np
import pytest

from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech.audio import Recording
from wieldy.speech.recognize import Recognizer
from wieldy.speech.recognize.engines import RecognitionConfig, build, choose_engine
from wieldy.speech.recognize.faster_whisper import FasterWhisper
from wieldy.speech.recognize.transformers import TransformersRecognizer, _Token, join_tokens
from wieldy.speech.recognize.vocabulary import VocabularyConfig

SAID = "Sheila in Texas originally from Chicago"  # clearly spoken at 14.4 to 17.8 s


@pytest.fixture(scope="module")
def clear_words(conversation: Path) -> np.ndarray:
    return Recording.open(conversation / "sample.wav").read(12_500, 24_000)


@pytest.fixture(scope="module")
def faster_whisper(whisper_tiny: Path) -> FasterWhisper:
    return FasterWhisper(whisper_tiny, threads=2)


def check_words(recognizer: Recognizer, samples: np.ndarray, said: str) -> None:
    (hypothesis,) = recognizer.transcribe([samples])
    words = [word.text.strip(".,!?").lower() for word in hypothesis.words]
    assert sum(word in words for word in said.lower().split()) >= 4, hypothesis.text
    for word in hypothesis.words:
        assert 0 <= word.start <= word.end <= len(samples) / 16_000 + 0.1
        assert 0 <= word.confidence <= 1
    starts = [word.start for word in hypothesis.words]
    assert starts == sorted(starts)


def test_faster_whisper_hears_a_real_call(faster_whisper: FasterWhisper, clear_words: np.ndarray) -> None:
    assert isinstance(faster_whisper, Recognizer)
    check_words(faster_whisper, clear_words, SAID)


def test_what_follows_without_a_space_belongs_to_the_word(faster_whisper: FasterWhisper, monkeypatch) -> None:
    from types import SimpleNamespace

    parts = [(" costs", 0.0, 0.4, 0.9), (" $1", 0.4, 0.6, 0.8), (",000", 0.6, 0.9, 0.5), ("日", 1.0, 1.1, 0.9)]
    spoken = [SimpleNamespace(word=text, start=start, end=end, probability=p) for text, start, end, p in parts]
    segment = SimpleNamespace(text=" costs $1,000日", words=spoken, avg_logprob=-0.1, no_speech_prob=0.1, tokens=[1, 2])
    monkeypatch.setattr(
        faster_whisper.model, "transcribe", lambda *_a, **_k: ([segment], SimpleNamespace(language="en"))
    )
    (hypothesis,) = faster_whisper.transcribe([np.zeros(16_000, np.float32)])
    assert [(w.text, w.start, w.end, w.confidence) for w in hypothesis.words] == [
        ("costs", 0.0, 0.4, 0.9),
        ("$1,000", 0.4, 0.9, 0.5),
        ("日", 1.0, 1.1, 0.9),
    ]


def test_results_come_in_the_order_of_the_audio(faster_whisper: FasterWhisper, clear_words: np.ndarray) -> None:
    """Short stretches finish first; they must not overtake the long one before them."""
    parts = [clear_words, clear_words[-32_000:], np.zeros(1600, np.float32), clear_words[-32_000:]]
    alone = [next(faster_whisper.transcribe([part])).text for part in parts]
    assert [hypothesis.text for hypothesis in faster_whisper.transcribe(parts)] == alone
    assert alone[0] != alone[1]


def test_the_reader_is_only_a_little_ahead(faster_whisper: FasterWhisper) -> None:
    taken = []

    def audio():
        for index in range(10):
            taken.append(index)
            yield np.zeros(1600, np.float32)

    results = faster_whisper.transcribe(audio())
    next(results)
    assert len(taken) <= 2 * faster_whisper.workers
    results.close()


def test_pocketsphinx_hears_a_real_call(clear_words: np.ndarray) -> None:
    pytest.importorskip("pocketsphinx")
    recognizer = build(RecognitionConfig(engine="pocketsphinx"))
    (hypothesis,) = recognizer.transcribe([clear_words[:80_000]])
    assert "sheila" in hypothesis.text
    assert not set(hypothesis.text) & set("<>[]()+")
    assert all(word.end <= len(clear_words) / 16_000 + 0.1 for word in hypothesis.words)


def test_pocketsphinx_hears_nothing_in_nothing() -> None:
    pytest.importorskip("pocketsphinx")
    recognizer = build(RecognitionConfig(engine="pocketsphinx"))
    assert next(recognizer.transcribe([np.zeros(0, np.float32)])).words == ()


@pytest.mark.slow
def test_transformers_hears_the_same_words_from_the_same_weights(
    whisper_tiny: Path, faster_whisper: FasterWhisper, clear_words: np.ndarray
) -> None:
    from wieldy import weights

    recognizer = TransformersRecognizer(weights.as_transformers(whisper_tiny), beam_size=1, threads=2)
    check_words(recognizer, clear_words, SAID)
    (ours,), (theirs,) = recognizer.transcribe([clear_words]), faster_whisper.transcribe([clear_words])
    shared = set(ours.text.lower().split()) & set(theirs.text.lower().split())
    assert len(shared) >= 0.8 * len(set(theirs.text.lower().split()))
    times = {word.text: word.start for word in theirs.words}
    differences = [abs(word.start - times[word.text]) for word in ours.words if word.text in times]
    assert np.median(differences) < 0.1
    assert ours.log_probability == pytest.approx(theirs.log_probability, abs=0.2)  # int8 and a wider beam there


@pytest.mark.slow
def test_transformers_does_not_believe_the_word_it_hears_in_silence(
    whisper_tiny: Path, clear_words: np.ndarray
) -> None:
    from wieldy import weights

    recognizer = TransformersRecognizer(weights.as_transformers(whisper_tiny), beam_size=1, threads=2)
    silence = np.zeros(16_000, np.float32)
    silent, spoken = recognizer.transcribe([silence, clear_words[-64_000:]], avoid_repeats=True)
    assert silent.words == ()
    assert silent.warnings == ("'you' dropped: no speech there, probability 0.95",)
    assert len(spoken.words) > 3
    assert spoken.warnings == ()


def tokenizer_of(folder: Path, words: list[str], **special: str) -> None:
    """A word-level tokenizer saved the way `transformers` reads it."""
    import tokenizers
    import transformers

    vocabulary = {word: index for index, word in enumerate([*special.values(), *words])}
    model = tokenizers.models.WordLevel(vocabulary, unk_token=next(iter(special.values())))
    fast = tokenizers.Tokenizer(model)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **special).save_pretrained(folder)


@pytest.mark.slow
def test_moonshine_from_a_local_folder(tmp_path: Path) -> None:
    """Random weights of the real class: the loading path, token scores, and words without times."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.MoonshineConfig(
        vocab_size=12,
        hidden_size=32,
        intermediate_size=64,
        encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        decoder_start_token_id=1,
        initializer_range=1.0,
    )
    transformers.MoonshineForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer_of(tmp_path, [f"w{i}" for i in range(9)], pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    recognizer = TransformersRecognizer(tmp_path, beam_size=1, threads=1)
    assert not recognizer.capabilities.word_times
    (hypothesis,) = recognizer.transcribe([np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)])
    assert hypothesis.words
    assert all(word.start is None and 0 <= word.confidence <= 1 for word in hypothesis.words)


@pytest.mark.slow
def test_parakeet_from_a_local_folder(tmp_path: Path) -> None:
    """Random weights of the real class: the loading path, and frame times from the CTC path."""
    import torch
    import transformers

    torch.manual_seed(0)
    encoder = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "subsampling_conv_channels": 8,
    }
    config = transformers.ParakeetCTCConfig(vocab_size=8, encoder_config=encoder, pad_token_id=7)
    transformers.ParakeetForCTC(config).save_pretrained(tmp_path)
    tokenizer_of(tmp_path, [f"w{i}" for i in range(6)], unk_token="<unk>", pad_token="<pad>")
    transformers.ParakeetFeatureExtractor().save_pretrained(tmp_path)
    recognizer = TransformersRecognizer(tmp_path, threads=1)
    samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    (hypothesis,) = recognizer.transcribe([samples])
    assert hypothesis.words
    assert all(0 <= word.start < word.end <= 2.0 + 1e-6 for word in hypothesis.words)


def test_tokens_become_words_with_the_times_of_their_ends() -> None:
    pieces = {1: " orig", 2: "inally", 3: " from", 4: ".", 5: "日", 6: "本"}

    def decode(ids: list[int]) -> str:
        return "".join(pieces[i] for i in ids)

    tokens = [_Token(i, np.log(0.5), i / 10, (i + 1) / 10) for i in (1, 2, 3, 4, 5, 6)]
    words = list(join_tokens(tokens, decode))
    assert [word.text for word in words] == ["originally", "from.", "日", "本"]
    assert (words[0].start, words[0].end) == (0.1, 0.3)
    assert words[0].confidence == pytest.approx(0.5)


def test_a_character_split_over_tokens_stays_in_its_word() -> None:
    raw = {1: b" na", 2: "ï".encode()[:1], 3: "ï".encode()[1:], 4: b"ve"}

    def decode(ids: list[int]) -> str:
        return b"".join(raw[i] for i in ids).decode(errors="replace")

    words = list(join_tokens([_Token(i, 0.0, None, None) for i in (1, 2, 3, 4)], decode))
    assert [word.text for word in words] == ["naïve"]


def test_another_language_names_the_model_to_get(whisper_tiny: Path) -> None:
    with pytest.raises(MissingError, match=r"whisper-tiny\.en knows no language but 'en', not 'de'.*large-v3-turbo"):
        build(RecognitionConfig(language="de"), offline=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "German"}, "--language German: give a code"),
        ({"engine": "vosk"}, "--engine vosk: choose one of auto"),
        ({"threads": 0}, "--threads 0: it must be at least 1"),
        ({"beam_size": 0}, "beam_size is 0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RecognitionConfig(**options)


def test_auto_is_faster_whisper_unless_there_are_words_to_expect() -> None:
    assert choose_engine(RecognitionConfig()) == ("faster-whisper", "")
    words = VocabularyConfig(words=("Szymborska",))
    engine, why = choose_engine(RecognitionConfig(vocabulary=words))
    assert engine == "transformers"
    assert "which words to expect" in why
    with pytest.raises(UsageError, match="--engine faster-whisper cannot be told which words to expect"):
        choose_engine(RecognitionConfig(vocabulary=words, engine="faster-whisper"))


def test_a_model_of_another_kind_is_named(tmp_path: Path) -> None:
    import transformers

    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is of type 'bert': wieldy can run whisper, moonshine"):
        TransformersRecognizer(tmp_path)
