"""A deploy over networks that fail: a host that is cut off, a slow link, a transfer that breaks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conf.errors import DONE, FAILED, INCOMPLETE
from tests.serving.fleet.nspawn.bare_fleet import BareFleet, bare_fleet, wait_for
from tests.serving.fleet.nspawn.clients import Clients
from tests.serving.fleet.nspawn.machines import Machine, reason_to_skip
from tests.serving.fleet.nspawn.network_faults import (
    cut,
    partition,
    reason_without_faults,
    slow_link,
)

REASON = reason_to_skip() or reason_without_faults()
pytestmark = [
    pytest.mark.full,
    pytest.mark.slow,
    pytest.mark.triton,
    pytest.mark.skipif(bool(REASON), reason=REASON or "can be made"),
]

HOSTS = ("h1", "h2")
QUICK = ("rollout.settle_s=1.0", "rollout.free_disk_mib=64", "rollout.free_shm_mib=16")
SLOW_MBIT_S = 1.0
WEIGHTS = 1 << 20
"""Bytes of a package of the bed, nearly."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[BareFleet]:
    """Two hosts that serve the first version, behind an edge on the bridge."""
    bare = bare_fleet(len(HOSTS))
    try:
        for host in HOSTS:
            assert bare.pin(host).returncode == DONE
        with ThreadPoolExecutor(len(HOSTS)) as pool:
            for done in pool.map(bare.bootstrap, HOSTS):
                assert done.returncode == DONE, done.stdout + done.stderr
        bare.edge_up()
        for version, factor in ((1, 2.0), (2, 3.0), (3, 3.0)):
            bare.publish(version, factor)
        code, said = deploy(bare, 1)
        assert code == DONE, said
        yield bare
    finally:
        bare.down()


def deploy(fleet: BareFleet, version: int, *overrides: str) -> tuple[int, str]:
    """The exit code of a deploy, and all that it wrote."""
    words = ("deploy", "--model", "toy", "--version", str(version))
    done = fleet.fab(*words, overrides=(*QUICK, *overrides))
    return done.returncode, done.stdout + done.stderr


def test_a_host_that_is_cut_off_in_a_deploy_costs_no_other_and_comes_back(fleet: BareFleet) -> None:
    """It is cut off when it has work to do, until the deploy has ended: undone but for that host.
    What the deploy then says to type brings it back, and the next deploy is done."""
    words = ("deploy", "--model", "toy", "--version", "2")
    with Clients(fleet) as clients:
        with fleet.fab_lines(*words, overrides=QUICK) as running:
            assert running.stdout is not None
            for line in running.stdout:
                if re.search(r" h2 +(install|load)", line):
                    break
            with partition(fleet.machine("h2")):
                said = "".join(running.communicate(timeout=400))
                assert running.returncode == INCOMPLETE, said
                assert "h2: the connection was lost" in said and "fab rollback --model toy" in said
                assert fleet.ask(1.0) == 2.0
        wait_for(lambda: fleet.ask(1.0, "h2") in (2.0, 3.0), 90)
        back = fleet.fab("rollback", "--model", "toy", overrides=QUICK)
        assert back.returncode == DONE, back.stdout + back.stderr
        code, said = deploy(fleet, 2)
        assert code == DONE, said
    assert {fleet.ask(1.0, host) for host in HOSTS} == {3.0}
    # What was in flight at the host when it fell silent is lost to its client, and no more.
    assert clients.wrong == [] and clients.failed <= max(2, clients.sent * 0.01), clients


def test_a_transfer_over_a_slow_link_goes_on_after_a_cut_and_ends(fleet: BareFleet) -> None:
    """Each host is sent the package from here; one loses its connections in the middle of it."""
    machines, from_here = [fleet.machine(host) for host in HOSTS], "rollout.transfer_fetches=0"
    words = ("deploy", "--model", "toy", "--version", "3")
    with slow_link(machines[0], SLOW_MBIT_S), slow_link(machines[1], SLOW_MBIT_S):
        with fleet.fab_lines(*words, overrides=(*QUICK, from_here)) as running:
            receiver = part_arrived(machines, WEIGHTS // 4)
            with cut(receiver):
                said = "".join(running.communicate(timeout=120))
        assert running.returncode in (FAILED, INCOMPLETE), said
        assert "what arrived is kept: typed again, it goes on" in said, said
        began = time.monotonic()
        code, said = deploy(fleet, 3, from_here)
        if code != DONE:  # a host that could not be undone while it was cut off
            healed = fleet.fab("heal", "--model", "toy", overrides=QUICK)
            assert healed.returncode == DONE, said + healed.stdout + healed.stderr
            code, more = deploy(fleet, 3, from_here)
            said += more
        assert code == DONE, said
        assert time.monotonic() - began > 2  # the link was slow
    sent = re.search(rf" {receiver.name} +\S+ +([0-9.]+) MiB sent of ([0-9.]+) MiB", said)
    assert sent and float(sent[1]) < float(sent[2]) - 0.2, said
    assert {fleet.ask(1.0, host) for host in HOSTS} == {3.0}


def part_arrived(machines: list[Machine], size: int) -> Machine:
    """Wait until one of the machines has `size` bytes of a file in its staging; that one."""
    found: list[Machine] = []

    def arrived() -> bool:
        for machine in machines:
            parts = (machine.top / "srv/lockgate/staging/toy-3").rglob("*weights.bin*")
            if any(part.stat().st_size >= size for part in parts):
                found.append(machine)
        return bool(found)

    wait_for(arrived, 60)
    return found[0]
