"""Calls of the operators in this process, by what served them: Triton, plain torch, nobody."""

import threading
from dataclasses import dataclass, replace

from kernels.backend import reference_reason, triton_serves


@dataclass(frozen=True)
class OperatorCalls:
    """Calls of one operator since the process began.

    triton, reference, refused: calls that ran a Triton kernel, plain torch, or raised KernelError.
    traced_triton, traced_reference: calls that torch.compile took into a graph; it counts no run.
    reason: the last reason for plain torch. refusal: the last KernelError's sentence.
    """

    triton: int = 0
    reference: int = 0
    refused: int = 0
    traced_triton: int = 0
    traced_reference: int = 0
    reason: str = ""
    refusal: str = ""


_calls: dict[str, OperatorCalls] = {}
_lock = threading.Lock()  # a recomputed layer is called from autograd's own thread


def operator_calls() -> dict[str, OperatorCalls]:
    """The operators that were called, by name."""
    with _lock:
        return dict(sorted(_calls.items()))


def count_served(name: str, device: str, traced: bool = False) -> None:
    """Count a call of operator `name` on tensors of a type of device, served as kernels.use says.

    Raises KernelError as the operator does where nothing serves them.
    """
    prefix = "traced_" if traced else ""
    if triton_serves(device):
        _add(name, f"{prefix}triton")
    else:
        _add(name, f"{prefix}reference", reason=reference_reason(device))


def count_refused(name: str, sentence: str) -> None:
    """Count a call of operator `name` that was refused with `sentence`."""
    _add(name, "refused", refusal=sentence)


def _add(name: str, kind: str, **reasons: str) -> None:
    with _lock:
        before = _calls.get(name, OperatorCalls())
        count = {kind: getattr(before, kind) + 1}
        _calls[name] = replace(before, **count, **reasons)  # type: ignore[arg-type]
