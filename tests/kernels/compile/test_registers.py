"""The tricks of kernels/launch/registers.py gain what they are for, with the Triton of the lock."""

import pytest
import torch
import triton
import triton.language as tl

from kernels.analysis.cases import WORKLOADS
from kernels.analysis.compiler_facts import compiler_facts
from kernels.analysis.fake_driver import FakeDriver
from kernels.backend import TRITON_VERSION
from kernels.ops import rmsnorm
from kernels.ops.loss import linear_fused


@triton.jit
def converted(x, zero, ACC: tl.constexpr):
    """What any kernel would write."""
    return x.to(ACC)


# (operator, size, type), and the kernel's module with the names that stand in it for `converted`
KERNELS = {
    "widened_by_shift": ("rms_norm_bwd", 8192, torch.bfloat16, rmsnorm, "rms_norm_bwd_kernel"),
    "opaque_zero": ("rms_norm_bwd", 8192, torch.float16, rmsnorm, "rms_norm_bwd_kernel"),
    "widened": (
        "linear_cross_entropy", 32000, torch.bfloat16, linear_fused, "linear_cross_entropy_kernel"
    ),
}  # fmt: skip
# On sm_80 a row of 32,000 fits without it.
CASES = [
    pytest.param(trick, arch, marks=() if arch == "sm_90" else pytest.mark.full)
    for trick in KERNELS
    for arch in ("sm_80", "sm_90", "sm_100")
    if (trick, arch) != ("widened", "sm_80")
]
compiled = []  # the binaries of a function that is gone would be unloaded, and nothing loaded them


def cost(arch: str, op: str, size: int, dtype: torch.dtype, kernel: str) -> tuple[int, int]:
    """(spills, registers) of one kernel of a workload."""
    with FakeDriver(arch) as gpu:
        WORKLOADS[op].run(1000, size, dtype, "meta")
    (launched,) = (one for one in gpu.launches if one.name == kernel)
    facts = compiler_facts(launched.kernel)
    return facts.spills, facts.registers


@pytest.mark.parametrize(("trick", "arch"), CASES)
def test_a_row_that_is_widened_anew_takes_less(trick, arch, monkeypatch):
    op, size, dtype, module, kernel = KERNELS[trick]
    assert triton.__version__.startswith(TRITON_VERSION)
    ours = cost(arch, op, size, dtype, kernel)
    for name in ("widened", "widened_by_shift"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, converted)
    function = getattr(module, kernel)
    same = triton.jit(do_not_specialize=list(function.do_not_specialize))(function.fn)
    compiled.append(same)
    monkeypatch.setattr(module, kernel, same)
    plain = cost(arch, op, size, dtype, kernel)
    assert ours[0] == 0 and ours < plain, (
        f"(spills, registers) are {ours} with {trick} and {plain} without: Triton "
        f"{triton.__version__} no longer needs it, or shares the conversion all the same"
    )
