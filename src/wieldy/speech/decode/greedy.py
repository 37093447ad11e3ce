"""Greedy search for transducers, over a batch of utterances: on each node, the likeliest way on.

The cheapest search there is, and all that a well-trained model without a language model needs. For N-best lists,
fusion and streams take `transducer_beam`.

Alex Graves 2012, Sequence transduction with recurrent neural networks, arXiv 1211.3711. Notation: B utterances, T
frames, J joint width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from wieldy.errors import UsageError
from wieldy.speech.decode import TokenHypothesis
from wieldy.speech.decode.links import Links, Rows
from wieldy.speech.decode.transducer_beam import checked_lens

if TYPE_CHECKING:
    from wieldy.speech.networks.views import TransducerView


@torch.inference_mode()
def greedy(
    view: TransducerView,
    f: Tensor,
    f_lens: Tensor,
    *,
    max_symbols: int = 10,
    mode: Literal["exact", "modified"] = "exact",
) -> list[TokenHypothesis]:
    """One hypothesis for each of the encoder outputs `f` [B, T, J] with `f_lens` [B] frames.

    `max_symbols` per frame bounds what a model that never says blank can do (10 is rnnt-surpass-hybrid's default);
    `modified` means at most one, which takes the frame with it. The score is the log-probability of the one alignment
    taken. Raises `InputError` naming the utterance.
    """
    if max_symbols < 1:
        raise UsageError(f"max_symbols is {max_symbols}", hint="it must be at least 1")
    if mode not in ("exact", "modified"):
        raise UsageError(f"greedy mode {mode!r}", hint="choose exact or modified")
    lens, order = checked_lens(f, f_lens, len(f)).sort(descending=True, stable=True)
    f = f[order]
    g, state = view.start(len(f))
    rows = Rows({"g": g, "state": state})  # row n is of utterance n
    links, link = Links(g.device), torch.zeros(len(f), dtype=torch.int64, device=g.device)
    score, before = torch.zeros(2, len(f), dtype=torch.float64, device=g.device)
    fresh = torch.zeros_like(link, dtype=torch.bool)  # whether the present node is the first one with the last token
    for t, n in enumerate((lens > torch.arange(f.shape[1], device=f.device)[:, None]).sum(1).tolist()):
        here = torch.arange(n, device=g.device)
        for symbols in range(max_symbols + 1):
            logits = view.join(f[here, t], rows.content["g"][here])
            log_p = logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
            blank = log_p[:, view.blank].double()
            best, token = log_p.max(1)
            emits = (token != view.blank) & (symbols < max_symbols)
            score[here] += torch.where(emits, best.double(), blank)
            links.set_blank_after(link[here][fresh[here]], blank[fresh[here]])
            blank_before = before[here][emits]
            fresh[here], before[here] = emits, torch.where(emits, 0.0, blank)
            here = here[emits]
            if not len(here):
                break
            token = token[emits]
            link[here] = links.add(
                link[here],
                token,
                torch.full_like(here, t),
                log_p=log_p[emits].index_fill(1, token.new_tensor([view.blank]), -torch.inf),
                chosen=best[emits],
                blank_before=blank_before,
                blank=blank[emits],
            )
            g, state = view.advance(token, view.select(rows.content["state"], here))
            rows.set(here, {"g": g, "state": state})
            if mode == "modified":
                break
    hypotheses = []
    for n in order.argsort().tolist():
        tokens, frames, features = links.trace(int(link[n]))
        total = float(score[n])
        hypotheses.append(TokenHypothesis(tokens=tokens, frames=frames, score=total, acoustic=total, features=features))
    return hypotheses
