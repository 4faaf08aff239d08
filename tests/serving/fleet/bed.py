"""A small real fleet for tests: sshd, supervisord, tritonserver and HAProxy on loopback.

Everything is started by the test, lives in one folder and is stopped by `Bed.down`. Packages are
tiny, made by hand and truly signed; the model multiplies by a number from its version folder.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from conf import compose
from conf.site_schema import Site, site_config
from scripts.box import hosts as box
from scripts.box import users
from scripts.box.files import ensure_files, ensure_folders
from scripts.box.keys import ensure_ed25519
from scripts.box.program import File
from serving.artifact import store
from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.manifest import Manifest, list_files
from serving.artifact.signature import allowed_signer, sign
from serving.artifact.tensors import TensorSpec
from serving.artifact.verify import FORMAT
from serving.fleet.bootstrap.host_pin import known_hosts_line
from serving.fleet.haproxy.edge import Edge
from serving.fleet.haproxy.edge_config import haproxy_cfg
from serving.fleet.haproxy.edge_link import LocalEdge
from serving.fleet.haproxy.server_states import FIRST_FILES

REPO = Path(__file__).resolve().parents[3]
MODEL = "toy"

MODEL_PY = """\
import json
import os
import time

import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(folder, "transform.json")) as stream:
            self.transform = json.load(stream)
        if self.transform.get("broken"):
            raise RuntimeError("this version cannot start")
        time.sleep(self.transform.get("load_s", 0))
        self.count, self.leaked = 0, []

    def execute(self, requests):
        time.sleep(self.transform.get("infer_s", 0.002))
        answers = []
        for request in requests:
            self.count += 1
            if self.count >= self.transform.get("crash_after", 10**9):
                os._exit(1)
            self.leaked.append(b"1" * self.transform.get("leak_bytes", 0))
            factor = self.transform["factor"]
            if self.count > self.transform.get("wrong_after", 10**9):
                factor += 1
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            y = (x * numpy.float32(factor)).astype(numpy.float32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return answers
"""

CONFIG = """\
name: "toy"
backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 100 }
"""


def serving_env() -> Path | None:
    """The environment that Triton runs from, or None where it was not set up."""
    named = os.environ.get("LOCKGATE_SERVING_ENV")
    folder = Path(named) if named else REPO / ".venv-serve"
    return folder if (folder / "bin" / "python").exists() else None


NEEDED = all(shutil.which(name) for name in ("haproxy", "rsync", "ssh-keygen", "ssh"))
MARKS = [
    pytest.mark.triton,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (NEEDED and Path("/usr/sbin/sshd").exists() and serving_env()),
        reason="needs sshd, haproxy, rsync and the serving environment (scripts/setup)",
    ),
    pytest.mark.skipif(
        os.geteuid() != 0, reason="needs root: a host's programs run as users of their own"
    ),
]
"""Marks of every test that brings this bed up."""


def make_state(folder: Path) -> None:
    """The state folder of an edge, as the box makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FIRST_FILES.items():
        (folder / name).write_text(text)


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_name(path.name + ".pub").read_text()


def publish(folder: Path, key: Path, version: int, factor: float, **options: object) -> Path:
    """Put a signed `toy` version into the store; its answer to x is `factor * x`.

    `golden` (an option) makes the golden examples expect another factor; the others are read by
    MODEL_PY: `infer_s` and `load_s` are times, `crash_after`, `wrong_after` numbers of requests,
    `leak_bytes` is kept of each.
    """
    golden = options.pop("golden", factor)
    staged = store.stage(folder, f"toy-{version}")
    (staged / "version").mkdir()
    (staged / "config.pbtxt").write_text(str(options.pop("config", CONFIG)))
    (staged / "version" / "model.py").write_text(MODEL_PY)
    (staged / "version" / "transform.json").write_text(json.dumps({"factor": factor, **options}))
    (staged / "version" / "weights.bin").write_bytes(bytes([version % 256]) * (1 << 20))
    examples = [
        {
            "inputs": {"x": {"dtype": "FP32", "shape": [2, 1], "data": [n, n + 0.5]}},
            "outputs": {"y": {"dtype": "FP32", "shape": [2, 1],
                              "data": [n * golden, (n + 0.5) * golden]}},
            "atol": 1e-6, "rtol": 1e-6,
        }
        for n in range(8)
    ]  # fmt: skip
    (staged / "golden.json").write_text(json.dumps(examples))
    manifest = Manifest(
        format=FORMAT, model=MODEL, version=version, task="toy",
        created="2026-01-01T00:00:00Z", expires="2099-01-01T00:00:00Z",
        files=list_files(staged),
        inputs=(TensorSpec("x", "FP32", (-1, 1)),), outputs=(TensorSpec("y", "FP32", (-1, 1)),),
        transform_digest="0" * 64, requires={"triton": ">=2.51", "numpy": "<2", "python": "3.11"},
        lineage=Lineage("toy-run", "0" * 64, "0" * 64, DatasetRef("toy", "0" * 64)),
        metrics={}, gates=(), previous=version - 1 or None,
    )  # fmt: skip
    return store.publish(folder, staged, manifest, sign(manifest.to_bytes(), key))


@dataclass
class Bed:
    """`hosts` serving hosts in us-east (named a, b, ...) and one in us-west (w) if asked for."""

    root: Path
    config: DictConfig
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def site(self) -> Site:
        return site_config(self.config)

    def edge(self, region: str = "us-east") -> Edge:
        edge = self.site.edges[region]
        return Edge(region, LocalEdge(region, edge.socket, edge.state))

    def url(self, region: str = "us-east") -> str:
        edge = self.config.site.edges[region]
        return f"http://{edge.address}:{edge.http_port}"

    def publish(self, version: int, factor: float, **options: object) -> Path:
        key = options.pop("key", "release")
        return publish(self.store, self.root / "keys" / str(key), version, factor, **options)

    def ask(self, x: float, region: str = "us-east", version: int | None = None) -> float:
        """One inference through the edge. Raises OSError for anything but 200."""
        path = f"/v2/models/{MODEL}{f'/versions/{version}' if version else ''}/infer"
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}
        request = urllib.request.Request(
            self.url(region) + path, json.dumps({"inputs": [tensor]}).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return float(json.load(answer)["outputs"][0]["data"][0])

    def repository(self, host: str) -> Path:
        return self.root / "hosts" / host / "model-repository"

    def down(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        subprocess.run(["chmod", "-R", "u+w", str(self.root)], check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def bed_up(hosts: int = 2, west: int = 0) -> Bed:
    """Start a fleet; it serves nothing yet. The caller must call `down`."""
    env = serving_env()
    assert env is not None
    # Not pytest's tmp_path: Triton runs as another user, who could not enter it.
    root = Path(tempfile.mkdtemp(prefix="lockgate-bed-"))
    root.chmod(0o755)
    names = [*"abcdef"[:hosts], *[f"w{n}" for n in range(west)]]
    base = os.getpid() % 200 + 30
    addresses = {name: f"127.0.{base}.{number + 11}" for number, name in enumerate(names)}
    regions = {"us-east": names[:hosts], **({"us-west": names[hosts:]} if west else {})}
    config = compose("rollout")
    OmegaConf.set_struct(config, False)
    config.site.root, config.site.serving_env = str(root), str(env)
    config.site.name, config.site.mlflow_uri = "bed", ""
    config.site.groups.edge = grp.getgrgid(os.getgid()).gr_name
    config.site.paths.deploy_key = str(root / "keys" / "deploy")
    config.site.paths.known_hosts = str(root / "keys" / "known_hosts")
    config.site.hosts = {n: {"address": addresses[n], "region": r}
                         for r, members in regions.items() for n in members}  # fmt: skip
    config.site.edges = {
        region: {"address": "127.0.0.1", "http_port": free_port(), "grpc_port": free_port(),
                 "stats_port": free_port(), "socket": str(root / f"{region}.sock"),
                 "state": str(root / "edges" / region)}
        for region in regions
    }  # fmt: skip
    for name in ("ssh", "triton_http", "triton_grpc", "triton_metrics", "host_agent"):
        config.site.ports[name] = free_port(addresses[names[0]])
    config.site.paths.passwords = str(root / "passwords")
    config.site.paths.edge_log = str(root / "log.sock")
    config.site.triton.exit_timeout_s, config.site.triton.golden_interval_s = 10, 1
    config.fleet.triton.load_timeout_s, config.fleet.triton.infer_timeout_s = 60, 20
    changes = {
        "steps": [100], "bake_s": 0.3, "settle_s": 0.5, "free_disk_mib": 64,
        "free_shm_mib": 16, "lock_ttl_s": 30, "unload_timeout_s": 8,
        "analysis": {"min_probes": 4, "wait_s": 60.0},
    }  # fmt: skip
    config.rollout = OmegaConf.merge(config.rollout, changes)
    bed = Bed(root, config)
    try:
        _start(bed)
    except BaseException:
        bed.down()
        raise
    return bed


def _start(bed: Bed) -> None:
    root, site = bed.root, bed.site
    _ensure_users(site)
    for name in ("keys", "store", "journal"):
        (root / name).mkdir()
    deploy, release = make_key(root / "keys" / "deploy"), make_key(root / "keys" / "release")
    make_key(root / "keys" / "foreign")
    ensure_folders(box.folders(site))
    Path("/run/sshd").mkdir(exist_ok=True)
    known, peers = "", {}
    for name in site.hosts:
        known += _start_host(bed, name, deploy, release)
        etc = root / "hosts" / name / "etc"
        public = (etc / "ssh_host_ed25519_key.pub").read_text()
        fetch = ensure_ed25519(etc / "fetch_key", site.users.verify, "fetch")
        peers[name] = box.peer_of(site, name, public, fetch)
    ensure_files(box.peer_files(site, peers))
    (root / "keys" / "known_hosts").write_text(known)
    for region in site.edges:
        path = root / f"haproxy-{region}.cfg"
        make_state(site.edges[region].state)
        path.write_text(haproxy_cfg(site, region))
        _spawn(bed, ["haproxy", "-db", "-f", str(path)], root / f"haproxy-{region}.log")
    for region in site.edges:
        wait_for(lambda region=region: all(s.up for s in bed.edge(region).states().values()), 60)


def _ensure_users(site: Site) -> None:
    """The box's own users; those of a site that runs on this machine stay as they are."""
    try:
        members = grp.getgrnam(site.groups.serving).gr_mem
        opened = grp.getgrnam(site.users.host).gr_mem
    except KeyError:
        members = opened = []
    verify = site.users.verify
    if verify not in members or verify not in opened or site.users.host in members:
        users.ensure(site)


def _start_host(bed: Bed, name: str, deploy: str, release: str) -> str:
    """Put on its disk what the box puts there, and start what the box starts."""
    site, home = bed.site, bed.root / "hosts" / name
    etc, address = home / "etc", site.hosts[name].address
    host_key = make_key(etc / "ssh_host_ed25519_key")
    noisy = box.verbs_key(site, name, deploy).replace(
        # As a login shell's files would: noise before the answer, and something like an answer.
        'command="',
        'command="echo disk 5; echo lockgate-answer; echo oops >&2; ',
    )
    banner = File(etc / "banner", "lockgate-answer 0\n{}\nauthorized users only\n")
    ensure_files(
        [
            *box.code_files(site, name),
            banner,
            File(etc / "authorized_keys", noisy),
            File(etc / "authorized_keys.staging", box.staging_key(site, name, deploy)),
            File(etc / "allowed_signers", allowed_signer(release)),
            File(etc / "sshd_config", f"Banner {banner.path}\n{box.sshd_config(site, name)}"),
            File(etc / "supervisord.conf",
                 box.supervisord_conf(site, name, box.triton(site, name)),
                 "root", site.groups.serving, 0o640),
        ]
    )  # fmt: skip
    _spawn(bed, ["/usr/sbin/sshd", "-D", "-e", "-f", str(etc / "sshd_config")],
           home / "log" / "sshd.log")  # fmt: skip
    _spawn(bed, as_user(site.users.verify, *box.host_program(site, name, "watch")),
           home / "log" / "watch.log")  # fmt: skip
    _spawn(bed, as_user(site.users.verify, *box.host_program(site, name, "agent")),
           home / "log" / "agent.log")  # fmt: skip
    supervisord = [f"{site.serving_env}/bin/supervisord", "-c", str(etc / "supervisord.conf")]
    _spawn(bed, as_user(site.users.triton, *supervisord), home / "log" / "supervisor.out")
    door = box.door(site, name)
    ensure_files([door])
    _spawn(bed, as_user(site.users.triton, "haproxy", "-db", "-f", str(door.path)),
           home / "log" / "door.log")  # fmt: skip
    wait_for(lambda: (home / "watch" / "verify.sock").exists(), 30)
    return known_hosts_line(name, address, site.ports.ssh, host_key)


def as_user(user: str, *command: str) -> list[str]:
    """`command` run by root as `user`, with its groups and nothing of our environment."""
    group = str(pwd.getpwnam(user).pw_gid)
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups",
            "env", "-i", "PATH=/usr/bin:/bin:/usr/sbin", "LANG=C.UTF-8", *command]  # fmt: skip


def _spawn(bed: Bed, argv: list[str], log: Path) -> None:
    with log.open("wb") as stream:
        bed.processes.append(
            subprocess.Popen(
                argv, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        )


def wait_for(condition, timeout_s: float) -> None:
    """Wait until `condition()` is true; an OSError or a FleetError counts as not yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except (OSError, ValueError):
            pass
        assert time.monotonic() < deadline, "the bed did not come up"
        time.sleep(0.05)


class Load:
    """Clients that ask the edge without pause, each on a kept-alive connection; bounded in rate.

    There are `clients` by HTTP and one by gRPC. `failures` holds everything that was not an answer
    of one of `factors`.
    """

    def __init__(self, bed: Bed, factors: tuple[float, ...], clients: int = 3, pause: float = 0.01):
        self.bed, self.factors, self.pause = bed, factors, pause
        self.sent, self.failures, self.seen = 0, [], set()  # type: ignore[var-annotated]
        self.latencies: list[float] = []
        self._stop = threading.Event()
        asks = [*[self._ask] * clients, self._ask_by_grpc]
        self._threads = [threading.Thread(target=ask, daemon=True) for ask in asks]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        import http.client

        edge = self.bed.config.site.edges["us-east"]
        connection = http.client.HTTPConnection(edge.address, edge.http_port, timeout=30)
        x = 3.0
        body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}]}
        )
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                connection.request("POST", f"/v2/models/{MODEL}/infer", body)
                answer = connection.getresponse()
                text = answer.read()
                factor = (
                    json.loads(text)["outputs"][0]["data"][0] / x if answer.status == 200 else None
                )
                if factor not in self.factors:
                    self.failures.append((answer.status, text[:200]))
                else:
                    self.seen.add(factor)
            except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
                self.failures.append(("broken", repr(error)))
                connection.close()
            self.sent += 1
            self.latencies.append(time.monotonic() - began)
            time.sleep(self.pause)

    def _ask_by_grpc(self) -> None:
        import tritonclient.grpc as triton
        from tritonclient.utils import InferenceServerException

        edge = self.bed.config.site.edges["us-east"]
        x = np.float32([[3.0]])
        tensor = triton.InferInput("x", [1, 1], "FP32").set_data_from_numpy(x)
        with triton.InferenceServerClient(f"{edge.address}:{edge.grpc_port}") as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    answer = client.infer(MODEL, [tensor], client_timeout=30)
                    factor = float(answer.as_numpy("y")[0, 0]) / 3.0
                    if factor not in self.factors:
                        self.failures.append(("wrong by gRPC", str(factor)))
                    else:
                        self.seen.add(factor)
                except InferenceServerException as error:
                    self.failures.append(("broken by gRPC", str(error)))
                self.sent += 1
                self.latencies.append(time.monotonic() - began)
                time.sleep(self.pause)


PYTHON = sys.executable
