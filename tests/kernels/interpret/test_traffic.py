"""Bytes that the kernels move, counted, against the formula's minimum."""

from unittest import mock

import pytest
import torch

from kernels.analysis.bytes import bytes_ratio
from kernels.analysis.cases import WORKLOADS
from kernels.analysis.interpreter import Meter
from kernels.launch import config

BF16, FP32 = torch.bfloat16, torch.float32
# Rows that are read twice, the second time from cache: they do not fit the registers of sm_80,
# which has no clusters, or leave no room for a row of class weights.
TWICE = [
    ("sm_80", "rms_norm_bwd", 2, 32768, BF16), ("sm_80", "add_rms_norm_bwd", 2, 32768, BF16),
    ("sm_80", "linear_cross_entropy", 1, 65536, BF16),
    ("sm_80", "linear_cross_entropy", 1, 128256, BF16),
    ("sm_90", "linear_cross_entropy_weighted", 1, 32001, BF16),
]  # fmt: skip
ONCE = [
    (arch, name, rows, size, dtype)
    for name, rows, size in [
        ("rms_norm_fwd", 5, 4096), ("rms_norm_fwd", 3, 1000), ("rms_norm_fwd", 2, 32768),
        ("rms_norm_bwd", 5, 4096), ("rms_norm_bwd", 3, 1000), ("rms_norm_bwd", 3, 16384),
        ("rms_norm_bwd", 2, 32768), ("add_rms_norm_fwd", 5, 4096), ("add_rms_norm_bwd", 5, 4096),
        ("add_rms_norm_bwd", 3, 16384), ("add_rms_norm_bwd", 2, 32768),
        ("rope", 21, 128), ("rope_norm_fwd", 21, 128), ("rope_norm_bwd", 21, 128),
        ("swiglu_fwd", 3, 11008), ("swiglu_bwd", 3, 11008), ("geglu_fwd", 3, 1001),
        ("geglu_bwd", 3, 1001), ("cross_entropy_fwd", 3, 32000), ("cross_entropy_fwd", 3, 32001),
        ("cross_entropy_bwd", 3, 32000), ("cross_entropy_bwd", 3, 32001),
        ("linear_cross_entropy", 3, 32000), ("linear_cross_entropy", 3, 32001),
        ("linear_cross_entropy", 1, 128256), ("linear_cross_entropy", 1, 262144),
    ]
    for arch in ("sm_80", "sm_90", "sm_100")
    for dtype in (BF16, FP32)
    if dtype == BF16 or (arch == "sm_90" and size < 16384)
    if arch != "sm_80" or size <= 32001 or "norm_fwd" in name
]  # fmt: skip
# What one program may call its own of an A100's 40 MiB of L2, with one on each of 108 processors.
L2_SHARE = 40 * 2**20 // 108


def count(arch, name, rows, size, dtype):
    """Run one workload with the configs of `arch`; returns the formula's minimum in bytes."""
    work = WORKLOADS[name]
    with mock.patch.object(config, "architecture", return_value=arch):
        work.run(rows, size, dtype, "cpu")
    return work.minimum(rows, size, dtype.itemsize)


@pytest.mark.parametrize(("arch", "name", "rows", "size", "dtype"), ONCE)
def test_no_more_than_the_minimum(arch, name, rows, size, dtype, meter):
    least = count(arch, name, rows, size, dtype)
    moved = meter.bytes(WORKLOADS[name].excluded_args)
    assert moved <= least, f"{moved / least:.4f} of the minimum"
    programs = max((n for k, n in meter.programs.items() if k.endswith("bwd_kernel")), default=0)
    if meter.stored["PARTIAL"] or meter.loaded["PARTIAL"]:  # 8PN: written once, read once
        width = 2 * size if name.startswith("rope") else size
        assert meter.stored["DWEIGHT"] == meter.loaded["PARTIAL"] == 4 * programs * width


@pytest.mark.parametrize(("arch", "name", "rows", "size", "dtype"), TWICE)
def test_a_second_read_comes_from_cache(arch, name, rows, size, dtype, meter):
    with Meter(near_bytes=L2_SHARE) as cached:
        least = count(arch, name, rows, size, dtype)
    without = (*WORKLOADS[name].excluded_args, "WEIGHT")
    assert cached.bytes(without) <= least
    again = sum(n for argument, n in cached.near.items() if argument not in without)
    assert meter.bytes(without) == cached.bytes(without) + again
    assert again == (1 if name.startswith("linear") else 2) * rows * size * dtype.itemsize


@pytest.mark.parametrize(
    ("name", "of_weight"), [("rms_norm_fwd", 1), ("rms_norm_bwd", 2), ("add_rms_norm_bwd", 2)]
)
def test_how_often_a_row_reads_the_weight_it_shares(name, of_weight, meter):
    """From cache, and not in the formula: the report has its own column."""
    rows, size = 5, 4096
    WORKLOADS[name].run(rows, size, BF16, "cpu")
    assert meter.loaded["WEIGHT"] == of_weight * rows * size * 2
    found = bytes_ratio(WORKLOADS[name], size, WORKLOADS[name])
    assert found["bytes_ratio"] <= 1.0 < found["issued_ratio"]
