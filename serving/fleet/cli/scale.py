"""`fab scale`: how many hosts of a region take traffic, and how many instances a model has."""

from __future__ import annotations

from serving.fleet.cli.command import Controls
from serving.fleet.errors import FleetError
from serving.fleet.rollout.rollout_run import Progress


def scale_hosts(on: Controls, region: str, hosts: int, reason: str, progress: Progress) -> str:
    """Let `hosts` hosts of a region take traffic; returns a sentence for people."""
    raise FleetError(f"{region} is not scaled to {hosts} hosts yet.")


def scale_instances(
    on: Controls, model: str, instances: int | None, reason: str, progress: Progress
) -> str:
    """Give a model `instances` instances on every host, as packaged where None; a sentence."""
    raise FleetError(f"{model} is not scaled to {instances} instances yet.")
