"""Shadow traffic of a real HAProxy: copies go to the shadow; no client and no counter feels it."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from serving.fleet.routing import Routing, VersionCounters
from serving.observe.collectors.edge_log import OTHER
from serving.triton.kserve import HEADER_LENGTH
from tests.serving.fleet.edge_bed import EdgeBed, running_edge

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
BODY = b'{"inputs":[]}'
FRAMED = (
    b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[3],"parameters":{"binary_data_size":3}}]}'
)
STABLE, SHADOW = "/v2/models/toy/versions/7/infer", "/v2/models/toy/versions/9/infer"


class Host(BaseHTTPRequestHandler):
    """A host that keeps what it was sent; version 9 is slow, and fails on some."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seen: ClassVar[list[tuple[str, bytes, str | None]]] = []
    slow_s = 0.0
    shadow_status = 200

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Host.seen.append((self.path, body, self.headers.get(HEADER_LENGTH)))
        if self.path == SHADOW:
            time.sleep(Host.slow_s)
        self.answer(Host.shadow_status if self.path == SHADOW else 200)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.path)))
        with suppress(ConnectionError):  # a copy that its sender gave up
            self.end_headers()
            self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeBed]:
    host = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    host.daemon_threads = True
    threading.Thread(target=host.serve_forever, args=(0.02,), daemon=True).start()
    with running_edge(tmp_path_factory.mktemp("shadow"), host.server_address[1]) as made:
        yield made
    host.shutdown()
    host.server_close()


@pytest.fixture
def bed(running: EdgeBed) -> EdgeBed:
    Host.seen, Host.slow_s, Host.shadow_status = [], 0.0, 200
    running.edge.query("clear table requests_by_shadow")
    running.edge.query("clear table requests_by_version")
    return running


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, Host.seen
        time.sleep(0.02)


def paths() -> Counter[str]:
    return Counter(path for path, _, _ in Host.seen)


def test_a_copy_of_each_request_goes_to_the_shadow(bed: EdgeBed) -> None:
    bed.edge.route("toy", Routing(7, shadow=9, shadow_percent=100))
    assert bed.edge.routing("toy") == Routing(7, shadow=9, shadow_percent=100)
    before, malformed = bed.host().requests, bed.log.lines.labels("malformed", OTHER)._value.get()
    answers = [bed.post("toy", BODY) for _ in range(5)]
    answers.append(bed.post("toy", FRAMED + b"abc", {HEADER_LENGTH: str(len(FRAMED))}))
    assert {(one.status, one.body.decode()) for one in answers} == {(200, STABLE)}
    until(lambda: paths() == {STABLE: 6, SHADOW: 6})
    copies = [(body, length) for path, body, length in Host.seen if path == SHADOW]
    assert sorted(copies, key=str) == sorted(
        [(BODY, None)] * 5 + [(FRAMED + b"abc", str(len(FRAMED)))], key=str
    )
    assert bed.host().requests == before + 6, "a copy is no request of the host"
    assert bed.edge.counters("toy") == {7: VersionCounters(6, 0)}
    until(lambda: bed.edge.shadow_counters("toy") == {9: VersionCounters(6, 0)})
    assert bed.log.lines.labels("malformed", OTHER)._value.get() == malformed


def test_what_does_not_ask_the_map_has_no_shadow(bed: EdgeBed) -> None:
    bed.edge.route("toy", Routing(7, shadow=9, shadow_percent=100))
    assert bed.send("POST", "/v2/models/toy/versions/3/infer", BODY).status == 200
    assert bed.send("GET", "/v2/models/toy/ready").status == 200
    assert bed.post("other", BODY).status == 200
    assert bed.post("toy", b"{").status == 400
    bed.edge.route("toy", Routing(7))
    assert bed.post("toy", BODY).status == 200
    time.sleep(0.2)
    assert SHADOW not in paths()


def test_a_share_is_copied(bed: EdgeBed) -> None:
    bed.edge.route("toy", Routing(7, shadow=9, shadow_percent=25))
    for _ in range(200):
        bed.post("toy", BODY)
    time.sleep(0.3)
    assert 20 <= paths()[SHADOW] <= 85


def test_a_shadow_that_hangs_and_fails_is_felt_by_nobody(bed: EdgeBed) -> None:
    """Copies are dropped where they do not keep up; their failures are theirs alone."""
    Host.slow_s, Host.shadow_status = 0.5, 500
    errors, failures = bed.host().errors, bed.service_failures()
    bed.edge.route("toy", Routing(7, shadow=9, shadow_percent=100))
    slowest = 0.0
    for _ in range(300):
        began = time.monotonic()
        assert bed.post("toy", BODY).status == 200
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 0.5
    assert 0 < paths()[SHADOW] < 150
    bed.edge.route("toy", Routing(7))
    assert (bed.host().errors, bed.service_failures()) == (errors, failures)
    assert bed.edge.counters("toy")[7].errors == 0
    until(lambda: bed.edge.shadow_counters("toy")[9].errors > 0)


def test_a_version_is_not_its_own_shadow() -> None:
    for wrong in ({"version": 9, "shadow": 9}, {"canary": 9, "shadow": 9}, {"shadow_percent": 5.0},
                  {"shadow": 9, "shadow_percent": 101.0}):  # fmt: skip
        with pytest.raises(ValueError, match=r"shadow|percent"):
            Routing(**wrong)
    routing = Routing(7, 8, 5.0, 9, 50.0)
    assert Routing.from_json(routing.as_json()) == routing
