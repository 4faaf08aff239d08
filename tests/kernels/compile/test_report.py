"""The report: rows for this library and for Liger, as data; what a process says and how it ends."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from kernels.analysis import bench, liger, quack, report
from kernels.analysis.case import LigerLaunch
from kernels.analysis.cases import LIGER, WORKLOADS
from kernels.analysis.fake_driver import FakeDriver
from kernels.analysis.progress import _bars, progress
from kernels.analysis.tune import PROCESSORS


def test_rows_of_both_libraries(capsys, tmp_path):
    page = tmp_path / "report.html"
    words = ["--json", "--html", str(page), "--records", str(tmp_path / "records")]
    assert report.main([*words, "--arch", "sm_90", "--op", "swiglu_fwd"]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    sizes = WORKLOADS["swiglu_fwd"].sizes
    assert [(row["size"], row["library"]) for row in rows] == [
        (size, library) for size in sizes for library in ("lockgate", "liger-kernel")
    ]
    for row in rows:
        assert row["registers"] > 0 and row["shared"] == 0
        assert max(map(int, row["hot_loads"])) == 128
        assert row["binaries"] == 1 and row["binaries_by"] == {"rows": 1}
        assert row["bytes_ratio"] == 1.0, "the formula counts two reads and one write"
        assert row["issued_ratio"] == 1.0, "no vector is shared"
        assert row["spills"] == 0
    assert "compiled 1/1 swiglu_fwd sm_90: 3 rows, 0 spills, 1 binary; liger-kernel 3 rows" in err
    assert "counted 1/1 swiglu_fwd sm_90" in err and "6 rows in" in err
    assert "3 rows of Lockgate" in page.read_text() and "swiglu_fwd" in page.read_text()
    assert (tmp_path / "records/definitions/swiglu/swiglu_n11008.json").is_file()


def test_a_page_without_its_folder_is_refused_before_the_work(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        report.main(["--html", str(tmp_path / "none" / "page.html")])
    assert ended.value.code == 2 and "there is no folder" in capsys.readouterr().err


def test_a_terminal_has_bars_and_anything_else_lines(capsys):
    with progress({"compiled": 2}) as done:
        done("compiled", "one")
        done("compiled", "other")
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(",")[0] for line in lines] == ["compiled 1/2 one", "compiled 2/2 other"]
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    with _bars(terminal, {"compiled": 2}) as done:
        done("compiled", "one")
    assert "compiled one" in terminal.file.getvalue() and "1/2" in terminal.file.getvalue()


def test_an_operator_that_lacks_a_form_is_the_exit_code(capsys, monkeypatch):
    monkeypatch.setattr(report, "report_rows", lambda arches, ops: [])
    assert report.main([]) == 0
    monkeypatch.setattr(report, "missing_forms", lambda: ["gone: no gone_ref"])
    assert report.main([]) == 1
    assert "kernels.analysis.report: gone: no gone_ref" in capsys.readouterr().err


def test_quack_is_beside_only_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(quack, "installed_quack", lambda: None)
    assert quack.quack_rows("rms_norm_fwd", "sm_90") == []
    assert "pip install quack-kernels" in quack.quack_note(None)
    assert "0.9 is installed" in quack.quack_note("0.9")
    monkeypatch.setattr(quack, "installed_quack", lambda: "0.6.5")
    assert quack.quack_rows("rope", "sm_90") == quack.quack_rows("rms_norm_fwd", "gfx942") == []


def test_quack_in_a_process_of_its_own_has_a_row_or_an_error_of_each_size(monkeypatch):
    wrote = '{"size": 1024, "registers": 70, "spills": 0, "binaries": 1}\nnoise\n'
    monkeypatch.setattr(quack, "installed_quack", lambda: "0.6.5")
    ended = subprocess.CompletedProcess([], 1, wrote, "Traceback\nImportError: no libcuda\n")
    monkeypatch.setattr(quack.subprocess, "run", lambda *_, **__: ended)
    rows = quack.quack_rows("rms_norm_fwd", "sm_90")
    assert [row["size"] for row in rows] == list(WORKLOADS["rms_norm_fwd"].sizes)
    assert rows[0]["registers"] == 70 and rows[0]["library"] == "quack-kernels"
    assert {row["error"] for row in rows[1:]} == {"ImportError: no libcuda"}


def binaries(op, size, launcher, arch="sm_90"):
    with liger.device_of(arch, PROCESSORS[arch]):
        return report.binaries(arch, op, size, launcher)


def test_what_liger_compiles_again_for():
    """Its rotation has the batch as a constant, its norm's backward the rows of a program."""
    assert binaries("rope", 64, LIGER["rope"]) == (6, {"batch": 6})
    by_rows = binaries("add_rms_norm_bwd", 1024, LIGER["add_rms_norm_bwd"])
    assert by_rows == (5, {"rows": 5})
    for op in ("rope", "rope_norm_fwd", "rope_norm_bwd", "add_rms_norm_bwd"):
        total, by = binaries(op, 64 if op.startswith("rope") else 1024, WORKLOADS[op])
        assert total == 1 and set(by.values()) == {1}, op


def test_losses_by_smoothing_and_ignored_targets():
    """Small, because Liger's block is the row: 11 binaries of its loss."""
    theirs, by = binaries("linear_cross_entropy", 1000, LIGER["linear_cross_entropy"])
    assert by["ignored"] == 3 and by["smoothing"] == 5 and theirs >= 5
    for op in ("cross_entropy_fwd", "cross_entropy_bwd", "linear_cross_entropy"):
        ours, by = binaries(op, 1000, WORKLOADS[op])
        assert ours == 1 and by == {"rows": 1, "ignored": 1, "smoothing": 1}, op


@pytest.mark.parametrize("op", list(WORKLOADS))
def test_the_variations_launch_what_the_workload_does(op):
    first = {"batch": {"batch": 1}, "ignored": {"ignored": 0}, "smoothing": {"smoothing": 0.1}}
    varied = {}
    for axis in WORKLOADS[op].varies:
        varied |= first.get(axis, {})
    launched = []
    for given in ({}, varied):
        with FakeDriver("sm_90") as gpu:
            WORKLOADS[op].run(report.ROWS, WORKLOADS[op].sizes[0], torch.bfloat16, "meta", **given)
        launched.append([(one.name, one.grid, one.kernel.metadata.hash) for one in gpu.launches])
    assert launched[0] == launched[1]


def test_a_launcher_that_fails_is_an_error_of_its_row():
    def broken(m, n, dtype, device):
        raise RuntimeError("no such thing")

    row = report.report_row({"library": "lockgate"}, "rope", "sm_90", 64, LigerLaunch(broken))
    assert row["error"] == "RuntimeError: no such thing" and "registers" not in row


def test_our_own_error_is_the_exit_code(capsys, monkeypatch):
    fine = {"library": "lockgate", "op": "rope", "arch": "sm_90", "size": 64, "registers": 32,
            "spills": 0, "shared": 0, "hot_loads": {128: 4, 32: 1}, "hot_stores": {128: 2},
            "bytes_ratio": 1.0, "issued_ratio": 1.4, "binaries": 1}  # fmt: skip
    broken = {**{key: fine[key] for key in ("op", "arch", "size")}, "error": "it broke"}
    codes = {}
    for library in ("lockgate", liger.NAME):
        rows = [fine, {"library": library, **broken}]
        monkeypatch.setattr(report, "report_rows", lambda arches, ops, rows=rows: rows)
        codes[library] = report.main([])
    assert codes == {"lockgate": 1, liger.NAME: 0}
    heading, first, second = capsys.readouterr().out.splitlines()[:3]
    assert heading.index("loads") == first.index("128:4 32:1")
    assert heading.index("bytes") == first.index("1.0")
    assert heading.index("issued") == first.index("1.4")
    assert second.endswith("it broke")


def test_an_interrupt_ends_it_quietly():
    run = subprocess.Popen(
        [sys.executable, "-m", "kernels.analysis.report", "--json", "--arch", "sm_90"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
    )  # fmt: skip
    assert run.stderr.readline().startswith("kernels.analysis.report: compiling")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while len(children.read_text().split()) < 3:  # two that compile or keep track, one that counts
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, "", "kernels.analysis.report: interrupted\n")


def test_the_bench_says_that_there_is_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert bench.main(["--json"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "no GPU here" in err and err.count("\n") == 1
