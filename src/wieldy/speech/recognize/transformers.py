"""Whisper, Moonshine and Parakeet-CTC through `transformers`: slower than CTranslate2 here, open to every option.

Token scores come from one extra pass of the decoder over the tokens it chose, so that they mean the same whichever way
the tokens were found (beam, sampling, fusion).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wieldy.errors import InputError, MissingError, UsageError
from wieldy.speech.recognize import NO_REPEAT, SAMPLE_RATE, Capabilities, HeardWord, Hypothesis, begins_word
from wieldy.speech.recognize.no_speech import why_dropped
from wieldy.speech.recognize.vocabulary import VocabularyConfig
from wieldy.weights import fingerprint

if TYPE_CHECKING:
    import torch

    from wieldy.speech.decode import PrefixScorer

_ATTENTION_MODELS = ("whisper", "moonshine")
_CTC_MODELS = ("parakeet_ctc",)


class TransformersRecognizer:
    """A `transformers` speech model from a local `save_pretrained` folder.

    `threads` is torch's intra-op thread count for the time of a call. Whisper gives word times, Parakeet-CTC frame
    times; Moonshine gives none.
    """

    name = "transformers"

    def __init__(
        self,
        folder: Path,
        *,
        model_id: str | None = None,
        language: str | None = None,
        beam_size: int = 5,
        threads: int | None = None,
        vocabulary: VocabularyConfig = VocabularyConfig(),
    ) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingError("engine transformers is not installed", hint="pip install 'wieldy[torch]'") from error
        transformers.utils.logging.disable_progress_bar()
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        self.kind: str = config.model_type
        if self.kind in _ATTENTION_MODELS:
            auto: Any = transformers.AutoModelForSpeechSeq2Seq
        elif self.kind in _CTC_MODELS:
            auto = transformers.AutoModelForCTC
        else:
            raise InputError(
                f"model {folder} is of type {self.kind!r}",
                hint=f"wieldy can run {', '.join((*_ATTENTION_MODELS, *_CTC_MODELS))}",
            )
        self.model = auto.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
        self.model.eval()
        self.processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.model_id = model_id or folder.name
        self.model_files: Mapping[str, str] = fingerprint(folder)
        self.language = language
        self.beam_size = beam_size
        self.threads = threads or os.cpu_count() or 1
        self._scorer: PrefixScorer | None = None
        if vocabulary:
            if self.kind != "whisper":
                raise UsageError(
                    f"words of one's own with a model of type {self.kind!r}", hint="only Whisper models take them here"
                )
            from wieldy.speech.decode.lm.generate import WhisperSpelling

            spelling = WhisperSpelling(self.processor.tokenizer, self.model.config.vocab_size)
            self._scorer = vocabulary.scorer(spelling)
        multilingual = bool(getattr(self.model.generation_config, "is_multilingual", False))
        self.capabilities = Capabilities(
            word_times=self.kind != "moonshine",
            token_scores=True,
            written_form=True,
            avoids_repeats=self.kind in _ATTENTION_MODELS,
            languages=_whisper_languages(self.model) if multilingual else ("en",),
        )

    def transcribe(self, audio: Iterable[np.ndarray], *, avoid_repeats: bool = False) -> Iterator[Hypothesis]:
        """One hypothesis per stretch of audio, in order."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                for samples in audio:
                    if self.kind in _CTC_MODELS:
                        yield self._decode_ctc(samples)
                    else:
                        yield self._decode_attention(samples, avoid_repeats)
        finally:
            torch.set_num_threads(before)

    def _decode_attention(self, samples: np.ndarray, avoid_repeats: bool) -> Hypothesis:
        inputs = self.processor(
            samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=self.kind == "whisper"
        )
        options: dict[str, Any] = {"return_dict_in_generate": True, "num_beams": self.beam_size, "do_sample": False}
        if avoid_repeats:
            options["no_repeat_ngram_size"] = NO_REPEAT
        if self._scorer:
            from wieldy.speech.decode.lm.generate import FusionLogitsProcessor

            options["logits_processor"] = [FusionLogitsProcessor(self._scorer, self.model.config.eos_token_id)]
        if self.kind == "whisper":
            options["return_token_timestamps"] = True
            if self.language is not None and self.capabilities.languages != ("en",):
                options["language"] = self.language
        else:
            # Moonshine's own advice: at most 6.5 tokens per second, or it may loop.
            options["max_new_tokens"] = 8 + round(6.5 * len(samples) / SAMPLE_RATE)
        generated = self.model.generate(**inputs, **options)
        sequence = generated["sequences"][0]
        log_probabilities, no_speech = self._score(inputs, sequence)
        tokenizer = self.processor.tokenizer
        special = set(tokenizer.all_special_ids)
        end_of_text = tokenizer.convert_tokens_to_ids("<|endoftext|>") if self.kind == "whisper" else len(tokenizer)
        ends: list[float | None] = [None] * len(sequence)
        if self.kind == "whisper":  # the attention that says so belongs to the step before: these are ends
            ends = generated["token_timestamps"][0].tolist()
        tokens = [
            _Token(token, log_probabilities[index], ends[index - 1], ends[index])
            for index, token in enumerate(sequence.tolist())
            if token not in special and token < end_of_text
        ]
        language = self.language or "en"
        if not tokens:
            return Hypothesis((), language=language)
        log_probability = float(np.mean([token.log_probability for token in tokens]))
        text = tokenizer.decode([token.id for token in tokens])
        if warning := why_dropped(text, no_speech, log_probability):
            return Hypothesis((), language=language, warnings=(warning,))
        return Hypothesis(tuple(join_tokens(tokens, tokenizer.decode)), language, log_probability)

    def _score(self, inputs: Any, sequence: torch.Tensor) -> tuple[list[float], float]:
        """Natural-log probability of each token of `sequence` given those before it, 0 for the first; and Whisper's
        probability of no speech, 0 for other models."""
        import torch

        logits = self.model(**inputs, decoder_input_ids=sequence[None, :-1]).logits[0]
        scores = torch.log_softmax(logits.float(), dim=-1)
        chosen = scores.gather(1, sequence[1:, None])[:, 0]
        no_speech = 0.0
        if self.kind == "whisper":  # its token goes by two names, but is always the one before <|notimestamps|>
            no_speech = float(scores[0, self.model.generation_config.no_timestamps_token_id - 1].exp())
        return [0.0, *chosen.tolist()], no_speech

    def _decode_ctc(self, samples: np.ndarray) -> Hypothesis:
        inputs = self.processor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        log_probabilities = self.model(**inputs).logits[0].float().log_softmax(-1)
        best, path = log_probabilities.max(-1)
        frame_s = len(samples) / SAMPLE_RATE / len(path)
        blank = self.model.config.pad_token_id
        tokens: list[_Token] = []
        previous = blank
        for frame, (token, score) in enumerate(zip(path.tolist(), best.tolist(), strict=True)):
            if token not in (blank, previous):
                tokens.append(_Token(token, score, frame * frame_s, (frame + 1) * frame_s))
            elif token != blank:
                tokens[-1] = _Token(token, tokens[-1].log_probability, tokens[-1].start, (frame + 1) * frame_s)
            previous = token
        return Hypothesis(
            tuple(join_tokens(tokens, self.processor.tokenizer.decode)),
            log_probability=float(best.mean()) if len(best) else None,
        )


@dataclass(frozen=True)
class _Token:
    id: int
    log_probability: float
    start: float | None
    end: float | None


def join_tokens(tokens: Sequence[_Token], decode: Callable[[list[int]], str]) -> Iterator[HeardWord]:
    """Words from tokens: a new one where the decoded text gains a space, and at each ideograph or kana.

    A word's confidence is the mean probability of its tokens, its times those of its first and last token. A token
    that is only part of a character's bytes belongs to the word that its character completes.
    """
    groups: list[tuple[str, list[_Token]]] = []
    text, pending = "", list[_Token]()
    for index, token in enumerate(tokens):
        pending.append(token)
        longer = decode([earlier.id for earlier in tokens[: index + 1]])
        if longer.endswith("\ufffd") and index + 1 < len(tokens):
            continue
        piece, text = longer[len(text) :], longer
        if not groups or begins_word(piece):
            groups.append((piece, pending))
        else:
            groups[-1] = (groups[-1][0] + piece, groups[-1][1] + pending)
        pending = []
    for piece, parts in groups:
        if word := piece.strip():
            confidence = float(np.mean([np.exp(part.log_probability) for part in parts]))
            yield HeardWord(word, parts[0].start, parts[-1].end, confidence)


def _whisper_languages(model: Any) -> tuple[str, ...]:
    return tuple(token.strip("<|>") for token in model.generation_config.lang_to_id)
