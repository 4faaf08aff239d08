"""Records of the operators in the file form of FlashInfer-Bench: `--records DIR` of the report.

    definitions/TYPE/NAME.json                 axes, inputs, outputs, plain torch as `reference`
    workloads/TYPE/NAME.jsonl                  a trace of a workload alone: sizes and inputs
    blob/workloads/TYPE/NAME.safetensors       targets, which random numbers cannot stand for
    traces/lockgate/TYPE/NAME.jsonl            a trace with an evaluation, COMPILE_ERROR only

Schema: https://bench.flashinfer.ai/docs/flashinfer-trace/definition, /workload and /trace. There an
evaluation that PASSED has latencies: what compiles here and never ran has no trace of its own.
"""

import inspect
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kernels.analysis.case import BenchCase
from kernels.analysis.page import OURS, ReportRun
from kernels.analysis.reference_code import reference_code
from kernels.backend import KernelError

ROWS = 4096
MARK = 1009  # rows by which the variable axis is found in a shape
DTYPE = torch.bfloat16
TYPES = {"rms_norm": "rmsnorm", "add_rms_norm": "fused_add_rmsnorm"}  # names of theirs
SPACE = uuid.UUID("6f5b6f9c-4c0e-5d5e-9d0a-5c1f6c0c7a10")  # equal workloads have equal names


@dataclass(frozen=True)
class RecordedOperator:
    """One operator at one size: its definition, and the workload of `ROWS` rows."""

    op: str
    size: int
    type: str
    definition: dict[str, Any]
    targets: tuple[str, ...]
    """Inputs that are classes below the size."""

    @property
    def name(self) -> str:
        return str(self.definition["name"])

    def workload(self) -> dict[str, Any]:
        """A trace of the workload alone."""
        file = f"blob/workloads/{self.type}/{self.name}.safetensors"
        inputs = {
            name: {"type": "safetensors", "path": file, "tensor_key": name}
            if name in self.targets
            else {"type": "random"}
            for name in self.definition["inputs"]
        }
        made = str(uuid.uuid5(SPACE, f"{self.name} {ROWS}"))
        return {
            "definition": self.name,
            "workload": {"uuid": made, "axes": {"rows": ROWS}, "inputs": inputs},
            "solution": None,
            "evaluation": None,
        }


def recorded_operator(op: str, case: BenchCase, size: int) -> RecordedOperator:
    """The record of a bench case at one size. Raises KernelError where its code has no text."""
    inputs = case.inputs(MARK, size, DTYPE, "meta")
    names = _argument_names(case, len(inputs))
    outputs = case.eager(*inputs)
    results = outputs if isinstance(outputs, tuple) else (outputs,)
    axes: dict[str, dict[str, Any]] = {
        "rows": {"type": "var", "description": "rows, tokens"},
        "size": {"type": "const", "value": size},
    }
    labels = ["output"] if len(results) == 1 else [f"output{n}" for n in range(len(results))]
    kind = TYPES.get(op, op)
    definition = {
        "name": f"{kind}_n{size}",
        "op_type": kind,
        "description": f"{op} of rows of {size}, as kernels.analysis.cases declares it",
        "tags": ["status:draft"],
        "axes": axes,
        "inputs": dict(zip(names, (_tensor(x, size, axes) for x in inputs), strict=True)),
        "outputs": dict(zip(labels, (_tensor(y, size, axes) for y in results), strict=True)),
        "reference": reference_code(case.eager, names),
    }
    targets = tuple(
        name for name, x in zip(names, inputs, strict=True) if not x.is_floating_point()
    )
    return RecordedOperator(op, size, kind, definition, targets)


def recorded_operators(cases: dict[str, BenchCase]) -> tuple[list[RecordedOperator], list[str]]:
    """The records of all cases at all of their sizes, and a sentence for each that has none."""
    found: list[RecordedOperator] = []
    problems = []
    for op, case in cases.items():
        try:
            found += [recorded_operator(op, case, size) for size in case.sizes]
        except KernelError as error:
            problems.append(f"no record of {op}: {error}")
    return found, problems


def write_records(
    folder: Path, operators: Sequence[RecordedOperator], rows: Sequence[dict[str, Any]],
    run: ReportRun,
) -> None:  # fmt: skip
    """Write `operators`, and a trace of each launcher of theirs among `rows` that failed."""
    from safetensors.torch import save_file

    for one in operators:
        _write(folder / f"definitions/{one.type}/{one.name}.json", [one.definition])
        _write(folder / f"workloads/{one.type}/{one.name}.jsonl", [one.workload()])
        if one.targets:
            draw = torch.Generator().manual_seed(0)
            drawn = {
                name: torch.randint(0, one.size, (ROWS,), generator=draw) for name in one.targets
            }
            path = folder / f"blob/workloads/{one.type}/{one.name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(drawn, path)
        failed = [row for row in rows if _is_of(row, one) and "error" in row]
        if failed:
            path = folder / f"traces/{OURS}/{one.type}/{one.name}.jsonl"
            _write(path, [_failure(one, row, run) for row in failed])


def _is_of(row: dict[str, Any], one: RecordedOperator) -> bool:
    launchers = (one.op, f"{one.op}_fwd", f"{one.op}_bwd")
    return row["library"] == OURS and row["op"] in launchers and row["size"] == one.size


def _failure(one: RecordedOperator, row: dict[str, Any], run: ReportRun) -> dict[str, Any]:
    return {
        **one.workload(),
        "solution": f"{OURS}_{row['op']}",
        "evaluation": {
            "status": "COMPILE_ERROR",
            "log": row["error"],
            "correctness": None,
            "performance": None,
            "environment": {"hardware": row["arch"], "libs": run.versions},
            "timestamp": run.written,
        },
    }


def _argument_names(case: BenchCase, count: int) -> tuple[str, ...]:
    """The names that the operator's own call gives its inputs, or numbers."""
    given = list(inspect.signature(case.lockgate).parameters.values())
    if len(given) == count and all(one.kind == one.POSITIONAL_OR_KEYWORD for one in given):
        return tuple(one.name for one in given)
    return tuple(f"input{number}" for number in range(count))


def _tensor(x: Tensor, size: int, axes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Shape by the names of axes, those of other lengths added to `axes`, and dtype."""
    shape = []
    for length in x.shape:
        name = {MARK: "rows", size: "size"}.get(length, f"n{length}")
        axes.setdefault(name, {"type": "const", "value": length})
        shape.append(name)
    return {"shape": shape, "dtype": str(x.dtype).removeprefix("torch.")}


def _write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    indent = 2 if path.suffix == ".json" else None
    path.write_text("".join(json.dumps(one, indent=indent) + "\n" for one in lines))
