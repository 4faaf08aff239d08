"""Derivatives that a kernel does not have, refused by name: torch would give zeros, or a part of
the derivative, without a word."""

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_functorch_wrapped_tensor,
    is_gradtrackingtensor,
)
from torch.autograd import forward_ad

from kernels.backend import KernelError, current


def refuse_second_derivative(op: str, instead: str = "") -> NoReturn:
    """Raise the KernelError of a gradient that is to be differentiated again."""
    raise KernelError(
        f"{op}: there is no second derivative (create_graph=True); take it of {instead}plain "
        "torch, kernels=torch"
    )


def differentiable_once(backward_op: Any, op: str) -> None:
    """Let the torch op that computes the gradients of `op` refuse its own backward."""

    def refuse(ctx: Any, *_: Any) -> NoReturn:
        refuse_second_derivative(op)

    backward_op.register_autograd(refuse)


def refuse_recorded_backward(op: str, instead: str) -> None:
    """Raise KernelError in a backward of `op` that is recorded to be differentiated again.

    For gradients that the forward has made: they are constants to torch, so that the second
    derivative would lack a part instead of failing. instead: what plain torch has in its place.
    """
    if torch.is_grad_enabled():
        refuse_second_derivative(op, instead)


def refuse_forward_mode(op: str, *tensors: Tensor | None, instead: str = "") -> None:
    """Raise KernelError for a tensor that carries a tangent (torch.func.jvp, forward_ad), or is
    differentiated by torch.func.grad: a kernel drops the one, and its torch op lacks the other.

    Under kernels=torch plain torch runs, which has both. instead: what it has in the place of an
    operator that is no plain torch even there.
    """
    if current() == "torch" and not instead:
        return
    if any(_is_dual(x) for x in tensors if x is not None):
        raise KernelError(
            f"{op}: there is no derivative in forward mode (jvp), nor one of torch.func; take it "
            f"of {instead}plain torch, kernels=torch, or a backward by torch.autograd"
        )


def wants_gradient(tensor: Tensor) -> bool:
    """True where a backward may ask for the gradient of `tensor`: also of one inside of vmap, which
    does not show whether it requires one."""
    if torch.compiler.is_compiling():
        return tensor.requires_grad
    return tensor.requires_grad or is_functorch_wrapped_tensor(tensor)


def _is_dual(tensor: Tensor) -> bool:
    in_forward_mode = forward_ad._current_level >= 0
    if torch.compiler.is_compiling():  # what is traced here has no tangent to be seen
        return in_forward_mode
    while is_functorch_wrapped_tensor(tensor):
        if is_gradtrackingtensor(tensor):
            return True
        tensor = get_unwrapped(tensor)
    return in_forward_mode and forward_ad.unpack_dual(tensor).tangent is not None
