"""The part `transfer`: bytes and seconds of each tool to 1, 2, 4, ... hosts, then once more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.rollout_bench import goals
from scripts.rollout_bench.artifact import publish_random
from scripts.rollout_bench.machines import BenchError, BenchMachines, machines
from scripts.rollout_bench.tools import TOOLS


@dataclass(frozen=True)
class PushFigures:
    """One push by one tool: bytes that the control host sent, seconds, and the push after it.

    `fault` is a sentence where the tool could not be run; the rest is then nothing.
    """

    tool: str
    hosts: int
    sent_bytes: int = 0
    seconds: float = 0.0
    again_bytes: int = 0
    again_seconds: float = 0.0
    fault: str = ""


@dataclass(frozen=True)
class TransferFigures:
    """All pushes of one package of `package_bytes`."""

    package_bytes: int
    pushes: tuple[PushFigures, ...]

    def of(self, tool: str, hosts: int) -> PushFigures | None:
        """The push by `tool` to so many hosts, None where there was none that ended well."""
        found = (p for p in self.pushes if (p.tool, p.hosts) == (tool, hosts) and not p.fault)
        return next(found, None)


def measure_transfer(
    counts: Sequence[int], mib: int, tools: Sequence[str], show: Callable[[str], None]
) -> TransferFigures:
    """Push a package of `mib` MiB by each of `tools` to so many hosts. Raises BenchError."""
    with machines(max(counts)) as made:
        package = publish_random(made.folder / "store", made.folder / "keys" / "release", 1, mib)
        size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
        pushes = []
        for count in counts:
            for tool in tools:
                pushes.append(_measured(made, tool, list(made.addresses)[:count], package))
                show(f"{tool} to {count}: {pushes[-1].fault or f'{pushes[-1].seconds:.1f} s'}")
    return TransferFigures(size, tuple(pushes))


def _measured(made: BenchMachines, tool: str, hosts: Sequence[str], package: Path) -> PushFigures:
    made.empty_hosts()
    try:
        first = _push(made, tool, hosts, package)
        again = _push(made, tool, hosts, package)
    except BenchError as error:
        return PushFigures(tool, len(hosts), fault=str(error))
    return PushFigures(tool, len(hosts), *first, *again)


def _push(made: BenchMachines, tool: str, hosts: Sequence[str], package: Path) -> tuple[int, float]:
    os.sync()  # nobody pays for what another left to be written
    before, began = made.sent_bytes(), time.monotonic()
    TOOLS[tool](made, hosts, package)
    return made.sent_bytes() - before, time.monotonic() - began


def transfer_values(found: TransferFigures) -> tuple[dict[str, float], dict[str, float]]:
    """Values and bounds of the goals that these figures answer, by the goals' names."""
    values: dict[str, float] = {}
    bounds: dict[str, float] = {}
    wide, four = found.of("lockgate", 8), found.of("lockgate", 4)
    if wide:
        values[goals.BYTES] = wide.sent_bytes / found.package_bytes
    if four:
        values |= {goals.RSYNC: four.seconds, goals.ANSIBLE: four.seconds,
                   goals.AGAIN: four.again_seconds}  # fmt: skip
    if rsync := found.of("rsync loop", 4):
        bounds[goals.RSYNC] = rsync.seconds
    if ansible := found.of("ansible", 4):
        bounds |= {goals.ANSIBLE: ansible.seconds, goals.AGAIN: ansible.again_seconds}
    return values, bounds


def transfer_rows(found: TransferFigures) -> list[tuple[str, ...]]:
    """Rows of a table: hosts, tool, bytes in packages, seconds, and of the push after it."""

    def share(sent: int) -> str:
        return f"{sent / found.package_bytes:.2f}"

    return [
        (str(p.hosts), p.tool, p.fault, "", "", "")
        if p.fault
        else (
            str(p.hosts),
            p.tool,
            share(p.sent_bytes),
            f"{p.seconds:.1f}",
            share(p.again_bytes),
            f"{p.again_seconds:.1f}",
        )
        for p in found.pushes
    ]
