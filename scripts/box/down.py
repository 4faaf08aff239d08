"""`scripts/site down`: jobs first, then the daemons in order, then a look that nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from scripts.box import hosts, processes, slurm, supervisor
from scripts.box.preflight import refuse_without_root
from scripts.box.program import Program, Refusal
from scripts.box.programs import all_programs, stop_order
from scripts.box.state import socket_of
from scripts.box.up import exclusive


def down(site: Any, console: Console) -> None:
    """Stop everything of the site. Raises Refusal where a process cannot be ended.

    Data stays. A box that is down already stays so, and what a killed `up` left is ended.
    """
    refuse_without_root()
    if not Path(site.root).exists():
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
        for process in processes.strangers(site):
            console.print(f"not the box's, but works in {site.root}: {processes.describe(process)}")
        left = [processes.describe(process) for process in processes.of_site(site)]
    if left:
        raise Refusal(f"could not be ended: {'; '.join(left)}")
    console.print("down; no process is left, the data stays")


def cancel_jobs(site: Any) -> None:
    """Cancel every job and wait until no step runs; a job that cannot be asked is ended below."""
    if not shutil.which("scancel"):
        return
    env = {**os.environ, **slurm.client_env(site)}
    states = ["PENDING", "RUNNING", "SUSPENDED"]
    for state in states:
        subprocess.run(
            ["scancel", f"--state={state}"], env=env, capture_output=True, timeout=30, check=False
        )
    deadline = time.monotonic() + site.slurm.kill_wait_s + 10
    while processes.jobs_of(site) and time.monotonic() < deadline:
        time.sleep(0.2)


def _stop(site: Any, wave: Sequence[Program]) -> None:
    """Tell a wave to stop, all at once, and wait for it."""
    patience = max(program.stop_wait_s for program in wave) + 10
    deadline = time.monotonic() + patience
    for program in wave:
        try:
            supervisor.connect(socket_of(site, program)).stopProcess(program.called, False)
        except (OSError, xmlrpc.client.Error):
            continue  # it does not run, or its supervisor is gone: the last look ends it
    stopped = ("STOPPED", "EXITED", "FATAL", "ABSENT")
    while time.monotonic() < deadline:
        sockets = {socket_of(site, program) for program in wave}
        known = {path: supervisor.processes(path) for path in sockets}
        states = [
            known[socket_of(site, program)].get(program.called, {}).get("statename", "ABSENT")
            for program in wave
        ]
        if all(state in stopped for state in states):
            return
        time.sleep(0.1)


def _shut_down(site: Any) -> None:
    path = supervisor.pid_file(site)
    pid = int(path.read_text()) if path.exists() else 0
    supervisor.connect(supervisor.socket(site)).shutdown()
    deadline = time.monotonic() + 20
    while pid and Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def sweep(site: Any) -> None:
    """Remove what dead daemons leave: sockets, pid files, Triton's shared memory."""
    for run in [Path(site.paths.run), *(hosts.home(site, host) / "run" for host in site.hosts)]:
        for path in sorted(run.rglob("*")):
            if path.is_socket() or path.suffix in (".pid", ".lock"):
                path.unlink()
    for host in site.hosts:
        prefix = hosts.triton(site, host, "").shm_prefix
        for region in Path("/dev/shm").glob(f"{prefix}*"):
            region.unlink(missing_ok=True)
