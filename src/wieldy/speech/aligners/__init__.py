"""When each word of a known text was said: aligners of sound with text, and the files others write their answers to.

For pre-training, for latency against true word ends and for time stamps. What a recogniser heard has times already.

`Aligner.align` is the one interface: `ctc` for any CTC model, `pocketsphinx` for English without any other model,
`files` for TextGrid and CTM. `with_alignment` puts an answer where everything here looks for it, into the cut.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from lhotse.cut import Cut, MonoCut
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.errors import InputError
from wieldy.speech.corpus import aligned


@dataclass(frozen=True)
class Alignment:
    """Words and, where known, phones in order, with times in seconds from the start of the sound."""

    words: tuple[AlignmentItem, ...]
    phones: tuple[AlignmentItem, ...] = ()

    @classmethod
    def of_cut(cls, cut: Cut) -> Alignment:
        """What a cut carries. Raises `InputError` where it has no word times."""
        has_phones = all(part.alignment and "phone" in part.alignment for part in cut.supervisions)
        return cls(tuple(aligned(cut)), tuple(aligned(cut, "phone")) if has_phones else ())


class Aligner(Protocol):
    def align(self, samples: NDArray[np.float32], text: str) -> Alignment:
        """Of mono sound [n] in [-1, 1] at 16 kHz. Raises `InputError` where `text` cannot have been said in it."""
        ...


def with_alignment(cut: MonoCut, alignment: Alignment) -> MonoCut:
    """The cut with these times for its one supervision."""
    if len(cut.supervisions) != 1:
        raise InputError(f"{cut.id} has {len(cut.supervisions)} supervisions", hint="trim cuts to their supervisions")
    (supervision,) = cut.supervisions
    # lhotse counts an alignment from the start of the recording, a supervision from the start of the cut.
    found = {
        kind: [item.with_offset(cut.start) for item in items]
        for kind, items in (("word", alignment.words), ("phone", alignment.phones))
        if items
    }
    timed = dataclasses.replace(supervision, alignment={**(supervision.alignment or {}), **found})
    return dataclasses.replace(cut, supervisions=[timed])
