"""Serving hosts for the bench: a network namespace each, with the site's own sshd and files in it.

All hang on one bridge whose own transmit counter is exactly what this machine, the control host,
sent; what one host sends to another passes the bridge and is not in it. A second sshd on each host
lets root in with a key and nothing in between: the way of the other tools. Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from conf import compose
from conf.site_schema import Site, site_config
from scripts.box import hosts as box
from scripts.box import users
from scripts.box.files import ensure_files, ensure_folders
from scripts.box.keys import ensure_ed25519
from scripts.box.probe import greets
from scripts.box.program import File
from serving.fleet.bootstrap.host_pin import known_hosts_line

SSH_PORT, ROOT_PORT = 2222, 2022
_START_S = 20.0


class BenchError(RuntimeError):
    """The bench cannot be run here; the text says why."""


@dataclass
class BenchMachines:
    """`count` hosts of one region. `root_key` logs in as root at ROOT_PORT."""

    folder: Path
    config: DictConfig
    bridge: str
    addresses: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def site(self) -> Site:
        """The site that the hosts are those of."""
        return site_config(self.config)

    @property
    def root_key(self) -> Path:
        """The key of the other tools."""
        return self.folder / "keys" / "root"

    @property
    def known_hosts(self) -> Path:
        """The pinned keys of the hosts, at both ports."""
        return self.folder / "keys" / "known_hosts"

    def models(self, host: str) -> Path:
        """The folder where the other tools put a package on the host."""
        return self.folder / "models" / host

    def sent_bytes(self) -> int:
        """Bytes that this machine has sent to the hosts until now, headers too."""
        counter = Path(f"/sys/class/net/{self.bridge}/statistics/tx_bytes")
        return int(counter.read_text())

    def empty_hosts(self) -> None:
        """Take every package off every host."""
        for host in self.addresses:
            home = box.home(self.site, host)
            for folder in (home / "packages", home / "staging", self.models(host)):
                for path in folder.iterdir():
                    subprocess.run(["chmod", "-R", "u+w", str(path)], check=True)
                    shutil.rmtree(path)
            for path in (home / "state").iterdir():
                path.unlink()


@contextmanager
def machines(count: int) -> Iterator[BenchMachines]:
    """Hosts that run until the block ends; nothing of them is left then. Raises BenchError."""
    if os.geteuid() != 0:
        raise BenchError("the bench needs root: its hosts are network namespaces")
    missing = [name for name in ("ip", "rsync", "ssh-keygen") if shutil.which(name) is None]
    if missing or not Path("/usr/sbin/sshd").exists():
        raise BenchError(f"the bench needs {', '.join(missing) or 'sshd'}: run scripts/setup")
    folder = Path(tempfile.mkdtemp(prefix="lockgate-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    made = _machines(folder, count)
    try:
        _start(made)
        yield made
    finally:
        _stop(made)


def _machines(folder: Path, count: int) -> BenchMachines:
    number = os.getpid() % 250
    addresses = {f"h{k}": f"10.213.{number}.{k + 10}" for k in range(1, count + 1)}
    config = compose("rollout")
    OmegaConf.set_struct(config, False)
    site = config.site
    site.root, site.name, site.mlflow_uri = str(folder), "bench", ""
    site.paths.deploy_key = str(folder / "keys" / "deploy")
    site.paths.known_hosts = str(folder / "keys" / "known_hosts")
    site.ports.ssh = SSH_PORT
    site.hosts = {name: {"address": at, "region": "us-east"} for name, at in addresses.items()}
    return BenchMachines(folder, config, f"lgb{number}", addresses)


def _start(made: BenchMachines) -> None:
    site = made.site
    users.ensure(site)
    for folder in (made.folder / "keys", made.folder / "store", *map(made.models, made.addresses)):
        folder.mkdir(parents=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    ensure_folders(box.folders(site))
    keys = made.folder / "keys"
    deploy = ensure_ed25519(keys / "deploy", "root", "deploy")
    root = ensure_ed25519(made.root_key, "root", "root")
    release = ensure_ed25519(keys / "release", "root", "release")
    _ip("link", "add", made.bridge, "type", "bridge")
    _ip("addr", "add", _network(made), "dev", made.bridge)
    _ip("link", "set", made.bridge, "up")
    known, peers = "", {}
    for number, (name, address) in enumerate(made.addresses.items(), 1):
        etc = box.home(site, name) / "etc"
        public = ensure_ed25519(etc / "ssh_host_ed25519_key", "root", name)
        fetch = ensure_ed25519(etc / "fetch_key", site.users.verify, "fetch")
        peers[name] = box.peer_of(site, name, public, fetch)
        for port in (SSH_PORT, ROOT_PORT):
            known += known_hosts_line(name, address, port, public)
        files = [
            *box.code_files(site, name),
            File(etc / "authorized_keys", box.verbs_key(site, name, deploy)),
            File(etc / "authorized_keys.staging", box.staging_key(site, name, deploy)),
            File(etc / "authorized_keys.root", root),
            File(etc / "allowed_signers", box.signers(site, release)),
            File(etc / "sshd_config", box.sshd_config(site, name)),
            File(etc / "sshd_config.root", _root_sshd(etc, address)),
        ]
        ensure_files(files)
        _namespace(made, number, name, address)
        for config in ("sshd_config", "sshd_config.root"):
            argv = ["ip", "netns", "exec", _name(made, name),
                    "/usr/sbin/sshd", "-D", "-e", "-f", str(etc / config)]  # fmt: skip
            with (etc / f"{config}.log").open("wb") as log:
                made.processes.append(
                    subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                )
    ensure_files(box.peer_files(site, peers))
    made.known_hosts.write_text(known)
    for address in made.addresses.values():
        for port in (SSH_PORT, ROOT_PORT):
            _await(address, port)


def _root_sshd(etc: Path, address: str) -> str:
    return "\n".join(
        [
            f"Port {ROOT_PORT}",
            f"ListenAddress {address}",
            f'HostKey "{etc}/ssh_host_ed25519_key"',
            "PidFile none",
            f'AuthorizedKeysFile "{etc}/authorized_keys.root"',
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "UsePAM no",
            "UseDNS no",
            "MaxStartups 60:30:120",
            "Subsystem sftp internal-sftp",
            "",
        ]
    )


def _namespace(made: BenchMachines, number: int, name: str, address: str) -> None:
    space, outer = _name(made, name), _link(made, number)
    _ip("netns", "add", space)
    _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", outer, "master", made.bridge, "up")
    for words in (("addr", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                  ("link", "set", "lo", "up")):  # fmt: skip
        _ip("-n", space, *words)


def _stop(made: BenchMachines) -> None:
    for process in made.processes:
        process.terminate()
    for process in made.processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for number, name in enumerate(made.addresses, 1):
        space = _name(made, name)
        _end_sessions(space)
        subprocess.run(["ip", "netns", "del", space], capture_output=True)
        subprocess.run(["ip", "link", "del", _link(made, number)], capture_output=True)
    subprocess.run(["ip", "link", "del", made.bridge], capture_output=True)
    subprocess.run(["chmod", "-R", "u+w", str(made.folder)], capture_output=True)
    shutil.rmtree(made.folder, ignore_errors=True)


def _end_sessions(space: str) -> None:
    """End what still runs in a namespace: sessions outlive their sshd, and hold the namespace."""
    listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
    for word in listed.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(word), signal.SIGKILL)


def _link(made: BenchMachines, number: int) -> str:
    return f"{made.bridge}v{number}"


def _name(made: BenchMachines, host: str) -> str:
    return f"{made.bridge}-{host}"


def _network(made: BenchMachines) -> str:
    first = next(iter(made.addresses.values()))
    return first.rpartition(".")[0] + ".1/24"


def _ip(*words: str) -> None:
    command: Sequence[str] = ["ip", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")


def _await(address: str, port: int) -> None:
    probe, deadline = greets(address, port, b"SSH-2.0-"), time.monotonic() + _START_S
    while probe():
        if time.monotonic() > deadline:
            raise BenchError(f"no sshd answers at {address}:{port}")
        time.sleep(0.05)
