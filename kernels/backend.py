"""Choice of the implementation: Triton, plain torch, or by the device of the tensor at hand."""

import os

import torch
from torch import Tensor

# The Triton whose private parts kernels.analysis.{fake_driver,interpreter} are written for.
TRITON_VERSION = "3.9."

MODES = ("auto", "triton", "torch")

_mode = "auto"


class KernelError(ValueError):
    """Arguments or a device that a kernel cannot serve; the message names what to do instead."""


def use(mode: str) -> str:
    """Choose the implementation for the whole process and return the previous choice.

    "auto": Triton for GPU tensors, plain torch for all others. "triton": Triton always; on CPU
    tensors that needs the interpreter (TRITON_INTERPRET=1). "torch": plain torch ops always, which
    is also what an ONNX export needs. Raises KernelError for any other word.
    """
    global _mode
    if mode not in MODES:
        raise KernelError(f"kernels={mode!r} is not a backend; choose one of {', '.join(MODES)}")
    previous, _mode = _mode, mode
    return previous


def current() -> str:
    """The mode in force: "auto", "triton" or "torch"."""
    return _mode


def interpreting() -> bool:
    """True where Triton runs its kernels in the interpreter, as fixed when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def wants_triton(tensor: Tensor) -> bool:
    """True where an operator on `tensor` goes to its Triton kernel.

    Raises KernelError when Triton was demanded for a CPU tensor outside the interpreter.
    """
    return triton_serves(tensor.device.type)


def triton_serves(device: str) -> bool:
    """The same for tensors of a type of device, as in torch.device.type."""
    if _mode == "torch":
        return False
    if _mode == "auto":
        return device == "cuda"
    if device == "cpu" and not interpreting():
        raise KernelError(
            "kernels=triton cannot run on CPU tensors; use kernels=auto, or set TRITON_INTERPRET=1 "
            "before Triton is imported to interpret the kernels (slow, for tests)"
        )
    return True


def reference_reason(device: str) -> str:
    """The reason why plain torch serves tensors of a type of device, where Triton does not."""
    if _mode == "torch":
        return "kernels=torch"
    return f"tensors on the {device}" if torch.cuda.is_available() else "no GPU"
