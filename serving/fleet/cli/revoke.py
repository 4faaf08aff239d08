"""`fab revoke`: from now on no host accepts, starts or reloads one version, whoever signed it."""

from __future__ import annotations

from conf.errors import INCOMPLETE
from serving.fleet.cli.command import Controls, held, only_model, production
from serving.fleet.errors import FleetConfigError, FleetError
from serving.fleet.rollout.engine import Progress
from serving.fleet.shipment import read_shipment
from serving.fleet.ssh.ssh_driver import SshDriver


class RevokedInPart(FleetError):
    """Some hosts do not know of a revocation yet; the message names them."""

    exit_code = INCOMPLETE


def revoke(
    on: Controls, model: str | None, version: int | None, reason: str, progress: Progress
) -> str:
    """Have every host refuse the version; returns a sentence for people.

    It is journalled before the first host hears of it, and may be typed again. A version that
    serves beside production goes on until its host's next load. Raises FleetConfigError for the
    version in production, and without a version or a reason; RevokedInPart for hosts that did not
    answer, after all others were reached.
    """
    name = only_model(on.store, model, "revoke")
    if version is None or not reason.strip():
        raise FleetConfigError(
            "a revocation is for good, and the next person reads why. Type: "
            f"fab revoke --model {name} --version N --reason 'why'"
        )
    if production(on.journal, name) == version:
        raise FleetConfigError(
            f"{name}/{version} is in production: it would be gone at the next restart of a host. "
            f"First fab rollback --model {name}, then revoke it."
        )
    shipment = read_shipment(on.store, name, version)
    missed: dict[str, str] = {}
    with (
        held(on, f"revoke {shipment}", progress) as lease,
        SshDriver(on.fleet, name, on.store, on.config, lease.fence) as driver,
    ):
        on.journal.record(
            "revoked", f"revoke-{lease.fence}", model=name, version=version,
            digest=shipment.digest, reason=reason,
        )  # fmt: skip
        for host in on.fleet.hosts:
            lease.check()
            try:
                driver.revoke(host, shipment.digest)
                progress(host.name, "revoked", str(shipment))
            except FleetError as error:
                # The others are still to hear of it; this one is named at the end.
                missed[host.name] = str(error)
    if missed:
        raise RevokedInPart(
            f"{shipment} is revoked but on {', '.join(missed)}: {next(iter(missed.values()))} "
            "Type the command again when they answer."
        )
    return f"{shipment} is revoked on {len(on.fleet.hosts)} hosts: {reason}"
