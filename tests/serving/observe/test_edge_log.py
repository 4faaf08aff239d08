"""The edge's log as metrics: line by line, and from a real HAProxy on loopback."""

from __future__ import annotations

import grp
import http.client
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serving.fleet.haproxy.edge_config import haproxy_cfg
from serving.observe.collectors.edge_log import (
    OTHER,
    REASONS,
    EdgeLog,
    failure_reason,
    line_entry,
    listen,
    parse_entry,
)
from tests.serving.fleet.edge_bed import edge_site

HOSTS = {"a": "us-east", "b": "us-west"}
EDGES = ("us-east", "us-west")


def line(**fields: Any) -> bytes:
    entry = {
        "region": "us-east", "path": "/v2/models/flights/infer", "status": 200, "term": "----",
        "srv": "a", "ta_ms": 12, **fields,
    }  # fmt: skip
    return json.dumps(entry).encode()


@pytest.fixture
def log() -> EdgeLog:
    made = EdgeLog(HOSTS, EDGES, (0.1, 0.3, 1.0), CollectorRegistry())
    made.set_models(["flights"])
    return made


def value(log: EdgeLog, name: str, **labels: str) -> float | None:
    for metric in (log.requests, log.failures, log.seconds, log.lines):
        for family in metric.collect():
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
    return None


def received(log: EdgeLog, kind: str) -> float:
    """Lines of one kind, of every edge and of none."""
    edges = (*log.edges, OTHER)
    return sum(value(log, "lockgate_edge_log_lines_total", kind=kind, edge=e) or 0 for e in edges)


FLIGHTS = {"region": "us-east", "model": "flights"}


def test_answers_and_failures_are_counted_apart(log: EdgeLog) -> None:
    log.take(line())
    log.take(line(ta_ms=299))
    log.take(line(ta_ms=301))
    log.take(line(status=503, term="SC--", srv="<NOSRV>", ta_ms=5000))
    assert value(log, "lockgate_requests_total", **FLIGHTS) == 4
    assert value(log, "lockgate_request_duration_seconds_count", **FLIGHTS) == 3
    assert value(log, "lockgate_request_duration_seconds_bucket", **FLIGHTS, le="0.3") == 2
    assert value(log, "lockgate_request_failures_total", **FLIGHTS, reason="no_host") == 1


def test_the_last_versions_of_a_model_have_series_of_their_own(log: EdgeLog) -> None:
    for version in range(1, 8):
        log.take(line(version=str(version)))
        log.take(line(version=str(version), status=500))
        log.take(line(version=str(version), status=400))  # the client's mistake
    for odd in ("", "x", "9" * 10, 7, None):
        log.take(line(version=odd, path="/v2/models/unknown/infer"))
        log.take(line(version=odd if odd != 7 else "-7"))
    found = {
        (sample.name, sample.labels["version"]): sample.value
        for metric in (log.versions.seconds, log.versions.failures)
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith(("_count", "_total"))
    }
    kept = [str(version) for version in range(4, 8)]
    assert found == {
        **{("lockgate_version_request_duration_seconds_count", one): 1 for one in kept},
        **{("lockgate_version_request_failures_total", one): 1 for one in kept},
    }


@pytest.mark.parametrize(
    ("status", "term", "reason"),
    [
        (200, "----", ""),
        (304, "----", ""),
        (200, "CD--", "client_aborted"),
        (-1, "CR--", "client_aborted"),
        (408, "cR--", "client_aborted"),
        (403, "PR--", "denied"),
        (405, "PR--", "denied"),
        (400, "----", "rejected"),
        (404, "----", "not_loaded"),
        (500, "----", "model_error"),
        (503, "----", "unavailable"),
        (503, "SC--", "no_host"),
        (503, "sQ--", "queue_timeout"),
        (503, "sC--", "connect"),
        (504, "sH--", "timeout"),
        (502, "SH--", "host_died"),
        (200, "SD--", "cut"),
        (200, "sD--", "cut"),
        (-1, "----", "cut"),
        (502, "", "unavailable"),
    ],
)
def test_why_a_request_failed(status: int, term: str, reason: str) -> None:
    assert failure_reason(status, term, True) == reason
    assert reason in ("", *REASONS)


def test_a_version_that_a_client_chose_is_its_own_fault(log: EdgeLog) -> None:
    log.take(line(status=404, path="/v2/models/flights/versions/9/infer"))
    assert value(log, "lockgate_request_failures_total", **FLIGHTS, reason="rejected") == 1
    assert value(log, "lockgate_request_failures_total", **FLIGHTS, reason="not_loaded") == 0


def test_only_lists_of_the_site_become_labels(log: EdgeLog) -> None:
    for number in range(500):
        log.take(line(path=f"/v2/models/m{number}/infer", region=f"r{number}", srv=f"s{number}"))
    other = {"region": OTHER, "model": OTHER}
    assert value(log, "lockgate_requests_total", **other) == 500
    assert len([s for f in log.requests.collect() for s in f.samples]) <= 2 * 5
    log.take(line(region="", srv="b"))
    assert value(log, "lockgate_requests_total", region="us-west", model="flights") == 1


def test_other_paths_are_no_inference(log: EdgeLog) -> None:
    for path in (
        "/v2/health/ready",
        "/v2/models/flights",
        "/v2/models/flights/inferno",
        "<BADREQ>",
    ):
        log.take(line(path=path))
    log.take(line(path="http://edge:18080/v2/models/flights/infer?x=1"))
    assert received(log, "other") == 4
    assert received(log, "infer") == 1


def test_every_series_is_there_before_its_first_event(log: EdgeLog) -> None:
    for region in ("us-east", "us-west"):
        for reason in REASONS:
            labels = {"region": region, "model": "flights", "reason": reason}
            assert value(log, "lockgate_request_failures_total", **labels) == 0
    log.take(line())
    log.set_models([])
    assert value(log, "lockgate_requests_total", **FLIGHTS) == 1


@given(st.binary(max_size=300))
def test_no_datagram_is_too_strange(data: bytes) -> None:
    log = EdgeLog(HOSTS, EDGES, (0.3,), CollectorRegistry())
    for datagram in (data, b"{" + data, line()[: len(data)]):
        log.take(datagram)
    kinds = [s.value for f in log.lines.collect() for s in f.samples if s.name.endswith("_total")]
    assert sum(kinds) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"{}", b"{", b'{"path":1}', b"{" * 100_000, line(status="200"), line(status=True),
        line(ta_ms=None), line(ta_ms="12"), line(term=None), b'{"path":"\xff\xfe"}',
    ],
)  # fmt: skip
def test_what_is_not_of_this_log_is_malformed(log: EdgeLog, data: bytes) -> None:
    log.take(data)
    assert received(log, "malformed") == 1
    assert value(log, "lockgate_requests_total", **FLIGHTS) == 0


def test_lines_are_counted_by_the_edge_that_wrote_them(log: EdgeLog) -> None:
    lines = "lockgate_edge_log_lines_total"
    assert value(log, lines, kind="infer", edge="us-west") == 0, "there before its first line"
    for edge in ("us-east", "us-east", "us-west", "us-east; drop", ["us-east"], None):
        log.take(line(edge=edge))
    assert [value(log, lines, kind="infer", edge=edge) for edge in (*EDGES, "other")] == [2, 1, 3]


def test_a_line_about_a_negative_time_counts_as_none() -> None:
    request = parse_entry(line_entry(line(ta_ms=-1)), HOSTS, {"flights"})
    assert request is not None and request.seconds == 0


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


class Triton(BaseHTTPRequestHandler):
    """Answers as the path's model asks: `fails` with 500, `unknown` with 404, others with 200."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if "dies" in self.path:
            self.close_connection = True
            return
        self._answer(500 if "fails" in self.path else 404 if "unknown" in self.path else 200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def haproxy(tmp_path: Path, triton_port: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A real HAProxy with the site's own configuration and one host: its port, and the process."""
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is missing")
    site = edge_site(tmp_path, {"a": ("127.0.0.1", "us-east")}, triton_port, free_port())
    config = tmp_path / "haproxy.cfg"
    config.write_text(haproxy_cfg(site, "us-east"))
    with subprocess.Popen(["haproxy", "-db", "-f", str(config)]) as process:
        until(lambda: ask(site.edges["us-east"].http_port, "/v2/models/flights") != 0)
        yield site.edges["us-east"].http_port, process
        process.terminate()


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[tuple[int, ThreadingHTTPServer, EdgeLog]]:
    """A real HAProxy in front of one host, and its log read."""
    triton = ThreadingHTTPServer(("127.0.0.1", 0), Triton)
    triton.daemon_threads = True
    threading.Thread(target=triton.serve_forever, args=(0.02,), daemon=True).start()
    log = EdgeLog({"a": "us-east"}, EDGES, (0.3,), CollectorRegistry())
    log.set_models(["flights", "fails", "unknown", "dies"])
    receiver, thread = listen(log, tmp_path / "log.sock")
    with haproxy(tmp_path, triton.server_address[1]) as (port, _):
        until(lambda: ask(port, "/v2/health/live") == 200)
        # The edge looks for the reader of its log once a second.
        until(lambda: bool(received(log, "other")))
        yield port, triton, log
    receiver.close()
    thread.join(timeout=30)
    assert not thread.is_alive()
    triton.server_close()


def ask(port: int, path: str, method: str = "GET") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body=b'{"inputs":[]}' if method == "POST" else None)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def test_a_real_edge_is_understood(edge: tuple[int, ThreadingHTTPServer, EdgeLog]) -> None:
    port, triton, log = edge

    def seen(model: str, reason: str) -> float | None:
        labels = {"region": "us-east", "model": model, "reason": reason}
        return value(log, "lockgate_request_failures_total", **labels)

    expected = [("flights", 200), ("fails", 500), ("unknown", 404), ("dies", 502), ("evil%22", 403)]
    for model, status in expected:
        assert ask(port, f"/v2/models/{model}/infer", "POST") == status
    until(lambda: value(log, "lockgate_requests_total", **FLIGHTS) == 1)
    assert value(log, "lockgate_request_duration_seconds_count", **FLIGHTS) == 1
    until(lambda: seen(OTHER, "denied") == 1)
    found = {(model, reason) for model in ("flights", "fails", "unknown", "dies")
             for reason in REASONS if seen(model, reason)}  # fmt: skip
    assert found == {("fails", "model_error"), ("unknown", "not_loaded"), ("dies", "host_died")}
    triton.shutdown()
    triton.server_close()
    until(lambda: ask(port, "/v2/models/flights/infer", "POST") == 503)
    until(lambda: bool(seen("flights", "no_host")))
    assert received(log, "malformed") == 0
    assert received(log, "notice")


def test_an_edge_without_a_reader_of_its_log_does_not_spin(tmp_path: Path) -> None:
    """HAProxy's ring alone takes a whole core then. Clock ticks, so no claim about speed."""
    with haproxy(tmp_path, free_port()) as (_, process):
        time.sleep(4)
        ticks = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]))
    assert ticks < 2 * os.sysconf("SC_CLK_TCK")


def arrived(log: EdgeLog) -> float | None:
    return value(log, "lockgate_requests_total", **FLIGHTS)


def test_lines_of_several_edges_arrive_whole_and_a_closed_reader_leaves_its_socket_to_the_next(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.sock"
    log = EdgeLog(HOSTS, EDGES, (0.3,), CollectorRegistry())
    log.set_models(["flights"])
    for number in (1, 2):
        receiver, thread = listen(log, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o020
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
            one.connect(str(path))
            other.connect(str(path))
            whole = line()
            one.sendall(whole[:20])
            other.sendall(whole + b"\n" + whole + b"\n")
            one.sendall(whole[20:] + b"\nnot json\n" + b"{" * 70_000 + b"\n" + whole + b"\n")
            until(lambda wanted=4 * number: arrived(log) == wanted)
        receiver.close()
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert received(log, "notice") == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_only_the_group_of_the_folder_can_write_to_it() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "edge-log"
        folder.mkdir()
        Path(made).chmod(0o755)
        shutil.chown(folder, "daemon", "bin")
        folder.chmod(0o2710)
        # Made as its owner, as the exporter does: the group comes from the folder.
        log = EdgeLog(HOSTS, EDGES, (0.3,), CollectorRegistry())
        owner = pwd.getpwnam("daemon")
        os.setegid(owner.pw_gid)
        os.seteuid(owner.pw_uid)
        try:
            receiver, thread = listen(log, folder / "edges.sock")
        finally:
            os.seteuid(0)
            os.setegid(0)

        def connects(uid: int, gid: int) -> bool:
            script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
            done = subprocess.run(
                ["/usr/bin/python3", "-I", "-c", script, str(folder / "edges.sock")],
                user=uid, group=gid, extra_groups=[], stderr=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
            return done.returncode == 0

        try:
            assert connects(pwd.getpwnam("nobody").pw_uid, grp.getgrnam("bin").gr_gid)
            assert not connects(pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
            assert not connects(owner.pw_uid, owner.pw_gid)
        finally:
            receiver.close()
            thread.join(timeout=10)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listen(
            EdgeLog(HOSTS, EDGES, (0.3,), CollectorRegistry()), tmp_path / "missing" / "log.sock"
        )
