"""Cross-entropy of a joint network over lattice nodes, for pre-training a whole transducer from an alignment.

Each node (t, u) of the lattice is told which class to predict and how much it counts. With a recogniser's alignment at
hand this starts a transducer faster than random weights do; without one, start with the transducer loss.

Hu et al. 2020, Exploring pre-training with alignments for RNN transducer based end-to-end speech recognition, arXiv
2005.00572. With Y the classes, w the weights and P the softmax of the joint's logits h,

    loss = - sum w(t, u) log P(Y(t, u) | t, u) / sum w,    d loss / d h = w (softmax(h) - onehot(Y)) / sum w

Nodes of weight 0 are skipped, and logits are held a chunk at a time (`wieldy.speech.losses.chunks`): where only the
nodes of one path count, their cost is that of T + U rows. Notation: B utterances, T frames, U symbols, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from wieldy.errors import InputError
from wieldy.kernels.transducer_lattice import Emissions
from wieldy.speech.losses.chunks import BUDGET_BYTES, NodeLosses, joint_losses
from wieldy.speech.losses.nodes import Nodes, lattice_shape


def chunked_joint_ce(
    f: Tensor,
    g: Tensor,
    joint: nn.Module,
    labels: Tensor,
    weights: Tensor,
    f_lens: Tensor,
    target_lens: Tensor,
    *,
    budget_bytes: int = BUDGET_BYTES,
) -> Tensor:
    """The mean over nodes, weighted, from encoder outputs `f` [B, T, D] and predictor outputs `g` [B, U + 1, E].

    `labels` are classes [0, V) as integers [B, T, U + 1], `weights` numbers >= 0 of that shape; what has weight 0 or
    lies beyond `f_lens` [B] and `target_lens` [B] is not read. `joint` and `budget_bytes` are as for `transducer_loss`;
    gradients reach f, g and the joint's parameters. Raises `InputError` naming the utterance.
    """
    shape = lattice_shape(f, g)
    for name, given in (("labels", labels), ("weights", weights)):
        if tuple(given.shape) != shape:
            raise InputError(f"{name} have shape {tuple(given.shape)}", hint=f"they are {list(shape)}")
    nodes = Nodes.of_lengths(f_lens, target_lens, shape)
    weight = weights.detach().cpu().double().numpy()[nodes.utterance, nodes.frame, nodes.position]
    if not (usable := (weight >= 0) & (weight < np.inf)).all():
        i = int(usable.argmin())
        raise InputError(f"{_named(nodes, i)} has weight {weight[i]}", hint="weights are finite and not negative")
    nodes, weight = nodes.select(weight > 0), weight[weight > 0]
    if not len(nodes):
        raise InputError("no node of the batch has a weight above 0", hint="leave the batch out")
    classes = labels.detach().cpu().numpy().astype(np.int64)[nodes.utterance, nodes.frame, nodes.position]
    nodes = replace(nodes, label=classes)

    def checked(vocabulary: int) -> int:
        if (bad := (classes < 0) | (classes >= vocabulary)).any():
            i = int(bad.argmax())
            raise InputError(
                f"{_named(nodes, i)} has class {classes[i]}", hint=f"the joint knows 0 to {vocabulary - 1}"
            )
        return 0  # no arc is taken for a blank

    def losses_of(found: Emissions) -> NodeLosses:
        nodes.refuse_unless_finite(found)
        if not (possible := found.label > -np.inf).all():
            i = int(possible.argmin())
            raise InputError(f"{_named(nodes, i)}: class {classes[i]} has probability 0 by these logits")
        share = weight / weight.sum()
        loss = np.zeros(shape[0])
        np.add.at(loss, nodes.utterance, -share * found.label)
        return NodeLosses(loss, np.zeros(len(nodes)), share)

    return joint_losses(f, g, joint, nodes, checked, losses_of, budget_bytes=budget_bytes).sum()


def _named(nodes: Nodes, i: int) -> str:
    return f"utterance {nodes.utterance[i]}: node ({nodes.frame[i]}, {nodes.position[i]})"
