"""What the compiler makes of every shipped setting: no spills, 128-bit accesses, no atomics."""

import pytest
import torch

from kernels.ghost import Ghost, facts
from kernels.workloads import WORKLOADS

NVIDIA = ("sm_80", "sm_90", "sm_100")
CASES = [(arch, name) for arch in NVIDIA for name in WORKLOADS]
# A head's sums of dw leave a program once, after its loops; a row's target is an int64.
SIZES = {
    "swiglu_fwd": (11008,), "swiglu_bwd": (11008,), "geglu_fwd": (11008,), "geglu_bwd": (11008,),
    "cross_entropy_fwd": (32001, 262144), "cross_entropy_bwd": (32001, 262144),
    "linear_cross_entropy": (32000, 32001, 65536, 131072, 262144),
}  # fmt: skip


@pytest.mark.parametrize(("arch", "name"), CASES)
def test_shipped_settings(arch, name):
    work = WORKLOADS[name]
    for size in SIZES.get(name, work.sizes):
        with Ghost(arch) as gpu:
            work.run(1000, size, torch.bfloat16, "meta")
        assert gpu.launches
        found = [facts(launched.kernel) for launched in gpu.launches]
        for fact in found:
            assert fact.spills == 0, (size, fact)
            assert fact.atomics == 0, (size, fact)
            assert fact.hot_loads.get(128, 0) or fact.hot_loads.get(256, 0), (size, fact)
        medium = sum(f.hot_loads.get(64, 0) + f.hot_stores.get(64, 0) for f in found)
        assert medium <= work.target_loads, (size, found)


@pytest.mark.parametrize("name", ["rms_norm_bwd", "rope", "swiglu_bwd", "linear_cross_entropy"])
def test_amd_compiles(name):
    work = WORKLOADS[name]
    with Ghost("gfx942") as gpu:
        work.run(1000, work.sizes[0], torch.bfloat16, "meta")
    assert gpu.launches
    for launched in gpu.launches:
        assert "hsaco" in launched.kernel.asm
        assert facts(launched.kernel).spills == 0
