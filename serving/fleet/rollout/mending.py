"""The hosts of a rollback or a heal: each one read, proven, mended, and given back its traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.clean_up import clean_host
from serving.fleet.rollout.driver import HostState
from serving.fleet.rollout.fleet_pass import FleetPass
from serving.fleet.rollout.host import activate, await_quiet, prepare, prove, read
from serving.fleet.rollout.instances import give_instances, has_instances, instances_text
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_plan import Change, as_it_is, faults, served_set
from serving.fleet.rollout.traffic import route_edges
from serving.fleet.routing import Routing
from serving.triton import model_config

_READERS = 16


def bring_hosts(on: FleetPass) -> None:
    states = on.run.driver.read_hosts(verify=on.run.action == "heal")
    readable = [host for host in on.hosts if not states[host.name].problem]
    for host in on.hosts:
        if problem := states[host.name].problem:
            on.leave_behind(host, problem)
    before = {host.name: as_it_is(states[host.name]) for host in readable}
    on.mode = "beside" if all(map(on.fits, before.values())) else "swap"
    good = _proven(on, readable, states)
    if on.mode == "swap":
        _swap(on, readable, states, good)
    else:
        _prepare_cold(on, readable, states, good)
    on.route_rest(frozenset(good))
    for host in readable:
        if on.mode == "beside" and (host.name not in good or host.name in on.weak):
            _mend(on, host, states[host.name], good)
    on.route_rest(frozenset(good))
    # Region by region at the same time, host by host in one: a version that will not unload takes
    # its host out of traffic.
    regions = {host.region for host in readable}

    def finish(region: str) -> None:
        for host in readable:
            if host.region == region and host.name in good:
                _finish(on, host, before[host.name])

    on.run.each(sorted(regions), finish, _READERS)


def _proven(on: FleetPass, hosts: list[Host], states: Mapping[str, HostState]) -> set[str]:
    """The hosts that serve the version and answer its golden questions."""
    run, good = on.run, set[str]()

    def check(host: Host) -> None:
        state = states[host.name]
        if not state.alive or on.target not in state.serving:
            return
        try:
            prove(run, host, (on.target,))
        except LeaseLost:
            raise
        except FleetError as error:
            on.failures[host.name] = str(error)
            return
        good.add(host.name)
        _weigh(on, host, state)

    run.each(hosts, check, _READERS)
    return good


def _weigh(on: FleetPass, host: Host, state: HostState) -> None:
    """Check that a host that answers is whole: its files, and the version before as a way back."""
    run = on.run
    others = served_set(on.target, state.serving, True)[:-1]
    why = faults(state, run.shipment.model, (on.target,))
    if dict(state.packages).get(on.target) != run.shipment.digest:
        why = why or f"its package {run.shipment} is not the released one"
    try:
        prove(run, host, others)
    except LeaseLost:
        raise
    except FleetError as error:
        why, others = why or str(error), ()
    run.record_proven(host, (*others, on.target))
    if why and run.action == "heal":
        on.weak[host.name] = why


def _prepare_cold(
    on: FleetPass, hosts: list[Host], states: Mapping[str, HostState], good: set[str]
) -> None:
    """Load the version beside what serves, on each host that lacks it and can do that."""
    run = on.run

    routing = run.driver.read_routing().values()
    given = {one.version for one in routing if isinstance(one, Routing) and one.version}

    def load(host: Host) -> None:
        state = states[host.name]
        if host.name in good or not state.alive or on.target in state.serving:
            return
        on.changed.add(host.name)
        before = replace(as_it_is(state), edge=on.edge_before.get(host.name, state.edge))
        try:
            run.log_step(host, "staged", run.driver.stage(host, run.shipment, rollback=True))
            change = replace(_change(on, host, before), parked=state.edge != before.edge)
            prepare(run, change, given & set(before.served))
        except LeaseLost:
            raise
        except FleetError as error:
            on.failures[host.name] = str(error)
            run.progress(host.name, "failed", str(error))
            return
        good.add(host.name)

    # A restart takes its host out of traffic: one at a time.
    limit = 1 if run.config.strategy == "restart" else run.config.parallel
    run.each(hosts, load, limit)


def _swap(
    on: FleetPass, hosts: list[Host], states: Mapping[str, HostState], good: set[str]
) -> None:
    """Host by host, drained: the version cannot lie beside the one that serves."""
    run = on.run
    on.stuck |= route_edges(run, {edge: Routing() for edge in on.by_edge()})
    for host in hosts:
        state = states[host.name]
        if state.serving == (on.target,) and host.name in good:
            continue
        on.changed.add(host.name)
        before = replace(as_it_is(state), edge=on.edge_before.get(host.name, state.edge))
        run.record("parked", host=host.name, edge=before.edge)
        try:
            run.log_step(host, "staged", run.driver.stage(host, run.shipment, rollback=True))
            activate(run, Change(host, before, (on.target,), "", (on.target,),
                                 restart=not state.alive))  # fmt: skip
        except LeaseLost:
            raise
        except FleetError as error:
            good.discard(host.name)
            on.give_up(host, str(error))
            continue
        good.add(host.name)


def _mend(on: FleetPass, host: Host, state: HostState, good: set[str]) -> None:
    """A host that failed: out of traffic, restarted, proven; else quarantined. One that still
    serves what its edge gives is left as it is, as is the last of its region."""
    run, weak = on.run, host.name in on.weak
    why = on.weak.get(host.name) or on.failures.get(host.name) or "it does not answer"
    on.changed.add(host.name)
    edges = run.driver.edges_of(host)
    given = all(edge in on.flipped and edge not in on.stuck for edge in edges)
    if state.alive and (weak or not given) and not (weak and run.driver.peers_up(host)):
        on.stuck[host.name] = f"{why} It was left as it is: its requests need it."
        return
    before = replace(as_it_is(state), edge=on.edge_before.get(host.name, state.edge))
    on.park(host, why)
    if host.name in on.stuck:
        return
    try:
        run.log_step(host, "staged", run.driver.stage(host, run.shipment, rollback=True))
        versions = served_set(on.target, before.served, on.fits(before))
        change = Change(host, before, versions, why, versions, restart=True, parked=True)
        # None of these is on trial, and what it starts with may be what is wrong with it.
        run.driver.persist(host, versions, rollback=True)
        prepare(run, change, versions if run.action == "heal" else ())
    except LeaseLost:
        raise
    except FleetError as error:
        good.discard(host.name)
        on.give_up(host, str(error))
        return
    good.add(host.name)


def _finish(on: FleetPass, host: Host, before: Before) -> None:
    """Exactly the versions that it shall have, and back into the traffic it had."""
    run = on.run
    edges = run.driver.edges_of(host)
    if any(edge in on.stuck for edge in edges):
        return  # its edge may still give another version: that one must stay
    try:
        await_quiet(run, host)
    except LeaseLost:
        raise
    except FleetError as error:
        run.progress(host.name, "wait", str(error))
    try:
        versions = served_set(on.target, before.served, on.fits(before))
        if read(run, host).serving != versions:
            on.changed.add(host.name)
        clean_host(run, host, versions)
    except LeaseLost:
        raise
    except FleetError as error:
        run.progress(host.name, "clean", f"skipped: {error}")
    if run.action == "heal":
        _rescale(on, host)
    wanted = on.edge_before.get(host.name, READY)
    try:
        if read(run, host).edge != wanted:
            on.changed.add(host.name)
            run.log_step(host, "undrain" if wanted == READY else "keep", f"{wanted} again")
            run.driver.set_edge(host, wanted)
    except LeaseLost:
        raise
    except FleetError as error:
        on.give_up(host, str(error))


def _rescale(on: FleetPass, host: Host) -> None:
    """The number of instances that `fab scale` gave the model, on a host that has another."""
    run, model = on.run, on.run.shipment.model
    instances = run.journal.instances(model)
    count = instances or model_config.instances_in(run.shipment.config)
    try:
        state = read(run, host)
        if has_instances(state, count):
            return
        on.changed.add(host.name)
        run.log_step(host, "scale", f"{instances_text(count, model)}, not {state.instances}")
        answered = give_instances(run.driver, host, state, instances, on.target)
        run.log_step(host, "checked", answered)
    except LeaseLost:
        raise
    except FleetError as error:
        on.stuck[host.name] = str(error)


def _change(on: FleetPass, host: Host, before: Before) -> Change:
    prepared = tuple(sorted({*before.served, on.target}))
    return Change(host, before, (on.target,), "", prepared)
