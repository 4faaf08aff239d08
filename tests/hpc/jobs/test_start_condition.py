"""`after=RUN` and `begin=TIME` as options of sbatch, and where they make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import ConfigError
from conf.user import user_name
from hpc.jobs.errors import UnknownRun, UsageError
from hpc.jobs.run.files import JobFile, StatusFile, write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm import jobs as slurm_jobs
from hpc.jobs.slurm.sbatch import script
from hpc.jobs.spec.sending import SendingConfig
from hpc.jobs.start_condition import start_options, with_options
from tests.hpc.jobs.clusters import slurm_cluster
from tests.hpc.jobs.spec.test_job_spec import spec_of

CLUSTER = slurm_cluster(slurm_conf="/etc/slurm.conf")
LOCAL = slurm_cluster(kind="local", max_requeues=1)


@pytest.fixture()
def runs(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(slurm_jobs, "controller_is_up", lambda _: False)
    monkeypatch.setattr(slurm_jobs, "query", lambda *_: "")
    return tmp_path


def make_run(runs: Path, name: str, job: JobFile | None, state: str | None = None) -> Run:
    run = Run(runs / f"{name}-20260101-000001-aaaaaa")
    run.folder.mkdir()
    spec_of({"cluster": {"kind": "slurm", "slurm_conf": "/etc/slurm.conf"}}).write(run.spec_path)
    if job:
        write_run_file(run.job, job)
    if state:
        write_run_file(run.status, StatusFile(state, 1))  # type: ignore[arg-type]
    return run


def job(job_id: str, kind: str = "slurm", conf: str = "/etc/slurm.conf") -> JobFile:
    return JobFile(kind, job_id, "", user_name(), 1, conf)


def options(runs: Path, after: str | None = None, begin: str | None = None) -> dict[str, str]:
    return start_options(SendingConfig(after=after, begin=begin), CLUSTER, runs)


def test_a_run_waits_for_jobs_that_have_not_finished(runs):
    make_run(runs, "a", job("12"))
    make_run(runs, "b", job("13_4"))
    make_run(runs, "done", job("11"), "finished")
    assert options(runs) == {}
    assert options(runs, after="a-,b-,done-") == {"dependency": "afterok:12:13_4"}
    assert options(runs, after="done-") == {}
    found = options(runs, after="a-", begin="now+1hour")
    text = script(with_options(CLUSTER, found), Run(Path("/runs/x")))
    assert "#SBATCH --dependency=afterok:12\n" in text
    assert "#SBATCH --begin=now+1hours\n" in text


def test_a_run_that_can_never_finish_is_no_condition(runs):
    run = make_run(runs, "a", job("12"), "running")
    run.failure.write_text(
        '{"attempt": 1, "ended": "", "error": {"type": "E", "message": "", "rank": 0}}'
    )
    with pytest.raises(UsageError, match=f"after={run.name}: it is failed, .* would never start"):
        options(runs, after="a-")
    with pytest.raises(UnknownRun, match="Nearest: a-2026"):
        options(runs, after="a-2027")


def test_a_run_of_another_slurm_cannot_be_waited_for(runs):
    make_run(runs, "a", job("12", conf="/other/slurm.conf"))
    with pytest.raises(UsageError, match="no job in the Slurm of this cluster"):
        options(runs, after="a-")


@pytest.mark.parametrize(
    ("sending", "words"),
    [
        (SendingConfig(begin="noon"), "begin=noon: only Slurm lets a run wait"),
        (SendingConfig(after="a"), "after=a: only Slurm lets a run wait"),
    ],
)
def test_the_local_cluster_refuses_both_by_name(runs, sending, words):
    with pytest.raises(ConfigError, match=words):
        start_options(sending, LOCAL, runs)
    assert start_options(SendingConfig(), LOCAL, runs) == {}


@pytest.mark.parametrize(("name", "key"), [("dependency", "after"), ("begin", "begin")])
def test_one_thing_is_not_set_twice(name, key):
    cluster = slurm_cluster(additional_parameters={name: "x"})
    with pytest.raises(ConfigError, match=f"{key}=... beside cluster.additional_parameters.{name}"):
        with_options(cluster, {name: "y"})
    assert with_options(cluster, {}) is cluster
