"""GPU kernels in Triton for the operators of a transformer, each with its plain torch reference.

    import kernels
    kernels.use("auto")                       # Triton on GPU tensors, plain torch elsewhere
    y, stream = kernels.add_rms_norm(x, stream, weight)

The operators are the names in the `__all__` of the files of kernels/ops; a file is imported when
one of its names is first used, so `import kernels` costs nothing and needs no Triton. Imports
nothing of the other planes.
"""

from importlib import import_module
from inspect import isfunction
from typing import Any

from kernels.backend import KernelError, current, use
from kernels.calls import OperatorCalls, operator_calls
from kernels.counted import counted
from kernels.registry import operator_modules

__all__ = ["KernelError", "OperatorCalls", "current", "operator_calls", "use"]


def __getattr__(name: str) -> Any:
    modules = operator_modules()
    if name not in modules:
        raise AttributeError(f"module 'kernels' has no attribute {name!r}; it has {__dir__()}")
    value = getattr(import_module(modules[name]), name)
    if isfunction(value):
        value = counted(name, value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *operator_modules()})
