"""Memory, preemption and a cloud's node on the box's real Slurm, with the stand-in task."""

from __future__ import annotations

import pytest

from hpc.jobs.run.files import StatusFile, read_run_file
from tests.hpc.jobs.slurm.test_site_jobs import (  # noqa: F401  the fixture
    BoxCheckout,
    box,
    job_of,
    ranks_begun,
    slurm,
    until,
)

pytestmark = [pytest.mark.site, pytest.mark.timeout(300)]


def why(box: BoxCheckout, run: str) -> str:  # noqa: F811
    done = box.lockgate("why", run)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_rank_above_its_memory_is_ended_and_one_below_it_is_not(box):  # noqa: F811
    small = box.train("cluster.mem_gb=0.3")
    assert box.lockgate("logs", small.name, "-f").returncode == 0
    run = box.train("task.behaviour=eat", "cluster.mem_gb=0.3", "cluster.max_requeues=0")
    assert box.lockgate("logs", run.name, "-f").returncode == 1
    answer = why(box, run.name)
    assert "it used more memory than the job asked for (cluster.mem_gb=0.3" in answer, answer


def test_a_preempted_run_saves_gives_way_and_comes_back(box):  # noqa: F811
    whole = ("cluster.cpus_per_task=2", "cluster.nodes=2")
    gives_way = box.train("task.behaviour=wait", "cluster.partition=preemptable", *whole)
    until(ranks_begun(gives_way), "both ranks at work")
    first = box.train(*whole)
    assert box.lockgate("logs", first.name, "-f").returncode == 0
    followed = box.lockgate("logs", gives_way.name, "-f")
    assert followed.returncode == 0, followed.stdout
    assert "attempt 1 saved and stopped (SIGUSR2)" in followed.stdout
    assert read_run_file(StatusFile, gives_way.status).value.attempt == 2


@pytest.mark.full
def test_a_cloud_node_comes_for_a_job_and_goes_after_it(box):  # noqa: F811
    until(lambda: state_of("n3") == "idle~", "n3 is off")
    run = box.train("cluster.nodes=3")
    # A slurmd is up in two seconds; Slurm takes ten more to start the job.
    until(lambda: "Its nodes are chosen, and" in why(box, run.name), "the wait for n3", 30)
    assert box.lockgate("logs", run.name, "-f").returncode == 0
    nodes = slurm("sacct", "-X", "-n", "-P", f"--jobs={job_of(run)}", "--format=NodeList")
    assert nodes.strip() == "n[1-3]"
    until(lambda: state_of("n3") == "idle~", "n3 is off again")


def state_of(node: str) -> str:
    return slurm("sinfo", "--noheader", "--format=%T", f"--nodes={node}").split()[0]


@pytest.mark.full
def test_an_unfit_node_ends_the_attempt_and_the_next_one_is_elsewhere(box):  # noqa: F811
    unfit = ("cluster.nodes=1", "cluster.preflight_s=30", "cluster.scratch=/gone")
    run = box.train(*unfit, "cluster.max_requeues=1")
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 1
    assert "node n1 is not fit to train: /gone cannot be written" in followed.stdout
    assert "node n2 is not fit to train: /gone cannot be written" in followed.stdout
    assert run.excluded_nodes.read_text() == "n1,n2\n"
    assert "node n2 is not fit to train" in why(box, run.name)
