"""Cross-entropy over lattice nodes against autograd on all logits at once."""

import pytest

torch = pytest.importorskip("torch")

from lattices_written_out import RowJoint  # noqa: E402
from torch import Tensor  # noqa: E402

from wieldy.errors import InputError, UsageError  # noqa: E402
from wieldy.speech.losses.joint_ce import chunked_joint_ce  # noqa: E402

LENGTHS = torch.tensor([4, 1, 3]), torch.tensor([2, 0, 3])


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, RowJoint, Tensor, Tensor]:
    """With weights of 0 at about half of the nodes."""
    torch.manual_seed(0)
    f, g = torch.randn(2, 3, 4, 6, dtype=dtype).unbind()
    labels, weights = torch.randint(0, 5, (3, 4, 4)), torch.rand(3, 4, 4, dtype=dtype)
    weights[torch.rand(3, 4, 4) < 0.5] = 0
    weights[1, 0, 0] = 0.3
    return f.requires_grad_(), g.requires_grad_(), RowJoint(6, 5).to(dtype), labels, weights


def dense(f: Tensor, g: Tensor, joint: RowJoint, labels: Tensor, weights: Tensor) -> Tensor:
    log_p = joint(f[:, :, None], g[:, None]).log_softmax(-1)
    inside = torch.zeros_like(weights)
    for n, (t, u) in enumerate(zip(*(lengths.tolist() for lengths in LENGTHS), strict=True)):
        inside[n, :t, : u + 1] = 1
    w = weights * inside
    return -(w * log_p.gather(3, labels[..., None])[..., 0]).sum() / w.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_value_and_gradient_are_those_of_all_logits_at_once(dtype: torch.dtype, rows: int) -> None:
    f, g, joint, labels, weights = case(dtype)
    leaves = [f, g, *joint.parameters()]
    expected = dense(f, g, joint, labels, weights)
    found = chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS, budget_bytes=rows * 5 * f.element_size())
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(3 * expected, leaves)
    for ours, theirs in zip(torch.autograd.grad(3 * found, leaves), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_finite_differences_agree() -> None:
    f, g, joint, labels, weights = case()
    torch.autograd.gradcheck(
        lambda f, g: chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS), (f, g), fast_mode=True
    )


def test_nodes_without_weight_are_not_computed_and_padding_is_not_read() -> None:
    f, g, joint, labels, weights = case()
    whole = chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS)
    labels = torch.where(weights > 0, labels, -7)
    weights[0, :, 3], weights[1, 1:], labels[2, 3] = torch.nan, -1, 99
    f.data[1, 1:], g.data[0, 3:], g.data[1, 1:] = torch.nan, torch.nan, torch.nan
    computed = []
    joint.register_forward_pre_hook(lambda _, rows: computed.append(len(rows[0])))
    torch.testing.assert_close(chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS), whole)
    counted = sum(
        int((weights[n, :t, : u + 1] > 0).sum())
        for n, (t, u) in enumerate(zip(*(lengths.tolist() for lengths in LENGTHS), strict=True))
    )
    assert sum(computed) == counted


def test_one_path_costs_its_own_rows() -> None:
    f, g, joint, labels, _ = case()
    weights = torch.zeros(3, 4, 4)
    for t, u in ((0, 0), (0, 1), (1, 1), (2, 1), (2, 2), (3, 2)):
        weights[0, t, u] = 1
    computed = []
    joint.register_forward_pre_hook(lambda _, rows: computed.append(len(rows[0])))
    loss = chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS)
    assert sum(computed) == 4 + 2
    torch.testing.assert_close(loss, dense(f, g, joint, labels, weights.double()))


def test_half_precision_logits() -> None:
    f, g, joint, labels, weights = case(torch.float32)
    full = chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS)
    mixed.backward()
    assert mixed.dtype == f.grad.dtype == torch.float32
    torch.testing.assert_close(mixed, full, rtol=2e-2, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": (2, 1, 3, 5)}, r"utterance 2: node \(1, 3\) has class 5: the joint knows 0 to 4"),
        ({"labels": (2, 1, 3, -1)}, r"utterance 2: node \(1, 3\) has class -1"),
        ({"weights": (0, 3, 2, -0.5)}, r"utterance 0: node \(3, 2\) has weight -0.5: weights are finite"),
        ({"weights": (0, 3, 2, torch.nan)}, r"utterance 0: node \(3, 2\) has weight nan"),
        ({"weights": torch.zeros(3, 4, 4)}, "no node of the batch has a weight above 0"),
        ({"labels": torch.zeros(3, 4)}, r"labels have shape \(3, 4\): they are \[3, 4, 4\]"),
        ({"f": (1, 0, 0, torch.nan)}, "utterance 1: the logits at frame 0 are not finite"),
        ({"f": torch.zeros(3, 4)}, r"f has shape \(3, 4\), g \(3, 4, 6\)"),
        ({"f": torch.zeros(3, 4, 6, device="meta")}, "f is on meta, g on cpu"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    f, g, joint, labels, weights = case()
    weights[2, 1, 3] = 1
    tensors = {"f": f.detach(), "g": g.detach(), "labels": labels, "weights": weights}
    for name, value in change.items():
        if isinstance(value, Tensor):
            tensors[name] = value
        else:
            tensors[name][value[:3]] = value[3]
    with pytest.raises(InputError, match=message):
        chunked_joint_ce(tensors["f"], tensors["g"], joint, tensors["labels"], tensors["weights"], *LENGTHS)


def test_a_class_that_cannot_be_is_named_and_a_budget_of_nothing_refused() -> None:
    f, g, joint, labels, weights = case()
    with torch.no_grad():
        joint.output.bias[3] = -torch.inf
    labels[1, 0, 0] = 3
    with pytest.raises(InputError, match="class 3 has probability 0 by these logits"):
        chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS)
    with pytest.raises(UsageError, match="budget_bytes is 0"):
        chunked_joint_ce(f, g, joint, labels, weights, *LENGTHS, budget_bytes=0)
