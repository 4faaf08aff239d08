"""Check of what an operator is given, before either path runs: what a kernel would refuse on a GPU
is refused on a CPU by the same sentence."""

from collections.abc import Sequence
from functools import reduce
from math import inf
from typing import Any

import torch
from torch import Tensor

from kernels.backend import KernelError, current

FLOATING = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def check_tensors(op: str, **tensors: Any) -> None:
    """Raise KernelError unless all are tensors of one device with at least one dimension, of a
    floating type that the kernels compute in. None stands for an option that was left out."""
    given = {name: x for name, x in tensors.items() if x is not None}
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise KernelError(f"{op}: {name} is {type(x).__name__}, not a tensor")
        if x.dtype not in FLOATING:
            raise KernelError(f"{op}: {name} is {x.dtype}, not one of bf16, fp16, fp32 and fp64")
        if x.dim() == 0:
            raise KernelError(f"{op}: {name} is one number; it needs a last dimension")
    check_device(op, **given)


def check_device(op: str, **tensors: Tensor) -> None:
    """Raise KernelError unless all tensors are on the device of the first."""
    (first, start), *others = tensors.items()
    for name, x in others:
        if x.device != start.device:
            raise KernelError(f"{op}: {name} is on {x.device}, and {first} on {start.device}")


def check_dimensions(op: str, name: str, tensor: Tensor, dims: str) -> None:
    """Raise KernelError unless `tensor` has the dimensions that `dims` names, as in "V, N"."""
    if tensor.dim() != len(dims.split(", ")):
        raise KernelError(f"{op}: {name} is {list(tensor.shape)}, not ({dims})")


def check_constants(op: str, **tensors: Tensor | None) -> None:
    """Raise KernelError for a tensor that requires a gradient, of which an operator has none."""
    for name, x in tensors.items():
        if x is not None and x.requires_grad and torch.is_grad_enabled():
            raise KernelError(
                f"{op}: {name} requires a gradient, which this operator does not have; pass "
                f"{name}.detach()"
            )


def check_number(op: str, name: str, value: Any, least: float = 0.0, most: float = inf) -> None:
    """Raise KernelError unless `value` is a finite number from `least` to `most`."""
    if not isinstance(value, (int, float)) or not least <= value <= most or value == inf:
        wanted = f"from {least:g} to {most:g}" if most < inf else f"of at least {least:g}"
        raise KernelError(f"{op}: {name}={value!r} must be a number {wanted}")


def check_type(op: str, dtype: Any) -> None:
    """Raise KernelError unless `dtype` is None or a floating type that the kernels write."""
    if dtype is not None and dtype not in FLOATING:
        raise KernelError(f"{op}: dtype={dtype} is not one of bf16, fp16, fp32 and fp64")


def check_size(op: str, name: str, size: int, largest: int) -> None:
    """Raise KernelError for a row wider than the kernels', whichever path it would take; not under
    kernels=torch, which takes any."""
    if current() != "torch" and size > largest:
        raise KernelError(
            f"{op}: {name} is {size}, and the kernels' largest is {largest}; use kernels=torch"
        )


def expect(
    op: str, name: str, tensor: Tensor, shape: Sequence[int], kind: torch.dtype | None = None
) -> None:
    """Raise KernelError where a kernel would reach beyond `tensor` or take it for another type."""
    if tuple(tensor.shape) != tuple(shape) or kind not in (None, tensor.dtype):
        wanted = "" if kind is None else f" {kind}"
        raise KernelError(
            f"{op}: {name} is {list(tensor.shape)} {tensor.dtype}, not {list(shape)}{wanted}"
        )


def promoted(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the type that torch gives their sum: a bf16 branch beside an fp32 residual."""
    kind = reduce(torch.promote_types, (x.dtype for x in tensors))
    return tuple(x.to(kind) for x in tensors)
