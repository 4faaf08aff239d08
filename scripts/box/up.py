"""`scripts/site up`: compare the box with what runs, and start what is missing, in order."""

from __future__ import annotations

import fcntl
import subprocess
import time
import xmlrpc.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from conf.site_schema import Site
from scripts.box import (
    edge,
    files,
    hosts,
    mariadb,
    mlflow,
    munge,
    passwords,
    preflight,
    processes,
    slurm,
    sudo,
    supervisor,
    users,
)
from scripts.box.identity import REPO
from scripts.box.ports import refuse_taken
from scripts.box.program import File, Program, Refusal
from scripts.box.programs import all_files, all_folders, all_programs
from scripts.box.state import Daemon, observe, socket_of
from scripts.box.waiting import wait_until

POLL_S = 0.3


def up(site: Site, console: Console) -> None:
    """Bring the box up, and return when every daemon is healthy.

    May be run at any time: over a box that is up it changes nothing; over half a box, or one in
    which something was killed, it starts what is missing. Raises Refusal.
    """
    preflight.check_machine(site, REPO)
    with exclusive(site):
        made = users.ensure(site)
        if made:
            console.print(f"users made: {', '.join(made)}")
        programs = _prepare(site, console)
        _supervise(site, programs, console)
        _start(site, programs, console)


@contextmanager
def exclusive(site: Site) -> Iterator[None]:
    """Hold the site's lock: two `up` or `down` at once take turns. A killed holder frees it."""
    site.root.mkdir(parents=True, exist_ok=True)
    with (site.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepare(site: Site, console: Console) -> list[Program]:
    """Put on disk all that the daemons need."""
    files.ensure_folders(all_folders(site))
    edge.ensure_state(site)
    hosts.adopt(site)
    munge.ensure_key(site)
    passwords.ensure(site)
    mlflow.ensure_key(site)
    mlflow.ensure_owned(site)
    hosts.ensure_keys(site)
    sudo.ensure(site)
    slurm.ensure_gpus(site)
    if not mariadb.data(site).exists():
        console.print("making the accounting database")
        mariadb.ensure_data(site)
    # sshd's unprivileged half is locked into this empty folder; it is gone after a reboot.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    programs = all_programs(site)
    files.ensure_files(all_files(site, programs))
    return programs


def _supervise(site: Site, programs: Sequence[Program], console: Console) -> None:
    """Have a supervisord that knows exactly `programs`; those whose config changed are stopped."""
    conf = site.paths.etc / "supervisord.conf"
    text = supervisor.site_conf(site, programs)
    files.ensure_files([File(conf, text, mode=0o600)])
    if supervisor.answers_at(supervisor.socket(site))():
        _clear_orphans(site, console)
        _refuse_taken(site, programs)
        _launch(site, conf)
        return
    control = supervisor.connect(supervisor.socket(site))
    added, changed, removed = control.reloadConfig()[0]
    for name in [*changed, *removed]:
        reason = "config changed" if name in changed else "no longer wanted"
        console.print(f"{name}: {reason}, stopping")
        control.stopProcessGroup(name)
        control.removeProcessGroup(name)
    for name in [*added, *changed]:
        control.addProcessGroup(name)
    _refuse_taken(site, programs)


def _clear_orphans(site: Site, console: Console) -> None:
    """End daemons whose supervisor is gone. Jobs are left alone: they outlive a slurmd."""
    jobs = {process.pid for process in processes.jobs_of(site)}
    orphans = [process for process in processes.of_site(site) if process.pid not in jobs]
    ended = processes.end(orphans)
    if ended:
        console.print(f"ended what a supervisord that is gone had left: {len(ended)} processes")


def _refuse_taken(site: Site, programs: Sequence[Program]) -> None:
    found = observe(site, programs, probe=False)
    idle = [daemon.program for daemon in found if daemon.state not in supervisor.RUNNING]
    refuse_taken(port for program in idle for port in program.ports)


def _launch(site: Site, conf: Path) -> None:
    """Start supervisord as a daemon with a clean environment and the site's mark.

    What it starts, and all that those start, jobs and SSH sessions too, inherits no_new_privs
    (https://docs.kernel.org/userspace-api/no_new_privs.html): no file with a setuid bit and no sudo
    gives any of them more than its user has. A daemon that could not do without would need another
    way to be started; there is none.
    """
    environment = {
        "PATH": f"{REPO}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(site.root),
        supervisor.MARK: str(site.root),
    }
    done = subprocess.run(
        ["/usr/bin/setpriv", "--no-new-privs",
         f"{REPO}/.venv/bin/supervisord", "--configuration", str(conf)],
        env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    if done.returncode != 0:
        raise Refusal(f"supervisord did not start: {(done.stderr or done.stdout).strip()[-300:]}")
    fault = supervisor.answers_at(supervisor.socket(site))
    if not wait_until(lambda: not fault(), 10):
        raise Refusal(f"supervisord does not answer; see {site.paths.log}/supervisord.log")


def _start(site: Site, programs: Sequence[Program], console: Console) -> None:
    """Start each program as soon as what it needs is healthy; return when all are."""
    began = time.monotonic()
    reported: set[str] = set()
    started: set[str] = set()
    with console.status("starting") as status:
        while True:
            daemons = observe(site, programs)
            healthy = {daemon.program.name for daemon in daemons if daemon.healthy}
            for daemon in daemons:
                name = daemon.program.name
                if daemon.healthy and name in started - reported:
                    reported.add(name)
                    console.print(f"{name}: healthy ({time.monotonic() - began:.1f} s)")
            waiting = [daemon for daemon in daemons if not daemon.healthy]
            if not waiting:
                return
            status.update(
                f"{len(healthy)} of {len(programs)} healthy; waiting for "
                f"{', '.join(daemon.program.name for daemon in waiting)}"
            )
            for daemon in waiting:
                if set(daemon.program.needs) <= healthy and _begin(site, daemon):
                    started.add(daemon.program.name)
            _give_up(site, daemons, waiting, time.monotonic() - began)
            time.sleep(POLL_S)


def _begin(site: Site, daemon: Daemon) -> bool:
    """Start what does not run. True where it was started, or is on its way."""
    if daemon.state not in ("STOPPED", "EXITED", "FATAL"):
        return True
    program = daemon.program
    if program.before:
        program.before()
    try:
        supervisor.connect(socket_of(site, program)).startProcess(program.process_name, False)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != ALREADY_STARTED:
            raise
    return True


ALREADY_STARTED = 60
"""supervisor.xmlrpc.Faults.ALREADY_STARTED: it was started between our query and our call."""


def _give_up(
    site: Site, daemons: Sequence[Daemon], waiting: Sequence[Daemon], age_s: float
) -> None:
    """Raises Refusal with the end of the log when a daemon cannot start or takes too long."""
    blamed = [daemon for daemon in waiting if daemon.state == "BACKOFF" and age_s > 20]
    if age_s > site.up_timeout_s:
        healthy = {daemon.program.name for daemon in daemons if daemon.healthy}
        blamed = blamed or [d for d in waiting if set(d.program.needs) <= healthy] or list(waiting)
    if not blamed:
        return
    first = blamed[0]
    raise Refusal(
        f"{', '.join(d.program.name for d in blamed)}: not healthy after {age_s:.0f} s "
        f"({first.fault}).\nThe end of {first.log}:\n{tail(first.log)}\n"
        "The rest of the box is up; `scripts/site up` tries again, `scripts/site down` stops it."
    )


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, indented; a word in brackets where there is none."""
    if not path.exists():
        return "  (no log yet)"
    text = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in text) or "  (empty)"
