"""operators/<rank>.json: rows of all ranks, and files that somebody else's job may have written."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import kernels
from hpc.jobs.run.files import write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.operators import OperatorCount, OperatorsFile, operator_rows, read_operators
from hpc.train.operators import write_operators


def ranks_of(*counts: dict[str, OperatorCount]) -> list[OperatorsFile]:
    return [OperatorsFile(rank, 10, one) for rank, one in enumerate(counts)]


def test_the_counts_of_a_rank_are_those_of_the_kernels() -> None:
    assert [one.name for one in fields(OperatorCount)] == [
        one.name for one in fields(kernels.OperatorCalls)
    ]


@pytest.mark.parametrize(
    ("counts", "backend", "calls", "reason"),
    [
        ([{"triton": 7}] * 2, "triton", "14", ""),
        ([{"reference": 1200, "reason": "no GPU"}], "torch", "1,200", "no GPU"),
        ([{"triton": 5}] * 3 + [{"reference": 5, "reason": "no GPU"}],
         "triton on 3 ranks, torch on 1 rank", "20", "no GPU"),
        ([{"traced_triton": 2}], "triton", "0, 2 compiled", ""),
        ([{"refused": 1, "refusal": "rope: no"}], "refused", "0, 1 refused", "rope: no"),
        ([{"reference": 2, "reason": "no GPU", "refused": 1, "refusal": "too wide"}],
         "torch", "2, 1 refused", "no GPU; too wide"),
    ],
)  # fmt: skip
def test_an_operator_is_one_row_over_all_ranks(counts, backend, calls, reason) -> None:
    (row,) = operator_rows(ranks_of(*({"rope": OperatorCount(**one)} for one in counts)))
    assert (row.backend, row.calls_text, row.reason) == (backend, calls, reason)


def test_no_operator_is_no_row_and_no_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kernels.calls, "_calls", {})
    write_operators(Run(tmp_path), 0, 1)
    assert read_operators(Run(tmp_path)) == ([], []) and list(tmp_path.iterdir()) == []
    assert operator_rows([]) == []


def test_a_rank_writes_what_it_called(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kernels.calls, "_calls", {"rope": kernels.OperatorCalls(triton=3)})
    for rank in (10, 2):
        write_operators(Run(tmp_path), rank, 4)
    found, problems = read_operators(Run(tmp_path))
    assert [(one.rank, one.step, one.operators["rope"].triton) for one in found] == [
        (2, 4, 3), (10, 4, 3)
    ]  # fmt: skip
    assert problems == []


def test_a_folder_that_cannot_be_written_ends_no_training(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(kernels.calls, "_calls", {"rope": kernels.OperatorCalls(triton=3)})
    (tmp_path / "operators").write_text("a file stands there")
    write_operators(Run(tmp_path), 0, 4)
    assert "Training goes on" in caplog.text


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "7", '{"rank": "x", "step": 1}', '{"rank": 0, "step": 1, "operators": {"a": 3}}',
     '{"rank": 0, "step": 1, "operators": {"a": {"triton": 1e400}}}',
     '{"rank": 0, "step": 1, "operators": {"a": {"_target_": "os.getcwd"}}}', "[" * 100_000],
)  # fmt: skip
def test_a_broken_file_is_a_problem_and_hides_no_other(text: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.operators.mkdir()
    write_run_file(run.operators / "1.json", ranks_of({"rope": OperatorCount(triton=1)})[0])
    (run.operators / "0.json").write_text(text)
    (run.operators / "passwd").write_text("not looked at")
    found, problems = read_operators(run)
    assert len(found) == 1 and len(problems) == 1 and "0.json" in problems[0]
