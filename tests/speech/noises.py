"""Sounds without a word in them, each made from its name alone: silence, noise, music, wind and breath.

`CLIPS` maps a name to what makes the clip from a random generator; `clip(name)` is the sound, float32 [n] at `RATE`.
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from scipy import signal

RATE = 16_000
SECONDS = 12.0
TIME = np.arange(int(SECONDS * RATE)) / RATE
DTMF_ROWS, DTMF_COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)

Samples = np.ndarray
Draw = np.random.Generator


def clip(name: str) -> Samples:
    """One of `CLIPS`, on the grid of 16 bits like a recording; the same in every process."""
    made = CLIPS[name](np.random.default_rng(zlib.crc32(name.encode())))
    return (np.round(np.clip(made, -1, 1) * 32767) / 32768).astype(np.float32)


# Silence -------------------------------------------------------------------------------------------------------------


def zeros(_: Draw) -> Samples:
    return np.zeros(len(TIME))


def dither(draw: Draw) -> Samples:
    """What a converter without an input writes: the lowest bit at random."""
    return draw.integers(-1, 2, len(TIME)) / 32768


def room(draw: Draw) -> Samples:
    """A quiet room: low noise of a fan, a little hum, a chair now and then."""
    fan = at_level(-52, coloured(draw, 1.0)) + at_level(-62, np.sin(2 * np.pi * 50 * TIME))
    return fan + at_level(-45, hits(draw, every_s=3.0, decay_s=0.05))


# Noise ---------------------------------------------------------------------------------------------------------------


def white(draw: Draw) -> Samples:
    return at_level(-20, coloured(draw, 0.0))


def pink(draw: Draw) -> Samples:
    return at_level(-20, coloured(draw, 0.5))


def brown(draw: Draw) -> Samples:
    return at_level(-15, coloured(draw, 1.0))


def hum(draw: Draw) -> Samples:
    """Mains at 50 Hz with harmonics that fall off, over a noise floor."""
    tones = sum(np.sin(2 * np.pi * 50 * k * TIME + draw.uniform(0, 6)) / k for k in range(1, 20))
    return at_level(-18, tones) + at_level(-60, coloured(draw, 0.0))


def hiss_with_jumps(draw: Draw) -> Samples:
    """Automatic gain at work: hiss whose level jumps by up to 40 dB every half second or so."""
    levels = np.repeat(10 ** (draw.uniform(-55, -15, 40) / 20), RATE // 2)[: len(TIME)]
    return levels * coloured(draw, 0.0)


def clicks(draw: Draw) -> Samples:
    """Keys, a mouse, a pen: short hits at irregular times."""
    return at_level(-25, hits(draw, every_s=0.25, decay_s=0.004))


def crackle(draw: Draw) -> Samples:
    """A record or a bad cable: thousands of tiny pulses."""
    pulses = draw.standard_normal(len(TIME)) * (draw.random(len(TIME)) < 0.01)
    return at_level(-28, band(pulses, 500, 7000))


def dialling(draw: Draw) -> Samples:
    """A telephone: the dial tone, twelve keys, the busy tone."""
    keys = [
        np.sin(2 * np.pi * row * TIME) + np.sin(2 * np.pi * col * TIME) for row in DTMF_ROWS for col in DTMF_COLUMNS
    ]
    parts = [np.sin(2 * np.pi * 425 * TIME[: 2 * RATE])]
    for key in draw.permutation(len(keys)):
        parts += [keys[key][: RATE // 6], np.zeros(RATE // 8)]
    parts += [np.sin(2 * np.pi * 425 * TIME[: RATE // 2]), np.zeros(RATE // 2)] * 7
    return at_level(-20, np.concatenate(parts)[: len(TIME)])


def siren(_: Draw) -> Samples:
    """Up and down between 500 and 1500 Hz, once in three seconds, with overtones."""
    phase = 2 * np.pi * np.cumsum(1000 + 500 * np.sin(2 * np.pi * TIME / 3)) / RATE
    return at_level(-18, np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase))


def sweeps(_: Draw) -> Samples:
    """Sines from 50 Hz to 7 kHz, three seconds each."""
    return at_level(-20, signal.chirp(TIME % 3, 50, 3, 7000, method="logarithmic"))


def wind(draw: Draw) -> Samples:
    """Gusts in a microphone: low noise that swells and dies."""
    gusts = np.interp(TIME, np.arange(0, SECONDS + 1, 0.7), draw.uniform(0, 1, int(SECONDS / 0.7) + 2)[:19]) ** 2
    return at_level(-18, gusts * band(coloured(draw, 1.0), 20, 600))


def breath(draw: Draw) -> Samples:
    """Somebody breathes into a headset: noise shaped by a throat, in and out every four seconds."""
    throat = sum(band(coloured(draw, 0.0), low, high) for low, high in ((400, 700), (1300, 1800), (2300, 3000)))
    return at_level(-30, throat * np.maximum(0, np.sin(2 * np.pi * TIME / 2)) ** 2)


# Music ---------------------------------------------------------------------------------------------------------------


def organ(_: Draw) -> Samples:
    """Four chords that are held, eight harmonics to a note."""
    chords = ((60, 64, 67), (57, 60, 64), (65, 69, 72), (67, 71, 74))
    return at_level(-18, score([(i * 3.0, 2.9, note) for i in range(4) for note in chords[i]], organ_note))


def plucked(draw: Draw) -> Samples:
    """A guitar's broken chords, by Karplus and Strong's string."""
    return at_level(-20, score(melody(draw, beat_s=0.25, low=45), lambda hz, s: string_note(draw, hz, s)))


def flute(draw: Draw) -> Samples:
    """One voice with vibrato and breath: of all instruments the nearest to singing."""
    return at_level(-20, score(melody(draw, beat_s=0.6, low=67), lambda hz, s: flute_note(draw, hz, s)))


def drums(draw: Draw) -> Samples:
    """Bass drum, snare and cymbal at 110 beats a minute."""
    return at_level(-18, beat(draw))


def band_playing(draw: Draw) -> Samples:
    """Drums, bass and a lead with filtered saw waves, together."""
    bass = score(melody(draw, beat_s=0.55, low=33), saw_note)
    lead = score(melody(draw, beat_s=0.27, low=57), saw_note)
    return at_level(-16, at_level(-3, bass) + at_level(-6, lead) + at_level(-3, beat(draw)))


def everything(draw: Draw) -> Samples:
    """A café without people: music from afar, crockery, a fan."""
    return at_level(-30, band(plucked(draw), 200, 4000)) + at_level(-35, clicks(draw)) + at_level(-40, pink(draw))


CLIPS: dict[str, Callable[[Draw], Samples]] = {
    "zeros": zeros, "dither": dither, "room": room,
    "white": white, "pink": pink, "brown": brown, "hum": hum, "hiss with jumps": hiss_with_jumps, "clicks": clicks,
    "crackle": crackle, "dialling": dialling, "siren": siren, "sweeps": sweeps, "wind": wind, "breath": breath,
    "organ": organ, "plucked": plucked, "flute": flute, "drums": drums, "band": band_playing, "everything": everything,
}  # fmt: skip


# What they are made of -----------------------------------------------------------------------------------------------


def at_level(db: float, samples: Samples) -> Samples:
    """The same at `db` relative to a full-scale square wave (root mean square)."""
    return samples * 10 ** (db / 20) / max(np.sqrt(np.mean(samples**2)), 1e-12)


def coloured(draw: Draw, tilt: float) -> Samples:
    """Noise of unit power whose amplitude falls with frequency as f^-tilt: 0 white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(draw.standard_normal(len(TIME)))
    frequency = np.fft.rfftfreq(len(TIME), 1 / RATE)
    shaped = np.fft.irfft(spectrum * np.maximum(frequency, 20.0) ** -tilt, len(TIME))
    return at_level(0, shaped)


def band(samples: Samples, low: float, high: float) -> Samples:
    return signal.sosfilt(signal.butter(4, (low, high), "bandpass", fs=RATE, output="sos"), samples)


def hits(draw: Draw, *, every_s: float, decay_s: float) -> Samples:
    """Bursts of noise that die away, at random times."""
    out = np.zeros(len(TIME) + RATE)
    burst_time = TIME[: RATE // 2]
    for at in np.cumsum(draw.exponential(every_s, int(2 * SECONDS / every_s))):
        if at < SECONDS:
            burst = np.exp(-burst_time / decay_s) * draw.standard_normal(len(burst_time)) * draw.uniform(0.3, 1)
            out[int(at * RATE) :][: len(burst)] += burst
    return out[: len(TIME)]


def melody(draw: Draw, *, beat_s: float, low: int) -> list[tuple[float, float, int]]:
    """A walk on the pentatonic scale from MIDI note `low`: (start, length, note), in seconds."""
    scale, step, notes = (0, 2, 4, 7, 9, 12, 14, 16), 3, []
    for start in np.arange(0, SECONDS - 2 * beat_s, beat_s).tolist():
        step = int(np.clip(step + draw.integers(-2, 3), 0, len(scale) - 1))
        notes.append((start, beat_s * draw.choice((0.9, 1.6)), low + scale[step]))
    return notes


def score(notes: Sequence[tuple[float, float, int]], instrument: Callable[[float, float], Samples]) -> Samples:
    """Notes (start, length in seconds, MIDI number) played and added up."""
    out = np.zeros(len(TIME) + 2 * RATE)
    for start, length, note in notes:
        played = instrument(440 * 2 ** ((note - 69) / 12), length)
        out[int(start * RATE) :][: len(played)] += played
    return out[: len(TIME)]


def swell(seconds: float, attack_s: float, release_s: float) -> Samples:
    time = TIME[: int(seconds * RATE)]
    return np.minimum(1, time / attack_s) * np.minimum(1, (seconds - time) / release_s)


def organ_note(hz: float, seconds: float) -> Samples:
    time = TIME[: int(seconds * RATE)]
    harmonics = [np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 9) if hz * k < RATE / 2]
    return sum(harmonics) * swell(seconds, 0.03, 0.1)


def saw_note(hz: float, seconds: float) -> Samples:
    sweep = signal.sosfilt(
        signal.butter(2, min(8 * hz, 6000), fs=RATE, output="sos"), signal.sawtooth(2 * np.pi * hz * TIME)
    )
    return sweep[: int(seconds * RATE)] * swell(seconds, 0.01, 0.08)


def flute_note(draw: Draw, hz: float, seconds: float) -> Samples:
    time = TIME[: int(seconds * RATE)]
    phase = 2 * np.pi * hz * time + 0.8 * np.sin(2 * np.pi * 5 * time)
    air = 0.05 * draw.standard_normal(len(time))
    return (np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.1 * np.sin(3 * phase) + air) * swell(seconds, 0.08, 0.1)


def string_note(draw: Draw, hz: float, seconds: float) -> Samples:
    """A burst of noise in a loop that is one period long and loses its treble."""
    period = round(RATE / hz)
    burst = np.zeros(int(seconds * RATE))
    burst[:period] = draw.uniform(-1, 1, period)
    loop = np.zeros(period + 2)
    loop[0], loop[period], loop[period + 1] = 1, -0.498, -0.498
    return signal.lfilter([1], loop, burst)


def beat(draw: Draw) -> Samples:
    out = np.zeros(len(TIME) + RATE)
    time = TIME[: RATE // 3]
    noise = draw.standard_normal(len(time))
    bass = np.sin(2 * np.pi * (50 * time + 8 * (1 - np.exp(-time / 0.03)))) * np.exp(-time / 0.1)
    snare = (noise + np.sin(2 * np.pi * 190 * time)) * np.exp(-time / 0.07)
    cymbal = np.diff(noise, prepend=0) * np.exp(-time / 0.03)
    for index, start in enumerate(np.arange(0, SECONDS, 60 / 110 / 2).tolist()):
        here = out[int(start * RATE) :][: len(time)]
        here += 0.3 * cymbal + (bass if index % 4 == 0 else 0.6 * snare if index % 4 == 2 else 0)
    return out[: len(TIME)]
