"""Bytes that the kernels move, counted, against the formula's minimum."""

import pytest
import torch

from kernels.workloads import WORKLOADS

# Vectors that all rows share, re-read from cache by every program.
SHARED = ("WEIGHT", "WEIGHT_SUM", "COS", "SIN", "Q_WEIGHT", "K_WEIGHT", "G")
PARTIAL = ("DWEIGHT", "PARTIAL", "OUT")

CASES = [
    (name, rows, size, dtype)
    for name, rows, size in [
        ("rms_norm_fwd", 5, 4096), ("rms_norm_fwd", 3, 1000), ("rms_norm_fwd", 2, 32768),
        ("rms_norm_bwd", 5, 4096), ("rms_norm_bwd", 3, 1000), ("rms_norm_bwd", 2, 32768),
        ("add_rms_norm_fwd", 5, 4096), ("add_rms_norm_bwd", 5, 4096),
        ("add_rms_norm_bwd", 2, 32768),
        ("rope", 21, 128), ("rope_norm_fwd", 21, 128), ("rope_norm_bwd", 21, 128),
        ("swiglu_fwd", 3, 11008), ("swiglu_bwd", 3, 11008), ("geglu_fwd", 3, 1001),
        ("geglu_bwd", 3, 1001),
        ("cross_entropy_fwd", 3, 32000), ("cross_entropy_fwd", 3, 32001),
        ("cross_entropy_bwd", 3, 32000), ("cross_entropy_bwd", 3, 32001),
        ("linear_cross_entropy", 3, 32000), ("linear_cross_entropy", 3, 32001),
        ("linear_cross_entropy", 1, 128256), ("linear_cross_entropy", 1, 262144),
    ]
    for dtype in (torch.bfloat16, torch.float32)
    if dtype == torch.bfloat16 or size < 32000
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "size", "dtype"), CASES)
def test_no_more_than_the_minimum(name, rows, size, dtype, meter):
    work = WORKLOADS[name]
    work.run(rows, size, dtype, "cpu")
    moved = meter.bytes(apart=(*SHARED, *PARTIAL))
    least = work.minimum(rows, size, dtype.itemsize)
    assert moved <= least, f"{moved / least:.4f} of the minimum"
    programs = max((n for k, n in meter.programs.items() if k.endswith("bwd_kernel")), default=0)
    if meter.stored["PARTIAL"] or meter.loaded["PARTIAL"]:  # 8PN: written once, read once
        width = 2 * size if name.startswith("rope") else size
        assert meter.stored["DWEIGHT"] == meter.loaded["PARTIAL"] == 4 * programs * width
