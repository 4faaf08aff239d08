"""The settings of a rollout and its end, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from conf.errors import DONE
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.errors import FleetConfigError
from serving.fleet.rollout.freeze import FreezeWindow

_POSITIVE = ("parallel", "drain_timeout_s", "ready_timeout_s", "lock_ttl_s", "alias_timeout_s")
_NOT_NEGATIVE = (
    "transfer_limit_kib_s", "transfer_fetches", "keep_versions", "free_disk_mib", "free_shm_mib",
    "warm_up",
    "shadow_percent", "settle_s", "bake_s", "unload_timeout_s", "max_errors",
)  # fmt: skip


@dataclass(frozen=True)
class RolloutConfig:
    """The `rollout` section of conf/rollout.yaml; each key is explained there."""

    strategy: Literal["load", "restart"] = "load"
    steps: tuple[float, ...] = (10, 50, 100)
    shadow_percent: float = 0.0
    bake_s: float = 0.0
    approvals: tuple[float, ...] = ()
    waves: tuple[int | str, ...] = ()
    order: tuple[str, ...] = ()
    parallel: int = 2
    max_unavailable: int | str = 1
    transfer_limit_kib_s: int = 0
    transfer_fetches: int = 4
    keep_versions: int = 3
    free_disk_mib: int = 512
    free_shm_mib: int = 64
    drain_timeout_s: float = 60
    ready_timeout_s: float = 120
    unload_timeout_s: float = 20
    warm_up: int = 3
    settle_s: float = 3.0
    max_errors: int = 0
    lock_ttl_s: float = 120
    webhook: str = ""
    webhook_file: str = ""
    alias_timeout_s: float = 5
    analysis: CanaryLimits = field(default_factory=CanaryLimits)
    freeze: tuple[FreezeWindow, ...] = ()

    def __post_init__(self) -> None:
        if self.strategy not in ("load", "restart"):
            raise FleetConfigError(
                f"rollout.strategy is {self.strategy!r}; choose load or restart."
            )
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise FleetConfigError(f"rollout.{name} must be above 0.")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise FleetConfigError(f"rollout.{name} must not be negative.")
        if self.shadow_percent > 100:
            raise FleetConfigError("rollout.shadow_percent must be 100 at most.")
        steps = list(self.steps)
        if not steps or steps[-1] != 100 or steps != sorted(set(steps)) or steps[0] <= 0:
            raise FleetConfigError(
                f"rollout.steps is {steps}: percents that rise and end with 100, as in [10,50,100]."
            )
        for percent in self.approvals:
            if percent not in steps:
                raise FleetConfigError(
                    f"rollout.approvals names {percent}, which is none of rollout.steps {steps}."
                )
        for size in (*self.waves, self.max_unavailable):
            host_count(size, 1)


def host_count(size: int | str, total: int) -> int:
    """A number of hosts that was given as one or as a percent of `total`: rounded up, at least 1.

    Raises FleetConfigError.
    """
    text = str(size).strip()
    digits = text.removesuffix("%")
    if not digits.isdecimal() or int(digits) < 1 or (digits != text and int(digits) > 100):
        raise FleetConfigError(
            f"{size!r} is no number of hosts: write 2, or 25% of them "
            "(rollout.waves, rollout.max_unavailable)."
        )
    return -(-int(digits) * total // 100) if digits != text else int(digits)


@dataclass(frozen=True)
class Outcome:
    """The end of a rollout. `kind`:

    unchanged: nothing was to do. done: every host serves the version. prepared: the named hosts
    have it loaded and proven beside what is in production, and no request was given to it. refused:
    nothing was activated. rolled-back: it failed, and all is as before. manual-intervention: an
    undo did not succeed everywhere, and the next run tries again. incomplete: a rollback or a heal,
    which are never undone, left out what `stuck` names, or was stopped. `stuck` has the reason for
    each host and edge; none of them gets requests that it cannot answer. `exit_code` is one of
    `conf.errors`, `hosts` are those that were changed.
    """

    kind: Literal[
        "unchanged", "done", "prepared", "refused", "rolled-back", "manual-intervention",
        "incomplete",
    ]  # fmt: skip
    reason: str = ""
    stuck: dict[str, str] = field(default_factory=dict)
    exit_code: int = DONE
    hosts: tuple[str, ...] = ()
