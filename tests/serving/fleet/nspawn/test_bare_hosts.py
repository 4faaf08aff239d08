"""Bare Debian machines become a serving fleet, one command each, and live through a power cut."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conf.errors import DONE, REFUSED, UNREACHABLE
from serving.fleet.bootstrap import units
from serving.fleet.bootstrap.hardened_unit import NODE_EXPORTER
from tests.serving.fleet.nspawn.bare_fleet import BareFleet, bare_fleet, wait_for
from tests.serving.fleet.nspawn.clients import Clients
from tests.serving.fleet.nspawn.machines import reason_to_skip

pytestmark = [
    pytest.mark.full,
    pytest.mark.slow,
    pytest.mark.triton,
    pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "can be made"),
]

HOSTS = ("h1", "h2", "h3")
QUICK = ("rollout.settle_s=1.0", "rollout.free_disk_mib=64", "rollout.free_shm_mib=16")
EXPOSURE = 3.0


@pytest.fixture(scope="module")
def bare() -> Iterator[BareFleet]:
    fleet = bare_fleet(len(HOSTS))
    try:
        yield fleet
    finally:
        fleet.down()


@pytest.fixture(scope="module")
def fleet(bare: BareFleet) -> BareFleet:
    """Every machine bootstrapped once, all at the same time, and an edge before them."""
    for host in HOSTS:
        done = bare.pin(host)
        assert done.returncode == DONE, done.stderr
    with ThreadPoolExecutor(len(HOSTS)) as pool:
        for done in pool.map(bare.bootstrap, HOSTS):
            assert done.returncode == DONE, done.stdout + done.stderr
            assert "is live, what it has is verified" in done.stdout
    bare.edge_up()
    return bare


def test_an_unpinned_host_is_not_touched(bare: BareFleet) -> None:
    done = bare.bootstrap("h1")
    assert done.returncode != DONE and "fab pin h1 --fingerprint" in done.stderr
    assert not (bare.machine("h1").top / "srv/lockgate").exists()
    wrong = bare.fab("pin", "h1", "--fingerprint", f"SHA256:{'A' * 43}")
    assert wrong.returncode == REFUSED and "Nothing was pinned" in wrong.stderr


def test_a_bootstrap_goes_on_after_a_kill_and_after_a_power_cut(bare: BareFleet) -> None:
    """The controller is killed in the middle, then the host loses power while it installs; what
    was made stays, and nothing is there in half. The fleet's own bootstrap then goes on."""
    assert bare.pin("h1").returncode == DONE
    with bare.begin_bootstrap("h1") as killed:
        assert killed.stdout is not None
        _read_until(killed.stdout, "etc/host.json")
        killed.kill()
    plan = bare.bootstrap("h1", "--plan").stdout
    assert "account lg-verify" not in plan and "environment /srv/lockgate/env: missing" in plan
    with bare.begin_bootstrap("h1") as cut:
        assert cut.stdout is not None
        _read_until(cut.stdout, "program /srv/lockgate/bin/node_exporter")
        time.sleep(3)
        bare.machines.reboot(bare.machine("h1"))
        _, errors = cut.communicate(timeout=60)
    assert cut.returncode == UNREACHABLE and "type the command again" in errors
    bare.machines.wait_booted(bare.machine("h1"))
    plan = bare.bootstrap("h1", "--plan").stdout
    assert "environment /srv/lockgate/env: missing" in plan and "etc/host.json" not in plan


def test_a_second_bootstrap_changes_nothing(fleet: BareFleet) -> None:
    done = fleet.bootstrap("h1")
    assert done.returncode == DONE, done.stderr
    assert done.stdout.startswith("h1: no change. h1 serves")


def test_every_unit_is_hardened(fleet: BareFleet) -> None:
    names = [
        units.WATCH,
        units.AGENT,
        units.TRITON,
        units.DOOR,
        units.EXPORTER,
        NODE_EXPORTER,
        "lockgate-restart@1",
    ]
    for name in names:
        shown = fleet.machines.ssh(
            fleet.machine("h1"), f"systemd-analyze security {name}", check=False
        )
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)
        assert found and float(found[1]) <= EXPOSURE, shown.stdout + shown.stderr


def test_what_was_changed_by_hand_is_mended(fleet: BareFleet) -> None:
    """Only that: the plan names it, and the bootstrap restarts what read it."""
    fleet.machines.ssh(
        fleet.machine("h2"),
        "chmod 777 /srv/lockgate/state; echo 'Match User lg-verify' > "
        "/etc/ssh/sshd_config.d/lockgate.conf; systemctl stop lockgate-exporter",
    )
    plan = fleet.bootstrap("h2", "--plan").stdout
    assert [line for line in plan.splitlines() if not line.startswith("h2:")] == [
        "folder /srv/lockgate/state: mode",
        "file /etc/ssh/sshd_config.d/lockgate.conf: content",
        "unit ssh.service: /etc/ssh/sshd_config.d/lockgate.conf changed after its start",
        "unit lockgate-exporter.service: inactive",
    ]
    mended = fleet.bootstrap("h2")
    assert mended.returncode == DONE and "h2: 4 changes" in mended.stdout, mended.stderr
    assert fleet.bootstrap("h2").stdout.startswith("h2: no change")


def test_a_running_triton_is_not_restarted_unless_it_may_be(fleet: BareFleet) -> None:
    machine = fleet.machine("h3")
    fleet.machines.ssh(machine, "echo >> /srv/lockgate/etc/host.json")
    done = fleet.bootstrap("h3")
    assert done.returncode == REFUSED and "--restart" in done.stderr
    assert fleet.machines.ssh(machine, "tail -c1 /srv/lockgate/etc/host.json").stdout == "\n"
    done = fleet.bootstrap("h3", "--restart")
    assert done.returncode == DONE, done.stderr


@pytest.mark.parametrize(
    ("user", "may"), [("lg-verify", True), ("lg-triton", False), ("lg-host", False)]
)
def test_the_verifier_alone_restarts_triton(fleet: BareFleet, user: str, may: bool) -> None:
    """Without any right of root's; the answer comes when the restart is over."""
    main = "systemctl show -P MainPID lockgate-triton"
    ask = "/usr/bin/python3 -I /srv/lockgate/etc/restart.py /run/lockgate/restart.sock"
    machine = fleet.machine("h3")
    before = fleet.machines.ssh(machine, main).stdout
    done = fleet.machines.ssh(
        machine, f"setpriv --reuid={user} --regid={user} --init-groups {ask}", check=False
    )
    assert (done.returncode == DONE) is may, done.stderr
    assert (fleet.machines.ssh(machine, main).stdout != before) is may


def test_the_accounts_of_a_deployment_get_no_shell(fleet: BareFleet) -> None:
    for user in ("lg-verify", "lg-host"):
        argv = ["ssh", "-F", "none", "-i", str(fleet.root / "keys/deploy"), "-o", "BatchMode=yes",
                "-o", f"UserKnownHostsFile={fleet.root}/keys/known_hosts",
                f"{user}@{fleet.machine('h1').address}", "cat /etc/passwd"]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert done.returncode != DONE and "root:" not in done.stdout


def test_a_host_that_loses_power_in_a_deploy_comes_back_serving_what_it_served(
    fleet: BareFleet,
) -> None:
    """Deploy, power cut and boot of one host in the middle, deploy again, rollback."""
    fleet.publish(1, 2.0)
    fleet.publish(2, 3.0)
    first = fleet.fab("deploy", "--model", "toy", "--version", "1", overrides=QUICK)
    assert first.returncode == DONE, first.stdout + first.stderr
    with Clients(fleet) as clients:
        _deploy_with_a_power_cut(fleet, "h2")
        wait_for(lambda: fleet.ask(1.0, "h2") in (2.0, 3.0), 90)  # by itself
        _deploy_until_done(fleet)
        assert {fleet.ask(1.0, host) for host in HOSTS} == {3.0}
        back = fleet.fab("rollback", "--model", "toy", overrides=QUICK)
        assert back.returncode == DONE, back.stdout + back.stderr
        assert {fleet.ask(1.0) for _ in range(9)} == {2.0}
        assert fleet.ask_by_grpc(1.0) == 2.0  # through the edge and a host's door
    assert clients.wrong == []
    assert clients.sent > 100 and clients.failed <= clients.sent * 0.01, clients
    assert fleet.bootstrap("h2").stdout.startswith("h2: no change")


def test_an_upgrade_walks_the_fleet_and_no_client_notices(fleet: BareFleet) -> None:
    """After the deploys above: every Triton restarts, out of traffic, and is proven before it
    gets traffic again."""
    change = "bootstrap.tasks_max=2048"
    with Clients(fleet) as clients:
        done = fleet.upgrade(change=change)
    assert done.returncode == DONE, done.stdout + done.stderr
    assert done.stdout.count("golden examples of toy/") >= len(HOSTS)
    assert "3 of 3 machines upgraded" in done.stdout
    assert clients.wrong == [] and clients.failed == 0 and clients.sent > 100, clients
    limit = "systemctl show -P TasksMax lockgate-triton"
    assert {fleet.machines.ssh(fleet.machine(h), limit).stdout for h in HOSTS} == {"2048\n"}
    assert "0 of 3 machines change" in fleet.upgrade("--plan", change=change).stdout


def _deploy_until_done(fleet: BareFleet) -> None:
    """Type deploy again; where the cut left its host out of traffic, heal before that."""
    said = ""
    for words in (("deploy", "--version", "2"), ("heal",), ("deploy", "--version", "2")):
        done = fleet.fab(words[0], "--model", "toy", *words[1:], overrides=QUICK)
        said += f"\n$ fab {' '.join(words)} -> {done.returncode}\n{done.stdout}{done.stderr}"
        if done.returncode == DONE and words[0] == "deploy":
            return
    raise AssertionError(said)


def _read_until(lines: Iterable[str], wanted: str) -> None:
    seen = []
    for line in lines:
        seen.append(line)
        if wanted in line:
            return
    raise AssertionError("".join(seen))


def _deploy_with_a_power_cut(fleet: BareFleet, host: str) -> None:
    """Cut the power of `host` when it has work to do, and boot it; the deploy ends as it may."""
    words = ("deploy", "--model", "toy", "--version", "2")
    with fleet.fab_lines(*words, overrides=QUICK) as deploy:
        assert deploy.stdout is not None
        seen = []
        for line in deploy.stdout:
            seen.append(line)
            if re.search(rf" {host} +(install|load)", line):
                fleet.machines.reboot(fleet.machine(host))
                break
        rest, errors = deploy.communicate(timeout=400)
        assert any(host in line for line in seen), "".join(seen) + rest + errors
