"""When Whisper's words are not believed because it doubts itself that anybody speaks."""

import textwrap

# Words are not believed where Whisper gives "no speech" a probability above the first and its words a mean
# log-probability below the second. 21 sounds without speech: 0.63 to 0.95, and all that are no loops below -0.8.
# Speech: 0.02 to 0.31, with white noise 0 dB below it up to 0.54; of 60 single digits one is above both, misheard.
# Whisper's own second figure, -1, leaves the "You" it hears in silence.
NO_SPEECH, UNSURE = 0.6, -0.75


def why_dropped(text: str, no_speech: float, log_probability: float) -> str | None:
    """A warning that says why `text` is not believed; None where it is.

    `no_speech` is the probability of Whisper's token for it at the start of the transcript, `log_probability` the mean
    natural-log probability of the tokens of `text`.
    """
    if no_speech <= NO_SPEECH or log_probability >= UNSURE:
        return None
    said = textwrap.shorten(text.strip(), 40, placeholder=" ...")
    return f"{said!r} dropped: no speech there, probability {no_speech:.2f}"
