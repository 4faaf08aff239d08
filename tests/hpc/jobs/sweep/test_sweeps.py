"""Sweeps from the command line: the ledger, what is sent again, and what a refusal leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conf import options
from conf.user import user_name
from hpc.cli.main import main
from hpc.jobs.backend import BACKENDS
from hpc.jobs.errors import SchedulerUnavailable, SubmitRefused
from hpc.jobs.local.backend import LocalBackend
from hpc.jobs.run.array import RunArray
from hpc.jobs.run.files import (
    JobFile,
    StatusFile,
    TrialFile,
    read_run_file,
    write_cancelled,
    write_run_file,
)
from hpc.jobs.run.folder import Run
from hpc.jobs.sweep.ledger import append_lines, ledger_path, one_writer, read_ledger

LINE = ["train", "-m", f"task={options('task')[0]}", "task.dataset=toy", "cluster=local"]


class Scheduler(LocalBackend):
    """A local backend that starts nothing, and refuses the call whose number is `refused`."""

    def __init__(self) -> None:
        self.arrays: list[RunArray] = []
        self.single: list[Run] = []
        self.refused: int | None = None
        self.withdrawn: list[str] = []

    def submit(self, cluster, run, digest, variables) -> JobFile:
        self._refuse()
        self.single.append(run)
        return self._job()

    def submit_array(self, cluster, array, digests, variables) -> list[JobFile]:
        self._refuse()
        self.arrays.append(array)
        return [self._job() for _ in array.runs]

    def withdraw(self, job_name, variables) -> None:
        self.withdrawn.append(job_name)

    def _refuse(self) -> None:
        if self.refused is not None and len(self.arrays) + len(self.single) >= self.refused:
            raise SubmitRefused("sbatch refused the job: too many jobs.")

    def _job(self) -> JobFile:
        return JobFile("local", "1", "2026-01-01T00:00:00+00:00", user_name(), 2, None, 1)


@pytest.fixture()
def scheduler(monkeypatch) -> Scheduler:
    made = Scheduler()
    monkeypatch.setattr("hpc.jobs.backend.BACKENDS", {**BACKENDS, "local": made})
    monkeypatch.setattr("hpc.jobs.queue.BACKENDS", {**BACKENDS, "local": made})
    return made


def train(capsys, *words: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """The trials of a line as JSON, and standard error."""
    assert main([*LINE, "--json", *words]) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    return json.loads(out) if out else [], err


def outcomes(trials: list[dict[str, Any]]) -> list[str]:
    return [one["outcome"] for one in trials]


def end(site: Path, trial: dict[str, Any], state: str) -> None:
    run = Run(site / "runs" / trial["run"])
    write_run_file(run.status, StatusFile("running", 1))
    if state == "failed":
        run.failure.write_text(
            json.dumps(
                {"attempt": 1, "ended": "", "error": {"type": "E", "message": "", "rank": 0}}
            )
        )
    else:
        write_run_file(run.status, StatusFile(state, 1))  # type: ignore[arg-type]


def test_a_sweep_is_one_array_and_its_trials_have_their_place_in_it(site, scheduler, capsys):
    trials, _ = train(capsys, "seed=1,2", "optim.lr=1e-3,1e-4", "sweep=lr")
    assert outcomes(trials) == ["submitted"] * 4
    (array,) = scheduler.arrays
    assert [run.name for run in array.runs] == [one["run"] for one in trials]
    for number, one in enumerate(trials):
        trial = read_run_file(TrialFile, Run(site / "runs" / one["run"]).trial).value
        assert trial == TrialFile("lr", one["values"], array.name, number)
    assert trials[1]["values"] == {"seed": 1, "optim.lr": 0.0001}
    lines = read_ledger(ledger_path(site / "runs", "lr"))
    assert [line.event for line in lines] == ["planned"] * 4 + ["sending"] * 4 + ["submitted"] * 4


def test_each_shape_is_an_array_of_its_own_and_one_run_is_none(site, scheduler, capsys):
    trials, _ = train(capsys, "cluster.tasks_per_node=1,2,1", "seed=1,2", "sweep=shapes")
    assert len(trials) == 4  # repetitions are merged
    assert [len(array.runs) for array in scheduler.arrays] == [2, 2]
    train(capsys, "seed=7", "sweep=single")
    (run,) = scheduler.single
    assert read_run_file(TrialFile, run.trial).value == TrialFile("single", {})


def test_the_same_line_sends_only_what_is_missing(site, scheduler, capsys, monkeypatch):
    first, _ = train(capsys, "seed=1,2,3,4", "sweep=s")
    for one, state in zip(first, ("finished", "failed", "stopped", "running"), strict=True):
        end(site, one, state)
    monkeypatch.setattr("hpc.jobs.local.backend.job_is_alive", lambda job: False)
    alive = Run(site / "runs" / first[3]["run"])
    monkeypatch.setattr(
        "hpc.jobs.local.backend.local_standing",
        lambda record, known=_standing: known(record, alive.name),
    )
    again, _ = train(capsys, "seed=1,2,3,4", "sweep=s")
    assert outcomes(again) == ["already in", "ended", "ended", "already in"]
    assert [one["run"] for one in again] == [one["run"] for one in first]
    more, _ = train(capsys, "seed=1,2,3,4,5", "sweep=s")
    assert outcomes(more) == ["already in", "ended", "ended", "already in", "submitted"]
    retried, _ = train(capsys, "seed=1,2,3,4", "sweep=s", "--retry-failed")
    assert outcomes(retried) == ["already in", "submitted", "submitted", "already in"]
    assert {one["run"] for one in retried[1:3]} & {one["run"] for one in first} == set()


def test_one_that_was_stopped_early_is_never_sent_again(site, scheduler, capsys, monkeypatch):
    monkeypatch.setattr("hpc.jobs.local.backend.job_is_alive", lambda _: False)
    first, _ = train(capsys, "seed=1,2", "sweep=e")
    for one, early_stop in zip(first, ("stopped early: worse", ""), strict=True):
        write_cancelled(Run(site / "runs" / one["run"]), early_stop)
    again, _ = train(capsys, "seed=1,2", "sweep=e")
    assert outcomes(again) == ["stopped early", "ended"]
    retried, _ = train(capsys, "seed=1,2", "sweep=e", "--retry-failed")
    assert outcomes(retried) == ["stopped early", "submitted"]


def _standing(record, alive: str):
    from hpc.jobs.local.backend import RUNNING, Standing
    from hpc.jobs.run.states import FAILED, FINISHED, STOPPED

    if record.run.name == alive:
        return Standing(RUNNING, "", "process")
    written = record.status.state if record.status else RUNNING
    known = {"failed": FAILED, "finished": FINISHED, "stopped": STOPPED}
    return Standing(known.get(written, RUNNING), "", "status.json")


def test_a_line_without_a_name_has_the_same_one_each_time(site, scheduler, capsys):
    first, _ = train(capsys, "seed=1,2")
    name = first[0]["sweep"]
    assert name.startswith(f"{options('task')[0]}-seed-")
    monkey, _ = train(capsys, "seed=2,1")  # the order of the values decides nothing
    assert monkey[0]["sweep"] == name
    other, _ = train(capsys, "seed=1,2,3")
    assert other[0]["sweep"] != name


def test_a_refusal_in_the_middle_leaves_those_that_are_in(site, scheduler, capsys):
    scheduler.refused = 1
    words = ["cluster.tasks_per_node=1,2", "seed=1,2", "sweep=mid"]
    trials, err = train(capsys, *words, code=3)
    assert outcomes(trials) == ["submitted", "submitted", "not sent", "not sent"]
    assert "too many jobs" in err and "2 trials are in and 2 are not" in err
    assert len(err.splitlines()) == 1
    runs = {path.name for path in (site / "runs").iterdir()} - {"sweeps"}
    assert runs == {one["run"] for one in trials[:2]}
    assert len(scheduler.withdrawn) == 1 and scheduler.withdrawn[0].startswith("mid-")
    scheduler.refused = None
    for one in trials[:2]:
        end(site, one, "finished")
    again, _ = train(capsys, *words)
    assert outcomes(again) == ["already in", "already in", "submitted", "submitted"]


def test_a_refusal_of_all_is_that_refusal(site, scheduler, capsys):
    scheduler.refused = 0
    trials, err = train(capsys, "seed=1,2", "sweep=none", code=1)
    assert trials == [] and "too many jobs" in err
    scheduler.refused = None
    assert outcomes(train(capsys, "seed=1,2", "sweep=none")[0]) == ["submitted"] * 2


def test_a_retry_that_is_refused_keeps_the_run_that_failed(site, scheduler, capsys):
    (first, _), _ = train(capsys, "seed=1,2", "sweep=r")
    end(site, first, "failed")
    scheduler.refused = 0
    train(capsys, "seed=1,2", "sweep=r", "--retry-failed", code=1)
    scheduler.refused = None
    again, _ = train(capsys, "seed=1,2", "sweep=r")
    assert (again[0]["run"], again[0]["outcome"]) == (first["run"], "ended")


def test_a_command_that_was_killed_is_completed_by_the_same_line(site, scheduler, capsys):
    """Between the sbatch and the ids, and before the sbatch."""
    trials, _ = train(capsys, "seed=1,2", "sweep=k")
    ledger = ledger_path(site / "runs", "k")
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join(lines[:4]) + "\n" + lines[4][:20])  # torn in the middle
    first, second = (Run(site / "runs" / one["run"]) for one in trials)
    write_run_file(first.status, StatusFile("finished", 1))
    second.job.unlink()  # and nothing of it runs: it is not submitted
    again, _ = train(capsys, "seed=1,2", "sweep=k")
    assert outcomes(again) == ["already in", "submitted"]
    assert again[0]["run"] == first.name
    assert not second.folder.exists() or again[1]["run"] == second.name


def test_a_sweep_of_other_settings_wants_a_name_of_its_own(site, scheduler, capsys):
    train(capsys, "seed=1,2", "sweep=s")
    _, err = train(capsys, "seed=1,2", "steps=77", "sweep=s", code=2)
    assert "steps=" in err and "here 77" in err and "sweep=s-2" in err
    # Where and how long it runs makes it no other trial.
    trials, _ = train(capsys, "seed=1,2", "cluster.timeout_min=99", "sweep=s")
    assert "submitted" not in outcomes(trials)


def test_other_code_is_noted_and_nothing_is_sent_twice(site, scheduler, capsys):
    train(capsys, "seed=1,2", "sweep=s")
    ledger = ledger_path(site / "runs", "s")
    lines = read_ledger(ledger)
    append_lines(ledger, [replace(line, source="f" * 64) for line in lines[-2:]])
    trials, err = train(capsys, "seed=1,2", "sweep=s")
    assert "submitted" not in outcomes(trials)
    assert "trials that are in have another source: ffffffffffff" in err


def test_a_sweep_that_another_command_sends_now_is_left_alone(site, scheduler, capsys):
    with one_writer(ledger_path(site / "runs", "s")):
        _, err = train(capsys, "seed=1,2", "sweep=s", code=2)
    assert "another command is sending the sweep s now" in err
    assert scheduler.arrays == []


def test_a_scheduler_that_is_away_leaves_no_folder(site, scheduler, capsys, monkeypatch):
    def away(*_: object) -> None:
        raise SchedulerUnavailable("the Slurm controller does not answer")

    monkeypatch.setattr(scheduler, "require_ready", away)
    assert train(capsys, "seed=1,2", "sweep=s", code=5)[0] == []
    assert not (site / "runs").exists()


@pytest.mark.parametrize(
    "odd",
    ["", "[]", "{}", '{"event": "submitted"}', "\x00", "[" * 100_000, '{"run": "../../etc"}'],
)
def test_an_odd_line_of_a_ledger_costs_itself_alone(site, scheduler, capsys, odd):
    train(capsys, "seed=1,2", "sweep=s")
    ledger = ledger_path(site / "runs", "s")
    before = read_ledger(ledger)
    with ledger.open("a") as file:
        file.write(f"{odd}\n")
    assert read_ledger(ledger) == before
    if odd.startswith("{"):
        hostile = {**json.loads(ledger.read_text().splitlines()[0]), "run": "../../etc"}
        ledger.write_text(json.dumps(hostile) + "\n")
        assert read_ledger(ledger) == []


def test_a_local_trial_among_others_cannot_wait_either(site, scheduler, capsys):
    line = [word for word in LINE if word != "cluster=local"]
    assert main([*line, "cluster=box,local", "begin=now+1hour", "--dry-run"]) == 2
    assert "begin=now+1hour: only Slurm lets a run wait" in capsys.readouterr().err


def test_a_sweep_without_m_is_refused(site, scheduler, capsys):
    assert main(["train", *LINE[2:], "sweep=s"]) == 2
    assert "a sweep wants -m" in capsys.readouterr().err


def test_a_dry_run_shows_the_array_and_writes_nothing(site, scheduler, capsys):
    assert (
        main([*LINE[:4], "cluster=box", "cluster.sweep_parallel=2", "seed=1,2,3", "--dry-run"]) == 0
    )
    text = capsys.readouterr().out
    assert text.count("#SBATCH --array=0-2%2\n") == 1
    assert "3 trials (nothing was submitted)\n#   seed = 1, 2, 3 (3 values)\n" in text
    assert text.count("\n# sweep ") == 1  # a line of its own after the script
    assert text.count("\n#   ") == 1  # folded: neither each trial nor the spec is there
    assert "# asks for at most 6 GPU-hours\n" in text
    assert not (site / "runs").exists()


def test_a_sweep_of_another_user_is_not_written(site, scheduler, capsys, monkeypatch):
    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    stand_in = SimpleNamespace(open=denied, O_RDWR=0, O_CREAT=0)  # root may open everything
    monkeypatch.setattr("hpc.jobs.sweep.ledger.os", stand_in)
    _, err = train(capsys, "seed=1,2", "sweep=theirs", code=2)
    assert "the sweep theirs is not yours to write" in err and "sweep=NAME" in err
    assert scheduler.arrays == []
