"""`fab plan --simulate 1000x12`: rollouts through drawn fleets, in memory, by the real engine."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from serving.fleet.cli.command import Controls
from serving.fleet.errors import FleetConfigError
from serving.fleet.simulation.rehearsal import Rehearsal, rehearse

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,2})")
_MEMORY = Path("/dev/shm")


def rehearsals(on: Controls, size: str, seed: int) -> list[Rehearsal]:
    """The drawn rollouts of a fleet of `size`, such as 1000x12. Raises FleetConfigError.

    Their journals lie in memory and are gone afterwards; the real fleet and journal are not read.
    """
    match = _SIZE.fullmatch(size)
    hosts, regions = map(int, match.groups()) if match else (0, 0)
    if hosts < 2 * regions or not regions:
        raise FleetConfigError(
            f"--simulate {size}: type hosts and regions, as in --simulate 1000x12, with two hosts "
            "in each region at least."
        )
    where = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="lockgate-rehearsal-", dir=where) as folder:
        return rehearse(hosts, regions, seed, on.config, Path(folder))
