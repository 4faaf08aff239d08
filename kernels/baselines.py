"""The operators in plain torch, for the bench to time beside the kernels."""

import torch.nn.functional as F

from kernels.addnorm import add_rms_norm_ref
from kernels.rotary import rope_ref
from kernels.workloads import class_targets, rope_inputs, tensor


def _rms_norm(m, n, dtype, device):
    return F.rms_norm(tensor(dtype, device, m, n), (n,), tensor(dtype, device, n), 1e-6)


def _add_rms_norm(m, n, dtype, device):
    x, w = tensor(dtype, device, m, n), tensor(dtype, device, n)
    return add_rms_norm_ref(x, x, w)


def _rope(m, d, dtype, device):
    return rope_ref(*rope_inputs(m, d, dtype, device))


def _swiglu(m, n, dtype, device):
    x = tensor(dtype, device, m, n)
    return F.silu(x) * x


def _geglu(m, n, dtype, device):
    x = tensor(dtype, device, m, n)
    return F.gelu(x, approximate="tanh") * x


def _cross_entropy(m, v, dtype, device):
    return F.cross_entropy(tensor(dtype, device, m, v), class_targets(m, v, device))


EAGER = {
    "rms_norm_fwd": _rms_norm,
    "add_rms_norm_fwd": _add_rms_norm,
    "rope": _rope,
    "swiglu_fwd": _swiglu,
    "geglu_fwd": _geglu,
    "cross_entropy_fwd": _cross_entropy,
}
