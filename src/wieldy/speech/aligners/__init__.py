"""When each word of a known text was said: aligners of sound with text, and the files others write their answers to.

For pre-training, for latency against true word ends and for time stamps. What a recogniser heard has times already.

`Aligner.align` is the one interface: `ctc` for any CTC model, `pocketsphinx` for English without any other model,
`files` for TextGrid and CTM. `with_alignment` puts an answer where everything here looks for it, into the cut;
`align_cuts` does that for a whole corpus (`wieldy align`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from lhotse.cut import Cut, CutSet, MonoCut
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from wieldy.errors import InputError
from wieldy.speech.corpus import aligned, checked, samples_of, text_of


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

    def within(self, start: float, end: float) -> Alignment:
        """What begins in this part, with times from its start."""
        words, phones = (
            tuple(item.with_offset(-start) for item in items if start <= item.start < end)
            for items in (self.words, self.phones)
        )
        return Alignment(words, phones)


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


@dataclass(frozen=True)
class AlignedCuts:
    """Cuts with word times, and (id, reason) of each that has none."""

    cuts: CutSet
    skipped: tuple[tuple[str, str], ...]


def align_cuts(
    cuts: CutSet,
    times: Callable[[MonoCut], Alignment],
    *,
    strict: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> AlignedCuts:
    """All cuts, one per supervision, with the `times` of each: those of `aligner_times(aligner)`, or read from a file.

    A cut that cannot be used or aligned is left out and listed; with `strict` the first is an `InputError` naming it,
    and so is nothing left.
    """
    usable = checked(cuts.trim_to_supervisions(keep_overlapping=False), strict=strict)
    done, skipped = [], list(usable.skipped)
    total = len(usable.cuts)
    for number, cut in enumerate(usable.cuts):
        if progress:
            progress("align", number / total)
        try:
            done.append(with_alignment(cut, times(cut)))
        except InputError as error:
            if strict:
                raise InputError(f"{cut.id}: {error.message}", hint=error.hint) from error
            skipped.append((cut.id, error.message))
    if not done:
        raise InputError(f"none of {len(skipped)} recordings can be aligned, the first, {': '.join(skipped[0])}")
    return AlignedCuts(CutSet.from_cuts(done), tuple(skipped))


def aligner_times(aligner: Aligner) -> Callable[[MonoCut], Alignment]:
    """What `aligner` finds in the sound of a cut."""
    return lambda cut: aligner.align(samples_of(cut), text_of(cut))
