"""NaN, infinity, ignored and impossible targets, and what is refused."""

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.ops.gated import geglu_ref, swiglu_ref
from tests.kernels.interpret.operators import results, rotate_half
from tests.kernels.refusals import REFUSED, TOO_WIDE, mixed

BAD = [float("nan"), float("inf"), -float("inf")]
ROWS, N = 6, 200
OTHERS = [0, 1, 3, 4, 5]  # row 2 is the bad one


def torch_norm(x, w):
    return F.rms_norm(x, w.shape, w, 1e-6)


def by_heads(function):
    """A function of q and k (1, ROWS, 2, N / 2) as one of (ROWS, N)."""

    def of_rows(q, k, *w):
        q, k = (x.view(1, ROWS, 2, N // 2) for x in (q, k))
        return tuple(x.reshape(ROWS, N) for x in function(q, k, *w))

    return of_rows


COS, SIN = torch.linspace(-1, 1, ROWS * N // 2).view(2, ROWS, N // 4)


def torch_rope(q, k, *w):
    if w:
        q, k = torch_norm(q, w[0]), torch_norm(k, w[1])
    return rotate_half(q, COS, SIN), rotate_half(k, COS, SIN)


def torch_add_norm(x, r, w):
    return torch_norm(x + r, w), x + r


# The operator, torch's, its inputs of (ROWS, N), its outputs, the lengths of its weights.
ROW_WISE = {
    "rms_norm": (kernels.rms_norm, torch_norm, 1, 1, [N]),
    "add_rms_norm": (kernels.add_rms_norm, torch_add_norm, 2, 2, [N]),
    "swiglu": (kernels.swiglu, swiglu_ref, 2, 1, []),
    "geglu": (kernels.geglu, geglu_ref, 2, 1, []),
    "rope": (
        by_heads(lambda q, k: kernels.rope(q, k, COS, SIN)), by_heads(torch_rope), 2, 2, []
    ),
    "rope with QK-norm": (
        by_heads(lambda q, k, a, b: kernels.rope(q, k, COS, SIN, a, b)), by_heads(torch_rope),
        2, 2, [N // 2, N // 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", list(ROW_WISE))
def test_a_bad_element_stays_in_its_row(name, bad):
    """In each input and upstream gradient in turn. Outputs and gradients are torch's, NaN for NaN,
    weight gradients too; the other rows' are as they are without it, to the bit."""
    ours, torchs, taken, given, lengths = ROW_WISE[name]
    rows, weights = list(torch.randn(taken + given, ROWS, N)), [torch.randn(n) for n in lengths]

    def all_of(function, rows):
        return results(function, [*rows[:taken], *weights], rows[taken:])

    clean = all_of(ours, rows)
    for place in range(taken + given):
        poisoned = [x.clone() for x in rows]
        poisoned[place][2, 11] = bad
        mine = all_of(ours, poisoned)
        torch.testing.assert_close(mine, all_of(torchs, poisoned), equal_nan=True)
        for a, b in zip(mine, clean, strict=True):
            if a.dim() == 2:
                assert torch.equal(a[OTHERS], b[OTHERS])


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("v", [33, 5000])
def test_a_bad_logit_gives_torchs_loss(bad, v):
    """One bad logit in row 1, a whole row 3 of them."""
    x, targets, dout = torch.randn(5, v), torch.randint(1, v, (5,)), torch.randn(5)
    x[1, 0] = bad
    x[3] = bad
    mine = results(lambda x: kernels.cross_entropy(x, targets, reduction="none"), [x], [dout])
    torchs = results(lambda x: F.cross_entropy(x, targets, reduction="none"), [x], [dout])
    torch.testing.assert_close(mine, torchs, equal_nan=True)


def losses_of(reduction, v):
    """The operator and torch's, with h, w and an upstream gradient."""
    h, w, targets = torch.randn(ROWS, 16), torch.randn(v, 16), torch.randint(0, v, (ROWS,))
    dout = torch.ones(ROWS) if reduction == "none" else torch.tensor(0.7)

    def ours(h, w):
        return kernels.linear_cross_entropy(h, w, targets, reduction=reduction)

    def torchs(h, w):
        return F.cross_entropy(h @ w.T, targets, reduction=reduction)

    return ours, torchs, targets, h, w, dout


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("v", [33, 5000])
def test_a_bad_hidden_state_stays_in_its_row(bad, reduction, v):
    """dW, a sum over all rows, is NaN where torch's is."""
    ours, torchs, _, h, w, dout = losses_of(reduction, v)
    h[2, 3] = bad
    mine = results(ours, [h, w], [dout])
    torch.testing.assert_close(mine, results(torchs, [h, w], [dout]), equal_nan=True)
    assert mine[1][OTHERS].isfinite().all() and mine[1][2].isnan().any()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_bad_hidden_state_that_is_ignored_does_nothing(bad, reduction):
    """Better than torch's, whose gradient is NaN · 0."""
    ours, _, targets, h, w, dout = losses_of(reduction, 33)
    targets[2] = -100
    loss, dh, _ = results(ours, [h, w], [dout])
    h[2, 3] = bad
    other, poisoned, dw = results(ours, [h, w], [dout])
    assert torch.equal(loss, other) and torch.equal(dh, poisoned)
    assert dw[:, :3].isfinite().all() and dw[:, 4:].isfinite().all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("linear", [False, True])
def test_all_ignored_is_zero_with_zero_gradients(linear, reduction, shift, weighted):
    h, w = torch.randn(2, 4, 16), torch.randn(40, 16)
    targets = torch.full((2, 4), 7)
    if shift:
        targets[:, 0] = 5  # nobody predicts the first
    options = {
        "ignore_index": 7, "reduction": reduction, "shift": shift, "label_smoothing": 0.1,
        "z_loss": 0.1, "class_weight": torch.rand(40) if weighted else None,
    }  # fmt: skip

    def loss(h, w):
        if linear:
            return kernels.linear_cross_entropy(h, w, targets, **options)
        return kernels.cross_entropy(h @ w.T, targets, **options)

    dout = torch.randn(2, 4) if reduction == "none" else torch.randn(())
    for result in results(loss, [h, w], [dout]):
        assert not result.any()


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


@pytest.mark.parametrize("name", [*REFUSED, *TOO_WIDE])
def test_what_does_not_fit_is_refused(name, elsewhere, meter):
    call, words = (REFUSED | TOO_WIDE)[name]
    with pytest.raises(kernels.KernelError, match=words):
        call()
    assert not meter.programs


def test_operands_of_two_types_are_promoted():
    for name, (found, kinds) in mixed().items():
        assert tuple(y.dtype for y in found) == kinds, name
        assert all(y.isfinite().all() for y in found), name


def test_more_classes_than_the_largest_row(meter):
    """Gemma 3 has 262,208: read twice, where a row does not fit registers."""
    v = (1 << 18) + 64
    h, w, targets = torch.randn(2, 3), torch.randn(v, 3), torch.tensor([5, v - 1])
    mine = results(
        lambda h, w: kernels.linear_cross_entropy(h, w, targets), [h, w], [torch.ones(())]
    )
    exact = results(lambda h, w: F.cross_entropy(h @ w.T, targets), [h, w], [torch.ones(())])
    torch.testing.assert_close(mine, exact)
    assert meter.programs["linear_cross_entropy_streamed_kernel"] == 2
