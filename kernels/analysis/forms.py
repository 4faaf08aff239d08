"""The forms that an operator has to have beside its public function, and those that are left out.

A file of kernels/ops with operators in its `__all__` needs, for one of them at least, the plain
torch NAME_ref beside it and, where the file has Triton kernels, in kernels/analysis/cases a bench
case and workloads of its name.
"""

import ast
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from kernels.analysis.cases import BENCH_CASES, WORKLOADS
from kernels.registry import operator_modules


def missing_forms() -> list[str]:
    """A sentence for each form that an operator lacks, with its name."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for name, module in operator_modules().items():
        files[module].append(name)
    return [sentence for module, names in files.items() for sentence in _missing(module, names)]


def _missing(module: str, names: list[str]) -> list[str]:
    found = vars(import_module(module))
    who, cases = " or ".join(names), f"kernels/analysis/cases/{module.rpartition('.')[2]}.py"
    missing = []
    if not any(f"{name}_ref" in found for name in names):
        missing.append(f"{who}: no {names[0]}_ref in {module}, the plain torch of it")
    if not _has_kernels(module):
        return missing
    if not any(name in BENCH_CASES for name in names):
        missing.append(f"{who}: no bench case {names[0]!r} in {cases}")
    if not any(work.startswith(name) for name in names for work in WORKLOADS):
        missing.append(f"{who}: no workload {names[0]}_fwd in {cases}")
    return missing


def _has_kernels(module: str) -> bool:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return any(
        "triton.jit" in ast.unparse(one) for node in functions for one in node.decorator_list
    )
