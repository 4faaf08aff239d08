"""A share of the processors for each machine that the box plays on this one.

Serving hosts and the control host are machines of their own: one that starts its Triton takes no
cycles from its neighbours. On the box all of them share this machine's cores. Here each host gets a
control group with a quota, as CFS counts it (https://docs.kernel.org/scheduler/sched-bwc.html), and
the control host one that yields to all others; edges and clients keep the rest. Needs root and the
cpu controller of cgroup v1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from conf.site_schema import Site
from scripts.box import hosts, processes
from scripts.rollout_bench.machines import BenchError

CONTROLLER = Path("/sys/fs/cgroup/cpu")
CONTROL = "control"
"""Name of the control host's group, beside those of the serving hosts."""
_PERIOD_US = 10_000
_YIELDS = 32
"""Weight of the control host; that of a group by itself is 1024."""
_EMPTY_S = 5.0


@dataclass(frozen=True)
class Shares:
    """The groups of a running site, by machine."""

    groups: Mapping[str, Path]

    def join(self, machine: str) -> tuple[str, ...]:
        """Words before a command line that runs it in a machine's group.

        A shell joins, and not this process between fork and exec: it has threads of gRPC.
        """
        procs = self.groups[machine] / "cgroup.procs"
        return ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(procs))


@contextmanager
def processor_shares(site: Site, cores: float) -> Iterator[Shares]:
    """Give each serving host `cores` of this machine until the block ends.

    Raises BenchError where no such group can be made, or a host does not run.
    """
    folder = CONTROLLER / f"lockgate-bench-{os.getpid()}"
    groups = {name: folder / name for name in (CONTROL, *site.hosts)}
    try:
        try:
            for group in groups.values():
                group.mkdir(parents=True)
            for host in site.hosts:
                (groups[host] / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (groups[host] / "cpu.cfs_quota_us").write_text(str(round(cores * _PERIOD_US)))
            (groups[CONTROL] / "cpu.shares").write_text(str(_YIELDS))
        except OSError as error:
            raise BenchError(
                f"no share of the processors for each host: {error}. It needs root and cgroup v1; "
                "--cores 0 measures with cores that all hosts share"
            ) from error
        for host in site.hosts:
            _fill(site, host, groups[host] / "cgroup.procs")
        yield Shares(groups)
    finally:
        _remove(folder, groups)


def _fill(site: Site, host: str, procs: Path) -> None:
    """Move what runs on a host into its group; what that starts later is in it as well."""
    home = str(hosts.home(site, host))
    found = 0
    for process in processes.of_site(site):
        with suppress(OSError):  # it has ended meanwhile
            words = Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace").split("\0")
            if any(word == home or f"{home}/" in word for word in words):
                for one in (process, *processes.children(process)):
                    _move(one.pid, procs)
                found += 1
    if not found:
        raise BenchError(f"nothing of host {host} runs: is the site up? scripts/site status")


def _move(pid: int, procs: Path) -> None:
    with suppress(ProcessLookupError):
        procs.write_text(str(pid))


def _remove(folder: Path, groups: Mapping[str, Path]) -> None:
    """Hand the processes back to the controller's root, and remove the groups."""
    deadline = time.monotonic() + _EMPTY_S
    for group in groups.values():
        while group.is_dir() and time.monotonic() < deadline:
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    _move(int(pid), CONTROLLER / "cgroup.procs")
            with suppress(OSError):  # one was forked meanwhile
                group.rmdir()
    with suppress(OSError):
        folder.rmdir()
