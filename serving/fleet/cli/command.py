"""The commands of `fab`, as functions of a composed config that return reports; no printing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from conf.names import check_name
from conf.schema import from_config
from serving.artifact import store
from serving.fleet.canary.judge import probing_judge
from serving.fleet.errors import FleetConfigError, FleetRefusal, denied
from serving.fleet.inventory import Fleet, Host, fleet_from
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.report.version_counts import prometheus_reader
from serving.fleet.rollout.actions import (
    EVERY_HOST,
    carry_out,
    plan_deployment,
    production,
    refuse_against,
    refuse_received,
)
from serving.fleet.rollout.advice import version_back
from serving.fleet.rollout.departed import refuse_departed
from serving.fleet.rollout.freeze import frozen
from serving.fleet.rollout.journal import Journal, history
from serving.fleet.rollout.lease import Lease, hold
from serving.fleet.rollout.production import point_alias
from serving.fleet.rollout.rollout_config import Outcome, RolloutConfig
from serving.fleet.rollout.rollout_plan import RolloutPlan, Selection
from serving.fleet.rollout.rollout_run import Progress, RolloutRun
from serving.fleet.shipment import Shipment, read_shipment
from serving.fleet.ssh.ssh_driver import SshDriver

__all__ = ["production"]


@dataclass(frozen=True)
class Controls:
    """The fleet, store, journal and settings that a controller works with."""

    fleet: Fleet
    store: Path
    journal: Journal
    config: RolloutConfig
    mlflow_uri: str
    passwords: Path
    """With this user's own accounts at MLflow and Prometheus."""
    prometheus_url: str = ""
    """For error rates and latencies that people look at; "" for a site without one."""


@dataclass(frozen=True)
class RolloutReport:
    """The end of a deployment or a rollback. `previous` was in production before, `seconds` long
    it took; `warning` is a sentence about what did not work beside the fleet."""

    outcome: Outcome
    model: str
    version: int
    digest: str
    previous: int | None
    rollout: str
    hosts: tuple[str, ...]
    seconds: float
    warning: str = ""

    @property
    def exit_code(self) -> int:
        """For the shell, one of `conf.errors`."""
        return self.outcome.exit_code


def controls(config: DictConfig) -> Controls:
    """From a composed `rollout` config. Raises FleetConfigError or ConfigError for a key that
    cannot be."""
    return Controls(
        fleet_from(config),
        Path(config.site.paths.store),
        Journal(Path(config.site.paths.journal)),
        from_config(RolloutConfig, config.rollout, "rollout"),
        str(config.site.mlflow_uri or ""),
        Path(config.site.paths.passwords),
        str(config.site.prometheus_url or ""),
    )


def model_name(model: str, command: str) -> str:
    """`model`, where it is a name; it goes into paths and commands. Raises ConfigError."""
    return check_name("--model", model, f"fab {command} --model {{}}")


def only_model(folder: Path, model: str | None, command: str) -> str:
    """`model`, or the only one in the store; `command` is the one of fab that needs it.

    Raises FleetConfigError naming the choices, ConfigError for what is no name.
    """
    if model is not None:
        return model_name(model, command)
    try:
        known = store.models(folder)
    except PermissionError as error:
        raise denied("cannot read the store", folder, error) from error
    if len(known) == 1:
        return model_name(known[0], command)
    if not known:
        raise FleetConfigError(
            f"the store {folder} has no versions yet. Release one: lockgate release."
        )
    raise FleetConfigError(
        f"the store has {', '.join(known)}: name one of them, as in --model {known[0]}."
    )


def placed_selection(selection: Selection, fleet: Fleet, model: str) -> Selection:
    """`selection` without the hosts that the model is not placed on; `fleet` are those it is on.

    Raises FleetConfigError where none is left of those that were named.
    """
    names = [host.name for host in fleet.hosts]
    only = selection.only & set(names)
    if selection.only and not only:
        raise FleetConfigError(
            f"{model} has no place on {', '.join(sorted(selection.only))}: site.placement has it "
            f"on {', '.join(names)}."
        )
    return replace(selection, only=only)


def _placed_hosts(fleet: Fleet, model: str) -> tuple[Fleet, tuple[Host, ...]]:
    """The fleet of the model's hosts, and the hosts that are outside it."""
    placed = fleet.for_model(model)
    return placed, tuple(host for host in fleet.hosts if host not in placed.hosts)


def preview(
    on: Controls, model: str | None, version: int | None, selection: Selection = EVERY_HOST
) -> RolloutPlan:
    """The plan that `deploy` would carry out; nothing is touched and no lock is taken."""
    shipment = read_shipment(on.store, only_model(on.store, model, "plan"), version)
    fleet, outside = _placed_hosts(on.fleet, shipment.model)
    selection = placed_selection(selection, fleet, shipment.model)
    with SshDriver(fleet, shipment.model, on.store, on.config) as driver:
        refuse_departed(driver, on.fleet.hosts)
        refuse_received(driver, outside, shipment.model)
        return plan_deployment(fleet, shipment, driver, on.journal, on.config, selection)


def deploy(
    on: Controls,
    model: str | None,
    version: int | None,
    progress: Progress,
    reason: str = "",
    selection: Selection = EVERY_HOST,
) -> RolloutReport:
    """Bring the fleet to `version` (the newest in the store when None).

    Raises FleetError when nothing was done: a version below production, a freeze window, a host
    that cannot be read, a fleet that another controller works on.
    """
    shipment = read_shipment(on.store, only_model(on.store, model, "deploy"), version)
    current = production(on.journal, shipment.model)
    if version is None:
        refuse_against(on.journal.open_rollout(shipment.model), "deployment", current)
    if current is not None and shipment.version < current:
        raise FleetConfigError(
            f"{shipment} is older than {shipment.model}/{current}, which is in production. To go "
            f"back: fab rollback --model {shipment.model} --version {shipment.version}."
        )
    if sentence := frozen(on.config.freeze, datetime.now(UTC)):
        raise FleetRefusal(sentence)
    return _carry_out(on, shipment, "deploy", progress, reason, selection)


def rollback(
    on: Controls,
    model: str | None,
    version: int | None,
    progress: Progress,
    reason: str = "",
    selection: Selection = EVERY_HOST,
) -> RolloutReport:
    """Bring the fleet back to `version`; without one, to where `advice.version_back` leads.

    Raises FleetConfigError when there is nothing to go back to.
    """
    model = only_model(on.store, model, "rollback")
    stack = history(on.journal.productions(model))
    target = version_back(model, stack, on.journal.open_rollout(model), version)
    shipment = read_shipment(on.store, model, target)
    return _carry_out(on, shipment, "rollback", progress, reason, selection)


def heal(
    on: Controls,
    model: str | None,
    progress: Progress,
    reason: str = "",
    selection: Selection = EVERY_HOST,
) -> RolloutReport:
    """Bring every host and edge back to the version in production. Raises FleetConfigError
    without one."""
    model = only_model(on.store, model, "heal")
    current = production(on.journal, model)
    if current is None:
        raise FleetConfigError(
            f"the ledger has no production version of {model}: fab deploy first."
        )
    shipment = read_shipment(on.store, model, current)
    return _carry_out(on, shipment, "heal", progress, reason, selection)


def _carry_out(
    on: Controls,
    shipment: Shipment,
    action: str,
    progress: Progress,
    reason: str,
    selection: Selection,
) -> RolloutReport:
    began = time.monotonic()
    rollout = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{shipment.model}-{shipment.version}"
    previous = production(on.journal, shipment.model)
    fleet, outside = _placed_hosts(on.fleet, shipment.model)
    if action == "deploy":
        selection = placed_selection(selection, fleet, shipment.model)
    with (
        held(on, f"{action} {shipment}", progress) as lease,
        _signals_stop(),
        SshDriver(fleet, shipment.model, on.store, on.config, lease.fence) as driver,
    ):
        run = RolloutRun(
            fleet, driver, on.journal, lease, rollout, action, shipment, on.config, progress,
            rollback=action != "deploy", outside=outside,
        )  # fmt: skip
        prometheus = PrometheusClient(on.prometheus_url, on.passwords)
        reader = prometheus_reader(prometheus, shipment.model) if prometheus.url else None
        judge = probing_judge(driver, on.config.analysis, reader)
        outcome = carry_out(run, selection, reason, judge)
    warning = ""
    if production(on.journal, shipment.model) == shipment.version != previous:
        # The fleet is free again: a registry that hangs holds up nobody.
        warning = point_alias(
            on.mlflow_uri, shipment.model, shipment.version, on.passwords, on.config.alias_timeout_s
        )
    return RolloutReport(
        outcome,
        shipment.model,
        shipment.version,
        shipment.digest,
        previous,
        rollout,
        outcome.hosts,
        round(time.monotonic() - began, 2),
        warning,
    )


@contextmanager
def held(on: Controls, what: str, progress: Progress) -> Iterator[Lease]:
    """Hold the fleet while the block runs. Raises Locked, FleetConfigError."""

    def waiting(sentence: str) -> None:
        progress("fleet", "lock", sentence)

    try:
        with hold(on.journal.folder, what, on.config.lock_ttl_s, waiting) as lease:
            yield lease
    except PermissionError as error:
        raise denied("cannot write the journal", on.journal.folder, error) from error


@contextmanager
def _signals_stop() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) stop and undo, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")
