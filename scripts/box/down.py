"""`scripts/site down`: jobs first, then the daemons in order, then a check that nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from conf.site_schema import Site
from scripts.box import hosts, processes, slurm, sudo, supervisor
from scripts.box.preflight import refuse_without_root
from scripts.box.program import Program, Refusal
from scripts.box.programs import all_programs, stop_order
from scripts.box.state import socket_of
from scripts.box.up import exclusive
from scripts.box.waiting import wait_until


def down(site: Site, console: Console) -> None:
    """Stop everything of the site. Raises Refusal where a process cannot be ended.

    Data stays. A box that is down already stays so, and what a killed `up` left is ended.
    """
    refuse_without_root()
    if not site.root.exists():
        console.print("nothing is there to stop")
        return
    with exclusive(site):
        supervised = not supervisor.answers_at(supervisor.socket(site))()
        if supervised:
            programs = all_programs(site)
            with console.status("cancelling jobs"):
                cancel_jobs(site)
            for wave in stop_order(programs):
                with console.status(f"stopping {', '.join(program.name for program in wave)}"):
                    _stop(site, wave)
            with console.status("stopping supervisord"):
                _shut_down(site)
        ended = processes.end(processes.of_site(site))
        if ended and not supervised:
            console.print(f"no supervisord answered; ended {len(ended)} processes it had left")
        for line in ended if supervised else []:
            console.print(f"did not stop by itself, ended: {line}")
        sweep(site)
        sudo.remove(site)
        for process in processes.strangers(site):
            line = processes.process_line(process)
            console.print(f"not the box's, but works in {site.root}: {line}")
        left = [processes.process_line(process) for process in processes.of_site(site)]
    if left:
        raise Refusal(f"could not be ended: {'; '.join(left)}")
    console.print("down; no process is left, the data stays")


def cancel_jobs(site: Site) -> None:
    """Cancel every job and wait until no step runs; what goes on running is ended by `down`."""
    if not shutil.which("scancel"):
        return
    env = {**os.environ, **slurm.client_env(site)}
    states = ["PENDING", "RUNNING", "SUSPENDED"]
    for state in states:
        subprocess.run(
            ["scancel", f"--state={state}"], env=env, capture_output=True, timeout=30, check=False
        )
    wait_until(lambda: not processes.jobs_of(site), site.slurm.kill_wait_s + 10)


def _stop(site: Site, wave: Sequence[Program]) -> None:
    """Stop a wave of programs at once and wait for all of them."""
    for program in wave:
        try:
            supervisor.connect(socket_of(site, program)).stopProcess(program.process_name, False)
        except (OSError, xmlrpc.client.Error):
            continue  # it does not run, or its supervisor is gone: the final check ends it

    def stopped() -> bool:
        sockets = {socket_of(site, program) for program in wave}
        known = {path: supervisor.processes(path) for path in sockets}
        states = [
            known[socket_of(site, program)].get(program.process_name, {}).get("statename", "ABSENT")
            for program in wave
        ]
        return all(state in ("STOPPED", "EXITED", "FATAL", "ABSENT") for state in states)

    wait_until(stopped, max(program.stop_wait_s for program in wave) + 10)


def _shut_down(site: Site) -> None:
    path = supervisor.pid_file(site)
    pid = int(path.read_text()) if path.exists() else 0
    supervisor.connect(supervisor.socket(site)).shutdown()
    wait_until(lambda: not (pid and Path(f"/proc/{pid}").exists()), 20)


def sweep(site: Site) -> None:
    """Remove what dead daemons leave: sockets, pid files, Triton's shared memory."""
    homes = [hosts.home(site, host) for host in site.hosts]
    for run in [site.paths.run, *(home / name for home in homes for name in ("run", "watch"))]:
        for path in sorted(run.rglob("*")):
            if path.is_socket() or path.suffix in (".pid", ".lock"):
                path.unlink()
    for host in site.hosts:
        prefix = hosts.triton(site, host).shm_prefix
        for region in Path("/dev/shm").glob(f"{prefix}*"):
            region.unlink(missing_ok=True)
