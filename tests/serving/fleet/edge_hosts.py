"""An edge on loopback that can be killed and reloaded, and small hosts behind it that can fail."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from conf.schema import build
from conf.site_placement import ModelPlacement
from conf.site_schema import Site
from serving.fleet.haproxy.edge import Edge
from serving.fleet.haproxy.edge_config import haproxy_cfg
from serving.fleet.haproxy.edge_link import LocalEdge
from serving.observe.collectors.edge_log import EdgeLog
from tests.serving.fleet.bed import free_port
from tests.serving.fleet.edge_bed import REGION, EdgeBed, edge_site

HOSTS = {"a": ("127.0.7.1", REGION), "b": ("127.0.7.2", REGION), "w": ("127.0.7.3", "us-west")}
BODY = b'{"inputs":[]}'


class Host(ThreadingHTTPServer):
    """A host that answers its own name, or fails; and its agent, which gives its `verdict`."""

    daemon_threads = True

    def __init__(self, name: str, address: str, port: int, agent_port: int) -> None:
        self.name, self.status, self.live, self.verdict, self.asked = name, 200, 200, b"", 0
        super().__init__((address, port), Answers)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        self.agent = socket.create_server((address, agent_port))
        threading.Thread(target=self.judge, daemon=True).start()

    def judge(self) -> None:
        while True:
            try:
                connection, _ = self.agent.accept()
            except OSError:
                return
            # Where this machine is slow, the edge has given up by now; it comes again.
            with connection, suppress(OSError):
                if self.verdict:
                    connection.sendall(self.verdict)

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.agent.close()

    def handle_error(self, *_: object) -> None:
        pass


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Host

    def do_GET(self) -> None:
        self.answer(self.server.live)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.answer(500 if "poison" in self.path else self.server.status)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.server.name)))
        self.end_headers()
        self.wfile.write(self.server.name.encode())

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class HostsBed:
    """One edge with two hosts of its region and one of another."""

    folder: Path
    hosts: dict[str, Host]
    site: Site
    argv: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def edge(self) -> Edge:
        return Edge(REGION, LocalEdge(REGION, self.folder / "s.sock", self.folder))

    @property
    def client(self) -> EdgeBed:
        return EdgeBed(
            self.site.edges[REGION].http_port,
            0,
            self.edge,
            EdgeLog({}, (), (0.3,), CollectorRegistry()),
        )

    def start(self) -> None:
        self.process = subprocess.Popen(self.argv)
        until(lambda: self.client.send("GET", "/v2/health/live").status == 200)

    def place(self, placement: dict[str, Any]) -> None:
        """Start the edge again with a site of this placement."""
        self.kill()
        models = build(dict[str, ModelPlacement], placement)
        (self.folder / "haproxy.cfg").write_text(
            haproxy_cfg(replace(self.site, placement=models), REGION)
        )
        self.start()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def answering(self, model: str = "toy", times: int = 12) -> set[str]:
        """The hosts that answered, and the status of what was not answered well."""
        answers = [self.client.post(model, BODY) for _ in range(times)]
        return {a.body.decode() if a.status == 200 else str(a.status) for a in answers}


def until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    end = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except ValueError:
            pass
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


@contextmanager
def running_hosts(folder: Path) -> Iterator[HostsBed]:
    """HAProxy, its master at `folder/master.sock`, with quick checks, and the hosts `HOSTS`."""
    port, agent = free_port("127.0.7.1"), free_port("127.0.7.1")
    hosts = {name: Host(name, address, port, agent) for name, (address, _) in HOSTS.items()}
    quick = {"check_interval_ms": 100, "agent_interval_ms": 100}
    site = edge_site(folder, HOSTS, port, agent, **quick)
    config = folder / "haproxy.cfg"
    config.write_text(haproxy_cfg(site, REGION))
    bed = HostsBed(folder, hosts, site)
    bed.argv = ["haproxy", "-W", "-db", "-S", str(folder / "master.sock"), "-f", str(config)]
    try:
        bed.start()
        yield bed
    finally:
        if bed.process:
            bed.process.terminate()
            bed.process.wait()
        for host in hosts.values():
            host.close()
