"""Declarations of the operators for the tools, one file per file of kernels/ops.
Imports kernels.analysis.{case,candidates,liger} and the operators; no tool."""

from importlib import import_module
from pathlib import Path

from kernels.analysis.case import BenchCase, LigerLaunch, OperatorCases, TableRows, Workload


def _declared() -> list[OperatorCases]:
    names = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    return [import_module(f"{__name__}.{name}").CASES for name in names]


_CASES = _declared()
WORKLOADS: dict[str, Workload] = {k: v for one in _CASES for k, v in one.workloads.items()}
BENCH_CASES: dict[str, BenchCase] = {k: v for one in _CASES for k, v in one.bench.items()}
LIGER: dict[str, LigerLaunch] = {k: v for one in _CASES for k, v in one.liger.items()}
TABLE_ROWS: tuple[TableRows, ...] = tuple(rows for one in _CASES for rows in one.table)
