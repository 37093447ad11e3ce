"""Which channels of a recording to listen to, and who speaks where each person has a channel of their own.

Telephone systems and podcast recorders keep one speaker per channel: then the channels say who speaks, better than any
diariser, once the sound that leaked from one microphone into another is taken away. Other recordings with several
channels hold the same conversation several times, and the channel with the best signal-to-noise ratio is enough.
Microphone arrays, whose channels are worth more together, are not told apart from those yet.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from wieldy.errors import UsageError
from wieldy.speech.audio import SAMPLE_RATE, Recording
from wieldy.speech.transcript import Span, Turn, merge_turns
from wieldy.speech.vad import BLOCK_FRAMES, FRAME_MS, FRAME_SAMPLES, VadConfig, segment

ChannelPolicy = Literal["auto", "mono", "split"]

LOOK_MS, MAX_LOOKS = 20_000, 30  # what is looked at to choose: at most ten minutes, spread evenly over the recording
MAX_SPLIT_CHANNELS = 8  # recordings with more are taken for arrays; the cost of comparing grows with the square
MAX_LAG = SAMPLE_RATE * 20 // 1000  # samples: sound that reaches two microphones up to 7 m apart

QUIETEST_DB = -80.0  # levels are not measured below this: gated and computed silence has no noise floor of its own
ACTIVE_DB = 10.0  # a frame this far above its channel's noise floor has sound in it
LIVE_SHARE = 0.01  # a channel with fewer active frames carries nothing
MAX_GAIN_DB = 12.0  # how much microphones of equal use differ in gain; leaks lie below, mostly at -15 to -30 dB
AUDIBLE_DB = 25.0  # frames this far below every channel's talker are left out when it is asked which channel is ahead

# Measured on two and three flite voices in turns and overlapping, 22 recipes (`tests/speech/test_channels.py` keeps
# the decisive ones). "Explained" is the share of a channel's energy that the channels before it predict.
#   one speaker per channel, cross-talk none to -10 dB, dry or with an echo: explained 0.00-0.33, ahead 0.96-1.00
#   cross-talk of -6 dB, talkers panned, one channel inverted or late:       explained 0.64-1.00, ahead 0.00-0.52
#   two microphones in one room:                                             explained 0.05-0.10, ahead 0.17-0.45
MAX_EXPLAINED = 0.5
MIN_AHEAD = 0.75

# Windows of 512 ms correlate with the louder talker's channel (5th to 95th percentile, the same voices):
#   a leak at -20 dB, dry or with an echo                               0.65-1.00
#   a leak at -14 dB into a far microphone                              0.31-0.74
#   somebody's own words, 8 dB below the talker                         0.01-0.16
#   the same with a leak at -20 dB beneath them                         0.14-0.48
# At 0.3, 0.4 and 0.5 the gate leaves 9, 38 and 67 % of that far leak, and takes 68, 43 and 13 % of words that are 9 dB
# below the talker with a dry leak at -20 dB beneath them (2, 2 and 0 % without the leak).
LEAK_AHEAD_DB = 6.0
LEAK_CORRELATION = 0.4
WINDOW_FRAMES, HOP_FRAMES = 16, 8
TRANSFORM_SAMPLES = 9216  # 2^10 * 9: holds a window and MAX_LAG, and transforms fast
BLOCK_S = BLOCK_FRAMES * FRAME_SAMPLES / SAMPLE_RATE


@dataclass(frozen=True)
class ChannelPlan:
    """Which channels are listened to, and how.

    kind: "mono", one conversation on one channel; "split", one speaker on each of `heard`.
    heard: channels of the recording, from 0. With "mono" their mean is taken where there is more than one.
    """

    kind: Literal["mono", "split"]
    heard: tuple[int, ...] = (0,)
    warnings: tuple[str, ...] = ()

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of `view` that hold speech."""
        return self.heard if self.kind == "split" else (0,)

    def view(self, recording: Recording) -> Recording:
        """`recording` as later stages see it: itself, or for "mono" a recording with one channel."""
        return recording if self.kind == "split" else recording.mean(self.heard)


def choose_channels(recording: Recording, policy: ChannelPolicy = "auto") -> ChannelPlan:
    """Decide how to listen. "split" takes every channel with sound on it for one speaker, whatever it sounds like."""
    if policy not in ("auto", "mono", "split"):
        raise UsageError(f"--channels is {policy!r}", hint="choose auto, mono or split")
    if recording.channels == 1:
        only_one = ("--channels split has no effect: the recording has one channel",) if policy == "split" else ()
        return ChannelPlan("mono", warnings=only_one)
    levels = np.concatenate([_levels(look) for look in _looks(recording)])
    floor = np.maximum(np.percentile(levels, 10, axis=0), QUIETEST_DB)
    active = levels > floor + ACTIVE_DB
    live = np.flatnonzero(active.mean(axis=0) >= LIVE_SHARE).tolist()
    if not live:
        return ChannelPlan("mono")
    if policy == "split":
        return ChannelPlan("split", tuple(live))
    talker = _talker_levels(levels, active)
    signal_to_noise = talker - floor
    best_first = sorted(live, key=lambda channel: (-signal_to_noise[channel].round(), -talker[channel].round()))
    if len(live) > MAX_SPLIT_CHANNELS:
        note = f"{len(live)} channels have sound, too many to be one speaker each: channel {best_first[0] + 1} is used"
        return ChannelPlan("mono", (best_first[0],), (note,))
    distinct = [best_first[i] for i in _distinct(_correlations(recording, best_first, active.any(axis=1)))]
    relative = (levels - talker)[active.any(axis=1)]
    if len(distinct) < 2 or not _one_at_a_time(relative[:, distinct]):
        return ChannelPlan("mono", (best_first[0],))
    # Each of these channels has somebody whom the others hardly hear, so "mono" takes them all.
    return ChannelPlan("mono" if policy == "mono" else "split", tuple(sorted(distinct)))


def without_crosstalk(recording: Recording, speech: Mapping[int, Sequence[Span]]) -> dict[int, tuple[Span, ...]]:
    """The speech of each channel without what leaked in from another one.

    `speech[channel]` is what the detector found there. A moment is a leak where another channel is more than
    `LEAK_AHEAD_DB` louder, each against its own talker, and the two correlate at some lag up to `MAX_LAG`; words that
    are quiet but of their own, spoken while somebody else talks, do not correlate and stay.
    """
    channels = list(speech)
    if len(channels) < 2:
        return {channel: tuple(spans) for channel, spans in speech.items()}
    levels = np.concatenate([_levels(block[channels]) for block in recording.blocks(BLOCK_S)])
    found = np.stack([_covered(speech[channel], len(levels)) for channel in channels], axis=1)
    relative = levels - _talker_levels(levels, found)
    own = found.copy()
    ahead = relative[:, None, :] - relative[:, :, None] > LEAK_AHEAD_DB  # [frame, quieter, louder]
    suspect = ahead & found[:, :, None]
    for first, block in zip(range(0, len(levels), BLOCK_FRAMES), recording.blocks(BLOCK_S), strict=True):
        here = slice(first, first + BLOCK_FRAMES)
        own[here] &= ~_leaks(block[channels], suspect[here])
    # What is left of a leak at its edges is too short for speech; what a window cut off speech is a short pause.
    tidy = VadConfig(pad_ms=0)
    return {
        channel: _within(segment(own[:, index].astype(np.float32), recording.duration_ms, tidy), speech[channel])
        for index, channel in enumerate(channels)
    }


def active_turns_per_channel(speech: Mapping[int, Sequence[Span]]) -> tuple[Turn, ...]:
    """The diarisation of a split recording: one speaker per channel of `speech`, named S1, S2, ... in that order."""
    return merge_turns(
        Turn(span.start_ms, span.end_ms, f"S{number}", stream=channel)
        for number, (channel, spans) in enumerate(sorted(speech.items()), start=1)
        for span in spans
    )


def _looks(recording: Recording) -> Iterator[np.ndarray]:
    """Stretches [channels, samples] of `LOOK_MS`, evenly spread; all of a recording that is short enough."""
    count = min(MAX_LOOKS, math.ceil(recording.duration_ms / LOOK_MS))
    for start_ms in np.linspace(0, max(0, recording.duration_ms - LOOK_MS), count, dtype=int).tolist():
        yield recording.read_channels(start_ms, start_ms + LOOK_MS)


def _levels(samples: np.ndarray) -> np.ndarray:
    """Mean power of each frame in dB [frames, channels]; a last frame that is not full is filled with silence."""
    padded = np.pad(samples, ((0, 0), (0, -samples.shape[1] % FRAME_SAMPLES)))
    frames = padded.reshape(len(samples), -1, FRAME_SAMPLES)
    power = np.einsum("cfs,cfs->fc", frames, frames) / FRAME_SAMPLES
    levels: np.ndarray = 10 * np.log10(np.maximum(power, 10 ** (QUIETEST_DB / 10)))
    return levels


def _talker_levels(levels: np.ndarray, active: np.ndarray) -> np.ndarray:
    """How loud the person of each channel is, in dB [channels]: its loudest percent of `active` frames.

    That makes microphones of unequal gain comparable. Beyond `MAX_GAIN_DB` a channel is quiet because nobody speaks
    into it, and its leaks must not be taken for a talker.
    """
    loudest = [
        np.percentile(level[on], 99) if on.any() else QUIETEST_DB for level, on in zip(levels.T, active.T, strict=True)
    ]
    return np.maximum(loudest, max(loudest) - MAX_GAIN_DB)


def _correlations(recording: Recording, channels: Sequence[int], active: np.ndarray) -> np.ndarray:
    """How alike `channels` are in `active` frames: [channels, channels] in [0, 1], the best over lags to `MAX_LAG`."""
    count = len(channels)
    products = np.zeros((count, count, 2 * MAX_LAG + 1))
    first = 0
    for look in _looks(recording):
        samples = look[list(channels)]
        frames = -(-samples.shape[1] // FRAME_SAMPLES)
        samples[:, ~np.repeat(active[first : first + frames], FRAME_SAMPLES)[: samples.shape[1]]] = 0.0
        first += frames
        size = samples.shape[1] + MAX_LAG
        spectra = np.fft.rfft(samples, size)
        for one, other in itertools.combinations_with_replacement(range(count), 2):
            products[one, other] += _lagged_products(spectra[one], spectra[other], size)
    peaks = np.abs(products).max(axis=2)
    energy = np.maximum(np.diagonal(peaks), np.finfo(float).tiny)
    upper = np.triu(peaks / np.sqrt(np.outer(energy, energy)), 1)
    correlation: np.ndarray = upper + upper.T + np.eye(count)
    return correlation


def _lagged_products(spectrum: np.ndarray, other: np.ndarray, size: int) -> np.ndarray:
    """Products of two signals at lags from -MAX_LAG to MAX_LAG, from their spectra of transform length `size`."""
    products = np.fft.irfft(spectrum * other.conj(), size)
    return np.concatenate([products[..., -MAX_LAG:], products[..., : MAX_LAG + 1]], axis=-1)


def _distinct(correlation: np.ndarray) -> list[int]:
    """Channels that those before them do not explain: r' R^-1 r, the share of energy a linear mixture predicts."""
    chosen: list[int] = []
    for channel in range(len(correlation)):
        shared = correlation[chosen, channel]
        explained = shared @ np.linalg.pinv(correlation[np.ix_(chosen, chosen)]) @ shared
        if explained <= MAX_EXPLAINED:
            chosen.append(channel)
    return chosen


def _one_at_a_time(relative: np.ndarray) -> bool:
    """Whether one channel or another is mostly far ahead, given levels [frames, channels] against each one's talker."""
    audible = relative[relative.max(axis=1) > -AUDIBLE_DB]
    if not len(audible):
        return False
    second, first = np.sort(audible, axis=1)[:, -2:].T
    ahead = first - second > LEAK_AHEAD_DB
    wins = np.bincount(audible.argmax(axis=1)[ahead], minlength=relative.shape[1])
    return bool(ahead.mean() >= MIN_AHEAD and wins.min() >= LIVE_SHARE * len(audible))


def _leaks(samples: np.ndarray, suspect: np.ndarray) -> np.ndarray:
    """Which frames [frames, channels] of `samples` [channels, n] are leaks: some of `suspect` [.., quieter, louder]."""
    frames, channels, _ = suspect.shape
    length = (max(frames, WINDOW_FRAMES) + HOP_FRAMES) * FRAME_SAMPLES
    padded = np.pad(samples, ((0, 0), (0, length - samples.shape[1])))
    windows = sliding_window_view(padded, WINDOW_FRAMES * FRAME_SAMPLES, axis=1)[:, :: HOP_FRAMES * FRAME_SAMPLES]
    leaks = np.zeros((frames, channels), bool)
    for quieter, louder in itertools.permutations(range(channels), 2):
        doubtful = suspect[:, quieter, louder]
        starts = [w for w in range(windows.shape[1]) if doubtful[w * HOP_FRAMES :][:WINDOW_FRAMES].any()]
        if not starts:
            continue
        pair = windows[[quieter, louder]][:, starts]
        energy = np.einsum("pws,pws->pw", pair, pair)
        spectra = np.fft.rfft(pair, TRANSFORM_SAMPLES)
        peaks = np.abs(_lagged_products(spectra[0], spectra[1], TRANSFORM_SAMPLES)).max(axis=1)
        alike = peaks > LEAK_CORRELATION * np.sqrt(energy.prod(axis=0))
        for window in np.array(starts)[alike]:
            here = slice(window * HOP_FRAMES, window * HOP_FRAMES + WINDOW_FRAMES)
            leaks[here, quieter] |= doubtful[here]
    return leaks


def _covered(spans: Sequence[Span], frames: int) -> np.ndarray:
    """Whether each frame lies, if only in part, in one of `spans`."""
    covered = np.zeros(frames, bool)
    for span in spans:
        covered[span.start_ms // FRAME_MS : math.ceil(span.end_ms / FRAME_MS)] = True
    return covered


def _within(pieces: Sequence[Span], spans: Sequence[Span]) -> tuple[Span, ...]:
    """What lies in both of two sorted lists of disjoint spans."""
    shared, index = [], 0
    for span in spans:
        while index < len(pieces) and pieces[index].end_ms <= span.start_ms:
            index += 1
        for piece in pieces[index:]:
            if piece.start_ms >= span.end_ms:
                break
            shared.append(Span(max(piece.start_ms, span.start_ms), min(piece.end_ms, span.end_ms)))
    return tuple(shared)
