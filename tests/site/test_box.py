"""The box as its users meet it: healthy, idempotent, running jobs, its hosts pinned."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from conf.credentials import ALERTMANAGER, MLFLOW, PROMETHEUS, own_account
from scripts.box import processes
from scripts.box.waiting import wait_until

pytestmark = pytest.mark.site


def test_every_daemon_is_healthy(box: Any) -> None:
    status = box.status()
    assert [d["name"] for d in status["daemons"] if not d["healthy"]] == []
    assert status["healthy"] is True
    off = [daemon for daemon in status["daemons"] if daemon["state"] == "stopped"]
    assert {daemon["name"] for daemon in off} <= {"slurmd-n3"}, "only a cloud's node may be off"
    for daemon in status["daemons"]:
        if daemon in off:
            continue
        assert Path(f"/proc/{daemon['pid']}").exists(), daemon["name"]
        assert Path(daemon["log"]).exists(), daemon["name"]


def test_no_daemon_and_no_child_of_one_can_gain_privileges(box: Any) -> None:
    can = []
    for process in processes.of_site(box.site):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except FileNotFoundError:
            continue  # it ended meanwhile
        if "NoNewPrivs:\t1\n" not in status:
            can.append(processes.process_line(process))
    assert can == []
    shown = box.run("train", "srun", "grep", "NoNewPrivs", "/proc/self/status")
    assert shown.split() == ["NoNewPrivs:", "1"]


def test_up_over_a_box_that_is_up_changes_nothing(box: Any) -> None:
    before = box.pids()
    assert box.command("up").returncode == 0
    assert box.pids() == before


def test_each_identity_is_a_user_of_its_own(box: Any) -> None:
    roles = ("train", "release", "deploy", "host", "triton", "observe")
    assert len({box.run(role, "id", "-u") for role in roles}) == len(roles)


@pytest.mark.parametrize(
    ("role", "path"),
    [
        ("train", "release_key"), ("train", "deploy_key"), ("deploy", "release_key"),
        ("release", "release_key"),
        ("triton", "release_key"), ("observe", "deploy_key"),
    ],
)  # fmt: skip
def test_no_identity_reads_anothers_key(box: Any, role: str, path: str) -> None:
    done = box.command("as", role, "cat", str(getattr(box.site.paths, path)))
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("role", "path"),
    [
        ("triton", "hosts/use1-a/model-repository"), ("host", "hosts/use1-a/etc"),
        ("train", "store"), ("deploy", "store"), ("release", "runs"), ("train", "journal"),
    ],
)  # fmt: skip
def test_no_identity_writes_where_another_answers(box: Any, role: str, path: str) -> None:
    done = box.command("as", role, "touch", f"{box.site.root}/{path}/intruder")
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_a_job_runs_on_two_nodes_with_its_gpus_and_is_accounted(box: Any) -> None:
    script = "echo $SLURM_JOB_ID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $(hostname)"
    said = box.run(
        "train", "srun", "--nodes=2", "--ntasks=2", "--gres=gpu:2", "--job-name=box-test",
        "bash", "-c", script,
    )  # fmt: skip
    rows = sorted(line.split() for line in said.splitlines())
    assert [row[1:3] for row in rows] == [["n1", "0,1"], ["n2", "0,1"]]
    job = rows[0][0]

    def accounted() -> bool:
        line = box.run("train", "sacct", "-nXP", "-j", job, "-o", "state,allocnodes,user,alloctres")
        return line.startswith("COMPLETED|2|lg-train|") and "gres/gpu=4" in line

    assert wait_until(accounted, 30), "not accounted within 30 s"


@pytest.mark.parametrize("user", ["nobody", "lg-release", "lg-observe"])
def test_the_partition_refuses_jobs_of_others(box: Any, user: str) -> None:
    done = subprocess.run(
        ["runuser", "-u", user, "--", "sbatch", "--parsable", "--begin=now+1hour", "--chdir=/",
         "--output=/dev/null", "--wrap", "true"],
        env={**os.environ, "SLURM_CONF": str(box.site.paths.slurm_conf)}, cwd="/",
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "User's group not permitted to use this partition" in done.stderr


def test_who_only_watches_sees_every_node_and_no_sinfo_is_empty(box: Any) -> None:
    """The partition takes no jobs of observe; without --all Slurm would hide it from observe."""
    url = f"http://127.0.0.1:{box.site.ports.slurm_exporter}/metrics"

    def nodes() -> float:
        with urllib.request.urlopen(url, timeout=10) as page:
            text = page.read().decode()
        found = re.findall(r'^lockgate_slurm_nodes\{state="\w+"\} (\S+)$', text, re.MULTILINE)
        return sum(map(float, found))

    assert wait_until(lambda: nodes() == box.site.slurm.all_nodes, 30), nodes()


def test_jobs_of_one_cpu_and_one_gpu_share_the_nodes(box: Any) -> None:
    submit = ("sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1", "--gres=gpu:1",
              "--output=/dev/null", "--wrap", "srun sleep 30")  # fmt: skip
    jobs = [box.run("train", *submit).strip() for _ in range(2)]
    try:
        wanted = ("squeue", "-h", "-j", ",".join(jobs), "-o", "%T")

        def both_running() -> bool:
            return box.run("train", *wanted).split() == ["RUNNING", "RUNNING"]

        assert wait_until(both_running, 60), "the jobs do not share the nodes"
    finally:
        box.run("train", "scancel", *jobs)


def ssh(box: Any, host: str, known_hosts: Path | str, *command: str) -> subprocess.CompletedProcess:
    site = box.site
    return box.command(
        "as", "deploy", "ssh", "-F", "/dev/null", "-i", str(site.paths.deploy_key),
        "-o", f"UserKnownHostsFile={known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-p", str(site.ports.ssh),
        f"{site.users.host}@{site.hosts[host].address}", *command,
    )  # fmt: skip


@pytest.mark.parametrize("host", ["use1-a", "use1-b", "usw2-a", "usw2-b"])
def test_every_host_lets_the_deploy_identity_in_and_runs_no_command(box: Any, host: str) -> None:
    done = ssh(box, host, box.site.paths.known_hosts, "id", "-un")
    # 255 would be a connection that was not made; the answer is of the account's forced command.
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "does not run rsync" in done.stderr


def test_a_host_with_another_key_is_refused(box: Any, tmp_path: Path) -> None:
    lines = box.site.paths.known_hosts.read_text().splitlines()
    by_host = dict(zip(box.site.hosts, lines, strict=True))
    # The pinned file says that use1-a has the key of use1-b: what an impostor would look like.
    wrong = by_host["use1-a"].split()[0] + " " + by_host["use1-b"].split(" ", 1)[1]
    pinned = box.site.root / "keys" / f"known_hosts.test-{os.getpid()}"
    pinned.write_text(wrong + "\n")
    try:
        done = ssh(box, "use1-a", pinned, "true")
    finally:
        pinned.unlink()
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_a_host_takes_no_other_identitys_key(box: Any) -> None:
    done = box.command(
        "as", "release", "ssh", "-F", "/dev/null", "-i", str(box.site.paths.release_key),
        "-o", f"UserKnownHostsFile={box.site.paths.known_hosts}", "-o", "BatchMode=yes",
        "-p", str(box.site.ports.ssh), f"{box.site.users.host}@127.0.0.11", "true",
    )  # fmt: skip
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_a_hosts_verifier_may_restart_its_triton_without_root(box: Any) -> None:
    conf = f"{box.site.root}/hosts/usw2-b/etc/supervisord.conf"
    control = (f"{box.site.serving_env}/bin/supervisorctl", "-c", conf)
    assert "RUNNING" in box.run("verify", *control, "status", "triton")
    for role in ("train", "release", "observe", "host"):
        assert box.command("as", role, *control, "status", "triton").returncode != 0, role


def test_model_control_over_http_is_refused(box: Any) -> None:
    url = f"http://127.0.0.11:{box.site.ports.triton_http}/v2/repository/index"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10)
    assert refused.value.code == 403


def authorized(box: Any, service: str, url: str) -> urllib.request.Request:
    """A request of root, which has an account at every service."""
    account = own_account(box.site.paths.passwords, service)
    assert account is not None
    return urllib.request.Request(url, headers={"Authorization": account.header})


@pytest.mark.parametrize(
    ("service", "path", "allowed"),
    [
        (PROMETHEUS, "/api/v1/query?query=up", {"deploy", "observe"}),
        (ALERTMANAGER, "/api/v2/alerts", {"observe"}),
        (MLFLOW, "/api/2.0/mlflow/experiments/get?experiment_id=0",
         {"train", "release", "deploy", "observe"}),
    ],
)  # fmt: skip
def test_a_service_answers_its_own_accounts_only(
    box: Any, service: str, path: str, allowed: set[str]
) -> None:
    url = f"http://127.0.0.1:{getattr(box.site.ports, service)}{path}"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=10)
    assert refused.value.code == 401
    folder = box.site.paths.passwords / service
    answered = set()
    for role in ("train", "release", "sign", "candidate", "deploy", "host", "observe", "mlflow"):
        user = box.site.users.of(role)
        # curl reads the password from a pipe: it is in no command line.
        script = f'printf "user = %s:%s" {user} "$(cat {folder}/{user})" | curl -sf -K - "{url}"'
        if box.command("as", role, "bash", "-c", script).returncode == 0:
            answered.add(role)
        others = [one.name for one in folder.glob("lg-*") if one.name != user]
        reads = [
            one
            for one in others
            if not box.command("as", role, "cat", f"{folder}/{one}").returncode
        ]
        assert reads == [], role
    assert answered == allowed


def test_prometheus_finds_every_target_of_the_site_up(box: Any) -> None:
    def all_up() -> bool:
        url = f"{box.site.prometheus_url}/api/v1/targets"
        with urllib.request.urlopen(authorized(box, PROMETHEUS, url), timeout=10) as page:
            targets = json.load(page)["data"]["activeTargets"]
        down = [
            t["scrapeUrl"] for t in targets if t["health"] != "up" and t["labels"]["job"] != "train"
        ]
        return len(targets) >= 11 and not down

    assert wait_until(all_up, 60), "a target is down"
