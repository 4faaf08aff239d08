"""Records in FlashInfer-Bench's form: its schema, and a reference that runs by itself.

Schema: https://bench.flashinfer.ai/docs/flashinfer-trace/definition, and /workload, /trace.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

import kernels
from kernels.analysis.case import BenchCase, random_rows
from kernels.analysis.cases import BENCH_CASES
from kernels.analysis.page import ReportRun
from kernels.analysis.records import recorded_operators, write_records
from kernels.analysis.reference_code import reference_code

DTYPES = {"float32", "float16", "bfloat16", "int64"}
RUN = ReportRun("2026-01-31T12:00:00+00:00", 1.0, 2, {"triton": "3.9.0"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    operators, problems = recorded_operators(BENCH_CASES)
    assert problems == []
    row = {"library": "lockgate", "op": "rms_norm_bwd", "arch": "sm_90", "size": 4096}
    write_records(root, operators, [{**row, "error": "no such thing"}, {**row, "size": 1024}], RUN)
    return root


def lines(folder, pattern):
    return [json.loads(line) for path in sorted(folder.glob(pattern))
            for line in path.read_text().splitlines()]  # fmt: skip


def test_each_operator_has_a_definition_of_each_size(folder):
    found = [json.loads(path.read_text()) for path in folder.glob("definitions/*/*.json")]
    assert len(found) == sum(len(case.sizes) for case in BENCH_CASES.values())
    names = {(one["op_type"], one["name"]) for one in found}
    assert {("rmsnorm", "rmsnorm_n4096"), ("rope", "rope_n128")} <= names
    for one in found:
        assert one["axes"] and one["inputs"] and one["outputs"] and "\ndef run(" in one["reference"]
        for axis in one["axes"].values():
            assert axis["type"] == "var" or (axis["type"] == "const" and axis["value"] > 0)
        for tensor in (*one["inputs"].values(), *one["outputs"].values()):
            assert set(tensor["shape"]) <= set(one["axes"]) and tensor["dtype"] in DTYPES


def test_a_workload_gives_every_variable_axis_and_input(folder):
    definitions = {path.stem: json.loads(path.read_text())
                   for path in folder.glob("definitions/*/*.json")}  # fmt: skip
    found = lines(folder, "workloads/*/*.jsonl")
    assert {one["definition"] for one in found} == set(definitions)
    assert len({one["workload"]["uuid"] for one in found}) == len(found)
    for one in found:
        definition, workload = definitions[one["definition"]], one["workload"]
        assert one["solution"] is None is one["evaluation"]
        assert set(workload["inputs"]) == set(definition["inputs"])
        assert workload["axes"] == {"rows": 4096}
        for name, source in workload["inputs"].items():
            if definition["inputs"][name]["dtype"] == "int64":
                targets = load_file(folder / source["path"])[source["tensor_key"]]
                assert targets.shape == (4096,)
                assert targets.min() >= 0 and targets.max() < definition["axes"]["size"]["value"]
            else:
                assert source == {"type": "random"}


def test_a_launcher_that_failed_is_a_trace_and_nothing_else_is(folder):
    (trace,) = lines(folder, "traces/*/*/*.jsonl")
    assert (trace["definition"], trace["solution"]) == ("rmsnorm_n4096", "lockgate_rms_norm_bwd")
    evaluation = trace["evaluation"]
    assert (evaluation["status"], evaluation["log"]) == ("COMPILE_ERROR", "no such thing")
    assert evaluation["correctness"] is None is evaluation["performance"]
    assert evaluation["environment"] == {"hardware": "sm_90", "libs": {"triton": "3.9.0"}}


@pytest.mark.parametrize("op", BENCH_CASES)
def test_the_reference_runs_by_itself_and_is_the_operator(op):
    case = BENCH_CASES[op]
    inputs = case.inputs(3, 64, torch.float32, "cpu")
    names = tuple(f"x{number}" for number in range(len(inputs)))
    text = reference_code(case.eager, names)
    assert "kernels" not in text
    alone: dict = {}
    exec(compile(text, op, "exec"), alone)
    expected = case.lockgate(*inputs)
    found = alone["run"](*inputs)
    if not isinstance(found, tuple):
        found, expected = (found,), (expected,)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_case_whose_code_has_no_text_is_named_and_hides_no_other():
    hidden = object()
    odd = BenchCase((64,), random_rows(1), 1, kernels.rms_norm, lambda x: (hidden, x)[1])
    odd.eager.__module__ = "kernels.analysis.cases.odd"
    found, problems = recorded_operators({"odd": odd, "swiglu": BENCH_CASES["swiglu"]})
    assert {one.op for one in found} == {"swiglu"}
    assert len(problems) == 1 and problems[0].startswith("no record of odd: ")
