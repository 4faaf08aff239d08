from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conf import ConfigError, options
from hpc.cli.ls import age
from hpc.cli.main import main
from hpc.cli.site import run_word
from hpc.jobs.run.files import JobFile, StatusFile, write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm import limits
from tests.hpc.jobs.spec.test_job_spec import spec_of
from tests.hpc.jobs.standin import publish_toy

TASK = f"task={options('task')[0]}"
ANSWERS = {
    "scontrol": "PartitionName=gpu Default=YES MaxTime=UNLIMITED TotalNodes=2\n",
    "sinfo": "n1|gpu|2|8192|gpu:2\nn2|gpu|2|8192|gpu:2\n",
}


@pytest.fixture()
def site(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    return tmp_path


def finished(site: Path, name: str) -> Run:
    run = Run(site / "runs" / name)
    run.logs.mkdir(parents=True)
    spec_of({"steps": 10, "cluster": {"kind": "slurm"}}).write(run.spec_path)
    submitted = (datetime.now(UTC) - timedelta(hours=3, minutes=5)).isoformat()
    write_run_file(run.job, JobFile("slurm", "4", submitted, "train", 2))
    write_run_file(run.status, StatusFile("finished", 1))
    run.metrics.write_text('{"step": 10, "loss": 0.25}\n')
    (run.logs / "1-0.log").write_text("step 10/10\n")
    return run


def test_ls_shows_what_a_researcher_asks(site, capsys):
    finished(site, "flights-20260101-000001-aaaaaa")
    assert main(["ls"]) == 0
    text = capsys.readouterr().out
    for word in ("flights-20260101-000001-aaaaaa", "finished", "10/10", "3h 05m", "0.25"):
        assert word in text
    assert main(["ls", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["step"], row["steps"], row["loss"]) == ("finished", 10, 10, 0.25)


def test_ls_of_nothing_says_what_to_type_next(site, capsys):
    assert main(["ls"]) == 0
    assert "lockgate train task=" in capsys.readouterr().out


def test_logs_of_a_finished_run(site, capsys):
    run = finished(site, "flights-20260101-000001-aaaaaa")
    assert main(["logs", "aaaaaa"]) == 0
    assert capsys.readouterr().out == "1:0 | step 10/10\n"
    assert main(["logs", "-f", run.name]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{run.name} finished"


@pytest.mark.parametrize("verb", ["show", "compare", "logs", "cancel", "export"])
def test_an_unknown_run_is_answered_with_the_nearest(verb, site, capsys):
    finished(site, "flights-20260101-000001-aaaaaa")
    assert main([verb, "run=flights-20260101-000001-aaaaab"]) == 2
    assert "Nearest: flights-20260101-000001-aaaaaa" in capsys.readouterr().err


def test_cancel_of_what_is_over_changes_nothing(site, capsys):
    run = finished(site, "flights-20260101-000001-aaaaaa")
    assert main(["cancel", "last"]) == 0
    assert "was over already: finished" in capsys.readouterr().out
    assert not run.cancelled.exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lrr=1", r"optim.lrr: there is no such key in train. Nearest: optim.lr"),
        ("cluster=bax", "cluster=bax: there is no such cluster. Nearest: box"),
        ("cluster=null", "cluster: choose one of box, "),
        ("seed", "override 'seed' does not parse"),
        ("seed=1,2", "seed=1,2 names several values; a sweep wants -m"),
        ("cluster.partition=a,b", "a text with a comma wants quotes: 'cluster.partition=\"a,b\"'"),
        ("+init=a=b c", "where its value is one text, quote it: '+init=\"a=b c\"'"),
        ("init=ckpt/epoch=9-step=1.pt", "init: there is no such key in train. Nearest: init_from"),
        ("cluster.exclude='n1','n2'", "a sweep never runs over nodes"),
    ],
)
def test_a_mistyped_override_names_what_is_near(override, said, site, capsys):
    assert main(["train", TASK, override]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_dataset_that_was_not_prepared_names_the_next_command(site, capsys):
    assert main(["train", "task=flights", "cluster=local"]) == 2
    assert "lockgate data prepare data=flights" in capsys.readouterr().err
    assert not (site / "runs").exists()


def test_without_the_cluster_there_is_one_sentence_and_no_folder(site, capsys, monkeypatch):
    publish_toy(site)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert main(["train", TASK, "task.dataset=toy"]) == 5
    err = capsys.readouterr().err
    assert "there is no Slurm cluster" in err
    assert "cluster=local" in err
    assert len(err.splitlines()) == 1
    assert not (site / "runs").exists()


def test_root_does_not_train_on_the_cluster(site, capsys, monkeypatch):
    publish_toy(site)
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert main(["train", TASK, "task.dataset=toy"]) == 2
    assert "scripts/site as train" in capsys.readouterr().err
    assert not (site / "runs").exists()


def test_a_dry_run_shows_script_and_spec_and_writes_nothing(site, capsys):
    publish_toy(site)
    assert main(["train", TASK, "task.dataset=toy", "--dry-run", "seed=77"]) == 0
    text = capsys.readouterr().out
    assert "#SBATCH --nodes=2" in text
    assert "seed: 77" in text
    assert main(["train", "-m", TASK, "task.dataset=toy", "--dry-run", "--json", "seed=1,2"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert [ready["spec"]["config"]["seed"] for ready in plans] == [1, 2]
    assert not (site / "runs").exists()


def test_runs_of_one_sweep_that_repeat_another_are_merged_and_counted(site, capsys):
    publish_toy(site)
    words = ["seed=2,1,2", "steps=1000,1e3", "cluster.exclude=n1,n2"]
    assert main(["train", "-m", TASK, "task.dataset=toy", "--dry-run", "--json", *words]) == 0
    out, err = capsys.readouterr()
    assert [ready["spec"]["config"]["seed"] for ready in json.loads(out)] == [2, 1]
    assert err == "lockgate: merged as repetitions: 4 of 6 runs\n"
    assert main(["train", TASK, "task.dataset=toy", "--dry-run", *words[2:]]) == 0
    out, err = capsys.readouterr()
    assert "#SBATCH --exclude=n1,n2\n" in out and err == ""


def test_a_run_that_no_partition_can_hold_is_refused_before_anything_is_sent(
    site, capsys, monkeypatch
):
    publish_toy(site)
    seen = []
    monkeypatch.setattr(limits, "controller_is_up", lambda _: True)
    monkeypatch.setattr(
        limits, "query", lambda command, _: seen.append(command) or ANSWERS[command[0]]
    )
    line = ["train", "-m", TASK, "task.dataset=toy", "cluster.partition=gpu", "seed=1,2,3"]
    assert main([*line, "--dry-run"]) == 0
    assert len(seen) == 2  # once for three runs
    capsys.readouterr()
    assert main([*line, "cluster.nodes=2,5"]) == 2
    assert "cluster.nodes=5: 5 nodes asked, partition gpu has 2" in capsys.readouterr().err
    assert not (site / "runs").exists()


def test_cfg_job_shows_keys_that_can_be_overridden(site, capsys):
    assert main(["train", TASK, "--cfg", "job"]) == 0
    assert "micro_batch_size:" in capsys.readouterr().out
    assert main(["train", TASK, "seed=5", "--cfg", "job", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5


def test_doctor_names_what_is_missing_and_what_to_do(site, capsys):
    assert main(["doctor", "--json"]) == 5
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "lockgate data prepare" in found["data"]["detail"]
    assert not found["Slurm controller"]["fine"]


def test_one_run_is_named_in_any_of_its_spellings():
    assert run_word(["run=a", "site=box"], "logs") == ("a", ["site=box"])
    assert run_word(["site=box", "a"], "logs") == ("a", ["site=box"])
    for words in ([], ["a", "b"], ["run="]):
        with pytest.raises(ConfigError, match="name one run"):
            run_word(words, "logs")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3 * 3600 + 300, "3h 05m"), (2 * 86400 + 3600, "2d 01h")],
)
def test_age(seconds, text):
    now = datetime(2026, 1, 10, tzinfo=UTC)
    assert age((now - timedelta(seconds=seconds)).isoformat(), now) == text
    assert age(None, now) == ""
