"""A real HAProxy on loopback with the site's own configuration, its log counted as metrics."""

from __future__ import annotations

import csv
import grp
import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from prometheus_client import CollectorRegistry

from conf import compose
from conf.site_schema import Site
from serving.fleet.haproxy.edge import Edge, ServerState
from serving.fleet.haproxy.edge_config import haproxy_cfg
from serving.observe.collectors.edge_log import SERVER_REASONS, EdgeLog, listen
from serving.triton.kserve import infer_path
from tests.serving.fleet.bed import free_port

REGION = "us-east"


@dataclass(frozen=True)
class Answer:
    """The status, 0 for a connection that was closed without an answer, the headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class EdgeBed:
    """A running edge in front of one Triton, named `a`."""

    port: int
    edge: Edge
    log: EdgeLog
    process: subprocess.Popen[bytes]

    def post(self, model: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.send("POST", infer_path(model), body, headers)

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
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
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def host(self) -> ServerState:
        """The counters that the watch of a rollout reads."""
        return self.edge.states()["a"]

    def answers(self, status: str) -> int:
        """Answers of the frontend so far, of a class such as `5xx`."""
        text = self.edge.query("show stat").removeprefix("# ")
        rows = csv.DictReader(text.splitlines())
        (row,) = [row for row in rows if (row["pxname"], row["svname"]) == ("infer", "FRONTEND")]
        return int(row[f"hrsp_{status}"])

    def service_failures(self) -> float:
        """Failures in the log that count against the objectives."""
        return sum(
            sample.value
            for family in self.log.failures.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["reason"] in SERVER_REASONS
        )


@contextmanager
def running_edge(folder: Path, triton_port: int, **settings: int) -> Iterator[EdgeBed]:
    """An edge in front of the Triton on `triton_port`; `settings` replace those of the site."""
    port, stats = free_port(), free_port()
    path, log_path = folder / "s.sock", folder / "log.sock"
    site = OmegaConf.create(
        {
            "hosts": {"a": {"address": "127.0.0.1", "region": REGION}},
            "edges": {
                REGION: {
                    "address": "127.0.0.1", "http_port": port, "stats_port": stats,
                    "socket": str(path),
                }
            },
            "ports": {"triton_http": triton_port},
            "paths": {"edge_log": str(log_path)},
            "groups": {"edge": grp.getgrgid(os.getgid()).gr_name},
            "edge": {**compose("site").site.edge, **settings},
        }
    )  # fmt: skip
    log = EdgeLog({"a": REGION}, (0.3,), CollectorRegistry())
    log.set_models(["same", "toy"])
    receiver, thread = listen(log, log_path)
    config = folder / "haproxy.cfg"
    config.write_text(haproxy_cfg(cast(Site, site), REGION))
    with subprocess.Popen(["haproxy", "-db", "-f", str(config)]) as process:
        try:
            bed = EdgeBed(port, Edge(REGION, path), log, process)
            end = time.monotonic() + 20
            while bed.send("GET", "/v2/health/live").status != 200:
                assert process.poll() is None and time.monotonic() < end, "the edge did not come up"
                time.sleep(0.05)
            yield bed
        finally:
            process.kill()
            receiver.close()
            thread.join(timeout=10)
