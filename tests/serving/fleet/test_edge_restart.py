"""An edge that remembers what was set when HAProxy is killed, reloaded or changed by hand, and
that leaves out a host that only fails."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conf import compose
from conf.schema import from_config
from serving.edge_host.names import ROUTES, STATES
from serving.fleet.haproxy.edge import DRAIN, MAINT, READY
from serving.fleet.haproxy.server_states import parse_kept, states_file
from serving.fleet.inventory import FleetEdge, Host, Region, fleet_from
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.fleet.routing import Routing
from serving.fleet.ssh.ssh_driver import SshDriver
from tests.serving.fleet.edge_bed import REGION
from tests.serving.fleet.edge_hosts import BODY, HOSTS, HostsBed, running_hosts, until

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")


@pytest.fixture(scope="module")
def module_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsBed]:
    with running_hosts(tmp_path_factory.mktemp("edge")) as made:
        yield made


@pytest.fixture
def bed(module_bed: HostsBed) -> HostsBed:
    for host in module_bed.hosts.values():
        host.status = host.live = 200
        host.verdict = b"up\n"
    for name in HOSTS:
        module_bed.edge.set(name, READY)
    module_bed.edge.route("toy", Routing())
    until(lambda: all(state.up for state in module_bed.edge.all_states().values()))
    return module_bed


def workers(bed: HostsBed) -> list[int]:
    assert bed.process
    text = Path(f"/proc/{bed.process.pid}/task/{bed.process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def kill_and_restart(bed: HostsBed) -> None:
    children = workers(bed)
    bed.kill()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    bed.start()


def reload(bed: HostsBed) -> None:
    assert bed.process
    before = set(workers(bed))
    bed.process.send_signal(signal.SIGUSR2)
    until(lambda: bool(set(workers(bed)) - before))
    until(lambda: bool(bed.edge.states()))


@pytest.mark.parametrize("again", [kill_and_restart, reload])
def test_states_and_routing_hold(again: Callable[[HostsBed], None], bed: HostsBed) -> None:
    bed.edge.set("a", MAINT)
    bed.edge.set("w", DRAIN)
    bed.edge.route("toy", Routing(7, 8, 12.5))
    again(bed)
    states = bed.edge.all_states()
    assert {name: one.admin for name, one in states.items()} == {"a": MAINT, "b": READY, "w": DRAIN}
    assert bed.edge.routing("toy") == Routing(7, 8, 12.5)
    assert bed.answering() == {"b"}
    assert bed.edge.reassert() == []
    bed.edge.set("a", READY)
    bed.edge.set("w", READY)
    bed.edge.wait_up("a", 5)
    again(bed)
    until(lambda: bed.answering() == {"a", "b"})
    assert {one.admin for one in bed.edge.all_states().values()} == {READY}


def test_what_a_hand_changed_is_mended(bed: HostsBed) -> None:
    bed.edge.set("a", MAINT)
    bed.edge.route("toy", Routing(7))
    bed.edge.route("other", Routing(3))
    bed.edge.send("set server triton/a state ready")
    bed.edge.send(f"set map {bed.folder / ROUTES} toy 6:0:0")
    bed.edge.send(f"del map {bed.folder / ROUTES} other")
    bed.edge.send(f"add map {bed.folder / ROUTES} third 1:0:0")
    assert bed.edge.reassert() == [
        "us-east: other is routed 3:0:0 again.",
        "us-east: third is routed 0:0:0 again.",
        "us-east: toy is routed 7:0:0 again.",
        "us-east: a is in maint again.",
    ]
    assert bed.edge.reassert() == []
    assert (bed.edge.state("a").admin, bed.edge.routing("toy")) == (MAINT, Routing(7))
    bed.edge.route("other", Routing())


def test_only_what_was_taken_out_is_kept(bed: HostsBed) -> None:
    bed.edge.set("a", DRAIN)
    text = (bed.folder / STATES).read_text()
    assert parse_kept(text, "triton") == {"a": DRAIN}
    assert "127.0.7.1" not in text  # the config says where a host is
    bed.edge.set("a", READY)
    assert (bed.folder / STATES).read_text() == states_file(bed.edge.query("show servers state"))
    assert parse_kept((bed.folder / STATES).read_text(), "triton") == {}


def test_own_hosts_are_counted_alone(bed: HostsBed) -> None:
    assert set(bed.edge.states()) == {"a", "b"}
    assert bed.edge.state("w").backup
    bed.edge.set("w", DRAIN)
    assert bed.edge.state("w").admin == DRAIN


def test_a_region_whose_hosts_are_all_out_is_served_by_another(bed: HostsBed) -> None:
    assert bed.answering() <= {"a", "b"}
    for name in ("a", "b"):
        bed.edge.set(name, DRAIN)
    assert bed.answering() == {"w"}
    bed.edge.set("w", MAINT)
    assert bed.answering(times=2) == {"503"}
    bed.edge.set("a", READY)
    assert bed.answering() == {"a"}


def test_a_host_that_only_fails_is_left_out_after_few_failures(bed: HostsBed) -> None:
    bed.hosts["a"].status = 500  # a dead stub: live all the same
    asked = bed.hosts["a"].asked
    begun = time.monotonic()
    statuses = [bed.client.post("toy", BODY).status for _ in range(40)]
    # It comes back by two good checks, 0.2 s: so often, and for five failures each time.
    assert statuses.count(500) <= 5 * (2 + (time.monotonic() - begun) / 0.2)
    assert statuses.count(200) >= 15
    assert bed.hosts["a"].asked - asked == statuses.count(500)  # none was sent twice
    bed.hosts["a"].verdict = b"down #golden question 3 failed\n"
    until(lambda: not bed.edge.state("a").up)
    time.sleep(0.5)  # good checks bring it back no more
    assert bed.answering(times=30) == {"b"}
    bed.hosts["a"].status, bed.hosts["a"].verdict = 200, b"up\n"
    until(lambda: bed.answering() == {"a", "b"})


def test_a_client_cannot_take_a_region_out_by_requests_that_fail(bed: HostsBed) -> None:
    """Each host that its requests reach is left out; the last ones serve all the same."""
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            bed.client.post("poison", BODY)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        assert {bed.client.post("toy", BODY).status for _ in range(100)} == {200}
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_host_of_which_all_answer_wrong_gets_no_request(bed: HostsBed) -> None:
    for host in bed.hosts.values():
        host.verdict = b"down #golden question 3 failed\n"
    until(lambda: not any(state.up for state in bed.edge.all_states().values()))
    until(lambda: bed.answering(times=3) == {"503"})


@pytest.mark.parametrize("word", [b"ready\n", b"ready up\n"])
def test_a_host_cannot_take_itself_back_into_traffic(word: bytes, bed: HostsBed) -> None:
    """An agent may use these words; ours is not listened to while its host is out."""
    for state in (MAINT, DRAIN):
        bed.edge.set("a", READY)
        bed.edge.set("a", state)
        bed.hosts["a"].verdict = word
        time.sleep(0.5)
        assert bed.edge.state("a").admin == state
        kill_and_restart(bed)
        time.sleep(0.5)
        assert bed.edge.state("a").admin == state
        bed.hosts["a"].verdict = b""


def test_an_agent_that_is_away_changes_nothing(bed: HostsBed) -> None:
    bed.hosts["a"].verdict = b""  # takes the connection, and answers nothing
    time.sleep(0.4)
    assert bed.edge.state("a").up


def test_a_host_that_was_proven_is_given_back_though_its_agent_died(bed: HostsBed) -> None:
    bed.hosts["a"].verdict = b"down\n"
    until(lambda: not bed.edge.state("a").up)
    bed.hosts["a"].verdict = b""
    bed.edge.set("a", MAINT)
    bed.edge.set("a", READY)
    bed.edge.wait_up("a", 5)
    until(lambda: bed.answering() == {"a", "b"})


def test_a_host_is_drained_where_it_stands_in_too_and_an_edge_that_is_away_is_no_obstacle(
    bed: HostsBed,
) -> None:
    """`w` is of us-west, whose own edge is this one here by another name."""
    here, socket_ = bed.folder, bed.folder / "s.sock"
    edges = (
        FleetEdge(REGION, REGION, "", socket_, here),
        FleetEdge("us-west", "us-west", "", socket_, here),
        FleetEdge("away", "us-north", "", here / "none.sock", here),
    )
    hosts = tuple(Host(name, address, region, 1) for name, (address, region) in HOSTS.items())
    fleet = replace(
        fleet_from(compose("rollout")),
        regions=tuple(
            Region(one.region, (one,), tuple(host for host in hosts if host.region == one.region))
            for one in edges
        ),
    )
    config = from_config(RolloutConfig, compose("rollout").rollout, "rollout")
    with SshDriver(fleet, "toy", here, config) as driver:
        driver.drain(fleet.host("w"))
        assert bed.edge.state("w").admin == DRAIN
        driver.set_maintenance(fleet.host("w"))
        assert bed.edge.state("w").admin == MAINT
        assert driver.peers_up(fleet.host("a")) == 1  # b alone: w is none of its region
        driver.route(REGION, Routing(7))
        routings = driver.read_routing()
        assert routings[REGION] == Routing(7) and "away does not answer" in str(routings["away"])
