"""`lockgate ls` of a sweep: its trials by their metric, the best named, values in few letters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.cli.main import main
from hpc.jobs.run.files import JobFile, StatusFile, TrialFile, write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.ranking import lower_is_better, ranking_name
from hpc.jobs.run.swept_values import values_text
from hpc.jobs.sweep.ledger import LedgerLine, append_lines, ledger_path
from tests.hpc.jobs.spec.test_job_spec import spec_of

ROWS = [
    # lr, state, metrics of the last line
    (0.1, "finished", {"loss": 0.5, "validation_auc": 0.61, "validation_log_loss": 0.70}),
    (0.01, "finished", {"loss": 0.7, "validation_auc": 0.82, "validation_log_loss": 0.40}),
    (0.001, "running", {"loss": 0.6, "validation_auc": 0.90, "validation_log_loss": 0.30}),
    (1.0, "failed", {}),
    (10.0, None, {}),  # planned, and never sent
]


@pytest.fixture()
def sweep(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    monkeypatch.setattr("hpc.jobs.local.backend.job_is_alive", lambda _: False)
    path = ledger_path(tmp_path / "runs", "lr")
    path.parent.mkdir(parents=True)
    for number, (lr, state, metrics) in enumerate(ROWS):
        name = f"flights-20260101-00000{number}-aaaaaa" if state else ""
        values = {"optim.lr": lr}
        event = "submitted" if state else "planned"
        line = LedgerLine(event, "", "ann", f"{number}", "b", "", "", "", values, name)
        append_lines(path, [line])
        if state is None:
            continue
        run = Run(tmp_path / "runs" / name)
        run.logs.mkdir(parents=True)
        spec_of({"steps": 10, "cluster": {"kind": "local"}}).write(run.spec_path)
        write_run_file(run.job, JobFile("local", "1", "2026-01-01T00:00:00+00:00", "ann", 1))
        write_run_file(run.trial, TrialFile("lr", values))
        write_run_file(run.status, StatusFile("finished" if state == "finished" else "running", 1))
        earlier = {key: 0.99 if "auc" in key else 0.01 for key in metrics}  # the newest counts
        for step, line_of_log in ((5, earlier), (10, metrics)):
            with run.metrics.open("a") as file:
                file.write(json.dumps({"step": step, **line_of_log}) + "\n")
    return tmp_path


def test_trials_come_by_the_held_out_loss_and_the_best_finished_one_is_named(sweep, capsys):
    assert main(["ls", "--sweep", "lr", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["lower_is_better"]) == ("validation_log_loss", True)
    assert [one["values"]["optim.lr"] for one in found["trials"]] == [0.001, 0.01, 0.1, 1.0, 10.0]
    assert found["best"] == "flights-20260101-000001-aaaaaa"  # the better one has not finished
    assert found["trials"][-1]["state"] == "not submitted"
    assert main(["ls", "--sweep", "lr"]) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0].split()[:5] == ["run", "values", "state", "step", "validation_log_loss"]
    assert text[-1] == "best: flights-20260101-000001-aaaaaa  lr=0.01  validation_log_loss 0.4"


def test_another_metric_has_its_own_direction(sweep, capsys):
    assert main(["ls", "--sweep", "lr", "--by", "validation_auc", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["lower_is_better"], found["best"][-15:]) == (False, "1-000001-aaaaaa")
    assert [one["value"] for one in found["trials"]] == [0.90, 0.82, 0.61, None, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sweep", "rl"], "there is no sweep 'rl'. Nearest: lr"),
        (["--sweep", "../runs"], "there is no sweep"),
        (["--sweep", "lr", "--by", "validation_au"], "Nearest: validation_auc"),
    ],
)
def test_what_is_not_there_names_what_is_near(sweep, capsys, words, said):
    assert main(["ls", *words]) == 2
    assert said in capsys.readouterr().err


def test_ls_shows_the_sweep_and_the_swept_values_alone(sweep, capsys):
    assert main(["ls"]) == 0
    text = capsys.readouterr().out
    assert "lr lr=0.01" in text and "sweep" in text
    assert main(["ls", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[1]
    assert (row["sweep"], row["values"]) == ("lr", {"optim.lr": 0.01})


def test_a_trial_file_of_another_form_is_a_problem_of_its_run_alone(sweep, capsys):
    first = Run(sweep / "runs" / "flights-20260101-000000-aaaaaa")
    for content in ('{"sweep": "a b"}', '{"sweep": "lr", "array": "--all"}', "[1", '{"sweep": 3}'):
        first.trial.write_text(content)
        assert main(["ls", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert rows[0]["sweep"] is None
        assert "trial.json" in rows[0]["detail"] or "must be" in rows[0]["detail"]
        assert rows[1]["sweep"] == "lr"


@pytest.mark.parametrize(
    ("logged", "name"),
    [
        ([], None),
        ([["loss"], ["loss"]], "loss"),
        ([["loss", "validation_auc"], ["loss"]], "validation_auc"),
        (
            [["validation_auc", "validation_log_loss", "validation_base_log_loss"]],
            "validation_log_loss",
        ),
        (
            [["validation_accuracy"], ["validation_accuracy", "validation_loss"]],
            "validation_accuracy",
        ),
    ],
)
def test_the_metric_that_ranks(logged, name):
    assert ranking_name(logged) == name


def test_directions():
    assert [lower_is_better(one) for one in ("loss", "validation_rmse", "validation_auc")] == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, ""),
        (None, ""),
        ({"optim.lr": 0.001, "seed": 2}, "lr=0.001 seed=2"),
        ({"a.size": 1, "b.size": 2}, "a.size=1 b.size=2"),
        ({"x": True, "y": "a b"}, "x=true y=a b"),
    ],
)
def test_values_in_few_letters(values, text):
    assert values_text(values) == text
