"""`fab quarantine`, `drain`, `undrain` and `restart`: one host, by a person's word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from conf.names import check_name
from conf.site_placement import hosts_of
from serving.fleet.cli.command import Controls, heal, held
from serving.fleet.errors import FleetConfigError
from serving.fleet.rollout import host_orders
from serving.fleet.rollout.actions import production
from serving.fleet.rollout.host_orders import HostOrder
from serving.fleet.rollout.rollout_plan import Selection
from serving.fleet.rollout.rollout_run import Progress
from serving.fleet.ssh.ssh_driver import SshDriver

ORDERS: dict[str, Callable[[HostOrder, str], str]] = {
    "quarantine": host_orders.quarantine,
    "drain": host_orders.drain,
    "restart": host_orders.restart,
}


def order_host(on: Controls, command: str, host: str, reason: str, progress: Progress) -> str:
    """Carry out one of ORDERS, or undrain; returns a sentence for people.

    Raises FleetConfigError for a host that is none or a quarantine without a reason, FleetError.
    """
    if not host:
        known = ", ".join(one.name for one in on.fleet.hosts)
        raise FleetConfigError(f"which host? Type: fab {command} HOST, one of {known}.")
    on.fleet.host(check_name("HOST", host, f"fab {command} {{}}"))
    if command == "quarantine" and not reason.strip():
        raise FleetConfigError(
            "the next person reads the reason in the journal. Type: fab quarantine "
            f"{host} --reason 'why'"
        )
    if command == "undrain":
        return _undrain(on, host, reason, progress)
    with ordered(on, f"{command} {host}", host, progress) as order:
        return ORDERS[command](order, reason)


def selection_of(on: Controls, skip: str, hosts: str, region: str) -> Selection:
    """The hosts that a command names. Raises FleetConfigError for a name that is none."""
    if not (skip or hosts or region):
        return Selection()
    regions = {one.name: one for one in on.fleet.regions}
    if region and region not in regions:
        raise FleetConfigError(f"the fleet has no region {region!r}: {', '.join(regions)}.")
    only = {on.fleet.host(name).name for name in _names(hosts)}
    if region:
        of_region = {host.name for host in regions[region].hosts}
        only = only & of_region if only else of_region
        if not only:
            raise FleetConfigError(f"none of --hosts {hosts} is in {region}.")
    skipped = {on.fleet.host(name).name for name in _names(skip)}
    return Selection(frozenset(skipped), frozenset(only - skipped))


def _undrain(on: Controls, host: str, reason: str, progress: Progress) -> str:
    left = healed(on, host, reason, progress)
    with ordered(on, f"undrain {host}", host, progress) as order:
        return host_orders.undrain(order, lambda: left, reason)


def healed(on: Controls, host: str, reason: str, progress: Progress) -> str:
    """Heal each model on this host alone, under the lease of each; returns what could not be
    healed, "" for nothing. Raises FleetError."""
    left = []
    for model in _models(on, host):
        if production(on.journal, model) is None:
            continue
        report = heal(on, model, progress, reason, Selection(only=frozenset({host})))
        left += [f"{place}: {why}" for place, why in report.outcome.stuck.items() if place == host]
    return " ".join(left)


@contextmanager
def ordered(on: Controls, what: str, host: str, progress: Progress) -> Iterator[HostOrder]:
    """An order about one host, with the fleet held for `what` while the block runs.

    Raises Locked, FleetConfigError.
    """
    with ExitStack() as opened:
        lease = opened.enter_context(held(on, what, progress))
        drivers = [
            (
                opened.enter_context(SshDriver(on.fleet, model, on.store, on.config, lease.fence)),
                production(on.journal, model),
            )
            for model in _models(on, host) or [""]
        ]
        yield HostOrder(on.fleet.host(host), drivers, on.journal, lease, progress)


def _models(on: Controls, host: str) -> list[str]:
    """The models that were in production and have their place on the host."""
    known = sorted({entry.model for entry in on.journal.read_ledger().entries})
    return [model for model in known if hosts_of(on.fleet.placement, model, [host])]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
