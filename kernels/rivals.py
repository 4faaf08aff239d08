"""Liger-Kernel's launchers on the same workloads, for the report and the bench."""

from collections.abc import Callable
from importlib import import_module

import torch

from kernels.workloads import K_HEADS, Q_HEADS


def _empty(device: str, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


def _op(name: str):
    return import_module(f"liger_kernel.ops.{name}")


def _rms_norm_fwd(m, n, dtype, device):
    x, w = _empty(device, dtype, m, n), _empty(device, dtype, n)
    _op("rms_norm").rms_norm_forward(x, w, 1e-6, 0.0, "llama", None)


def _rms_norm_bwd(m, n, dtype, device):
    rms = _op("rms_norm")
    x, w = _empty(device, dtype, m, n), _empty(device, dtype, n)
    _, x, rstd, block, warps, mode = rms.rms_norm_forward(x, w, 1e-6, 0.0, "llama", None)
    rms.rms_norm_backward(x, x, w, rstd, 0.0, mode, block, warps, False, None)


def _rope(m, d, dtype, device):
    q, k = _empty(device, dtype, 1, Q_HEADS, m, d), _empty(device, dtype, 1, K_HEADS, m, d)
    cos = _empty(device, dtype, 1, m, d)
    _op("rope").rope_forward(q, k, cos, cos)


def _glu(module, direction):
    def run(m, n, dtype, device):
        inputs = [_empty(device, dtype, m, n) for _ in range(3 if direction == "backward" else 2)]
        getattr(_op(module), f"{module}_{direction}")(*inputs)

    return run


def _cross_entropy_fwd(m, v, dtype, device):
    logits = _empty(device, dtype, m, v)
    targets = torch.empty(m, dtype=torch.int64, device=device)
    kernel = _op("cross_entropy").liger_cross_entropy_kernel
    block = min(65536 // 2, 1 << (v - 1).bit_length())
    losses = _empty(device, torch.float32, m)
    given = {
        "X_ptr": logits, "X_stride": v, "Y_ptr": targets, "Y_stride": 1, "weight_ptr": logits,
        "loss_ptr": losses, "z_loss_ptr": losses, "loss_stride": 1, "token_accuracy_ptr": losses,
        "token_accuracy_stride": 1, "predicted_tokens_ptr": targets, "predicted_tokens_stride": 1,
        "n_cols": v, "n_non_ignore": m, "sum_non_ignore_weight": float(m), "weight_sum": 0.0,
        "ignore_index": -100, "lse_square_scale": 1e-4, "label_smoothing": 0.1,
        "reduction": "mean", "softcap": 0.0, "RETURN_Z_LOSS": False,
        "RETURN_TOKEN_ACCURACY": False, "RETURN_PREDICTED_TOKENS": False, "BLOCK_SIZE": block,
        "HAS_WEIGHT": False, "HAS_SOFTCAPPING": False, "HAS_GRADIENTS": True,
    }  # fmt: skip
    known = set(kernel.arg_names)
    kernel[(m,)](**{key: value for key, value in given.items() if key in known}, num_warps=32)


RIVALS: dict[str, Callable[[int, int, torch.dtype, str], object]] = {
    "rms_norm_fwd": _rms_norm_fwd,
    "rms_norm_bwd": _rms_norm_bwd,
    "rope": _rope,
    "swiglu_fwd": _glu("swiglu", "forward"),
    "swiglu_bwd": _glu("swiglu", "backward"),
    "geglu_fwd": _glu("geglu", "forward"),
    "geglu_bwd": _glu("geglu", "backward"),
    # Liger's one kernel is forward and backward; it stands beside the fused one, which is too.
    "linear_cross_entropy": _cross_entropy_fwd,
}
