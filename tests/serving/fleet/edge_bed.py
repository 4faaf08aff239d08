"""A real edge for tests: HAProxy on loopback with the site's own configuration, its log counted as
metrics, and a real Triton behind it that serves three small models."""

from __future__ import annotations

import csv
import grp
import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from prometheus_client import CollectorRegistry

from conf import compose
from conf.site_daemons import EdgeSettings
from conf.site_placement import ModelPlacement
from conf.site_schema import Site, site_config
from serving.artifact.layout import MODEL_PY as RUNTIME_PY
from serving.artifact.tensors import DTYPES, TensorSpec
from serving.fleet.haproxy.edge import Edge, ServerState
from serving.fleet.haproxy.edge_config import haproxy_cfg
from serving.fleet.haproxy.edge_link import LocalEdge
from serving.fleet.haproxy.grpc_door import door_cfg
from serving.observe.collectors.edge_log import SERVER_REASONS, EdgeLog, listen
from serving.triton.kserve import infer_path
from serving.triton.model_config import TritonConfig, config_pbtxt
from serving.triton.server import TritonServer
from tests.serving.fleet.bed import CONFIG, MODEL, MODEL_PY, free_port, make_state, serving_env
from tests.serving.runtime.test_package import carry_runtime

REGION = "us-east"
SAME, BROKEN = "same", "broken"
"""Models: one gives every input `x_*` back as `y_*`; one, of Lockgate's runtime, refuses
an `x_FP32` of 0 and fails on any above it."""
VERSIONS = (1, 2)
"""Versions of `same`, which differ in their number alone; each is ready."""
SAME_PY = """
import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        outputs = [self.same(tensor) for tensor in request.inputs()]
        outputs.append(pb_utils.Tensor("given", numpy.array([b"x"], object)))
        return pb_utils.InferenceResponse(outputs)

    def same(self, tensor):
        name = tensor.name().replace("x_", "y_")
        if tensor.name() == "x_BF16":  # numpy knows no BF16, so its bytes are passed on
            return pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())
        return pb_utils.Tensor(name, tensor.as_numpy())
"""
BROKEN_PY = """
class Broken:
    @classmethod
    def load(cls, folder, settings):
        return cls()

    def answer(self, requests):
        if any(request["x_FP32"][0] > 0 for request in requests):
            raise RuntimeError("this model is broken")
        return [ValueError("x_FP32 must be above zero") for _ in requests]
"""


@dataclass(frozen=True)
class Answer:
    """The status, 0 for a connection that was closed without an answer, the headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class EdgeBed:
    """A running edge in front of one Triton, named `a`, and the address that requests come from."""

    port: int
    grpc_port: int
    edge: Edge
    log: EdgeLog
    source: str = "127.0.0.1"

    def from_source(self, address: str) -> EdgeBed:
        """The same edge for another client of this machine."""
        return replace(self, source=address)

    def post(self, model: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.send("POST", infer_path(model), body, headers)

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=20, source_address=(self.source, 0)
        )
        try:
            connection.connect()
            # A body that is refused before it was sent: the answer may be there all the same.
            with suppress(ConnectionError):
                connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return Answer(reply.status, dict(reply.getheaders()), reply.read())
        except (ConnectionError, http.client.HTTPException) as error:
            return Answer(0, {}, repr(error).encode())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.port), timeout=20, source_address=(self.source, 0)
        )

    def host(self) -> ServerState:
        """The counters that the watch of a rollout reads."""
        return self.edge.states()["a"]

    def answers(self, status: str) -> int:
        """Answers of the frontend so far, of a class such as `5xx`."""
        text = self.edge.query("show stat").removeprefix("# ")
        rows = csv.DictReader(text.splitlines())
        (row,) = [row for row in rows if (row["pxname"], row["svname"]) == ("infer", "FRONTEND")]
        return int(row[f"hrsp_{status}"])

    def logged(self) -> float:
        """Lines of the log that were counted so far."""
        families = self.log.lines.collect()
        return sum(one.value for family in families for one in family.samples)

    def service_failures(self) -> float:
        """Failures in the log that count against the objectives."""
        return sum(
            sample.value
            for family in self.log.failures.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["reason"] in SERVER_REASONS
        )


def edge_site(
    folder: Path,
    hosts: dict[str, tuple[str, str]],
    triton_port: int,
    agent_port: int,
    door_port: int = 0,
    **settings: int,
) -> Site:
    """A site with one edge, of the region `REGION`, in `folder`; `hosts` have address and region,
    `settings` replace those of the site."""
    config = compose("site")
    OmegaConf.set_struct(config, False)
    site = config.site
    site.hosts = {n: {"address": a, "region": r} for n, (a, r) in hosts.items()}
    site.edges = {
        REGION: {
            "address": "127.0.0.1", "http_port": free_port(), "stats_port": free_port(),
            "grpc_port": free_port(), "socket": str(folder / "s.sock"), "state": str(folder),
        }
    }  # fmt: skip
    # A region of the hosts has an edge; this one does not run.
    for number, region in enumerate({r for _, r in hosts.values()} - {REGION}):
        site.edges[region] = {**site.edges[REGION], "address": f"127.0.0.{2 + number}"}
    site.ports.update(
        triton_http=triton_port, triton_grpc=door_port or free_port(), host_agent=agent_port
    )
    site.paths.edge_log = str(folder / "log.sock")
    site.groups.edge = grp.getgrgid(os.getgid()).gr_name
    site.edge.update(settings)
    make_state(folder)
    return site_config(config)


@contextmanager
def running_edge(
    folder: Path,
    triton_port: int,
    door_port: int = 0,
    placement: Mapping[str, ModelPlacement] | None = None,
    **settings: int,
) -> Iterator[EdgeBed]:
    """An edge in front of the Triton on `triton_port` and the door on `door_port`, if there is one;
    `settings` replace those of the site. With a `placement` there is a host `b` too, which is
    down."""
    hosts = {"a": ("127.0.0.1", REGION)}
    if placement:
        hosts["b"] = ("127.0.0.9", REGION)
    site = edge_site(folder, hosts, triton_port, free_port(), door_port, **settings)
    site = replace(site, placement=dict(placement or {}))
    edge = site.edges[REGION]
    port, grpc, path = edge.http_port, edge.grpc_port, edge.socket
    log = EdgeLog({"a": REGION}, [REGION], (0.3,), CollectorRegistry())
    log.set_models([SAME, BROKEN, MODEL])
    receiver, thread = listen(log, site.paths.edge_log)
    config = folder / "haproxy.cfg"
    config.write_text(haproxy_cfg(site, REGION))
    with subprocess.Popen(["haproxy", "-db", "-f", str(config)]) as process:
        try:
            bed = EdgeBed(port, grpc, Edge(REGION, LocalEdge(REGION, path, folder)), log)
            end = time.monotonic() + 20
            while bed.send("GET", "/v2/health/live").status != 200:
                assert process.poll() is None and time.monotonic() < end, "the edge did not come up"
                time.sleep(0.05)
            yield bed
        finally:
            process.kill()
            receiver.close()
            thread.join(timeout=10)


@contextmanager
def running_door(folder: Path) -> Iterator[int]:
    """The door of the Triton that runs in `folder`; yields its port."""
    port, config = free_port(), folder / "door.cfg"
    settings = EdgeSettings(**compose("site").site.edge)
    config.write_text(door_cfg(f"127.0.0.1:{port}", f"unix:{folder}/grpc.sock:8001", settings))
    with subprocess.Popen(["haproxy", "-db", "-f", str(config)]) as process:
        try:
            yield port
            assert process.poll() is None, "the door ended"
        finally:
            process.kill()


@contextmanager
def running_triton(folder: Path) -> Iterator[int]:
    """A real Triton that serves `same`, `broken` and the batched `toy`; yields its HTTP port.

    It must end by itself no sooner than this block does.
    """
    env = serving_env()
    assert env is not None
    tensors = tuple(TensorSpec(f"x_{dtype}", dtype, (-1,), optional=True) for dtype in DTYPES)
    answers = (
        *(TensorSpec(f"y_{dtype}", dtype, (-1,)) for dtype in DTYPES),
        TensorSpec("given", "BYTES", (1,)),
    )
    config = config_pbtxt(TritonConfig(SAME, tensors, answers))
    repository = folder / "repository"
    for model, text, code in (
        (SAME, f"{config}version_policy {{ all {{}} }}\n", SAME_PY),
        (BROKEN, config.replace(SAME, BROKEN), RUNTIME_PY),
        (MODEL, CONFIG, MODEL_PY),
    ):
        for number in VERSIONS if model == SAME else (1,):
            version = repository / model / str(number)
            version.mkdir(parents=True)
            version.with_name("config.pbtxt").write_text(text)
            (version / "model.py").write_text(code)
            (version / "transform.json").write_text('{"factor": 2.0}')
    (repository / BROKEN / "1" / "broken.py").write_text(BROKEN_PY)
    carry_runtime(repository / BROKEN / "1", "broken.Broken")
    port = free_port()
    server = TritonServer(
        env, repository, "127.0.0.1", port, 8001, free_port(), models=("*",),
        exit_timeout_s=2, grpc_address=f"unix:{folder}/grpc.sock",
    )  # fmt: skip
    with (
        (folder / "triton.log").open("wb") as log,
        subprocess.Popen(
            server.argv(), env=server.environment(), stdout=log, stderr=log, cwd=folder
        ) as process,
    ):
        try:
            _wait_live(process, port)
            yield port
            assert process.poll() is None, "Triton ended"
        finally:
            process.terminate()


def _wait_live(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < end, "Triton did not come up"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
