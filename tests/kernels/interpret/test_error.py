"""The error of each bf16 operator against fp64 is not above that of torch's own bf16 operator."""

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.addnorm import add_rms_norm_ref
from kernels.crossentropy import cross_entropy_ref
from kernels.gated import geglu_ref, swiglu_ref
from kernels.linear_crossentropy import linear_cross_entropy_ref
from kernels.rmsnorm import rms_norm_ref
from kernels.rotary import rope_ref

WIDTHS = (1, 127, 128, 1000, 4096, 16384)
SHAPES = [(3 if n > 1000 else 33, n) for n in WIDTHS] + [(1, 4096), (0, 128)]


def bf16(*shape):
    return torch.randn(shape).bfloat16()


def results(function, inputs, douts=None):
    """Outputs of `function` and the gradients of `inputs`, with the douts used (drawn if None)."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves)
    outs = out if isinstance(out, tuple) else (out,)
    douts = douts or [torch.randn_like(o).bfloat16() if o.dim() else torch.ones(()) for o in outs]
    pulled = [d.to(o.dtype) for d, o in zip(douts, outs, strict=True)]
    return [*outs, *torch.autograd.grad(outs, leaves, pulled)], douts


def rms(x):
    return x.double().square().mean().sqrt().item() if x.numel() else 0.0


def no_worse(ours, torchs, spec, *inputs):
    """Outputs and gradients: rms error of `ours` and of torch's bf16 against `spec` in fp64.

    The allowance of 1e-4 is for ties: where both round the same fp32 sum, one element that falls
    on the other side of a rounding boundary moves the error in its sixth digit.
    """
    mine, douts = results(ours, inputs)
    theirs, _ = results(torchs, inputs, douts)
    exact, _ = results(spec, [x.double() for x in inputs], [d.double() for d in douts])
    for place, (a, b, c) in enumerate(zip(mine, theirs, exact, strict=True)):
        assert a.shape == c.shape
        own, other = rms(a.double() - c), rms(b.double() - c)
        assert own <= other * 1.0001, f"result {place}: error {own:.4e}, torch's own {other:.4e}"


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_rms_norm(m, n, request):
    if m == 0:
        request.getfixturevalue("elsewhere")
    no_worse(
        kernels.rms_norm,
        lambda x, w: F.rms_norm(x, (n,), w, 1e-6),
        rms_norm_ref,
        bf16(m, n), bf16(n),
    )  # fmt: skip


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_add_rms_norm(m, n, request):
    if m == 0:
        request.getfixturevalue("elsewhere")

    def torchs(x, r, w):
        stream = x + r
        return F.rms_norm(stream, (n,), w, 1e-6), stream

    no_worse(kernels.add_rms_norm, torchs, add_rms_norm_ref, bf16(m, n), bf16(m, n), bf16(n))


@pytest.mark.parametrize(("m", "n"), SHAPES)
@pytest.mark.parametrize("kind", ["swiglu", "geglu"])
def test_gated(m, n, kind, request):
    if m == 0:
        request.getfixturevalue("elsewhere")
    ours, spec = {"swiglu": (kernels.swiglu, swiglu_ref), "geglu": (kernels.geglu, geglu_ref)}[kind]
    no_worse(ours, spec, spec, bf16(m, n), bf16(m, n))


def torch_rope(q, k, cos, sin):
    """The usual bf16 code: rotate-half and whole-width tables."""

    def turn(x):
        c, s = (torch.cat((t, t), -1)[:, None].to(x.dtype) for t in (cos, sin))
        first, second = x.chunk(2, -1)
        return x * c + torch.cat((-second, first), -1) * s

    return turn(q), turn(k)


@pytest.mark.parametrize("shape", [(2, 5, 4, 2, 64), (1, 33, 3, 1, 128), (1, 1, 32, 8, 96)])
@pytest.mark.parametrize("norm", [False, True])
def test_rope(shape, norm):
    b, s, hq, hk, d = shape
    angles = torch.randn(s, d // 2) * 3
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    q, k = bf16(b, s, hq, d), bf16(b, s, hk, d)
    if not norm:
        no_worse(
            lambda q, k: kernels.rope(q, k, cos, sin),
            lambda q, k: torch_rope(q, k, cos, sin),
            lambda q, k: rope_ref(q, k, cos.double(), sin.double()),
            q, k,
        )  # fmt: skip
        return
    no_worse(
        lambda q, k, a, b: kernels.rope(q, k, cos, sin, a, b),
        lambda q, k, a, b: torch_rope(
            F.rms_norm(q, (d,), a, 1e-6), F.rms_norm(k, (d,), b, 1e-6), cos, sin
        ),
        lambda q, k, a, b: rope_ref(q, k, cos.double(), sin.double(), a, b),
        q, k, bf16(d), bf16(d),
    )  # fmt: skip


@pytest.mark.parametrize("v", [1, 127, 1000, 32001])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(v, smoothing):
    targets = torch.randint(0, v, (9,))
    targets[2] = -100
    no_worse(
        lambda x: kernels.cross_entropy(x, targets, label_smoothing=smoothing),
        lambda x: F.cross_entropy(x, targets, label_smoothing=smoothing),
        lambda x: cross_entropy_ref(x, targets, label_smoothing=smoothing),
        bf16(9, v) * 3,
    )


@pytest.mark.parametrize("v", [127, 5001])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_cross_entropy(v, reduction, monkeypatch):
    monkeypatch.setattr("kernels.linear_crossentropy.CPU_LOGITS", 64 * v)  # three chunks
    targets = torch.randint(0, v, (130,))
    targets[7] = -100
    no_worse(
        lambda h, w: kernels.linear_cross_entropy(h, w, targets, reduction=reduction),
        lambda h, w: F.cross_entropy(F.linear(h, w), targets, reduction=reduction),
        lambda h, w: linear_cross_entropy_ref(h, w, targets, reduction=reduction),
        bf16(130, 32), bf16(v, 32),
    )  # fmt: skip


def sliced(*shape):
    return bf16(*shape[:-1], shape[-1] * 2)[..., : shape[-1]]


def transposed(*shape):
    return bf16(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2)


def expanded(*shape):
    return bf16(1, *shape[1:]).expand(shape)


@pytest.mark.parametrize("lay", [sliced, transposed, expanded])
def test_strides(lay):
    m, n = 9, 136
    targets = torch.randint(0, n, (m,))
    norm = lambda x, w: F.rms_norm(x, (n,), w, 1e-6)  # noqa: E731
    no_worse(kernels.rms_norm, norm, rms_norm_ref, lay(m, n), bf16(n))
    no_worse(kernels.swiglu, swiglu_ref, swiglu_ref, lay(m, n), lay(m, n))
    no_worse(
        lambda x: kernels.cross_entropy(x, targets, reduction="none"),
        lambda x: F.cross_entropy(x, targets, reduction="none"),
        lambda x: cross_entropy_ref(x, targets, reduction="none"),
        lay(m, n),
    )
    angles = torch.randn(m, 32)
    cos, sin = angles.cos(), angles.sin()
    no_worse(
        lambda q, k: kernels.rope(q, k, cos, sin),
        lambda q, k: torch_rope(q, k, cos, sin),
        lambda q, k: rope_ref(q, k, cos.double(), sin.double()),
        lay(2, m, 4, 64), lay(2, m, 2, 64),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes_and_a_wider_weight(dtype):
    x, w = torch.randn(5, 1000, dtype=dtype), torch.randn(1000)
    y = kernels.rms_norm(x, w)
    assert y.dtype == dtype
    torch.testing.assert_close(y, rms_norm_ref(x, w))
    torch.testing.assert_close(kernels.swiglu(x, x), swiglu_ref(x, x))
    targets = torch.randint(0, 1000, (5,))
    torch.testing.assert_close(kernels.cross_entropy(x, targets), cross_entropy_ref(x, targets))


def test_a_large_constant_offset():
    x, w = (torch.randn(4, 512) + 1e4).bfloat16(), bf16(512)
    exact = rms_norm_ref(x.double(), w.double())
    own, other = kernels.rms_norm(x, w), F.rms_norm(x, (512,), w, 1e-6)
    assert rms(own.double() - exact) <= rms(other.double() - exact)
