"""Every public operator four ways on the same inputs: ours, torch as one would write it, the same
compiled, and Liger-Kernel's. What kernels.bench checks and times."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from kernels.rotary import rope_ref
from kernels.workloads import FEED_FORWARD, HEAD, HIDDEN, K_HEADS, Q_HEADS, VOCABULARY, WORKLOADS

EPS = 1e-6
WIDTH = 4096  # hidden size before an output layer

Shape = tuple[int, int, torch.dtype, str]  # rows, size, dtype, device
Outputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Contest:
    """One operator.

    sizes: the shipped ones. inputs: makes them for (rows, size, dtype, device); the first `leaves`
    of them are differentiated. lockgate, eager, liger: called with them, or None where there is
    nothing of the kind. workloads: what the formula's minimum of bytes is asked of, forward and
    backward; none where matrix products bound the time and bandwidth says nothing.
    """

    sizes: tuple[int, ...]
    inputs: Callable[..., tuple[Tensor, ...]]
    leaves: int
    lockgate: Callable[..., Outputs]
    eager: Callable[..., Outputs]
    liger: Callable[..., Outputs] | None = None
    workloads: tuple[str, str] | None = None

    def least(self, rows: int, size: int, itemsize: int) -> dict[str, int]:
        """The formula's bytes by direction."""
        if self.workloads is None:
            return {}
        there, back = (WORKLOADS[name].minimum(rows, size, itemsize) for name in self.workloads)
        return {"forward": there, "backward": back, "both": there + back}


def _liger(function: str, *options: object) -> Callable[..., Outputs]:
    def run(*inputs: Tensor) -> Outputs:
        from liger_kernel import ops

        return getattr(ops, function).apply(*inputs, *options)

    return run


def _rows(count: int, weights: int = 0) -> Callable[..., tuple[Tensor, ...]]:
    def inputs(m, n, dtype, device):
        shapes = [(m, n)] * count + [(n,)] * weights
        return tuple(torch.randn(shape, dtype=dtype, device=device) for shape in shapes)

    return inputs


def _heads(weights: int) -> Callable[..., tuple[Tensor, ...]]:
    def inputs(m, d, dtype, device):
        shapes = [(1, m, Q_HEADS, d), (1, m, K_HEADS, d)] + [(d,)] * weights
        angles = torch.randn(m, d // 2, device=device)
        tensors = [torch.randn(shape, dtype=dtype, device=device) for shape in shapes]
        return *tensors, angles.cos().to(dtype), angles.sin().to(dtype)

    return inputs


def _logits(m, v, dtype, device):
    targets = torch.randint(0, v, (m,), device=device)
    return torch.randn((m, v), dtype=dtype, device=device), targets


def _hidden(m, v, dtype, device):
    hidden = torch.randn((m, WIDTH), dtype=dtype, device=device)
    weight = torch.randn((v, WIDTH), dtype=dtype, device=device) * WIDTH**-0.5
    return hidden, weight, torch.randint(0, v, (m,), device=device)


def _liger_rope(q, k, cos, sin):
    turned = _liger("LigerRopeFunction", None, 1, q.shape[-1])(
        q.transpose(1, 2), k.transpose(1, 2), cos, sin
    )
    return tuple(x.transpose(1, 2) for x in turned)


def _eager_add_rms_norm(x, residual, weight):
    stream = residual + x
    return F.rms_norm(stream, weight.shape, weight, EPS), stream


CONTESTS = {
    "rms_norm": Contest(
        HIDDEN, _rows(1, 1), 2,
        lambda x, w: kernels.rms_norm(x, w, EPS),
        lambda x, w: F.rms_norm(x, w.shape, w, EPS),
        _liger("LigerRMSNormFunction", EPS),
        ("rms_norm_fwd", "rms_norm_bwd"),
    ),
    "add_rms_norm": Contest(
        HIDDEN, _rows(2, 1), 3,
        lambda x, r, w: kernels.add_rms_norm(x, r, w, EPS),
        _eager_add_rms_norm,
        _liger("LigerFusedAddRMSNormFunction", EPS),
        ("add_rms_norm_fwd", "add_rms_norm_bwd"),
    ),
    "rope": Contest(
        HEAD, _heads(0), 2, lambda *inputs: kernels.rope(*inputs), rope_ref, _liger_rope,
        ("rope", "rope"),
    ),
    "rope_norm": Contest(
        HEAD, _heads(2), 4,
        lambda q, k, qw, kw, cos, sin: kernels.rope(q, k, cos, sin, qw, kw, EPS),
        lambda q, k, qw, kw, cos, sin: rope_ref(
            F.rms_norm(q, qw.shape, qw, EPS), F.rms_norm(k, kw.shape, kw, EPS), cos, sin
        ),
        None,
        ("rope_norm_fwd", "rope_norm_bwd"),
    ),
    "swiglu": Contest(
        FEED_FORWARD, _rows(2), 2, lambda g, u: kernels.swiglu(g, u),
        lambda g, u: F.silu(g) * u, _liger("LigerSiLUMulFunction"),
        ("swiglu_fwd", "swiglu_bwd"),
    ),
    "geglu": Contest(
        FEED_FORWARD, _rows(2), 2, lambda g, u: kernels.geglu(g, u),
        lambda g, u: F.gelu(g, approximate="tanh") * u, _liger("LigerGELUMulFunction"),
        ("geglu_fwd", "geglu_bwd"),
    ),
    "cross_entropy": Contest(
        VOCABULARY, _logits, 1, lambda x, t: kernels.cross_entropy(x, t),
        F.cross_entropy, lambda x, t: _liger("LigerCrossEntropyFunction", None)(x, t)[0],
        ("cross_entropy_fwd", "cross_entropy_bwd"),
    ),
    "linear_cross_entropy": Contest(
        VOCABULARY, _hidden, 2, lambda h, w, t: kernels.linear_cross_entropy(h, w, t),
        lambda h, w, t: F.cross_entropy(F.linear(h, w), t),
        lambda h, w, t: _liger("LigerFusedLinearCrossEntropyFunction")(h, w, t)[0],
    ),
}  # fmt: skip
