"""Bare Debian machines with systemd: systemd-nspawn, each in a network namespace of its own.

A machine is a writable overlay over one base, which debootstrap makes once (a minute and a half)
and keeps in /var/tmp/lockgate-bare. It has systemd, sshd with root's key, python3 and rsync, and no
way to the internet: the bridge leads to this machine only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CACHE = Path("/var/tmp/lockgate-bare")
PACKAGES = (
    "systemd,systemd-sysv,dbus,openssh-server,python3,libpython3.11,iproute2,rsync,haproxy,"
    "python3-prometheus-client"
)
NEEDED = ("systemd-nspawn", "debootstrap", "ip", "ssh-keygen", "rsync", "haproxy")
SUITE = "bookworm"
GATEWAY = 1


def reason_to_skip() -> str:
    """The reason why machines cannot be made here, with the remedy; "" where they can."""
    if os.geteuid() != 0:
        return "needs root: bare hosts are systemd-nspawn machines"
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return (
            f"no {', '.join(missing)}: apt-get install --no-install-recommends "
            "systemd-container debootstrap"
        )
    return ""


@dataclass
class Machine:
    """One machine; `address` on the bridge, its disk at `top`."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def top(self) -> Path:
        return self.folder / "top"

    @property
    def host_key(self) -> str:
        """The public host key, as the machine's own disk has it."""
        return (self.top / "etc/ssh/ssh_host_ed25519_key.pub").read_text()


class Machines:
    """`count` machines h1, h2, ... on a bridge; `root_key` is root's at each. Stop with `down`."""

    def __init__(self, count: int) -> None:
        self.base = base_system()
        self.root = Path(tempfile.mkdtemp(prefix="lockgate-nspawn-", dir="/var/tmp"))
        self.root.chmod(0o755)
        self.root_key = self.root / "id"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.root_key)], check=True
        )
        self.bridge, self.net = free_net()
        self.machines = [
            Machine(f"h{n}", f"{self.net}.{10 + n}", self.root / f"h{n}")
            for n in range(1, count + 1)
        ]
        try:
            _run("ip", "link", "add", self.bridge, "type", "bridge")
            _run("ip", "address", "add", f"{self.gateway}/24", "dev", self.bridge)
            _run("ip", "link", "set", self.bridge, "up")
            for machine in self.machines:
                self._prepare(machine)
                self.start(machine)
            for machine in self.machines:
                self.wait_booted(machine)
        except BaseException:
            self.down()
            raise

    @property
    def gateway(self) -> str:
        """The address of this machine on the bridge."""
        return f"{self.net}.{GATEWAY}"

    def _prepare(self, machine: Machine) -> None:
        top = machine.top
        for name in ("upper", "work", "top"):
            (machine.folder / name).mkdir(parents=True)
        layers = (
            f"lowerdir={self.base},upperdir={machine.folder}/upper,workdir={machine.folder}/work"
        )
        _run("mount", "-t", "overlay", "overlay", "-o", layers, str(top))
        (top / "etc/hostname").write_text(f"{machine.name}\n")
        # 10-: it must sort before Debian's own 80-container-host0.network.
        (top / "etc/systemd/network/10-host0.network").write_text(
            f"[Match]\nName=host0\n[Network]\nAddress={machine.address}/24\n"
        )
        keys = top / "root/.ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "authorized_keys").write_text(self.root_key.with_suffix(".pub").read_text())
        for old in (top / "etc/ssh").glob("ssh_host_*"):
            old.unlink()
        _run("chroot", str(top), "ssh-keygen", "-A")

    def start(self, machine: Machine) -> None:
        """Boot it."""
        with (machine.folder / "console.log").open("ab") as console:
            machine.process = subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", str(machine.top), f"--machine=lg-{self.bridge}-"
                 f"{machine.name}", "--boot", "--register=no", "--keep-unit",
                 f"--network-bridge={self.bridge}"],
                stdout=console, stderr=console, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def wait_booted(self, machine: Machine, timeout_s: float = 90) -> None:
        """Wait until root can log in and systemd has started everything."""
        deadline = time.monotonic() + timeout_s
        while True:
            state = self.ssh(machine, "systemctl is-system-running --wait", check=False)
            if state.stdout.strip() in ("running", "degraded"):
                return
            assert time.monotonic() < deadline, f"{machine.name} did not boot: {state}"
            time.sleep(0.2)

    def ssh(
        self, machine: Machine, command: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as root of the machine."""
        argv = [
            "ssh", "-F", "none", "-i", str(self.root_key), "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=2", f"root@{machine.address}", command,
        ]  # fmt: skip
        return subprocess.run(argv, capture_output=True, text=True, check=check, timeout=120)

    def power_cut(self, machine: Machine) -> None:
        """End the machine as a pulled plug does, at once and with nothing written out by itself."""
        assert machine.process is not None
        for child in children(machine.process.pid):
            os.kill(child, signal.SIGKILL)
        machine.process.wait(30)

    def reboot(self, machine: Machine) -> None:
        """Pull the plug and boot again; returns as soon as the boot has begun."""
        self.power_cut(machine)
        self.start(machine)

    def down(self) -> None:
        """Stop every machine that this object started, and remove bridge and disks."""
        for machine in self.machines:
            if machine.process is not None and machine.process.poll() is None:
                self.power_cut(machine)
        for machine in self.machines:
            subprocess.run(["umount", "-l", str(machine.top)], capture_output=True)
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)


def base_system() -> Path:
    """The disk that all machines share, made once; two at the same time wait for each other."""
    CACHE.mkdir(exist_ok=True)
    base = CACHE / f"base-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.is_dir():
            new = CACHE / "base.new"
            shutil.rmtree(new, ignore_errors=True)
            with (CACHE / "debootstrap.log").open("wb") as log:
                subprocess.run(
                    ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(new)],
                    stdout=log, stderr=log, check=True,
                )  # fmt: skip
            _run("chroot", str(new), "systemctl", "enable", "systemd-networkd")
            new.rename(base)
    return base


def free_net() -> tuple[str, str]:
    """A bridge's name and the first three parts of its addresses, which nobody has here."""
    shown = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True)
    links = json.loads(shown.stdout)
    names = {link["ifname"] for link in links}
    taken = {info.get("local", "") for link in links for info in link["addr_info"]}
    for part in range(256):
        if f"lgbr{part}" not in names and f"10.77.{part}.{GATEWAY}" not in taken:
            return f"lgbr{part}", f"10.77.{part}"
    raise AssertionError("no free bridge")


def children(pid: int) -> list[int]:
    """The child processes of `pid`."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
