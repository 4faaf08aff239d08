"""A search from the command line, without processes: the ledger, its rest, and the refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from conf.errors import FAILED, INTERRUPTED
from hpc.cli.main import main
from hpc.jobs.backend import BACKENDS
from hpc.jobs.run.files import StatusFile, TrialFile, read_run_file, write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.spec.sweeper import SweeperConfig
from hpc.jobs.sweep.driver import SweepDriver
from hpc.jobs.sweep.ledger import ledger_path, newest_lines, read_ledger
from hpc.jobs.sweep.standings import ObjectiveFile, write_objective
from tests.hpc.jobs.sweep.test_sweeps import LINE, Scheduler

SEARCH = [*LINE, "sweeper=optuna", "sweeper.poll_s=0.1", "optim.lr=tag(log,interval(1e-5,1e-2))"]


class Finishing(Scheduler):
    """Trials end at once: at lr below 1e-4 they fail, the others finish with a loss."""

    interrupt_at: int | None = None

    def submit(self, cluster, run, digest, variables):
        if self.interrupt_at is not None and len(self.single) >= self.interrupt_at:
            raise KeyboardInterrupt
        job = super().submit(cluster, run, digest, variables)
        lr = read_run_file(TrialFile, run.trial).value.values["optim.lr"]
        if lr < 1e-4:
            run.failure.write_text(
                json.dumps(
                    {
                        "attempt": 1,
                        "ended": "",
                        "error": {"type": "E", "message": "loss is nan", "rank": 0},
                    }
                )
            )
        else:
            run.metrics.write_text(json.dumps({"step": 5, "loss": lr}) + "\n")
            write_run_file(run.status, StatusFile("finished", 1))
        return job


def use(backend: Scheduler, monkeypatch) -> None:
    """Make `backend` that of cluster=local."""
    monkeypatch.setattr("hpc.jobs.backend.BACKENDS", {**BACKENDS, "local": backend})
    monkeypatch.setattr("hpc.jobs.queue.BACKENDS", {**BACKENDS, "local": backend})


@pytest.fixture()
def finishing(monkeypatch) -> Finishing:
    made = Finishing()
    use(made, monkeypatch)
    monkeypatch.setattr("hpc.jobs.local.backend.job_is_alive", lambda _: False)
    return made


def values(site: Path, name: str) -> list[float]:
    """The learning rates of the ledger in the order of the trials."""
    lines = newest_lines(read_ledger(ledger_path(site / "runs", name))).values()
    return [line.values["optim.lr"] for line in lines]


def test_a_search_goes_on_after_ctrl_c_with_what_it_would_have_sent(site, finishing, capsys):
    assert main([*SEARCH, "sweep=whole", "sweeper.trials=4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    states = [one["state"] for one in found["trials"]]
    assert sorted(set(states)) == ["failed", "finished"] and len(states) == 4
    best = min(one["values"]["optim.lr"] for one in found["trials"] if one["state"] == "finished")
    assert found["trials"][0]["values"]["optim.lr"] == best  # the loss is the learning rate
    assert found["best"] == found["trials"][0]["run"]

    finishing.interrupt_at = len(finishing.single) + 1
    assert main([*SEARCH, "sweep=parts", "sweeper.trials=3", "--json"]) == INTERRUPTED
    err = capsys.readouterr().err
    assert "no longer driven: none of its trials runs, and no more are sent" in err
    assert "The same line goes on with it; see: lockgate ls --sweep parts" in err
    finishing.interrupt_at = None
    assert main([*SEARCH, "sweep=parts", "sweeper.trials=3"]) == 0
    out = capsys.readouterr().out
    assert "trial 3 of 3" in out and "\nbest: " in out and "(E: loss is nan" in out

    sent = len(finishing.single)
    assert main([*SEARCH, "sweep=parts", "sweeper.trials=3", "--json"]) == 0
    assert len(finishing.single) == sent  # nothing is missing
    assert main([*SEARCH, "sweep=parts", "sweeper.trials=4", "--json"]) == 0
    assert len(finishing.single) == sent + 1
    assert values(site, "parts") == values(site, "whole")
    capsys.readouterr()


def test_trials_that_all_fail_end_the_search_with_their_reason(site, finishing, capsys):
    line = [*SEARCH[:-1], "optim.lr=interval(1e-6,1e-5)", "sweep=bad", "sweeper.trials=9"]
    assert main([*line, "--json"]) == FAILED
    err = capsys.readouterr().err
    assert "the first 3 trials of the sweep bad ended without finishing" in err
    assert "loss is nan" in err and "lockgate why" in err
    assert len(finishing.single) == 3


def test_a_metric_that_no_trial_has_names_the_nearest(site, finishing, capsys):
    line = [*SEARCH[:-1], "optim.lr=interval(1e-3,1e-2)", "sweep=m", "sweeper.metric=los"]
    assert main(line) == 2
    assert "sweeper.metric=los: a trial has finished" in (err := capsys.readouterr().err)
    assert "Nearest: loss" in err


def test_a_typed_direction_ranks_in_ls_too(site, finishing, capsys):
    line = [*SEARCH[:-1], "optim.lr=interval(1e-3,1e-2)", "sweep=d", "sweeper.trials=2"]
    assert main([*line, "sweeper.direction=maximize"]) == 0
    capsys.readouterr()
    assert main(["ls", "--sweep", "d", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    lrs = [one["values"]["optim.lr"] for one in found["trials"]]
    assert (found["lower_is_better"], lrs) == (False, sorted(lrs, reverse=True))


def test_a_dry_run_of_a_search_has_its_axes_and_hours_and_writes_nothing(site, capsys):
    assert main([*SEARCH, "sweeper.trials=12", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert (
        "12 trials (nothing was submitted)\n#   optim.lr = tag(log,interval(1e-5,1e-2))\n" in text
    )
    assert "# asks for at most 24 CPU-hours\n" in text
    assert text.count("hpc.jobs.local.launcher") == 1
    assert not (site / "runs").exists()


def test_a_sweep_in_a_file_with_its_ranges(site, finishing, capsys, tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "conf" / "sweeper").mkdir(parents=True)
    (project / "lockgate.yaml").write_text("name: mine\nsite: box\n")
    (project / "conf" / "sweeper" / "mine.yaml").write_text(
        "defaults: [optuna, _self_]\ntrials: 3\npoll_s: 0.1\n"
        "params:\n  optim.lr: tag(log, interval(1e-4, 1e-2))\n  seed: 1,2,3\n"
    )
    monkeypatch.chdir(project)
    monkeypatch.setenv("LOCKGATE_PROJECT", str(project))  # what `main` sets ends with the test
    monkeypatch.setattr("sys.path", [*sys.path])
    assert main([*LINE, "sweeper=mine", "seed=7", "sweep=f", "--json"]) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert [list(one["values"]) for one in trials] == [["optim.lr"]] * 3  # the line's seed wins


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep.sampler=optuna"], "type sweeper=optuna"),
        (["sweep.trials=40"], "type sweeper.trials=40"),
        (["sweep.parallel=8"], "type cluster.sweep_parallel=8"),
        (["sweeper=optun"], "Nearest: optuna"),
        (["sweeper.sampler=tp", "seed=1,2"], "Nearest: tpe"),
        (["sweeper.stop=medain", "seed=1,2"], "Nearest: median"),
        (["sweeper.direction=max", "seed=1,2"], "Nearest: maximize"),
        (["sweeper.trials=3", "seed=1,2"], "a grid has as many trials as its values make"),
        (["sweeper=optuna", "sweeper.trials=0", "seed=1,2"], "sweeper.trials=0: must be 1"),
        (["sweeper=optuna"], "wants ranges to choose from"),
        (["sweeper=optuna", "seed=1,2", "begin=now+1hour"], "Leave it out"),
        (["sweeper=optuna", "seed=1,2", "--retry-failed"], "raise sweeper.trials"),
        (["optim.lr=interval(0,1)"], "Let Optuna choose, with sweeper=optuna"),
    ],
)
def test_a_mistake_names_what_to_type(site, capsys, words, said):
    assert main([*LINE, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (site / "runs").exists()


def test_a_sweeper_without_m_is_refused(site, capsys):
    assert main(["train", *LINE[2:], "sweeper=optuna"]) == 2
    assert "wants -m" in capsys.readouterr().err


def test_only_by_the_metric_of_the_line_is_a_trial_ended(site, capsys, monkeypatch):
    use(Scheduler(), monkeypatch)
    monkeypatch.setattr("hpc.jobs.local.backend.job_is_alive", lambda _: True)
    assert main([*LINE, "seed=1,2,3", "sweep=w", "--json"]) == 0
    for number, one in enumerate(json.loads(capsys.readouterr().out)):
        run = Run(site / "runs" / one["run"])
        line = {"step": 500, "loss": number, "validation_auc": number}
        run.metrics.write_text(json.dumps(line) + "\n")
        write_run_file(run.status, StatusFile("running", 1))
    ended: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "hpc.jobs.sweep.driver.cancel", lambda run, _, why: ended.append((run.name, why))
    )
    for metric, value in (("validation_f1", None), ("loss", "2"), ("validation_auc", "0")):
        ended.clear()
        config = SweeperConfig(stop="median", metric=metric, startup_trials=2)
        write_objective(site / "runs", "w", ObjectiveFile(metric))
        SweepDriver(site / "runs", "w", config, None).advance()
        said = [why.partition(" at ")[0] for _, why in ended]
        assert said == ([f"stopped early: best {metric} {value}"] if value else [])
