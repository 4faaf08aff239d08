"""An upgrade as somebody typed it: the site, the controls, and the access to its machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.fleet.bootstrap.wheelhouse import Wheelhouse
from serving.fleet.cli.bootstrap import HostSetup
from serving.fleet.cli.command import Controls

Progress = Callable[[str, str, str], None]


@dataclass(frozen=True)
class UpgradeOrder:
    """All that the upgrade of a machine works with. `user` and `key` are the account there that is
    root and its SSH key, "" for those of the settings."""

    on: HostSetup
    controls: Controls
    wheels: Wheelhouse
    user: str
    key: str
    progress: Progress
