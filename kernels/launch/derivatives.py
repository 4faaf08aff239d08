"""Derivatives that a kernel does not have, refused by name: torch would give zeros, or a part of
the derivative, without a word."""

from typing import Any, NoReturn

import torch

from kernels.backend import KernelError


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
        refuse_second_derivative(op, f"{instead} in ")
