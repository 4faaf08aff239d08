from __future__ import annotations

from pathlib import Path

import pytest

from conf import ConfigError
from hpc.jobs.spec.environment import environment_of, installed_packages
from hpc.jobs.spec.snapshot import SourceSnapshot
from hpc.jobs.variables import job_variables
from tests.hpc.jobs.clusters import slurm_cluster

SNAPSHOT = SourceSnapshot(Path("/runs/snapshots/abc"), None)


def variables(cluster=None, **ambient: str) -> dict[str, str]:
    return job_variables(cluster or slurm_cluster(), SNAPSHOT, "/site", {"PATH": "/bin", **ambient})


def test_a_job_starts_with_nothing_of_the_submitters_but_what_is_named():
    cluster = slurm_cluster(pass_environment=["WANTED"])
    got = variables(cluster, WANTED="yes", UNWANTED="no", HOME="/home/me", PYTHONPATH="/mine")
    assert got["WANTED"] == "yes"
    assert got["HOME"] == "/home/me"
    assert "UNWANTED" not in got
    assert got["PYTHONPATH"] == "/runs/snapshots/abc"


def test_a_job_finds_its_project_in_its_snapshot_and_only_there():
    assert variables(LOCKGATE_PROJECT="/home/me/digits")["LOCKGATE_PROJECT"] == ""
    snapshot = SourceSnapshot(Path("/runs/snapshots/abc"), Path("/runs/snapshots/abc/project"))
    got = job_variables(slurm_cluster(), snapshot, "/site", {"PATH": "/bin"})
    assert got["PYTHONPATH"] == "/runs/snapshots/abc:/runs/snapshots/abc/project"
    assert got["LOCKGATE_PROJECT"] == "/runs/snapshots/abc/project"


def test_submitting_from_inside_a_job_leaves_that_job_behind_but_not_the_cluster():
    got = variables(
        SLURM_JOB_ID="1", SLURM_CPU_BIND="x", SBATCH_PARTITION="p", RANK="1", SLURM_CONF="/etc/s"
    )
    assert not {"SLURM_JOB_ID", "SLURM_CPU_BIND", "SBATCH_PARTITION", "RANK"} & set(got)
    assert got["SLURM_CONF"] == "/etc/s"


def test_the_clusters_own_slurm_conf_comes_first():
    assert variables(slurm_cluster(slurm_conf="/box"), SLURM_CONF="/etc/s")["SLURM_CONF"] == "/box"
    assert "SLURM_CONF" not in variables(slurm_cluster(kind="local"), SLURM_CONF="/etc/s")


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(ConfigError, match="names MISSING, which is not set here"):
        variables(slurm_cluster(pass_environment=["MISSING"]))


def test_threads_follow_the_cores_of_a_rank():
    assert variables(slurm_cluster(cpus_per_task=7))["OMP_NUM_THREADS"] == "7"


def test_the_environment_is_known_by_its_packages():
    packages = installed_packages()
    assert "submitit==" in "\n".join(packages)
    assert environment_of(packages) == environment_of(list(packages))
    assert environment_of(packages) != environment_of([*packages, "left-pad==1.0"])
