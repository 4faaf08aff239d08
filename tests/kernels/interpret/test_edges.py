"""NaN, infinity, ignored and impossible targets, and what is refused."""

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.rmsnorm import rms_norm_ref

BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_stays_in_its_row(bad):
    x, w = torch.randn(6, 200), torch.randn(200)
    x[2, 11] = bad
    y = kernels.rms_norm(x, w)
    expected = rms_norm_ref(x, w)
    assert torch.equal(y.isnan(), expected.isnan())
    torch.testing.assert_close(y, expected, equal_nan=True)
    h = kernels.swiglu(x, x)
    torch.testing.assert_close(h, F.silu(x) * x, equal_nan=True)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("v", [33, 5000])
def test_a_bad_logit_gives_torchs_loss(bad, v):
    x, targets = torch.randn(5, v), torch.randint(1, v, (5,))
    x[1, 0] = bad
    x[3] = bad
    mine = kernels.cross_entropy(x, targets, reduction="none")
    torch.testing.assert_close(mine, F.cross_entropy(x, targets, reduction="none"), equal_nan=True)
    a, b = (x.clone().requires_grad_() for _ in range(2))
    kernels.cross_entropy(a, targets, reduction="none")[[0, 1, 2, 4]].sum().backward()
    F.cross_entropy(b, targets, reduction="none")[[0, 1, 2, 4]].sum().backward()
    torch.testing.assert_close(a.grad[[0, 1, 2, 4]], b.grad[[0, 1, 2, 4]], equal_nan=True)


@pytest.mark.parametrize("linear", [False, True])
def test_all_ignored_is_zero_with_zero_gradients(linear):
    h, w = torch.randn(4, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    targets = torch.full((4,), -100)
    loss = (
        kernels.linear_cross_entropy(h, w, targets)
        if linear
        else kernels.cross_entropy(h @ w.T, targets)
    )
    loss.backward()
    assert loss.item() == 0.0
    assert not h.grad.any() and not w.grad.any()


def test_ignored_rows_are_not_read(meter):
    x, targets = torch.full((4, 64), float("nan")), torch.tensor([-100, 3, -100, -100])
    x[1] = torch.randn(64)
    loss = kernels.cross_entropy(x, targets)
    torch.testing.assert_close(loss, F.cross_entropy(x[1:2], targets[1:2]))
    assert meter.loaded["LOGITS"] == 64 * 4


@pytest.mark.parametrize("target", [40, 1 << 40, -1])
@pytest.mark.parametrize("linear", [False, True])
def test_a_target_outside_the_vocabulary_poisons_its_loss_only(target, linear):
    h, w = torch.randn(3, 16, requires_grad=True), torch.randn(40, 16)
    targets = torch.tensor([1, target, 2])
    if linear:
        losses = kernels.linear_cross_entropy(h, w, targets, reduction="none")
    else:
        losses = kernels.cross_entropy(h @ w.T, targets, reduction="none")
    assert losses.isnan().tolist() == [False, True, False]
    assert kernels.linear_cross_entropy(h, w, targets, class_weight=torch.ones(40)).isnan()


def test_shift_predicts_the_next_target():
    x, targets = torch.randn(2, 6, 30), torch.randint(0, 30, (2, 6))
    expected = F.cross_entropy(x[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
    torch.testing.assert_close(kernels.cross_entropy(x, targets, shift=True), expected)
    h, w = torch.randn(2, 6, 8), torch.randn(30, 8)
    expected = F.cross_entropy((h @ w.T)[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
    torch.testing.assert_close(kernels.linear_cross_entropy(h, w, targets, shift=True), expected)


def test_empty_tensors_launch_nothing(elsewhere, meter):
    assert kernels.rms_norm(torch.empty(0, 16), torch.ones(16)).shape == (0, 16)
    assert kernels.swiglu(torch.empty(3, 0), torch.empty(3, 0)).shape == (3, 0)
    h = torch.empty(0, 8, requires_grad=True)
    loss = kernels.linear_cross_entropy(h, torch.randn(5, 8), torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0 and h.grad.shape == (0, 8)
    assert not meter.programs


def test_what_cannot_be_done_is_said(elsewhere):
    x, targets = torch.randn(2, 8), torch.tensor([1, 2])
    with pytest.raises(kernels.KernelError, match="choose mean, sum or none"):
        kernels.cross_entropy(x, targets, reduction="median")
    with pytest.raises(kernels.KernelError, match="largest is 32768"):
        kernels.rms_norm(torch.randn(1, 40000), torch.ones(40000))
    with pytest.raises(kernels.KernelError, match="both q_weight and k_weight"):
        q = torch.randn(1, 2, 1, 8)
        kernels.rope(q, q, torch.ones(2, 4), torch.ones(2, 4), torch.ones(8))
