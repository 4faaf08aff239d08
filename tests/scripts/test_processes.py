"""Which processes are the site's, and that they really end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from conf.site_schema import Site
from scripts.box import processes
from scripts.box.supervisor import MARK

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *a: subprocess.Popen(["sleep", "600"]))
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
while True:
    time.sleep(600)
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.wait()


def run(*argv: str, **extra: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **extra)


def test_a_marked_process_is_the_sites_whoever_its_parent_is(
    site: Site, started: list[subprocess.Popen[str]]
) -> None:
    marked = run("sleep", "600", env={**os.environ, MARK: str(site.root)})
    other = run("sleep", "600", env={**os.environ, MARK: f"{site.root}-two"})
    started += [marked, other]
    assert [process.pid for process in processes.of_site(site)] == [marked.pid]


def test_a_shell_in_the_sites_folder_is_a_stranger_and_not_ended(
    site: Site, started: list[subprocess.Popen[str]]
) -> None:
    site.root.mkdir()
    shell = run("sleep", "600", cwd=site.root)
    started.append(shell)
    assert processes.of_site(site) == []
    assert [process.pid for process in processes.strangers(site)] == [shell.pid]


def test_a_process_that_answers_term_with_another_child_ends_with_all_its_children(
    started: list[subprocess.Popen[str]],
) -> None:
    stubborn = run(sys.executable, "-c", STUBBORN)
    started.append(stubborn)
    assert stubborn.stdout is not None
    first = int(stubborn.stdout.readline())
    tree = psutil.Process(stubborn.pid)
    lines = processes.end([tree], patience_s=0.5)
    assert len(lines) == 1
    assert str(stubborn.pid) in lines[0]
    assert not _alive(stubborn.pid)
    assert not _alive(first)
    assert not [
        p for p in psutil.process_iter() if p.name() == "sleep" and p.ppid() == stubborn.pid
    ]


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
