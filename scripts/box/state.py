"""Present state: each program of the box with the state that its supervisor reports."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from conf.site_schema import Site
from scripts.box import supervisor
from scripts.box.program import Program


@dataclass(frozen=True)
class Daemon:
    """One program as found. `fault` is "" when its probe was satisfied."""

    program: Program
    state: str
    pid: int
    since: int
    fault: str
    log: Path

    @property
    def off(self) -> bool:
        """True for a program that nobody needs now."""
        return self.program.on_demand and self.state in OFF

    @property
    def healthy(self) -> bool:
        return self.off or (self.state in supervisor.RUNNING and not self.fault)


OFF = ("STOPPED", "STOPPING", "EXITED")


def socket_of(site: Site, program: Program) -> Path:
    """The supervisor that runs `program`."""
    return program.socket or supervisor.socket(site)


def observe(site: Site, programs: Sequence[Program], probe: bool = True) -> list[Daemon]:
    """Query every supervisor, then probe every program that runs, all in parallel."""
    sockets = {socket_of(site, program) for program in programs}
    with ThreadPoolExecutor(max_workers=16) as pool:
        known = dict(zip(sockets, pool.map(supervisor.processes, sockets), strict=True))

        def found(program: Program) -> Daemon:
            info = known[socket_of(site, program)].get(program.process_name, {})
            state = str(info.get("statename", "ABSENT"))
            fault = ""
            if program.on_demand and state in OFF:
                fault = ""
            elif state not in supervisor.RUNNING:
                fault = str(info.get("spawnerr") or "") or f"is {state}"
            elif probe:
                fault = program.probe()
            return Daemon(
                program, state, int(info.get("pid", 0)), int(info.get("start", 0)), fault,
                supervisor.log_of(site, program),
            )  # fmt: skip

        return list(pool.map(found, programs))
