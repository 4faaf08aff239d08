"""A bare Debian machine becomes an edge that answers the clients of a host, and is upgraded."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conf.errors import DONE, INCOMPLETE
from serving.fleet.bootstrap.edge_units import EDGE, EDGE_LOG
from serving.fleet.bootstrap.hardened_unit import NODE_EXPORTER
from tests.serving.fleet.nspawn.bare_fleet import REGION, BareFleet, bare_fleet, wait_for
from tests.serving.fleet.nspawn.clients import Clients
from tests.serving.fleet.nspawn.machines import reason_to_skip

pytestmark = [
    pytest.mark.full,
    pytest.mark.slow,
    pytest.mark.triton,
    pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "can be made"),
]

QUICK = ("rollout.settle_s=1.0", "rollout.free_disk_mib=64", "rollout.free_shm_mib=16")
EXPOSURE = 3.0


@pytest.fixture(scope="module")
def fleet() -> Iterator[BareFleet]:
    """A host and the edge of its region, both bootstrapped at the same time, one version deployed
    through the edge."""
    bare = bare_fleet(2, edge_on="h2")
    try:
        for name in ("h1", REGION):
            done = bare.pin(name)
            assert done.returncode == DONE, done.stderr
        with ThreadPoolExecutor(2) as pool:
            for done in pool.map(bare.bootstrap, ("h1", REGION)):
                assert done.returncode == DONE, done.stdout + done.stderr
        assert f"{REGION} is an edge: its account answers fab" in done.stdout
        bare.publish(1, 2.0)
        done = bare.fab("deploy", "--model", "toy", "--version", "1", overrides=QUICK)
        assert done.returncode == DONE, done.stdout + done.stderr
        yield bare
    finally:
        bare.down()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_clients_are_answered_by_the_host_behind_it(fleet: BareFleet) -> None:
    assert fleet.ask(1.0) == 2.0 == fleet.ask_by_grpc(1.0)
    base = f"http://{fleet.edge_address}"
    assert status(f"{base}:18080/v2/models/stats") == 403
    assert status(f"{base}:18404/metrics") == 200
    assert status(f"{base}:{fleet.site.ports.node_exporter}/metrics") == 200


def test_its_request_log_is_counted_there(fleet: BareFleet) -> None:
    url = f"http://{fleet.edge_address}:{fleet.site.ports.release_exporter}/metrics"

    def counted() -> float:
        """Of every model: one that the edge's map has only just got counts as `other` at first."""
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("lockgate_requests_total{")
        )

    before = counted()
    for _ in range(3):
        assert fleet.ask(1.0) == 2.0
    wait_for(lambda: counted() == before + 3, 10)


def test_a_second_bootstrap_changes_nothing(fleet: BareFleet) -> None:
    done = fleet.bootstrap(REGION)
    assert done.returncode == DONE, done.stderr
    assert done.stdout.startswith(f"{REGION}: no change. {REGION} is an edge"), done.stdout


@pytest.mark.parametrize("unit", [EDGE, EDGE_LOG, NODE_EXPORTER])
def test_every_unit_is_hardened(fleet: BareFleet, unit: str) -> None:
    machine = fleet.machine(REGION)
    shown = fleet.machines.ssh(machine, f"systemd-analyze security {unit}", check=False).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
    assert found and float(found[1]) <= EXPOSURE, shown


def test_what_was_changed_by_hand_is_mended_and_what_a_rollout_wrote_stays(
    fleet: BareFleet,
) -> None:
    fleet.machines.ssh(
        fleet.machine(REGION),
        "echo >> /etc/lockgate-edge/edge/serving/__init__.py; "
        f"systemctl stop {NODE_EXPORTER}; chmod 777 /srv/lockgate/edges/{REGION}",
    )
    mended = fleet.bootstrap(REGION)
    assert mended.returncode == DONE and f"{REGION}: 3 changes" in mended.stdout, (
        mended.stdout + mended.stderr
    )
    assert fleet.ask(1.0) == 2.0


def test_an_upgrade_reloads_haproxy_and_loses_neither_a_client_nor_what_rollouts_set(
    fleet: BareFleet,
) -> None:
    """A program that the distribution replaced and a config of the site, both in one upgrade; then
    a config with which it cannot start, which is taken back."""
    machine, quick = fleet.machine(REGION), "site.edge.max_queue=77"
    main = f"systemctl show -P MainPID {EDGE}"
    replaced = "cp /usr/sbin/haproxy /usr/sbin/new && mv /usr/sbin/new /usr/sbin/haproxy"
    before = fleet.machines.ssh(machine, f"{replaced}; {main}").stdout
    with Clients(fleet) as clients:
        done = fleet.upgrade("--hosts", REGION, "--reason", "HAProxy 2.6.13", change=quick)
    assert done.returncode == DONE, done.stdout + done.stderr
    assert "1 of 1 machines upgraded" in done.stdout
    assert clients.failed == 0 and clients.wrong == [] and clients.sent > 10, clients
    assert fleet.machines.ssh(machine, main).stdout == before
    assert (
        "0 of 1 machines change" in fleet.upgrade("--plan", "--hosts", REGION, change=quick).stdout
    )
    history = fleet.fab("history", "-n", "1").stdout
    assert f"upgrade  {REGION} " in history and "HAProxy 2.6.13" in history
    # A low port needs a right that the running HAProxy was not started with.
    failed = fleet.upgrade("--hosts", REGION, change=f"site.edges.{REGION}.stats_port=81")
    assert failed.returncode == INCOMPLETE and "it has the one before" in failed.stderr
    assert fleet.ask(1.0) == 2.0
    assert "fab upgrade --hosts us-east" in fleet.fab("status").stdout
    again = fleet.upgrade("--hosts", REGION)
    assert again.returncode == DONE and fleet.fab("status").returncode == DONE, again.stderr


def test_it_comes_back_from_a_power_cut_as_it_was(fleet: BareFleet) -> None:
    fleet.machines.reboot(fleet.machine(REGION))
    fleet.machines.wait_booted(fleet.machine(REGION))
    wait_for(lambda: fleet.ask(1.0) == 2.0, 30)
    assert fleet.bootstrap(REGION).stdout.startswith(f"{REGION}: no change")
