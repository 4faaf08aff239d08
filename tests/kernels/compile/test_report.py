"""The report: rows for this library and for Liger, as data."""

import json

from kernels import bench, report


def test_rows_of_both_libraries(capsys):
    report.main(["--json", "--arch", "sm_90", "--op", "swiglu_fwd"])
    rows = json.loads(capsys.readouterr().out)
    ours = [row for row in rows if row["library"] == "lockgate"]
    liger = [row for row in rows if row["library"] == "liger-kernel"]
    assert len(ours) == len(liger) == 3
    for row in ours:
        assert row["spills"] == 0 and row["bytes_ratio"] <= 1.0 and row["binaries"] == 1
    assert all(row["registers"] > 0 for row in liger)


def test_the_bench_says_that_there_is_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert bench.main([]) == 1
    assert "no GPU here" in capsys.readouterr().out
