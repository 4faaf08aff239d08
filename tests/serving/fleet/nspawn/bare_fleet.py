"""A site whose serving hosts are bare machines, and its edge: a real HAProxy on their bridge."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy
from omegaconf import DictConfig

from conf import compose
from conf.schema import from_config
from conf.site_schema import Site, site_config
from serving.artifact.signature import allowed_signer
from serving.fleet.bootstrap.layout import BootstrapSettings
from serving.fleet.bootstrap.wheelhouse import read_wheelhouse
from serving.fleet.errors import FleetConfigError
from serving.fleet.haproxy.edge import Edge
from serving.fleet.haproxy.edge_config import haproxy_cfg
from serving.fleet.haproxy.edge_link import LocalEdge
from tests.serving.fleet.bed import MODEL, make_key, make_state, publish, wait_for
from tests.serving.fleet.nspawn.machines import CACHE, Machine, Machines

REPO = Path(__file__).resolve().parents[4]
FAB = [str(REPO / ".venv/bin/python"), "-m", "fabric"]
REGION = "us-east"


@dataclass
class BareFleet:
    """`machines` as the hosts of one site; they are bare until `fab bootstrap`.

    `edge_on` is the machine that is the edge's own instead; "" for an edge on the bridge.
    """

    machines: Machines
    edge_on: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.machines.root / "site"

    @property
    def overrides(self) -> list[str]:
        """The site, as overrides of any config that has one."""
        hosts = ",".join(
            f"{one.name}:{{address:{one.address},region:{REGION}}}"
            for one in self.machines.machines
            if one.name != self.edge_on
        )
        edge, group = self._edge_on_the_bridge, grp.getgrgid(os.getgid()).gr_name
        log = f"{self.root}/log.sock"
        if self.edge_on:
            edge, group = self._edge_of_its_own, "lg-edge"
            log = "/srv/lockgate/edge-log/edges.sock"
        return [
            f"site.root={self.root}",
            *(f"~site.hosts.{name}" for name in ("use1-a", "use1-b", "usw2-a", "usw2-b")),
            *("~site.edges.us-west", "~site.edges.us-east"),
            f"+site.hosts={{{hosts}}}",
            f"+site.edges={{{REGION}:{edge}}}",
            "site.name=bare",
            "site.mlflow_uri=''",
            "site.ports.ssh=22",
            f"site.paths.deploy_key={self.root}/keys/deploy",
            f"site.paths.known_hosts={self.root}/keys/known_hosts",
            f"site.paths.edge_log={log}",
            f"site.groups.edge={group}",
            "site.triton.exit_timeout_s=10",
        ]

    @property
    def edge_address(self) -> str:
        """Where clients find the edge."""
        return self.machine(REGION).address if self.edge_on else self.machines.gateway

    @property
    def _edge_on_the_bridge(self) -> str:
        return (
            f"{{address:{self.machines.gateway},http_port:18080,grpc_port:18090,stats_port:18404,"
            f"socket:{self.root}/edge.sock,state:{self.root}/edge}}"
        )

    @property
    def _edge_of_its_own(self) -> str:
        ssh = f"address:{self.edge_address},port:22,user:lockgate-edge,etc:/etc/lockgate-edge"
        return (
            f"{{address:{self.edge_address},http_port:18080,grpc_port:18090,stats_port:18404,"
            f"socket:/run/lockgate-edge/edge.sock,state:/srv/lockgate/edges/{REGION},ssh:{{{ssh}}}}}"
        )

    def config(self, primary: str) -> DictConfig:
        return compose(primary, self.overrides)

    @property
    def site(self) -> Site:
        return site_config(self.config("site"))

    def machine(self, name: str) -> Machine:
        """The machine of a host, or of the edge."""
        wanted = self.edge_on if name == REGION else name
        return next(one for one in self.machines.machines if one.name == wanted)

    def fab(self, *words: str, overrides: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Type one command of fab."""
        sets = [part for text in (*self.overrides, *overrides) for part in ("--set", text)]
        argv = [*FAB, *words, *sets]
        return subprocess.run(
            argv, cwd=REPO, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
        )

    def fab_lines(self, *words: str, overrides: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Begin one command of fab, to read its lines as they come."""
        sets = [part for text in (*self.overrides, *overrides) for part in ("--set", text)]
        return subprocess.Popen(
            [*FAB, *words, *sets], cwd=REPO, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def begin_bootstrap(self, host: str) -> subprocess.Popen[str]:
        """Begin `fab bootstrap host`."""
        house = f"bootstrap.wheelhouse={CACHE}/wheelhouse"
        key = str(self.machines.root_key)
        return self.fab_lines("bootstrap", host, "--key", key, overrides=(house,))

    def bootstrap(self, host: str, *options: str) -> subprocess.CompletedProcess[str]:
        """`fab bootstrap host` with root's key."""
        key = str(self.machines.root_key)
        return self.fab(
            "bootstrap", host, "--key", key, *options,
            overrides=(f"bootstrap.wheelhouse={CACHE}/wheelhouse",),
        )  # fmt: skip

    def upgrade(self, *options: str, change: str = "") -> subprocess.CompletedProcess[str]:
        """`fab upgrade` of every host, or of those in `options`, with one key changed."""
        key = str(self.machines.root_key)
        keys = (f"bootstrap.wheelhouse={CACHE}/wheelhouse", *([change] if change else []))
        return self.fab("upgrade", "--key", key, *options, overrides=keys)

    def pin(self, host: str) -> subprocess.CompletedProcess[str]:
        """`fab pin host` with the fingerprint that the machine's own disk shows."""
        from serving.fleet.bootstrap.host_pin import fingerprint

        return self.fab("pin", host, "--fingerprint", fingerprint(self.machine(host).host_key))

    def edge(self) -> Edge:
        edge = self.site.edges[REGION]
        return Edge(REGION, LocalEdge(REGION, edge.socket, edge.state))

    def edge_up(self) -> None:
        """Start the region's HAProxy on the bridge, and wait until it finds every host up."""
        config = self.root / "haproxy.cfg"
        make_state(self.site.edges[REGION].state)
        config.write_text(haproxy_cfg(self.site, REGION))
        with (self.root / "haproxy.log").open("wb") as log:
            argv = ["haproxy", "-db", "-f", str(config)]
            self.processes.append(subprocess.Popen(argv, stdout=log, stderr=log))
        wait_for(lambda: all(state.up for state in self.edge().states().values()), 60)

    def publish(self, version: int, factor: float) -> None:
        publish(self.root / "store", self.root / "keys/release", version, factor)

    def ask(self, x: float, host: str = "") -> float:
        """One inference through the edge, or at one host. Raises OSError."""
        address = self.machine(host).address if host else self.edge_address
        port = self.site.ports.triton_http if host else 18080
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}
        request = urllib.request.Request(
            f"http://{address}:{port}/v2/models/{MODEL}/infer",
            json.dumps({"inputs": [tensor]}).encode(),
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return float(json.load(answer)["outputs"][0]["data"][0])

    def ask_by_grpc(self, x: float) -> float:
        """One inference by gRPC through the edge."""
        from tritonclient import grpc

        tensor = grpc.InferInput("x", [1, 1], "FP32")
        tensor.set_data_from_numpy(numpy.array([[x]], dtype=numpy.float32))
        with grpc.InferenceServerClient(f"{self.edge_address}:18090") as client:
            return float(client.infer(MODEL, [tensor]).as_numpy("y")[0][0])

    def down(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait(20)
        self.machines.down()


def bare_fleet(count: int, edge_on: str = "") -> BareFleet:
    """Bare machines and a site for them, the edge on one of them where it is named. The caller must
    call `down`."""
    fleet = BareFleet(Machines(count), edge_on)
    try:
        root = fleet.root
        for name in ("keys", "store", "journal"):
            (root / name).mkdir(parents=True)
        make_key(root / "keys/deploy")
        release = make_key(root / "keys/release")
        signers = fleet.site.paths.allowed_signers
        signers.parent.mkdir(parents=True, exist_ok=True)
        signers.write_text(allowed_signer(release))
        _ensure_wheelhouse(fleet)
    except BaseException:
        fleet.down()
        raise
    return fleet


def _ensure_wheelhouse(fleet: BareFleet) -> None:
    """One wheelhouse for all runs of these tests; made when the list of packages changed."""
    override = f"bootstrap.wheelhouse={CACHE}/wheelhouse"
    config = compose("bootstrap", [*fleet.overrides, override])
    try:
        read_wheelhouse(from_config(BootstrapSettings, config.bootstrap, "bootstrap"))
    except FleetConfigError:
        done = fleet.fab("wheelhouse", overrides=(override,))
        assert done.returncode == 0, done.stderr
