"""Liger-Kernel in the interpreter: it runs, its bytes are counted as ours are, nothing leaks."""

import pytest
import torch
from triton.runtime import interpreter

from kernels.analysis import bytes as counted
from kernels.analysis import liger
from kernels.analysis.case import LigerLaunch
from kernels.analysis.cases import LIGER, WORKLOADS
from kernels.analysis.interpreter import Meter

# Read twice and written once against read once and written once; everything else at the minimum.
TWICE = {"linear_cross_entropy": 1.5}


@pytest.mark.parametrize("op", list(LIGER))
def test_bytes_against_the_same_formula(op):
    work, launcher = WORKLOADS[op], LIGER[op]
    size = work.sizes[0]
    with liger.interpretable(), liger.device_of("sm_90"), Meter() as meter:
        launcher.run(3, size, torch.bfloat16, "cpu")
    ratio = meter.bytes(launcher.excluded_args) / work.minimum(3, size, 2)
    assert ratio == pytest.approx(TWICE.get(op, 1.0), abs=1e-3)
    assert set(launcher.excluded_args) <= {*meter.loaded, *meter.stored}, (
        "a name that no kernel has"
    )


def test_the_device_decides_how_liger_launches():
    """On Blackwell its SwiGLU is cut into column tiles, elsewhere a row is one program."""
    ran = {}
    for arch in liger.FAMILY:
        with liger.interpretable(), liger.device_of(arch), Meter() as meter:
            LIGER["swiglu_fwd"].run(1, 11008, torch.bfloat16, "cpu")
        ran[arch] = sum(meter.programs.values())
    assert ran == {"sm_80": 1, "sm_90": 1, "sm_100": 11, "gfx942": 1}


def test_nothing_stays_patched(elsewhere):
    from liger_kernel.ops import geglu, rms_norm

    before = interpreter.InterpreterBuilder.binary_op, geglu.tanh, rms_norm.rsqrt, rms_norm.math
    with liger.interpretable(), liger.device_of("sm_90"):
        assert geglu.tanh is not before[1]
    after = interpreter.InterpreterBuilder.binary_op, geglu.tanh, rms_norm.rsqrt, rms_norm.math
    assert before == after


def test_every_byte_of_a_result_counts():
    """The output of an activation and that of a sum of partial sums have one name; only the second
    is left out."""
    rows = list(counted.bytes_rows(["geglu_fwd"]))
    assert {(row["library"], row["arch"]) for row in rows} == {
        (library, arch) for library in ("lockgate", liger.NAME) for arch in liger.FAMILY
    }
    assert {row["bytes_ratio"] for row in rows} == {1.0}


def test_a_launcher_that_cannot_be_interpreted_says_so(monkeypatch):
    def broken(m, n, dtype, device):
        raise RuntimeError("no such thing here")

    monkeypatch.setitem(LIGER, "rope", LigerLaunch(broken))
    theirs = [row for row in counted.bytes_rows(["rope"]) if row["library"] == liger.NAME]
    assert theirs and all(row["bytes_error"].endswith("no such thing here") for row in theirs)
    assert not any("bytes_ratio" in row for row in theirs)
