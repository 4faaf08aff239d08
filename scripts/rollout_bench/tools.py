"""Three ways to bring a package to hosts: Lockgate's own, an Ansible copy, and a loop of rsync.

Each as its users run it: Ansible with its defaults (five hosts at a time, ControlPersist), rsync to
one host after another. Only the first verifies a signature on the host, and has the files on the
disk (fsync) when it is done.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conf.schema import from_config
from scripts.box.identity import REPO
from scripts.rollout_bench.artifact import MODEL
from scripts.rollout_bench.machines import ROOT_PORT, BenchError, BenchMachines
from serving.fleet.inventory import fleet_from
from serving.fleet.rollout.engine import RolloutConfig
from serving.fleet.rollout.waves import by_turns
from serving.fleet.shipment import read_shipment
from serving.fleet.ssh.ssh_driver import SshDriver

Push = Callable[[BenchMachines, Sequence[str], Path], None]
"""`push(machines, hosts, package)` has the package on these hosts when it returns."""

ANSIBLE = "ansible-core==2.17.14"
_LIMIT_S = 1800


def push_by_lockgate(made: BenchMachines, hosts: Sequence[str], package: Path) -> None:
    """The stage step of `fab deploy`, for all hosts."""
    fleet = fleet_from(made.config)
    config = from_config(RolloutConfig, made.config.rollout, "rollout")
    store = package.parents[1]
    shipment = read_shipment(store, MODEL, int(package.name))
    chosen = by_turns([fleet.host(name) for name in hosts])
    with SshDriver(fleet, MODEL, store, config) as driver, ThreadPoolExecutor(16) as pool:
        for _ in pool.map(lambda host: driver.stage(host, shipment, False), chosen):
            pass


def push_by_rsync(made: BenchMachines, hosts: Sequence[str], package: Path) -> None:
    """`rsync -a` to one host after another."""
    for host in hosts:
        target = f"root@{made.addresses[host]}:{made.models(host)}/{package.name}/"
        _run(["rsync", "-a", "--rsh", shlex.join(["ssh", *_ssh_options(made), "-p",
              str(ROOT_PORT)]), f"{package}/", target])  # fmt: skip


def push_by_ansible(made: BenchMachines, hosts: Sequence[str], package: Path) -> None:
    """The copy module of Ansible, with its defaults, from an environment of its own."""
    folder = made.folder / "ansible"
    folder.mkdir(exist_ok=True)
    lines = [
        f"{host} ansible_host={made.addresses[host]} dest={made.models(host)}/{package.name}"
        for host in hosts
    ]
    (folder / "hosts.ini").write_text("\n".join([*lines, ""]))
    (folder / "ansible.cfg").write_text("")  # nothing of the user's or the system's
    environment = {
        "PATH": "/usr/bin:/bin:/usr/sbin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "control"),
        "ANSIBLE_SSH_COMMON_ARGS": shlex.join(_ssh_options(made)),
        "ANSIBLE_REMOTE_PORT": str(ROOT_PORT),
        "ANSIBLE_REMOTE_USER": "root",
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    }
    module = f"src={package}/ dest={{{{ dest }}}}/"
    _run(
        [str(ansible()), "all", "-i", str(folder / "hosts.ini"), "-m", "ansible.builtin.copy",
         "-a", module], environment,
    )  # fmt: skip


TOOLS: Mapping[str, Push] = {
    "lockgate": push_by_lockgate,
    "ansible": push_by_ansible,
    "rsync loop": push_by_rsync,
}


def ansible() -> Path:
    """The `ansible` command in build/bench-venv, which is made when it is not there."""
    folder = REPO / "build" / "bench-venv"
    command = folder / "bin" / "ansible"
    if not command.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "--quiet", ANSIBLE])
    return command


def _ssh_options(made: BenchMachines) -> list[str]:
    return [
        "-F", "none", "-i", str(made.root_key), "-o", f"UserKnownHostsFile={made.known_hosts}",
        "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
        "-o", "LogLevel=ERROR",
    ]  # fmt: skip


def _run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        env=environment or {**os.environ}, start_new_session=True,
    )  # fmt: skip
    try:
        stdout, stderr = process.communicate(timeout=_LIMIT_S)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers
        process.wait()
        raise
    if process.returncode != 0:
        lines = (stderr.strip() or stdout.strip()).splitlines()
        raise BenchError(f"{Path(argv[0]).name}: {lines[-1] if lines else process.returncode}")
