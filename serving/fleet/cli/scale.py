"""`fab scale`: how many hosts of a region take traffic, and how many instances a model has.

Both may be typed again after a kill: what is there is read first, and what is left is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from serving.fleet.cli.command import Controls, held, model_name, production
from serving.fleet.cli.host_commands import healed, ordered
from serving.fleet.errors import FleetConfigError, FleetRefusal
from serving.fleet.inventory import Host, Region
from serving.fleet.rollout import host_orders
from serving.fleet.rollout.actions import EVERY_HOST, left_out
from serving.fleet.rollout.advice import next_command
from serving.fleet.rollout.driver import FleetDriver
from serving.fleet.rollout.instances import (
    InstanceOrder,
    ScaledInPart,
    instance_changes,
    instances_text,
    scale_model,
)
from serving.fleet.rollout.lease import Lease
from serving.fleet.rollout.reserve import HostMoves, bring_in, choose_hosts
from serving.fleet.rollout.rollout_run import Progress
from serving.fleet.shipment import Shipment, read_shipment
from serving.fleet.ssh.ssh_driver import SshDriver
from serving.host.requests import MAX_INSTANCES
from serving.triton.model_config import instances_in


def scale_hosts(on: Controls, region: str, hosts: int, reason: str, progress: Progress) -> str:
    """Let `hosts` hosts of a region take traffic; returns a sentence for people.

    A host leaves it drained, and is on standby from then on; one that comes in is brought to
    production and proven first, and another one in its place where it is not fit. Raises
    FleetConfigError for a region that is none, FleetRefusal where the region has too few hosts or
    a rollout is open, Locked, ScaledInPart naming hosts that are not fit.
    """
    place = _region(on, region)
    why = reason or f"{hosts} hosts of {region} are wanted"
    return _moved(on, place, lambda driver: _moves(on, place, hosts, driver), hosts, why, progress)


def move_hosts(
    on: Controls,
    region: str,
    into: Sequence[str],
    out: Sequence[str],
    taking: int,
    reason: str,
    progress: Progress,
) -> str:
    """As `scale_hosts`, of the hosts that are named: `into` come from standby, `out` go there;
    `taking` hosts of the region then take traffic."""
    place = _region(on, region)
    moves = HostMoves(
        tuple(map(on.fleet.host, out)), tuple(map(on.fleet.host, into)), missing=len(into)
    )
    return _moved(on, place, lambda _: moves, taking, reason, progress)


def _moved(
    on: Controls,
    place: Region,
    choose: Callable[[FleetDriver], HostMoves],
    hosts: int,
    why: str,
    progress: Progress,
) -> str:
    region = place.name
    with ordered(on, f"scale {region}", place.hosts[0].name, progress) as order:
        _refuse_open_rollout(on)
        moves = choose(order.driver)
        for host in moves.out:
            host_orders.stand_by(replace(order, host=host), why)

    def admit(host: Host) -> None:
        left = healed(on, host.name, why, progress)
        with ordered(on, f"scale {region}", host.name, progress) as order:
            if host.name not in on.journal.standby():
                raise FleetRefusal(f"{host.name} is not on standby any more. See fab status.")
            host_orders.admit(order, lambda: left, why)

    admitted, unfit = bring_in(moves, admit, progress)
    return _ended(place, hosts, moves, admitted, unfit)


def scale_instances(
    on: Controls, model: str, instances: int | None, reason: str, progress: Progress
) -> str:
    """Give a model `instances` instances on every host, as packaged where None; a sentence.

    Raises FleetConfigError for a number outside 1 to MAX_INSTANCES or a model without a version in
    production, Locked, and what `scale_model` raises.
    """
    name = _scalable(on, model, instances)
    with held(on, f"scale {name}", progress) as lease:
        _refuse_open_rollout(on)
        shipment = _in_production(on, name)
        with SshDriver(on.fleet, name, on.store, on.config, lease.fence) as driver:
            order = _instance_order(on, shipment, driver, lease, progress)
            return scale_model(order, instances, reason)


def plan_hosts(on: Controls, region: str, hosts: int) -> list[str]:
    """A line for each host that `scale_hosts` would change; nothing is touched."""
    place = _region(on, region)
    with SshDriver(on.fleet, "", on.store, on.config) as driver:
        moves = _moves(on, place, hosts, driver)
    coming, spare = moves.reserve[: moves.missing], moves.reserve[moves.missing :]
    lines = [f"{host.name}: drained, on standby" for host in moves.out]
    lines += [f"{host.name}: brought to production, proven, into traffic" for host in coming]
    if coming and spare:
        lines.append(f"where one is not fit: {', '.join(host.name for host in spare)}")
    return lines or [_unchanged(place, hosts)]


def plan_instances(on: Controls, model: str, instances: int | None) -> list[str]:
    """A line for each host that `scale_instances` would change; nothing is touched."""
    shipment = _in_production(on, _scalable(on, model, instances))
    count = instances or instances_in(shipment.config)
    with SshDriver(on.fleet, shipment.model, on.store, on.config) as driver:
        states = driver.read_hosts()
    wrong, missed = instance_changes(_hosts(on), states, count)
    lines = [
        f"{host.name}: {instances_text(states[host.name].instances, shipment.model)}, then {count}"
        for host in wrong
    ]
    lines += [f"{name}: cannot be changed: {why}" for name, why in missed.items()]
    return lines or [f"no change: every host has {instances_text(count, shipment.model)}."]


def _region(on: Controls, name: str) -> Region:
    for region in on.fleet.regions:
        if region.name == name:
            return region
    known = ", ".join(region.name for region in on.fleet.regions)
    raise FleetConfigError(
        f"--region={name or 'none'}: the fleet has {known}. Type: fab scale --hosts 2 "
        f"--region {on.fleet.regions[0].name}"
    )


def _moves(on: Controls, region: Region, hosts: int, driver: FleetDriver) -> HostMoves:
    journal = on.journal
    return choose_hosts(
        region, hosts, driver.edge_states(), journal.standby(), journal.quarantined()
    )


def _ended(
    region: Region, hosts: int, moves: HostMoves, admitted: list[str], unfit: dict[str, str]
) -> str:
    out = [host.name for host in moves.out]
    taking = hosts - moves.missing + len(admitted)
    if unfit:
        raise ScaledInPart(
            f"{_taking(region, taking)}, {hosts} are ordered. Not fit, and out of it: "
            f"{' '.join(f'{name}: {why}' for name, why in unfit.items())}"
        )
    if not (out or admitted):
        return _unchanged(region, hosts)
    parts = [f"{', '.join(admitted)} came in"] if admitted else []
    parts += [f"{', '.join(out)} on standby"] if out else []
    return f"{_taking(region, taking)}: {'; '.join(parts)}."


def _unchanged(region: Region, hosts: int) -> str:
    return f"no change: {_taking(region, hosts)}."


def _taking(region: Region, hosts: int) -> str:
    return f"{hosts} host{' takes' if hosts == 1 else 's take'} traffic in {region.name}"


def _scalable(on: Controls, model: str, instances: int | None) -> str:
    name = model_name(model, "scale")
    if instances is not None and not 1 <= instances <= MAX_INSTANCES:
        raise FleetConfigError(
            f"--instances={instances}: 1 to {MAX_INSTANCES}, or default for as many as the "
            f"package has. Type: fab scale --model {name} --instances 2"
        )
    return name


def _in_production(on: Controls, model: str) -> Shipment:
    version = production(on.journal, model)
    if version is None:
        raise FleetConfigError(
            f"the ledger has no production version of {model}: fab deploy --model {model} first."
        )
    return read_shipment(on.store, model, version)


def packaged_instances(on: Controls, model: str) -> int:
    """The instances of the version in production by its package. Raises FleetConfigError."""
    return instances_in(_in_production(on, model).config)


def _hosts(on: Controls) -> list[Host]:
    """Those that rollouts touch; the others get the number when they come back."""
    out = left_out(on.fleet.hosts, on.journal, EVERY_HOST)
    return [host for host in on.fleet.hosts if host.name not in out]


def _instance_order(
    on: Controls, shipment: Shipment, driver: FleetDriver, lease: Lease, progress: Progress
) -> InstanceOrder:
    packaged = instances_in(shipment.config)
    return InstanceOrder(
        shipment.model, shipment.version, packaged, _hosts(on), driver, on.journal, lease, progress
    )


def _refuse_open_rollout(on: Controls) -> None:
    """Raises FleetRefusal for one that has no end: its undo may touch any host. A heal may not."""
    for model in sorted({entry.model for entry in on.journal.events() if entry.model}):
        found = on.journal.unfinished(model)
        if found and found.action != "heal":
            raise FleetRefusal(next_command(found, production(on.journal, model)))
