"""Liger-Kernel's own launchers on the workloads of this package, for the report.

Their host code runs as it is shipped. It asks torch for the device, and there is none, so `on`
tells it in this process what it would find: the architecture's family (SwiGLU and the cross
entropy choose their launch by it) and, for the norms' backward, the number of multiprocessors.
`interpretable` gives the interpreter what Liger's kernels need of it and ours do not.

Liger has one kernel for the loss and its gradient, which its fused linear layer launches; it
stands beside `linear_cross_entropy`. The forward and the backward of `cross_entropy` have no peer,
because Liger's gradient is made in its forward; nor has a rotation with QK-norm, for which Liger
has no kernel. Of Liger's rotation the backward is the same kernel with one flag.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from kernels.interpreter import round_to_bf16, widen_bf16
from kernels.workloads import K_HEADS, Q_HEADS, class_targets, tensor

NAME = "liger-kernel"
# What liger_kernel.utils.infer_device_arch says on each architecture.
FAMILY = {"sm_80": "ampere_ada", "sm_90": "hopper", "sm_100": "blackwell"}
LLAMA = 0  # the casting mode of Liger's norms that is their default


@dataclass(frozen=True)
class Rival:
    """One of Liger's launchers.

    run: called as a workload's, with the variations of kernels.report that the op has.
    apart: its arguments that every row shares, and partial sums, which the formulas leave out.
    """

    run: Callable[..., object]
    apart: tuple[str, ...] = ()


def version() -> str | None:
    """The installed Liger-Kernel, or None."""
    return metadata.version("liger-kernel") if find_spec("liger_kernel") else None


def _op(name: str) -> Any:
    return import_module(f"liger_kernel.ops.{name}")


@contextmanager
def on(arch: str, processors: int = 1) -> Iterator[None]:
    """Liger takes the device for one of `arch`.

    processors: what its norms divide the rows of a backward by. They ask torch only when a tensor
    is on a GPU and take 1 otherwise, which is right where the rows are worked through (the
    interpreter) and wrong where a GPU's launch is rehearsed.
    """
    divided = SimpleNamespace(ceil=lambda rows: math.ceil(rows / processors))
    with ExitStack() as stack:
        for name in ("rms_norm", "fused_add_rms_norm"):
            stack.enter_context(mock.patch.object(_op(name), "math", divided))
        for name in ("swiglu", "cross_entropy"):
            told = mock.patch.object(_op(name), "infer_device_arch", lambda: FAMILY[arch])
            stack.enter_context(told)
        yield


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


def _in_bf16(stock: Callable[..., Any]) -> Callable[..., Any]:
    """InterpreterBuilder.binary_op for bf16 factors, which are bits that numpy knows nothing of:
    Liger multiplies them, our kernels never do."""

    def binary_op(self, left, right, operation):
        if left.dtype.scalar != tl.bfloat16:
            return stock(self, left, right, operation)
        wide = [interpreter.TensorHandle(widen_bf16(x.data), tl.float32) for x in (left, right)]
        found = stock(self, *wide, operation)
        if found.data.dtype == bool:
            return found
        return interpreter.TensorHandle(round_to_bf16(found.data), tl.bfloat16)

    return binary_op


@contextmanager
def interpretable() -> Iterator[None]:
    """Liger's kernels run in the interpreter: it learns to multiply bf16, and their modules get
    `rsqrt` and `tanh` in Triton's own terms (libdevice is bitcode, and returns nothing there)."""
    builder = interpreter.InterpreterBuilder
    with ExitStack() as stack:
        arithmetic = _in_bf16(builder.binary_op)
        stack.enter_context(mock.patch.object(builder, "binary_op", arithmetic))
        for name in ("rms_norm", "fused_add_rms_norm"):
            stack.enter_context(mock.patch.object(_op(name), "rsqrt", lambda x: tl.rsqrt(x)))
        for name in ("geglu", "cross_entropy"):
            stack.enter_context(mock.patch.object(_op(name), "tanh", _tanh))
        yield


def _rms_norm_fwd(m, n, dtype, device):
    x, w = tensor(dtype, device, m, n), tensor(dtype, device, n)
    _op("rms_norm").rms_norm_forward(x, w, 1e-6, 0.0, LLAMA, None)


def _rms_norm_bwd(m, n, dtype, device):
    dy, x, w = (tensor(dtype, device, *shape) for shape in ((m, n), (m, n), (n,)))
    rstd = tensor(torch.float32, device, m)
    launch = _op("utils").calculate_settings(n)
    _op("rms_norm").rms_norm_backward(dy, x, w, rstd, 0.0, LLAMA, *launch, True, None)


def _add_rms_norm_fwd(m, n, dtype, device):
    x, r, w = (tensor(dtype, device, *shape) for shape in ((m, n), (m, n), (n,)))
    _op("fused_add_rms_norm").fused_add_rms_norm_forward(x, r, w, 1e-6, 0.0, LLAMA)


def _add_rms_norm_bwd(m, n, dtype, device):
    dy, ds, s, w = (tensor(dtype, device, *shape) for shape in ((m, n), (m, n), (m, n), (n,)))
    rstd = tensor(torch.float32, device, m)
    launch = *_op("utils").calculate_settings(n), 2  # stages, as the forward hands them on
    _op("fused_add_rms_norm").fused_add_rms_norm_backward(
        dy, ds, s, w, rstd, 0.0, LLAMA, *launch, False
    )


def _rope(m, d, dtype, device, batch=1):
    q = tensor(dtype, device, batch, m, Q_HEADS, d).transpose(1, 2)
    k = tensor(dtype, device, batch, m, K_HEADS, d).transpose(1, 2)
    cos, sin = tensor(dtype, device, 1, m, d), tensor(dtype, device, 1, m, d)
    _op("rope").rope_forward(q, k, cos, sin)


def _glu(module, direction):
    def run(m, n, dtype, device):
        inputs = [tensor(dtype, device, m, n) for _ in range(3 if direction == "backward" else 2)]
        getattr(_op(module), f"{module}_{direction}")(*inputs)

    return run


def _linear_cross_entropy(m, v, dtype, device, ignored=0, smoothing=0.1):
    width = 16 if device == "cpu" else 4096
    hidden, weight = tensor(dtype, device, m, width), tensor(dtype, device, v, width)
    with torch.no_grad():
        _op("fused_linear_cross_entropy").fused_linear_cross_entropy_forward(
            hidden, weight, class_targets(m, v, device, ignored), lse_square_scale=1e-4,
            label_smoothing=smoothing, compute_gradients=True, weight_requires_grad=True,
        )  # fmt: skip


RIVALS = {
    "rms_norm_fwd": Rival(_rms_norm_fwd, ("W_ptr",)),
    "rms_norm_bwd": Rival(_rms_norm_bwd, ("W_ptr", "dW_ptr")),
    "add_rms_norm_fwd": Rival(_add_rms_norm_fwd, ("W_ptr",)),
    "add_rms_norm_bwd": Rival(_add_rms_norm_bwd, ("W_ptr", "dW_ptr")),
    "rope": Rival(_rope, ("cos", "sin")),
    "swiglu_fwd": Rival(_glu("swiglu", "forward")),
    "swiglu_bwd": Rival(_glu("swiglu", "backward")),
    "geglu_fwd": Rival(_glu("geglu", "forward")),
    "geglu_bwd": Rival(_glu("geglu", "backward")),
    "linear_cross_entropy": Rival(_linear_cross_entropy),
}
