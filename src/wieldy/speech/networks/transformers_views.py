"""Models of the transformers library seen as `AEDView` and `TransducerView`: Whisper, Moonshine, Parakeet RNN-T.

For searches with N-best lists, language models and internal language models on models that others trained; for plain
transcripts their own `generate` will do. Weights are read as they are, nothing is changed in the model.

Internal language models after Zhong Meng et al. 2020, arXiv 2011.01991. Notation as in `views`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    MoonshineForConditionalGeneration,
    ParakeetForRNNT,
    ParakeetForTDT,
    WhisperForConditionalGeneration,
)

from wieldy.errors import InputError, UsageError
from wieldy.speech.networks.encoder import within
from wieldy.speech.networks.views import InternalLmContext, InternalLmCut

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DecoderState:
    """Of n hypotheses: keys and values of the tokens so far and, once computed, of the memory, for each layer."""

    memory: Tensor | None  # [n, T', D]; None: without sound
    lens: Tensor  # [n]
    past: tuple[KeysValues, ...]
    heard: tuple[KeysValues, ...]
    utterance: Tensor  # [n]; hypotheses of one utterance hear the same


class DecoderView:
    """`AEDView` of a Whisper or Moonshine; make it with `whisper_view` or `moonshine_view`.

    `silenced` tokens never follow, `silenced_first` not directly after the prompt. `control` tokens are no text: the
    internal language model leaves them out. `mean` [D] is the mean encoding, for the context mean_states.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration | MoonshineForConditionalGeneration,
        *,
        prompt: tuple[int, ...],
        eos: int,
        control: Iterable[int],
        silenced: Iterable[int] = (),
        silenced_first: Iterable[int] = (),
        context: InternalLmContext = "skip",
        mean: Tensor | None = None,
    ) -> None:
        if context not in get_args(InternalLmContext):
            raise UsageError(f"context {context!r}", hint=f"choose {', '.join(get_args(InternalLmContext))}")
        if context == "mean_states" and mean is None:
            raise UsageError("context mean_states without a mean", hint="give mean, from feature_norm.moments")
        self.model, self.prompt, self.eos = model, prompt, eos
        self.vocab: int = model.config.vocab_size
        self.context, self.mean = context, mean
        self._control = self._of_vocabulary(control)
        self._silenced = self._of_vocabulary(silenced)
        self._silenced_first = self._of_vocabulary(silenced_first) | self._silenced

    def encode(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Whisper: log-mel features [B, mels, frames], always of 30 s. Moonshine: samples [B, T] at 16 kHz, one
        utterance at a time, since its norm runs over all of the time."""
        if isinstance(self.model, WhisperForConditionalGeneration):
            memory = self.model.get_encoder()(x).last_hidden_state
            return memory, torch.full((len(memory),), memory.shape[1], device=memory.device)
        encoder, rows = self.model.get_encoder(), []
        for n, samples in enumerate(lens.tolist()):
            if samples < MOONSHINE_SHORTEST:
                raise InputError(
                    f"utterance {n} has {samples} samples", hint=f"at least {MOONSHINE_SHORTEST} make a frame"
                )
            rows.append(encoder(x[n : n + 1, :samples]).last_hidden_state[0])
        frames = torch.tensor([len(row) for row in rows], device=x.device)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), frames

    def start(self, memory: Tensor, lens: Tensor) -> DecoderState:
        return DecoderState(memory, lens, (), (), torch.arange(len(memory), device=memory.device))

    def start_internal(self, n: int) -> DecoderState:
        device = self._control.device
        lens, utterance = torch.ones(n, dtype=torch.int64, device=device), torch.arange(n, device=device)
        if self.context == "skip":
            return DecoderState(None, lens, (), (), utterance)
        mean = torch.zeros(self.model.config.hidden_size, device=device) if self.mean is None else self.mean
        mean = mean * (self.context == "mean_states")
        memory = mean.to(self.model.dtype).expand(n, 1, -1)
        return DecoderState(memory, lens, (), (), utterance)

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        first = self._length(state) == len(self.prompt) - 1
        logits, state = self._run(tokens, state)
        silenced = self._silenced_first if first else self._silenced
        return logits.masked_fill(silenced, -torch.inf).log_softmax(-1), state

    def internal_step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        logits, state = self._run(tokens, state)
        return logits.masked_fill(self._control, -torch.inf).log_softmax(-1).masked_fill(self._control, 0.0), state

    @staticmethod
    def select(state: DecoderState, index: Tensor) -> DecoderState:
        memory, lens, heard, utterance = state.memory, state.lens, state.heard, state.utterance[index]
        if not torch.equal(utterance, state.utterance):  # else it is the same, and large
            memory = None if memory is None else memory[index]
            lens, heard = lens[index], tuple((k[index], v[index]) for k, v in heard)
        return DecoderState(memory, lens, tuple((k[index], v[index]) for k, v in state.past), heard, utterance)

    @staticmethod
    def _length(state: DecoderState) -> int:
        return state.past[0][0].shape[2] if state.past else 0

    def _run(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        cache = EncoderDecoderCache(_cache(state.past), _cache(state.heard))
        known = {}
        if isinstance(self.model, MoonshineForConditionalGeneration) and state.memory is not None:
            known["encoder_attention_mask"] = within(state.lens, 0, state.memory.shape[1]).to(torch.int64)
        hidden = self.model.get_decoder()(
            input_ids=tokens[:, None],
            encoder_hidden_states=state.memory,
            past_key_values=cache,
            use_cache=True,
            **known,
        ).last_hidden_state
        past, heard = (
            tuple((layer.keys, layer.values) for layer in part.layers)
            for part in (cache.self_attention_cache, cache.cross_attention_cache)
        )
        logits = self.model.get_output_embeddings()(hidden[:, 0]).float()
        heard = heard if state.memory is not None else ()
        return logits, DecoderState(state.memory, state.lens, past, heard, state.utterance)

    def _of_vocabulary(self, tokens: Iterable[int]) -> Tensor:
        mask = torch.zeros(self.vocab, dtype=torch.bool)
        mask[list(tokens)] = True
        return mask.to(self.model.device)


# Three convolutions, 127 samples by 64, 7 by 3, 3 by 2: one output of the last needs 127 + 64 * (7 - 1 + 3 * (3 - 1)).
MOONSHINE_SHORTEST = 895


def whisper_view(
    model: WhisperForConditionalGeneration,
    *,
    language: str | None = None,
    task: str = "transcribe",
    context: InternalLmContext = "skip",
    mean: Tensor | None = None,
) -> DecoderView:
    """Whisper without timestamps, in `language` (a code such as "en"; None for models of one language). In Whisper's
    vocabulary all text comes before the end token, and all that follows it is control."""
    settings, eos = model.generation_config, int(model.config.eos_token_id)
    prompt = [int(model.config.decoder_start_token_id)]
    if language is not None:
        languages, tasks = getattr(settings, "lang_to_id", None) or {}, getattr(settings, "task_to_id", None) or {}
        if f"<|{language}|>" not in languages or task not in tasks:
            known = f"{', '.join(sorted(languages)) or 'one language'} and {', '.join(tasks) or 'one task'}"
            raise UsageError(f"language {language!r}, task {task!r}", hint=f"the model knows {known}")
        prompt += [languages[f"<|{language}|>"], tasks[task]]
    if (no_timestamps := getattr(settings, "no_timestamps_token_id", None)) is not None:
        prompt.append(int(no_timestamps))
    control = range(eos + 1, model.config.vocab_size)
    return DecoderView(
        model,
        prompt=tuple(prompt),
        eos=eos,
        control=control,
        silenced=[*control, *(settings.suppress_tokens or ())],
        silenced_first=settings.begin_suppress_tokens or (),
        context=context,
        mean=mean,
    )


def moonshine_view(
    model: MoonshineForConditionalGeneration, *, context: InternalLmContext = "skip", mean: Tensor | None = None
) -> DecoderView:
    """Moonshine has no control tokens but the first and padding."""
    config = model.config
    start, eos = int(config.decoder_start_token_id), int(config.eos_token_id)
    control = {start, *(token for token in (config.bos_token_id, config.pad_token_id) if token is not None)} - {eos}
    return DecoderView(model, prompt=(start,), eos=eos, control=control, silenced=control, context=context, mean=mean)


class ParakeetView:
    """`TransducerView` of a Parakeet RNN-T. `mean` [J] is the mean encoding, for the cut mean."""

    def __init__(self, model: ParakeetForRNNT, *, cut: InternalLmCut = "projected", mean: Tensor | None = None) -> None:
        if isinstance(model, ParakeetForTDT):
            raise UsageError("a Parakeet TDT scores durations too", hint="take an RNN-T, or its own generate")
        if cut not in get_args(InternalLmCut):
            raise UsageError(f"cut {cut!r}", hint=f"choose {', '.join(get_args(InternalLmCut))}")
        if cut == "mean" and mean is None:
            raise UsageError("cut mean without a mean", hint="give mean, from feature_norm.moments")
        self.model, self.cut, self.mean = model, cut, mean
        self.blank: int = model.config.blank_token_id
        self.vocab: int = model.config.vocab_size

    def encode(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Of log-mel features [B, T, mels], as its own feature extractor makes them."""
        mask = within(lens, 0, x.shape[1]).to(torch.int64)
        outputs = self.model.get_audio_features(x, attention_mask=mask)
        return outputs.pooler_output, outputs.attention_mask.sum(-1)

    def start(self, n: int) -> tuple[Tensor, KeysValues]:
        lstm = self.model.decoder.lstm
        nothing = lstm.weight_hh_l0.new_zeros(n, lstm.num_layers, lstm.hidden_size)
        return self.advance(torch.full((n,), self.blank, device=nothing.device), (nothing, nothing))

    def advance(self, tokens: Tensor, state: KeysValues) -> tuple[Tensor, KeysValues]:
        decoder = self.model.decoder
        before = state[0].transpose(0, 1).contiguous(), state[1].transpose(0, 1).contiguous()
        y, (hidden, cell) = decoder.lstm(decoder.embedding(tokens[:, None]), before)
        return decoder.decoder_projector(y)[:, 0], (hidden.transpose(0, 1), cell.transpose(0, 1))

    @staticmethod
    def select(state: KeysValues, index: Tensor) -> KeysValues:
        return state[0][index], state[1][index]

    def join(self, f_rows: Tensor, g_rows: Tensor) -> Tensor:
        logits: Tensor = self.model.joint(decoder_hidden_states=g_rows, encoder_hidden_states=f_rows)
        return logits

    def join_internal(self, g_rows: Tensor) -> Tensor:
        f = torch.zeros_like(g_rows[:1])
        if self.cut == "encoder_output":
            f = self.model.encoder_projector.bias[None]
        elif self.cut == "mean" and self.mean is not None:
            f = self.mean.to(f)[None]
        return self.join(f, g_rows)


def _cache(layers: tuple[KeysValues, ...]) -> Any:
    """transformers' cache around what is there already, without a copy."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        cache.update(keys[:, :, :0], values[:, :, :0], index)
        cache.layers[index].keys, cache.layers[index].values = keys, values
    return cache
