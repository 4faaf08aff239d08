"""The counter around each operator of `kernels`: see kernels/calls.py for what it counts.

torch.compile leaves nothing of it in what it compiles: a call is then counted where it is traced,
once for each graph, and not when the graph runs.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.calls import count_refused, count_served


def counted(name: str, operator: Callable[..., Any]) -> Callable[..., Any]:
    """`operator` with its calls counted under `name`."""

    @wraps(operator)
    def call(*arguments: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            from kernels.traced import count_traced

            count_traced(name, _device(*arguments, *options.values()))
            return operator(*arguments, **options)
        try:
            result = operator(*arguments, **options)
        except KernelError as error:
            count_refused(name, str(error))
            raise
        count_served(name, _device(*arguments, *options.values()))
        return result

    return call


def _device(*values: Any) -> str:
    """The type of device of the first tensor: an operator takes tensors of one device only."""
    for value in values:
        if isinstance(value, Tensor):
            return value.device.type
    return ""
