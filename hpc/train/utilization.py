"""Model FLOPs utilization: the arithmetic that a model needs over what the devices could do.

Claimed only for bf16 on a GPU whose dense peak its vendor publishes, and for a model that counts
its own arithmetic. https://arxiv.org/abs/2204.02311, appendix B
"""

from __future__ import annotations

from typing import Any

import torch

PEAK_BF16_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}
"""Dense bf16 operations a second, by the name that CUDA gives the device; vendor's data sheets."""


def peak_flops(device: torch.device, bf16: bool) -> float | None:
    """The published peak of `device`, operations a second; None where no claim can be made."""
    if device.type != "cuda" or not bf16:
        return None
    return PEAK_BF16_FLOPS.get(torch.cuda.get_device_name(device))


def utilization(
    model: Any, units_per_second: float, peak: float | None, ranks: int
) -> float | None:
    """The share of the peak of `ranks` devices that `model` uses; None without a peak or a count.

    `model.flops_per_unit()` is the arithmetic of a token or row, forward and backward.
    """
    if peak is None or not hasattr(model, "flops_per_unit"):
        return None
    return units_per_second * model.flops_per_unit() / (peak * ranks)
