"""docs/extending.md: an operator is two new files, itself and its cases for the tools.

Both blocks of the guide are written into a copy of the package, and do there what it says of them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import KernelError, registry
from kernels.analysis.forms import missing_forms

REPO = Path(__file__).parents[3]
BLOCK = re.compile(r"^```python\n# (kernels/\S+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES = dict(BLOCK.findall((REPO / "docs/extending.md").read_text(encoding="utf-8")))
OPERATOR, CASES = "kernels/ops/relu_squared.py", "kernels/analysis/cases/relu_squared.py"


def copied(root: Path) -> Path:
    shutil.copytree(
        REPO / "kernels", root / "kernels", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name, text in FILES.items():
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the package with the two files of a new operator in it."""
    return copied(tmp_path_factory.mktemp("tree"))


def python(tree, *arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": str(tree), "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True
    )


def test_the_guide_has_two_files():
    assert set(FILES) == {OPERATOR, CASES}


AS_TORCH = """
import sys, kernels
assert "relu_squared" in dir(kernels) and "rms_norm" in dir(kernels), dir(kernels)
assert not any(name.startswith(("triton", "kernels.ops")) for name in sys.modules)
import torch
assert kernels.relu_squared(torch.tensor([-1., 2., 3.])).tolist() == [0, 4, 9]
assert kernels.operator_calls()["relu_squared"].reason == "no GPU"
assert kernels.__file__.startswith(sys.argv[1]), kernels.__file__
from kernels.analysis.forms import missing_forms
assert missing_forms() == [], missing_forms()
for bad, words in ((torch.ones(3, dtype=torch.int64), "is torch.int64"), (3, "is int")):
    try:
        kernels.relu_squared(bad)
    except kernels.KernelError as error:
        assert words in str(error), error
    else:
        raise AssertionError(bad)
"""


def test_it_is_an_operator_of_the_package(tree):
    run = python(tree, "-c", AS_TORCH, str(tree))
    assert run.returncode == 0, run.stderr


AS_TRITON = """
import torch, kernels
from kernels.analysis.interpreter import install
from kernels.ops.relu_squared import relu_squared_op, relu_squared_ref
install()
kernels.use("triton")
compiled = torch.compile(kernels.relu_squared, backend="aot_eager", fullgraph=True)
for shape in ((5, 8), (3, 7), (1,), (0, 4)):
    for dtype in (torch.float64, torch.bfloat16):
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        expected = relu_squared_ref(x)
        (gradient,) = torch.autograd.grad(expected.sum(), x)
        for call in (kernels.relu_squared, compiled):
            y = call(x)
            torch.testing.assert_close(y, expected)
            torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], gradient)
torch.library.opcheck(relu_squared_op, (torch.randn(3, 7, requires_grad=True),))
x = torch.randn(3, requires_grad=True)
for again in (
    lambda: torch.func.jvp(kernels.relu_squared, (x,), (x,)),
    lambda: torch.autograd.grad(
        torch.autograd.grad(kernels.relu_squared(x).sum(), x, create_graph=True)[0].sum(), x
    ),
):
    try:
        again()
    except kernels.KernelError as error:
        assert str(error).startswith("relu_squared: there is no"), error
    else:
        raise AssertionError("not refused")
count = kernels.operator_calls()["relu_squared"]
assert count.triton and count.traced_triton and not count.reference, count
"""


def test_its_kernels_are_its_plain_torch_and_refuse_what_they_lack(tree):
    run = python(tree, "-c", AS_TRITON, TRITON_INTERPRET="1")
    assert run.returncode == 0, run.stderr


def test_the_report_has_its_rows(tree):
    ops = [word for way in ("fwd", "bwd") for word in ("--op", f"relu_squared_{way}")]
    run = python(tree, "-m", "kernels.analysis.report", "--json", "--arch", "sm_90", *ops)
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)
    assert len(rows) == 2 * 3 and {row["library"] for row in rows} == {"lockgate"}
    for row in rows:
        assert (row["spills"], row["bytes_ratio"], row["binaries"]) == (0, 1.0, 1), row
        assert max(map(int, row["hot_loads"])) == 128


def test_the_bench_takes_it(tree):
    """Without a GPU it ends before the first time; an unknown operator would be exit code 2."""
    run = python(tree, "-m", "kernels.analysis.bench", "--op", "relu_squared")
    assert run.returncode == 1 and "no GPU here" in run.stderr, run.stderr


LEFT_OUT = {
    "the plain torch": (
        OPERATOR, "relu_squared_ref", "plain_torch", "no relu_squared_ref in kernels.ops"
    ),
    "the bench case": (CASES, '        "relu_squared": BenchCase', '        "other": BenchCase',
                       "no bench case 'relu_squared' in kernels/analysis/cases/relu_squared.py"),
    "the workloads": (CASES, '"relu_squared_', '"other_',
                      "no workload relu_squared_fwd in kernels/analysis/cases/relu_squared.py"),
    "its cases": (CASES, None, None, "no bench case 'relu_squared'"),
}  # fmt: skip


@pytest.mark.parametrize("form", LEFT_OUT)
def test_a_form_that_is_left_out_is_named(form, tmp_path):
    file, old, new, words = LEFT_OUT[form]
    root = copied(tmp_path)
    if old is None:
        (root / file).unlink()
    else:
        for name, text in FILES.items():
            if name == file or form == "the plain torch":
                assert old in text
                (root / name).write_text(text.replace(old, new))
    code = "from kernels.analysis.forms import missing_forms; print(*missing_forms(), sep='\\n')"
    run = python(root, "-c", code)
    assert run.returncode == 0, run.stderr
    assert all(line.startswith("relu_squared: ") for line in run.stdout.splitlines())
    assert words in run.stdout


def test_no_operator_lacks_a_form():
    assert missing_forms() == []


def test_two_files_that_export_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "ops").mkdir()
    for name in ("first", "second"):
        (tmp_path / "ops" / f"{name}.py").write_text('__all__ = ["double"]\n')
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    with pytest.raises(KernelError, match=r"both kernels\.ops\.first and kernels\.ops\.second"):
        registry.operator_modules.__wrapped__()
