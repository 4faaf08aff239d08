"""The error of each bf16 operator against fp64 is not above that of torch's own bf16 operator, at
the sizes that models have; operators.py derives the bound, test_properties.py draws the rest."""

import pytest
import torch

import kernels
from kernels.ops.addnorm import add_rms_norm_ref
from kernels.ops.gated import swiglu_ref
from kernels.ops.loss.crossentropy import cross_entropy_ref
from kernels.ops.rmsnorm import rms_norm_ref
from tests.kernels.calls import fp16_errors_of_far_classes
from tests.kernels.interpret import operators
from tests.kernels.interpret.operators import bf16, compare

WIDTHS = (1, 127, 128, 1000, 4096, 16384)
SHAPES = [(3 if n > 1000 else 33, n) for n in WIDTHS] + [(1, 4096), (0, 128), (3, 0)]


@pytest.fixture
def nothing_to_run(m, n, request):
    if m * n == 0:
        request.getfixturevalue("elsewhere")


@pytest.mark.parametrize(("m", "n"), SHAPES)
@pytest.mark.usefixtures("nothing_to_run")
def test_rms_norm(m, n):
    compare(operators.rms_norm(bf16(m, n), bf16(n)), [bf16(m, n)])


@pytest.mark.parametrize(("m", "n"), SHAPES)
@pytest.mark.usefixtures("nothing_to_run")
def test_add_rms_norm(m, n):
    case = operators.add_rms_norm(bf16(m, n), bf16(m, n), bf16(n))
    compare(case, [bf16(m, n), bf16(m, n)])


@pytest.mark.parametrize(("m", "n"), SHAPES)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.usefixtures("nothing_to_run")
def test_gated(m, n, gelu):
    compare(operators.gated(gelu, bf16(m, n), bf16(m, n)), [bf16(m, n)])


@pytest.mark.parametrize("shape", [(2, 5, 4, 2, 64), (1, 33, 3, 1, 128), (1, 1, 32, 8, 96)])
@pytest.mark.parametrize("norm", [False, True])
def test_rope(shape, norm):
    b, s, q_heads, k_heads, d = shape
    angles = torch.randn(s, d // 2) * 3
    q, k = bf16(b, s, q_heads, d), bf16(b, s, k_heads, d)
    weights = (bf16(d), bf16(d)) if norm else ()
    case = operators.rope(q, k, angles.cos().bfloat16(), angles.sin().bfloat16(), *weights)
    compare(case, [bf16(*q.shape), bf16(*k.shape)])


@pytest.mark.parametrize("v", [1, 127, 32001, 128256])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(v, smoothing):
    targets = torch.randint(0, v, (5,))
    targets[2] = -100
    case = operators.cross_entropy(bf16(5, v, scale=3), targets, label_smoothing=smoothing)
    compare(case, [torch.ones(())])


@pytest.mark.parametrize("v", [127, 5001])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_cross_entropy(v, reduction, monkeypatch):
    monkeypatch.setattr("kernels.launch.token_chunks.CPU_LOGITS", 64 * v)  # three chunks
    targets = torch.randint(0, v, (130,))
    targets[7] = -100
    case = operators.linear_cross_entropy(bf16(130, 32), bf16(v, 32), targets, reduction=reduction)
    assert_rms(case, bf16(130) if reduction == "none" else torch.ones(()))


@pytest.mark.parametrize("scalar", [0.3, 1.1, 0.5])
def test_dh_is_kept_rounded_and_scaled_when_the_loss_is(scalar):
    """A power of two scales dh exactly, and any other scalar rounds it once more: memory of one
    more copy in fp32 is what the second rounding saves. Not so dW, whose sum is kept in fp32."""
    h, w, targets = bf16(40, 64, scale=4), bf16(2, 64), torch.randint(0, 2, (40,))
    leaves = h.requires_grad_(), w.requires_grad_()
    loss = kernels.linear_cross_entropy(*leaves, targets)
    dh, dw = torch.autograd.grad(loss, leaves, torch.tensor(1.0), retain_graph=True)
    scaled = torch.autograd.grad(loss, leaves, torch.tensor(scalar))
    assert torch.equal(scaled[0], (dh.float() * scalar).bfloat16())
    if scalar == 0.5:
        assert torch.equal(scaled[1], dw * scalar)


def test_fp16_gradients_do_not_underflow_before_their_loss_scale():
    ours, torchs = fp16_errors_of_far_classes("triton")
    assert ours < 1.05 * torchs and torchs < 1e-3


def assert_rms(case, dout):
    for mine, torchs, exact in compare(case, [dout]):
        assert (mine.double() - exact).norm() <= (torchs.double() - exact).norm()


def test_a_large_constant_offset():
    compare(operators.rms_norm(bf16(4, 512) + 1e4, bf16(512)), [bf16(4, 512)])


def truncated(x):
    """fp32 to bf16 as the stock interpreter does it."""
    return (x.view(torch.int32) & -0x10000).view(torch.float32).bfloat16()


def rounded_twice(x):
    """To 9 bits of mantissa first, as a kernel might that keeps an intermediate in fp16."""
    return (((x.view(torch.int32) + 0x2000) & -0x4000).view(torch.float32)).bfloat16()


@pytest.mark.parametrize("store", [truncated, rounded_twice])
def test_the_bound_sees_a_worse_rounding(store):
    case = operators.rms_norm(bf16(9, 1000), bf16(1000))

    def ours(x, w):
        y = kernels.rms_norm(x.float(), w.float())
        return (y + (store(y) - y).detach()).bfloat16()

    compare(case, [bf16(9, 1000)])
    case.ours = ours
    with pytest.raises(AssertionError, match="of 9000 elements"):
        compare(case, [bf16(9, 1000)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes_and_a_wider_weight(dtype):
    x, w = torch.randn(5, 1000, dtype=dtype), torch.randn(1000)
    y = kernels.rms_norm(x, w)
    assert y.dtype == dtype
    torch.testing.assert_close(y, rms_norm_ref(x, w))
    torch.testing.assert_close(kernels.swiglu(x, x), swiglu_ref(x, x))
    targets = torch.randint(0, 1000, (5,))
    torch.testing.assert_close(kernels.cross_entropy(x, targets), cross_entropy_ref(x, targets))


@pytest.mark.parametrize("n", [8, 1000, 32768])
@pytest.mark.parametrize("weight", [True, False])
def test_norm_of_a_wide_stream(n, weight):
    """An fp32 stream beside bf16 branches: y in bf16, the stream in fp32, each rounded once."""
    x, r, w = bf16(3, n), torch.randn(3, n), bf16(n) if weight else None
    dy, dstream = bf16(3, n), torch.randn(3, n)
    leaves = [x.requires_grad_(), r.requires_grad_(), *([w.requires_grad_()] if weight else [])]
    y, stream = kernels.add_rms_norm(x, r, w, offset=float(weight), dtype=torch.bfloat16)
    assert (y.dtype, stream.dtype) == (torch.bfloat16, torch.float32)
    mine = [y, stream, *torch.autograd.grad([y, stream], leaves, [dy, dstream])]
    assert [d.dtype for d in mine[2:]] == [leaf.dtype for leaf in leaves]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    spec = add_rms_norm_ref(*wide, offset=float(weight))
    exact = [*spec, *torch.autograd.grad(spec, wide, [dy.double(), dstream.double()])]
    for a, e in zip(mine, exact, strict=True):
        eps = torch.finfo(a.dtype).eps
        torch.testing.assert_close(a.double(), e, rtol=2 * eps, atol=4e-6 * e.abs().max().item())


def test_norm_without_weight_is_that_of_ones():
    x = bf16(5, 300)
    assert torch.equal(kernels.rms_norm(x), kernels.rms_norm(x, torch.ones(300)))
    w = bf16(300)
    assert torch.equal(
        kernels.rms_norm(x.float(), w.float(), offset=1.0),
        kernels.rms_norm(x.float(), w.float() + 1),
    )
