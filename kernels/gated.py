"""Gated activations: SwiGLU h = silu(g) · u and GeGLU h = gelu_tanh(g) · u."""

import torch.nn.functional as F
from torch import Tensor


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up; both (..., F) of one dtype, and so is the result."""
    return swiglu_ref(gate, up)


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """gelu(gate) · up with the tanh form of GELU; both (..., F) of one dtype."""
    return geglu_ref(gate, up)


def swiglu_ref(gate: Tensor, up: Tensor) -> Tensor:
    """The specification in plain torch."""
    return F.silu(gate) * up


def geglu_ref(gate: Tensor, up: Tensor) -> Tensor:
    """The specification in plain torch."""
    return F.gelu(gate, approximate="tanh") * up
