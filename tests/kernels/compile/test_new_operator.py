"""An operator is two new files: itself, and its cases for the tools."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import KernelError, registry

REPO = Path(__file__).parents[3]

OPERATOR = '''"""y = 2x, for a test."""

import torch
import triton
import triton.language as tl

from kernels.backend import wants_triton

__all__ = ["double"]


def double(x):
    return forward(x) if wants_triton(x) else double_ref(x)


def double_ref(x):
    return 2 * x


@triton.jit(do_not_specialize=["n"])
def double_kernel(X, Y, n, BLOCK: tl.constexpr):
    cols = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(Y + cols, tl.load(X + cols, cols < n) * 2, cols < n)


def forward(x):
    y = torch.empty_like(x)
    double_kernel[(triton.cdiv(x.numel(), 1024),)](x, y, x.numel(), 1024)
    return y
'''

CASES = '''"""Cases of kernels/ops/double.py."""

import kernels
from kernels.analysis.case import BenchCase, OperatorCases, Workload, random_rows, random_tensor
from kernels.ops import double

FORWARD = Workload(
    "double_fwd", (1024, 4096),
    lambda m, n, dtype, device: double.forward(random_tensor(dtype, device, m, n).float()),
    lambda m, n, e: 2 * m * n * 4,
)
CASES = OperatorCases(
    workloads={"double_fwd": FORWARD},
    bench={
        "double": BenchCase(
            (1024,), random_rows(1), 1, lambda x: kernels.double(x), lambda x: 2 * x
        )
    },
)
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the package with the two files of a new operator in it."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(
        REPO / "kernels", root / "kernels", ignore=shutil.ignore_patterns("__pycache__")
    )
    (root / "kernels/ops/double.py").write_text(OPERATOR)
    (root / "kernels/analysis/cases/double.py").write_text(CASES)
    return root


def python(tree, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(tree), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True
    )


def test_it_is_an_operator_of_the_package(tree):
    code = """
import sys, kernels
assert "double" in dir(kernels) and "rms_norm" in dir(kernels), dir(kernels)
assert not any(name.startswith(("triton", "kernels.ops")) for name in sys.modules)
import torch
assert kernels.double(torch.ones(3)).tolist() == [2, 2, 2]
assert kernels.__file__.startswith(sys.argv[1]), kernels.__file__
"""
    run = python(tree, "-c", code, str(tree))
    assert run.returncode == 0, run.stderr


def test_the_report_has_its_rows(tree):
    run = python(
        tree, "-m", "kernels.analysis.report", "--json", "--arch", "sm_90", "--op", "double_fwd"
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)
    assert [(row["op"], row["size"], row["library"]) for row in rows] == [
        ("double_fwd", 1024, "lockgate"), ("double_fwd", 4096, "lockgate")
    ]  # fmt: skip
    assert all(row["spills"] == 0 and row["bytes_ratio"] == 1.0 for row in rows)


def test_the_bench_takes_it(tree):
    """Without a GPU it ends before the first time; an unknown operator would be exit code 2."""
    run = python(tree, "-m", "kernels.analysis.bench", "--op", "double")
    assert run.returncode == 1 and "no GPU here" in run.stderr, run.stderr


def test_two_files_that_export_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "ops").mkdir()
    for name in ("first", "second"):
        (tmp_path / "ops" / f"{name}.py").write_text('__all__ = ["double"]\n')
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    with pytest.raises(KernelError, match=r"both kernels\.ops\.first and kernels\.ops\.second"):
        registry.operator_modules.__wrapped__()
