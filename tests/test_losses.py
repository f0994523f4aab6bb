"""The focal loss against its formula."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from training.loop.losses import FocalLoss, gate_loss


def test_hand_worked_value():
    # p = .8 for a YES and .4 for a NO; gamma 2, alpha .25
    logits = torch.tensor([math.log(0.8 / 0.2), math.log(0.4 / 0.6)])
    expected = (0.25 * 0.2**2 * -math.log(0.8) + 0.75 * 0.4**2 * -math.log(0.6)) / 2
    assert FocalLoss(2.0, 0.25)(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.5, 0.9])
def test_it_is_the_loss_of_torchvision(gamma, alpha):
    """Value and gradient; there, a negative alpha stands for none."""
    labels = (torch.arange(21) % 3 == 0).float()
    ours, theirs = (torch.linspace(-4, 4, 21).requires_grad_() for _ in range(2))
    loss = FocalLoss(gamma, alpha)(ours, labels)
    expected = sigmoid_focal_loss(theirs, labels, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean")
    loss.backward()
    expected.backward()
    assert torch.allclose(loss, expected, rtol=1e-5) and torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_gamma_zero_without_alpha_is_cross_entropy():
    logits, labels = torch.randn(20), (torch.arange(20) % 3 == 0).float()
    assert torch.allclose(FocalLoss(0.0, None)(logits, labels), F.binary_cross_entropy_with_logits(logits, labels))


def test_alpha_shifts_the_gradient_towards_yes():
    def pull(alpha: float, normalization: str) -> float:
        logit = torch.zeros(2, requires_grad=True)
        FocalLoss(2.0, alpha, normalization)(logit, torch.tensor([1.0, 0.0])).backward()
        return logit.grad.sum().item()

    # descending raises the logits where alpha favours YES
    assert pull(0.75, "mean") < -1e-3 < 1e-3 < pull(0.25, "mean")
    # the published normalisation: alpha cancels
    assert pull(0.25, "published") == pytest.approx(pull(0.75, "published"))


@pytest.mark.parametrize("arguments", [{"gamma": -1}, {"alpha": 1.5}, {"normalization": "sum"}])
def test_refuses_nonsense(arguments):
    with pytest.raises(ValueError):
        FocalLoss(**arguments)


@pytest.mark.parametrize(("label", "share"), [(1.0, 0.8), (0.0, 0.2)])
def test_the_gradient_of_a_class_has_its_sign_and_grows_with_its_weight(label, share):
    def gradient(alpha):
        logit = torch.tensor([0.3], requires_grad=True)
        FocalLoss(2.0, alpha)(logit, torch.tensor([label])).backward()
        return logit.grad.item()

    assert gradient(0.8) == pytest.approx(share * gradient(None), rel=1e-5)
    assert (gradient(None) < 0) == (label == 1)
    assert abs(gradient(None)) > 1e-3


def test_published_normalisation_is_the_unweighted_mean():
    logits, labels = torch.linspace(-3, 3, 9), (torch.arange(9) % 2).float()
    plain = FocalLoss(2.0, None)(logits, labels)
    for alpha in (0.1, 0.25, 0.9):
        assert torch.allclose(FocalLoss(2.0, alpha, "published")(logits, labels), plain)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_saturated_logits_have_finite_gradients(gamma):
    logits = torch.tensor([200.0, -200.0, 20.0, -200.0], requires_grad=True)
    loss = FocalLoss(gamma)(logits, torch.tensor([1.0, 0.0, 1.0, 1.0]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    assert logits.grad[3] == pytest.approx(-0.25 / 4)  # surely wrong: the slope of plain weighted cross-entropy


def test_published_normalisation_needs_a_weight():
    with pytest.raises(ValueError, match="divides by alpha"):
        FocalLoss(alpha=0.0, normalization="published")


def test_the_gates_loss_by_hand():
    # Two words name what is shown (open .8 and .5), one another thing (.4), three nothing (.1, .1, .2), one is left
    # out.
    opening = torch.tensor([[0.8, 0.4, 0.1, 0.1], [0.5, 0.2, 0.999, 0.3]])
    labels = torch.tensor([[1, 0, 2, 2], [1, 2, -100, -100]])
    shown = -(math.log(0.8) + math.log(0.5)) / 2
    nothing = -(2 * math.log(0.9) + math.log(0.8)) / 3
    expected = (shown + 3 * -math.log(0.6) + 0.5 * nothing) / 4.5
    assert gate_loss(opening, labels, other=3.0, none=0.5).item() == pytest.approx(expected, rel=1e-5)


def test_kinds_that_do_not_occur_or_weigh_nothing_leave_the_others_as_they_are():
    opening = torch.tensor([[0.7, 0.2]])
    assert gate_loss(opening, torch.tensor([[1, -100]])).item() == pytest.approx(-math.log(0.7), rel=1e-5)
    assert gate_loss(opening, torch.tensor([[1, 2]]), none=0.0).item() == pytest.approx(-math.log(0.7), rel=1e-5)
    assert gate_loss(opening, torch.tensor([[-100, -100]])).item() == 0


def test_the_gates_loss_pulls_the_right_way_also_from_far_off():
    logits = torch.tensor([[-25.0, 12.0, 12.0, 3.0]], requires_grad=True)
    gate_loss(logits.sigmoid(), torch.tensor([[1, 0, 2, -100]])).backward()
    gradient = logits.grad[0]
    assert gradient[0] < -1e-2 and gradient[1] > 1e-2 and gradient[2] > 1e-3 and gradient[3] == 0
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("arguments", [{"labels": torch.tensor([[3]])}, {"other": -1.0}])
def test_the_gates_loss_refuses_nonsense(arguments):
    with pytest.raises(ValueError):
        gate_loss(torch.tensor([[0.5]]), **({"labels": torch.tensor([[1]])} | arguments))
