"""Liger-Kernel's own code beside ours: its launchers' device, and its kernels in the interpreter.

Its host code runs as it is shipped. It asks torch for the device, and there is none, so
`device_of` puts in its place what it would find: the vendor and the architecture's family (SwiGLU
and the cross entropy choose their launch by them) and, for the norms' backward, the number of
multiprocessors.
`interpretable` gives the interpreter what Liger's kernels need of it and ours do not.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest import mock

import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from kernels.analysis.interpreter import round_to_bf16, widen_bf16
from kernels.launch.config import NVIDIA

NAME = "liger-kernel"
# Results of liger_kernel.utils.infer_device_arch by architecture.
FAMILY = {"sm_80": "ampere_ada", "sm_90": "hopper", "sm_100": "blackwell", "gfx942": "cdna3"}
NORM_CASTING = 0  # "llama", the default of Liger's norms


def installed_version() -> str | None:
    """Version of the installed Liger-Kernel, or None."""
    return metadata.version("liger-kernel") if find_spec("liger_kernel") else None


def liger_module(name: str) -> Any:
    """The module of Liger's operators of one name."""
    return import_module(f"liger_kernel.ops.{name}")


def liger_function(name: str, *options: object) -> Callable[..., Any]:
    """A torch.autograd.Function of Liger's as a function of its tensors; imported when called."""

    def run(*inputs: Tensor) -> Any:
        return getattr(import_module("liger_kernel.ops"), name).apply(*inputs, *options)

    return run


@contextmanager
def device_of(arch: str, processors: int = 1) -> Iterator[None]:
    """Liger launches as on a device of `arch`.

    processors: divisor of its norms' rows in a backward. They ask torch only when a tensor is on a
    GPU and take 1 otherwise, which is right in the interpreter, where the rows are worked through,
    and wrong where a launch is only compiled.
    """
    divided = SimpleNamespace(ceil=lambda rows: math.ceil(rows / processors))
    with ExitStack() as stack:
        for name in ("rms_norm", "fused_add_rms_norm"):
            stack.enter_context(mock.patch.object(liger_module(name), "math", divided))
        for name in ("swiglu", "cross_entropy"):
            module = liger_module(name)
            family = mock.patch.object(module, "infer_device_arch", lambda: FAMILY[arch])
            stack.enter_context(family)
        for name in ("utils", "cross_entropy", "fused_linear_cross_entropy"):
            vendor = mock.patch.object(liger_module(name), "is_hip", lambda: arch not in NVIDIA)
            stack.enter_context(vendor)
        yield


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


def _in_bf16(stock: Callable[..., Any]) -> Callable[..., Any]:
    """InterpreterBuilder.binary_op for bf16 factors, which numpy holds as bare bits:
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
            stack.enter_context(
                mock.patch.object(liger_module(name), "rsqrt", lambda x: tl.rsqrt(x))
            )
        for name in ("geglu", "cross_entropy"):
            stack.enter_context(mock.patch.object(liger_module(name), "tanh", _tanh))
        yield
