"""Rollouts on real sshd, tritonserver and HAProxy, under live traffic.

The tests share one bed of two hosts and go on from what the one before left in production; each
first makes sure of what it needs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from serving.fleet.cli import command, scale
from serving.fleet.cli.host_commands import order_host
from serving.fleet.cli.status import fleet_status
from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.ssh.connection import open_shell
from serving.fleet.ssh.transfer import read_facts
from serving.fleet.ssh.verbs import HostVerbs
from tests.serving.fleet import bed as beds

REPO = Path(__file__).resolve().parents[3]


pytestmark = beds.MARKS

ENOUGH = 5_000
"""Requests by HTTP and gRPC, from before a change of versions to after it."""


@pytest.fixture(scope="module")
def bed():
    made = beds.bed_up(2)
    try:
        made.publish(1, 2.0)
        result = deploy(made)
        assert result.outcome.kind == "done", result.outcome
        yield made
    finally:
        made.down()


def on(bed, **rollout):
    return command.controls(OmegaConf.merge(bed.config, {"rollout": rollout}))


def deploy(bed, version=None, **rollout):
    return command.deploy(on(bed, **rollout), "toy", version, lambda *_: None)


def shell_of(bed, host: str):
    fleet = on(bed).fleet
    return open_shell(fleet.host(host), fleet.ssh_of(fleet.host(host)))


def next_version(bed) -> int:
    return max(int(path.name) for path in (bed.store / "toy").iterdir()) + 1


def factor_now(bed) -> float:
    return bed.ask(1.0)


def sound(bed, version: int) -> None:
    """The fleet serves `version` everywhere, and nothing drifts from it."""
    found = fleet_status(on(bed))
    assert [row.answers for row in found.rows] == [version, version]
    assert not found.drifts, ([row.drift for row in found.rows], found.remarks)


def production(bed) -> int:
    return command.production(on(bed).journal, "toy")


@pytest.mark.parametrize("strategy", ["load", "restart"])
def test_a_rolling_update_under_traffic_fails_no_request(bed, strategy):
    old, new = factor_now(bed), factor_now(bed) + 1
    version = next_version(bed)
    bed.publish(version, new)
    with beds.Load(bed, (old, new)) as load:
        report = deploy(bed, strategy=strategy, steps=[50, 100])
        beds.wait_for(lambda: load.sent >= ENOUGH, 60)
    assert report.outcome.kind == "done", report
    assert load.failures == []
    assert load.seen == {old, new}, "both versions answered while it went on"
    sound(bed, version)
    assert bed.ask(1.0, version=report.previous) == old, "the one before stays ready"
    assert deploy(bed).outcome.kind == "unchanged"


def test_rollback_needs_no_argument_and_fails_no_request(bed):
    version = next_version(bed)
    old, before = factor_now(bed), production(bed)
    bed.publish(version, old + 1)
    deploy(bed)
    began, routed = time.monotonic(), []

    def progress(host: str, step: str, detail: str) -> None:
        routed.extend([time.monotonic() - began] if step == "check" and not routed else [])

    with beds.Load(bed, (old, old + 1)) as load:
        report = command.rollback(on(bed), None, None, progress)
        beds.wait_for(lambda: load.sent >= ENOUGH, 60)
    assert routed[0] < 5, "every edge gives the version before any host is checked"
    assert (report.outcome.kind, report.version, report.previous) == ("done", before, version)
    assert load.failures == []
    assert factor_now(bed) == old
    sound(bed, before)
    with pytest.raises(FleetError, match="deployment"):
        command.rollback(on(bed), "toy", version, lambda *_: None)
    assert deploy(bed, version).outcome.kind == "done"
    with pytest.raises(FleetError, match=f"fab rollback --model toy --version {before}"):
        deploy(bed, before)


def instances(bed, host: str) -> int:
    """The number that the host's Triton has, by its own word."""
    shell = shell_of(bed, host)
    try:
        return read_facts(HostVerbs(shell), "toy").instances
    finally:
        shell.close()


def test_scale_changes_instances_and_hosts_and_fails_no_request(bed):
    factor, served = factor_now(bed), production(bed)
    with beds.Load(bed, (factor,)) as load:
        said = scale.scale_instances(on(bed), "toy", 2, "busy", lambda *_: None)
        assert said == "2 instances of toy on each of 2 hosts; 2 were changed."
        assert (instances(bed, "a"), instances(bed, "b")) == (2, 2)
        scale.scale_hosts(on(bed), "us-east", 1, "night", lambda *_: None)
        assert bed.edge().state("b").admin == "drain"
        found = fleet_status(on(bed))
        assert not found.drifts and found.standby == {"b": "night"}
        with pytest.raises(FleetError, match="last host of us-east"):
            order_host(on(bed), "restart", "a", "", lambda *_: None)
        order_host(on(bed), "restart", "b", "", lambda *_: None)
        assert instances(bed, "b") == 2, "a restarted Triton has them too"
        scale.scale_hosts(on(bed), "us-east", 2, "day", lambda *_: None)
        scale.scale_instances(on(bed), "toy", None, "quiet", lambda *_: None)
    assert load.failures == [] and load.sent > 100
    assert (instances(bed, "a"), instances(bed, "b")) == (1, 1)
    sound(bed, served)


def tampered(bed, how: str) -> int:
    version = next_version(bed)
    package = bed.publish(version, 99.0, key="foreign" if how == "foreign" else "release")
    for folder in (package, package / "version"):
        folder.chmod(0o755)
    weights = package / "version" / "weights.bin"
    weights.chmod(0o644)
    if how == "flip":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(bytes(content))
    elif how == "missing":
        weights.unlink()
    elif how == "extra":
        (package / "version" / "sitecustomize.py").write_text("print('hello')")
    elif how == "link":
        weights.unlink()
        weights.symlink_to("/etc/passwd")
    elif how == "unsigned":
        (package / "manifest.json.sig").write_bytes(b"")
    return version


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("flip", "changed-file"),
        ("missing", "missing-file"),
        ("extra", "extra-file"),
        ("link", "odd-file"),
        ("foreign", "foreign-signature"),
        ("unsigned", "bad-signature"),
    ],
)
def test_a_tampered_package_is_refused_by_the_host(bed, how, reason):
    factor, served = factor_now(bed), production(bed)
    version = tampered(bed, how)
    try:
        with beds.Load(bed, (factor,), clients=1) as load:
            report = deploy(bed, version)
        assert report.outcome.kind == "refused" and report.exit_code == 4
        assert reason in report.outcome.reason
        assert load.failures == [] and load.sent > 0
        sound(bed, served)
        for host in ("a", "b"):
            home = bed.root / "hosts" / host
            assert not (home / "packages" / "toy" / str(version)).exists()
            assert list((home / "staging").iterdir()) == []
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(bed.store)], check=True)
        shutil.rmtree(bed.store / "toy" / str(version))


WRONG, BROKEN = ({"golden": 77.0}, "golden example"), ({"broken": True}, "cannot start")


@pytest.mark.parametrize(
    ("strategy", "options", "reason"),
    [
        ("load", *WRONG),
        ("restart", *BROKEN),
        pytest.param("load", *BROKEN, marks=pytest.mark.full),
        pytest.param("restart", *WRONG, marks=pytest.mark.full),
    ],
)
def test_a_version_that_fails_on_the_canary_is_undone(bed, options, reason, strategy):
    factor, served = factor_now(bed), production(bed)
    version = next_version(bed)
    bed.publish(version, 55.0, **options)
    with beds.Load(bed, (factor,)) as load:
        report = deploy(bed, version, strategy=strategy)
    assert report.outcome.kind == "rolled-back" and report.exit_code == 1, report
    assert reason in report.outcome.reason
    assert load.failures == [], "nobody saw the bad version"
    sound(bed, served)


DRIVER = """
import sys
from omegaconf import OmegaConf
from serving.fleet.cli import command
on = command.controls(OmegaConf.load(sys.argv[1]))
command.deploy(on, "toy", int(sys.argv[2]), lambda *told: print(*told, flush=True))
"""


@pytest.mark.parametrize(
    ("strategy", "step"),
    [
        ("load", "us-east route"),
        pytest.param("restart", "a restart", marks=pytest.mark.full),
        pytest.param("load", "a load", marks=pytest.mark.full),
        pytest.param("load", "b check ", marks=pytest.mark.full),
    ],
)
def test_a_killed_controller_is_continued_by_running_again(bed, strategy, step, tmp_path):
    old, version = factor_now(bed), next_version(bed)
    bed.publish(version, old + 1)
    config = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.merge(bed.config, {"rollout": {"strategy": strategy}}), config)
    with beds.Load(bed, (old, old + 1)) as load:
        controller = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(config), str(version)],
            stdout=subprocess.PIPE, text=True, cwd=REPO,
        )  # fmt: skip
        for line in controller.stdout:
            if f"{line.strip()} ".startswith(step):
                os.kill(controller.pid, signal.SIGKILL)
                break
        assert controller.wait() == -signal.SIGKILL
        assert on(bed).journal.unfinished("toy").version == version
        assert fleet_status(on(bed)).remarks
        report = deploy(bed, version)
    assert report.outcome.kind == "done", report
    assert load.failures == []
    sound(bed, version)


def test_an_interrupted_controller_undoes_what_it_did(bed, tmp_path):
    old, served, version = factor_now(bed), production(bed), next_version(bed)
    bed.publish(version, old + 1)
    config = tmp_path / "config.yaml"
    OmegaConf.save(bed.config, config)
    controller = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(config), str(version)],
        stdout=subprocess.PIPE, text=True, cwd=REPO,
    )  # fmt: skip
    for line in controller.stdout:
        if line.startswith("b load"):
            controller.terminate()
            break
    controller.stdout.read()
    assert controller.wait() == 0
    sound(bed, served)
    assert factor_now(bed) == old


def test_a_restarted_triton_serves_what_it_served_before_it_takes_requests(bed):
    factor, served = factor_now(bed), production(bed)
    supervisord = (bed.root / "hosts" / "a" / "run" / "supervisord.pid").read_text().strip()
    found = subprocess.run(["pgrep", "-P", supervisord], capture_output=True, text=True, check=True)
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    beds.wait_for(lambda: not bed.edge().state("a").up, 30)
    beds.wait_for(lambda: bed.edge().state("a").up, 60)
    sound(bed, served)
    assert {bed.ask(1.0) for _ in range(8)} == {factor}


def test_a_host_with_another_key_is_refused_and_nothing_is_sent(bed):
    known = bed.root / "keys" / "known_hosts"
    right = known.read_text()
    other = (bed.root / "keys" / "foreign.pub").read_text().split()[:2]
    address = right.splitlines()[0].split()[0]
    try:
        known.write_text(f"{address} {' '.join(other)}\n" + right.splitlines()[1] + "\n")
        with pytest.raises(Unreachable, match=r"showed another host key"):
            shell_of(bed, "a")
        known.write_text(right.splitlines()[1] + "\n")
        with pytest.raises(Unreachable, match="has no host key in"):
            shell_of(bed, "a")
        version = next_version(bed)
        bed.publish(version, 5.0)
        with pytest.raises(FleetError, match="Nothing was changed"):
            deploy(bed, version)
        assert not (bed.root / "hosts" / "b" / "packages" / "toy" / str(version)).exists()
    finally:
        known.write_text(right)
    shutil.rmtree(bed.store / "toy" / str(version))


def test_model_control_does_not_pass_the_edge(bed):
    import urllib.error
    import urllib.request

    for path in ("/v2/repository/models/toy/unload", "/v2/repository/index"):
        request = urllib.request.Request(bed.url() + path, b"{}", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 403
    assert factor_now(bed)


def test_a_door_that_is_down_fails_no_request_by_grpc(bed):
    (door,) = [one for one in bed.processes if str(bed.root / "hosts/a/etc/door.cfg") in one.args]
    door.kill()
    door.wait()
    try:
        with beds.Load(bed, (factor_now(bed),), clients=0) as load:
            beds.wait_for(lambda: load.sent > 30, 30)
    finally:
        bed.processes[bed.processes.index(door)] = subprocess.Popen(door.args)
    assert load.failures == []
