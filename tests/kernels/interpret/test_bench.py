"""The bench without a GPU: its lines on CPU tensors, the kernels interpreted, another clock."""

import json
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from kernels.analysis import bench, liger
from kernels.analysis.cases import BENCH_CASES

SIZE = ["--size", "64", "--rows", "5"]
LIBRARIES = ("lockgate", "torch eager", "torch.compile", liger.NAME)


@pytest.fixture(autouse=True)
def interpretable_liger():
    with liger.interpretable():
        yield


def host(call):
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def machine(timer=host, name="NVIDIA H100 80GB HBM3"):
    compiler = partial(torch.compile, backend="eager")
    return bench.BenchDevice(name, "sm_90", "cpu", timer, compiler)


def rows_of(capsys, *arguments, on):
    code = bench.main([*SIZE, "--json", *arguments], on)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("op", list(BENCH_CASES))
def test_every_library_answers_as_ours_and_is_timed(op, capsys, monkeypatch):
    def clock(call):
        with monkeypatch.context() as timed:  # inputs are there before the clock starts
            for name in ("randn", "randint"):
                timed.delattr(torch, name)
            return host(call)

    code, rows = rows_of(capsys, "--op", op, on=machine(clock))
    assert code == 0, [row["error"] for row in rows if "error" in row]
    libraries = LIBRARIES if BENCH_CASES[op].liger else LIBRARIES[:3]
    assert [(row["library"], row["direction"]) for row in rows] == [
        (library, direction)
        for library in libraries
        for direction in ("forward", "backward", "both")
    ]
    for row in rows:
        assert row["microseconds"] > 0 and row["rows"] == 5 and row["size"] == 64
        assert ("peak_share" in row) == (BENCH_CASES[op].workloads is not None)
        assert row["device"] == "NVIDIA H100 80GB HBM3" and row["arch"] == "sm_90"
        assert row["torch"] == torch.__version__ and row["triton"] and row["liger"]


def test_the_share_of_the_peak(capsys):
    """SwiGLU moves 3MFe and 5MFe: in a millisecond, of a peak of a megabyte a second."""
    _, rows = rows_of(capsys, "--op", "swiglu", "--peak", "0.001", on=machine(lambda call: 1.0))
    bytes_of_a_tensor = 5 * 64 * 2
    assert {(row["direction"], row["peak_share"]) for row in rows} == {
        (direction, round(tensors * bytes_of_a_tensor / 1e-3 / 1e6 * 100, 1))
        for direction, tensors in (("forward", 3), ("backward", 5), ("both", 8))
    }


def wrong(gate, up):
    return F.silu(gate) * up * torch.where(torch.arange(5) == 3, 1.1, 1.0)[:, None].to(up.dtype)


def wrong_gradient(gate, up):
    return F.silu(gate) * up + (up - up.detach()) * 0.1


def broken(gate, up):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("theirs", "error"),
    [(wrong, "wrong answer: "), (wrong_gradient, "wrong answer: "), (broken, "out of memory")],
)
def test_a_wrong_answer_is_reported_and_not_timed(theirs, error, capsys, monkeypatch):
    monkeypatch.setitem(BENCH_CASES, "swiglu", replace(BENCH_CASES["swiglu"], eager=theirs))
    code, rows = rows_of(capsys, "--op", "swiglu", on=machine())
    assert code == 3
    failed = [row for row in rows if "error" in row]
    assert [row["library"] for row in failed] == ["torch eager", "torch.compile"]
    assert all(error in row["error"] and "microseconds" not in row for row in failed)
    assert {row["library"] for row in rows if "microseconds" in row} == {"lockgate", liger.NAME}


def test_without_our_own_answer_nobody_is_timed(capsys, monkeypatch, elsewhere):
    monkeypatch.setitem(BENCH_CASES, "swiglu", replace(BENCH_CASES["swiglu"], lockgate=broken))
    code, rows = rows_of(capsys, "--op", "swiglu", on=machine())
    assert code == 3 and [row["library"] for row in rows] == ["lockgate"]


def test_one_wrong_row_among_many_is_seen(elsewhere):
    ours = torch.randn(4096, 64)
    theirs = ours.clone()
    assert bench.difference(ours, theirs) == 0
    theirs[17] *= 1.05
    assert bench.difference(ours, theirs) == pytest.approx(0.05, rel=0.3)
    theirs[17, 0] = float("nan")
    assert bench.difference(ours, theirs) == float("inf")
    assert bench.difference(ours, ours[:-1]) == float("inf")


def test_text_has_a_line_a_row(capsys):
    assert bench.main([*SIZE, "--op", "swiglu"], machine()) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 12 and len({line.index(" us ") for line in lines}) == 1
    assert err == "1/1 swiglu 64\n"


def test_an_unknown_device_is_asked_for_its_peak(capsys, elsewhere):
    assert bench.main(SIZE, machine(name="NVIDIA T4")) == 2
    out, err = capsys.readouterr()
    assert out == "" and "'NVIDIA T4'" in err and "--peak" in err and err.count("\n") == 1


def test_interrupted(capsys):
    def interrupted(call):
        raise KeyboardInterrupt

    assert bench.main([*SIZE, "--json", "--op", "swiglu"], machine(interrupted)) == 130
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("kernels.analysis.bench: interrupted\n")
