"""GPU kernels in Triton for the operators of a transformer, each with its plain torch reference.

    import kernels
    kernels.use("auto")                       # Triton on GPU tensors, plain torch elsewhere
    y, stream = kernels.add_rms_norm(x, stream, weight)

One file per operator: the formula, the kernels, the launcher, the torch op, the reference. Operator
files are imported when first asked for, so `import kernels` costs nothing and needs no Triton.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kernels.backend import KernelError, current, use

if TYPE_CHECKING:
    from kernels.addnorm import add_rms_norm
    from kernels.crossentropy import cross_entropy
    from kernels.gated import geglu, swiglu
    from kernels.linear_crossentropy import LinearCrossEntropy, linear_cross_entropy
    from kernels.rmsnorm import rms_norm
    from kernels.rotary import rope

_HOME = {
    "rms_norm": "kernels.rmsnorm",
    "add_rms_norm": "kernels.addnorm",
    "rope": "kernels.rotary",
    "swiglu": "kernels.gated",
    "geglu": "kernels.gated",
    "cross_entropy": "kernels.crossentropy",
    "linear_cross_entropy": "kernels.linear_crossentropy",
    "LinearCrossEntropy": "kernels.linear_crossentropy",
}

__all__ = [
    "KernelError",
    "LinearCrossEntropy",
    "add_rms_norm",
    "cross_entropy",
    "current",
    "geglu",
    "linear_cross_entropy",
    "rms_norm",
    "rope",
    "swiglu",
    "use",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'kernels' has no attribute {name!r}; it has {sorted(__all__)}"
        )
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
