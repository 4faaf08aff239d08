"""Processes of a site: found by the site's mark, and ended."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from conf.site_schema import Site
from scripts.box.supervisor import MARK

STEP = "slurmstepd"
RETITLED = (STEP, "sshd")


def of_site(site: Site) -> list[psutil.Process]:
    """Every process that the box started, or that a process of it started, whoever owns it now.

    Daemons and their children carry the site's mark in their environment. sshd and Slurm's job
    steps write their title over it; they are known by the site's folder in their command line or
    as where they work, and with them all that they run.
    """
    mark = f"{MARK}={site.root}".encode()
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if _marked(process.pid, mark) or (
            _is_called(process, RETITLED) and _names(process, str(site.root))
        ):
            found[process.pid] = process
            found.update({child.pid: child for child in children(process)})
    found.pop(os.getpid(), None)
    return list(found.values())


def jobs_of(site: Site) -> list[psutil.Process]:
    """The job steps that run on the site's nodes, and all that runs in them."""
    steps = [process for process in of_site(site) if _is_called(process, (STEP,))]
    inside = {process.pid: process for process in steps}
    for step in steps:
        inside.update({child.pid: child for child in children(step)})
    return list(inside.values())


def strangers(site: Site) -> list[psutil.Process]:
    """Processes that are not the box's but work in its folder: a shell, an editor, a `tail -f`."""
    own = {process.pid for process in of_site(site)} | set(_ancestors())
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in own and _names(process, str(site.root))
    ]


def end(processes: Iterable[psutil.Process], patience_s: float = 10) -> list[str]:
    """TERM, then KILL after `patience_s`; returns a line about each that had to be ended."""
    processes = list(processes)
    ended = [process_line(process) for process in processes]
    for process in processes:
        _signal(process, process.terminate)
    _, left = psutil.wait_procs(processes, timeout=patience_s)
    left = _freeze(left)
    for process in left:
        _signal(process, process.kill)
    psutil.wait_procs(left, timeout=5)
    return ended


def _freeze(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Stop the processes and all their children, so that none can start another one meanwhile."""
    frozen: dict[int, psutil.Process] = {}
    while processes:
        for process in processes:
            _signal(process, process.suspend)
            frozen[process.pid] = process
        processes = [
            child for parent in processes for child in children(parent) if child.pid not in frozen
        ]
    return list(frozen.values())


def process_line(process: psutil.Process) -> str:
    """`pid 4711 (sleep 100)`."""
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "gone by now"
    return f"pid {process.pid} ({command[:100]})"


def _signal(process: psutil.Process, send: Any) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return  # it went by itself, which is what was wanted


def _marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _is_called(process: psutil.Process, names: tuple[str, ...]) -> bool:
    try:
        return process.name() in names
    except psutil.Error:
        return False


def _names(process: psutil.Process, root: str) -> bool:
    try:
        words = [process.cwd(), *process.cmdline()]
    except psutil.Error:
        return False
    return any(word == root or f"{root}/" in word for word in words)


def children(process: psutil.Process) -> list[psutil.Process]:
    """All that the process started, and what that started; none of one that has ended."""
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _ancestors() -> list[int]:
    return [os.getpid(), *(parent.pid for parent in psutil.Process().parents())]
