"""Preflight of an attempt: its report, the end of an unfit node, and the next attempt's nodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf import ConfigError
from hpc.jobs.cause.attempt_end import end_attempt
from hpc.jobs.rank import entry
from hpc.jobs.rank.exit_codes import REQUEUE, TOO_OFTEN
from hpc.jobs.rank.rendezvous import Rank
from hpc.jobs.run.files import StatusFile, write_run_file
from hpc.jobs.run.folder import Run
from hpc.nodes import preflight as module
from hpc.nodes.checks import NodeCheck
from hpc.nodes.preflight import NodeNeeds, check_node, preflight
from hpc.nodes.report import NodeReport, read_reports, write_report
from tests.hpc.jobs.clusters import slurm_cluster


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    return Run(tmp_path)


def rank(number: int = 1, attempt: int = 1, port: int = 20000) -> Rank:
    return Rank(number, 2, 0, 1, "127.0.0.1", port, "7", attempt, local=False)


def steps(*found: NodeCheck | Callable[[], None]) -> Callable[..., Any]:
    """In place of the real checks: each value, or after a call, as one step."""

    def one(value: NodeCheck | Callable[[], None]) -> list[NodeCheck]:
        if isinstance(value, NodeCheck):
            return [value]
        value()
        return []

    return lambda *_: [lambda value=value: one(value) for value in found]


def test_a_node_that_is_fit_is_on_record_with_every_value(
    run: Run, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Rank(0, 1, 0, 1, "127.0.0.1", free_port, "7", 1, local=False)
    for name, value in alone.variables().items():
        monkeypatch.setenv(name, value)
    assert preflight(run, slurm_cluster(preflight_s=30), alone) == ""
    (report,) = read_reports(run, 1)
    assert (report.node, report.attempt, report.rank, report.faults) == ("n2", 1, 0, [])
    assert [check.name for check in report.checks] == [
        "devices", "scratch", "shared memory", "shared storage", "clock", "product", "all-reduce",
        "speed",
    ]  # fmt: skip


def test_no_checks_are_no_report(run: Run) -> None:
    assert preflight(run, slurm_cluster(preflight_s=0), rank()) == ""
    assert list(run.folder.iterdir()) == []


def test_a_fault_ends_the_checks_and_excludes_the_node(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = slurm_cluster(preflight_s=30, scratch=str(run.folder / "gone"), exclude="n7")
    seen: list[str | None] = []
    monkeypatch.setattr(module, "check_size", lambda asked, _: seen.append(asked.exclude))
    fault = preflight(run, cluster, rank())
    assert fault == (
        f"node n2 is not fit to train: {run.folder}/gone cannot be written: "
        "No such file or directory"
    )
    assert [check.name for check in read_reports(run)[0].checks] == ["devices", "scratch"]
    assert run.excluded_nodes.read_text() == "n7,n2\n"
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    preflight(run, cluster, rank(attempt=2))
    assert run.excluded_nodes.read_text() == "n7,n2,n3\n"
    assert seen == ["n7,n2", "n7,n2,n3"]


def test_a_node_without_which_too_few_would_be_left_may_be_used_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConfigError("2 nodes of this size asked, partition gpu has 1 without n2")

    monkeypatch.setattr(module, "check_size", refuse)
    assert preflight(run, slurm_cluster(preflight_s=30, scratch="/gone"), rank())
    assert not run.excluded_nodes.exists()


def test_ranks_that_do_not_meet_are_a_fault_of_no_node(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = NodeCheck("all-reduce", "failed", "the ranks did not meet: Timed out")
    monkeypatch.setattr(module, "_steps", steps(failed))
    assert "the ranks did not meet" in preflight(run, slurm_cluster(preflight_s=30), rank())
    assert not run.excluded_nodes.exists()


def test_a_check_that_hangs_is_a_fault_in_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = NodeCheck("scratch", "9 GB free")
    monkeypatch.setattr(module, "_steps", steps(quick, lambda: time.sleep(5)))
    began = time.monotonic()
    report = check_node(NodeNeeds(0, run.folder, run.folder, 0.2), rank())
    assert time.monotonic() - began < 5
    assert report.faults == ["its checks took longer than 0.2 s (after scratch)"]


def test_an_error_of_the_checks_themselves_is_not_swallowed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(module, "_steps", steps(broken))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        check_node(NodeNeeds(0, run.folder, run.folder, 5), rank())


def test_an_attempt_on_an_unfit_node_is_tried_again_until_it_was_tried_enough(run: Run) -> None:
    fault = "node n2 is not fit to train: the clock is off"
    run.logs.mkdir()
    write_run_file(run.status, StatusFile("running", 1, run.name))
    assert entry._unfit(run, rank(attempt=1), fault) == REQUEUE
    end = end_attempt(run, 1, REQUEUE)
    assert (end.outcome, end.kind, end.rank) == ("requeued", "node", 1)
    assert end.sentence == "Node n2 is not fit to train: the clock is off."
    write_run_file(run.status, StatusFile("running", 9, run.name, stalled=8))
    entry._unfit(run, rank(attempt=9), fault)
    end = end_attempt(run, 9, REQUEUE)
    assert (end.outcome, end.exit_code) == ("failed", TOO_OFTEN)
    assert end.sentence.endswith("Node n2 is not fit to train: the clock is off.")


@pytest.mark.parametrize("node", ["", "n1 n2", "../n1", "-n1", "n1;reboot"])
def test_a_report_of_another_name_than_a_nodes_is_left_out(run: Run, node: str) -> None:
    write_report(run, NodeReport("n1", 1, 0, 0.1))
    text = next(run.nodes.iterdir()).read_text()
    (run.nodes / "1-x.json").write_text(text.replace('"n1"', f'"{node}"'))
    (run.nodes / "1-torn.json").write_text("{")
    assert [report.node for report in read_reports(run)] == ["n1"]
