"""The order of transfers: once per region from here, on from host to host, and never stuck."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.inventory import Host
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.rollout.waves import by_turns
from serving.fleet.ssh import fanout, transfer
from serving.fleet.ssh.fanout import FanOut
from serving.fleet.ssh.transfer import Arrival, TransferLimits

SHIPMENT = SimpleNamespace(model="toy", version=1, digest="d", size=100)
LIMITS = TransferLimits(0, 0)


@dataclass
class TransferStub:
    """Stands for the functions of `transfer` and the verb `offer`; counts and can fail.

    `have` hosts have the package already. From `bad` hosts nothing can be fetched, `away` hosts are
    unreachable, and the first `failed_sends` sends fail.
    """

    have: frozenset[str] = frozenset()
    bad: frozenset[str] = frozenset()
    away: frozenset[str] = frozenset()
    failed_sends: int = 0
    sent: list[str] = field(default_factory=list)
    fetched: list[tuple[str, str]] = field(default_factory=list)
    most: int = 0
    _now: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_ready(self, verbs, shipment, limits, rollback):
        if verbs.name in self.away:
            raise Unreachable(f"{verbs.name} is away")
        return verbs.name in self.have

    def send(self, verbs, shipment, limits, rollback):
        with self._lock:
            if self.failed_sends:
                self.failed_sends -= 1
                raise FleetError("the connection broke")
            self.sent.append(verbs.name)
        return Arrival("sent", shipment.size)

    def fetch(self, verbs, shipment, limits, rollback, source):
        if source in self.bad:
            raise FleetError(f"{source} gave nothing")
        with self._lock:
            self._now[source] = self._now.get(source, 0) + 1
            self.most = max(self.most, self._now[source])
        threading.Event().wait(0.001)
        with self._lock:
            self._now[source] -= 1
            self.fetched.append((verbs.name, source))
        return Arrival("fetched", 0, source)


def hosts_of(*counts: int) -> list[Host]:
    return [
        Host(f"{region}{k}", f"127.0.{n}.{k + 1}", f"us-{region}", 1)
        for n, (region, count) in enumerate(zip("abcd", counts, strict=False))
        for k in range(count)
    ]


def stage_all(stub: TransferStub, hosts: list[Host], fetches: int = 2, threads: int = 8):
    """Each host's arrival, or its error, by name."""
    flow = FanOut(fetches)

    def one(host: Host):
        verbs = SimpleNamespace(name=host.name, call=lambda *_, **__: {})
        try:
            return flow.stage(host, verbs, SHIPMENT, LIMITS, False)
        except FleetError as error:
            return error

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(threads) as pool:
        for name in ("is_ready", "send", "fetch"):
            patch.setattr(transfer, name, getattr(stub, name))
        patch.setattr(fanout, "_ASKING_S", 1.0)
        waiting = {host.name: pool.submit(one, host) for host in by_turns(hosts)}
        found = {name: future.result(timeout=30) for name, future in waiting.items()}
    return flow, found


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), fetches=st.integers(1, 4),
       threads=st.integers(1, 8))  # fmt: skip
def test_the_controller_sends_once_per_region(counts, fetches, threads):
    stub, hosts = TransferStub(), hosts_of(*counts)
    flow, found = stage_all(stub, hosts, fetches, threads)
    assert all(isinstance(one, Arrival) for one in found.values()), found
    assert len(stub.sent) == len(counts)
    assert flow.sent_bytes == len(counts) * SHIPMENT.size
    assert len(stub.fetched) == len(hosts) - len(counts)
    assert stub.most <= fetches
    assert all(host[0] == source[0] for host, source in stub.fetched), "across regions"


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_fails_every_other_host_has_the_package_in_the_end(data):
    hosts = hosts_of(*data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    names = st.frozensets(st.sampled_from([host.name for host in hosts]))
    stub = TransferStub(
        have=data.draw(names), bad=data.draw(names), away=data.draw(names),
        failed_sends=data.draw(st.integers(0, 2)),
    )  # fmt: skip
    failing = stub.failed_sends
    _, found = stage_all(stub, hosts)
    errors = {name: one for name, one in found.items() if not isinstance(one, Arrival)}
    assert {name for name, one in errors.items() if isinstance(one, Unreachable)} == stub.away
    assert len(errors) - len(stub.away) <= failing


def test_a_host_that_has_the_package_spares_sending_it(monkeypatch):
    stub, together = TransferStub(have=frozenset({"a2"})), threading.Barrier(4)
    plain = stub.is_ready
    monkeypatch.setattr(stub, "is_ready", lambda *args: together.wait(10) >= 0 and plain(*args))
    flow, found = stage_all(stub, hosts_of(4), threads=4)
    assert stub.sent == [] and flow.sent_bytes == 0
    assert found["a2"].sentence == "already there and verified"
    assert len(stub.fetched) == 3


def test_without_fetches_the_controller_sends_to_each():
    stub = TransferStub()
    stage_all(stub, hosts_of(3, 2), fetches=0)
    assert len(stub.sent) == 5 and stub.fetched == []


def test_a_lost_lease_is_no_reason_to_send(monkeypatch):
    def lost(*_):
        raise LeaseLost("a newer controller")

    stub = TransferStub(have=frozenset({"a0"}))
    monkeypatch.setattr(stub, "fetch", lost)
    _, found = stage_all(stub, hosts_of(2), threads=2)
    assert isinstance(found["a1"], LeaseLost) and stub.sent == []


def test_the_first_host_of_each_region_comes_first():
    names = [host.name for host in by_turns(hosts_of(3, 1, 2))]
    assert names == ["a0", "b0", "c0", "a1", "c1", "a2"]
