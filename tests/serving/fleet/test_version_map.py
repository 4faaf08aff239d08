"""Versions by the edge's map: its values by property tests, and a real HAProxy that follows it."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from serving.edge_host.names import ROUTES
from serving.fleet.haproxy.edge import Edge
from serving.fleet.haproxy.edge_link import EdgeError, LocalEdge
from serving.fleet.haproxy.version_map import (
    map_text,
    map_value,
    parse_counters,
    parse_map,
    parse_value,
    version_rules,
)
from serving.fleet.routing import Routing, VersionCounters
from tests.serving.fleet.edge_bed import EdgeBed, running_edge

needs_haproxy = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
VERSIONS = st.integers(1, 999_999_999)
ROUTINGS = st.builds(
    lambda version, canary, hundredths: Routing(
        version, canary, hundredths / 100 if canary else 0.0
    ),
    st.none() | VERSIONS, st.none() | VERSIONS, st.integers(0, 10_000),
)  # fmt: skip
BODY = b'{"inputs":[]}'


class EchoHost(BaseHTTPRequestHandler):
    """A host that answers with the path that it was asked for, or as the header `want` says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        status = int(self.headers.get("want", 200))
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeBed]:
    host = ThreadingHTTPServer(("127.0.0.1", 0), EchoHost)
    host.daemon_threads = True
    threading.Thread(target=host.serve_forever, args=(0.02,), daemon=True).start()
    with running_edge(tmp_path_factory.mktemp("routes"), host.server_address[1]) as made:
        yield made
    host.shutdown()
    host.server_close()


def seen(bed: EdgeBed, model: str = "toy", **headers: str) -> tuple[str, str | None]:
    """The path that the host saw, and the version that the answer names."""
    answer = bed.post(model, BODY, headers)
    return answer.body.decode(), answer.headers.get("lockgate-version")


@pytest.fixture(autouse=True)
def nothing_is_routed(request: pytest.FixtureRequest) -> None:
    if "bed" in request.fixturenames:
        bed: EdgeBed = request.getfixturevalue("bed")
        bed.edge.route("toy", Routing())
        bed.edge.query("clear table requests_by_version")


@drawn(ROUTINGS)
def test_a_routing_is_read_back_as_it_was_written(routing: Routing) -> None:
    assert parse_value(map_value(routing)) == routing


@drawn(st.dictionaries(st.sampled_from(["toy", "flights", "a.b-c_1"]), ROUTINGS))
def test_a_map_is_read_back_without_the_models_that_are_left_as_they_are(
    routes: dict[str, Routing],
) -> None:
    kept = {name: routing for name, routing in routes.items() if routing != Routing()}
    assert parse_map(map_text(routes)) == kept


@pytest.mark.parametrize(
    "line", ["toy", "toy 7", "toy 7:8", "toy 7:8:9:1", "../x 1:0:0", "toy x:0:0"]
)
def test_a_line_that_is_no_route_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_map(line)


@pytest.mark.parametrize(
    "name", ["toy; shutdown sessions", "toy\nset server triton/a state maint", ""]
)
def test_a_model_cannot_smuggle_a_command(name: str, bed: EdgeBed) -> None:
    with pytest.raises(ValueError, match="no name of a model"):
        bed.edge.route(name, Routing(7))


def test_a_state_folder_that_haproxy_would_split_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"state=.*letters, digits"):
        version_rules(tmp_path / "a) b", "x", "y")


def test_only_the_failures_of_the_service_are_counted() -> None:
    answer = (
        "# table: requests_by_version, type: string, size:10240, used:2\n"
        "0x1: key=toy/7 use=0 exp=0 gpc0=2 http_req_cnt=36 http_err_cnt=5 http_fail_cnt=3\n"
        "0x2: key=toy2/8 use=0 exp=0 gpc0=0 http_req_cnt=1 http_err_cnt=0 http_fail_cnt=0\n"
    )
    assert parse_counters(answer, "toy") == {7: VersionCounters(33, 5)}


@needs_haproxy
def test_a_request_without_a_version_is_given_that_of_the_map(bed: EdgeBed) -> None:
    assert seen(bed) == ("/v2/models/toy/infer", None)
    bed.edge.route("toy", Routing(7))
    assert bed.edge.routing("toy") == Routing(7)
    assert seen(bed) == ("/v2/models/toy/versions/7/infer", "7")
    assert seen(bed, "other") == ("/v2/models/other/infer", None)
    for tail in ("", "/ready"):
        answer = bed.send("GET", f"/v2/models/toy{tail}")
        assert answer.body.decode() == f"/v2/models/toy/versions/7{tail}"
    bed.edge.route("toy", Routing(8))
    assert seen(bed) == ("/v2/models/toy/versions/8/infer", "8")
    bed.edge.route("toy", Routing())
    assert seen(bed) == ("/v2/models/toy/infer", None)


@needs_haproxy
@pytest.mark.parametrize("path", ["/v2/models/toy/versions/3/infer", "/v2/models/versions/infer"])
def test_a_clients_own_version_stays_as_it_was_written(path: str, bed: EdgeBed) -> None:
    bed.edge.route("toy", Routing(7, 8, 50))
    answer = bed.send("POST", path, BODY)
    assert (answer.body.decode(), answer.headers.get("lockgate-version")) == (path, None)
    assert bed.edge.counters("toy") == {}


@needs_haproxy
def test_a_share_of_the_requests_goes_to_the_canary(bed: EdgeBed) -> None:
    bed.edge.route("toy", Routing(7, 8, 25))
    versions = Counter(seen(bed)[1] for _ in range(400))
    assert set(versions) == {"7", "8"}
    assert 55 <= versions["8"] <= 150  # 100 +- 5 standard deviations
    counters = bed.edge.counters("toy")
    assert {v: (c.requests, c.errors) for v, c in counters.items()} == {
        int(v): (n, 0) for v, n in versions.items() if v
    }
    # Readiness and metadata are those of the stable version.
    assert {bed.send("GET", "/v2/models/toy/ready").body for _ in range(20)} == {
        b"/v2/models/toy/versions/7/ready"
    }
    for percent, version in ((0, "7"), (100, "8")):
        bed.edge.route("toy", Routing(7, 8, percent))
        assert {seen(bed)[1] for _ in range(30)} == {version}


@needs_haproxy
@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({"Lockgate-Lane": "canary"}, "8"),
        ({"Lockgate-Lane": "stable"}, "7"),
        ({"Cookie": "a=b; lockgate-lane=canary"}, "8"),
        ({"Cookie": "lockgate-lane=stable"}, "7"),
        ({"Cookie": "lockgate-lane=canary", "Lockgate-Lane": "stable"}, "7"),
        ({"Lockgate-Lane": "999; x"}, "7"),
    ],
)
@pytest.mark.parametrize("percent", [0, 100])
def test_a_client_may_choose_its_lane(
    headers: dict[str, str], version: str, percent: int, bed: EdgeBed
) -> None:
    bed.edge.route("toy", Routing(7, 8, percent))
    known = "8" if percent and "x" in headers.get("Lockgate-Lane", "") else version
    assert {seen(bed, **headers)[1] for _ in range(5)} == {known}
    bed.edge.route("toy", Routing(7))
    assert seen(bed, **headers)[1] == "7"  # there is no canary to choose


@needs_haproxy
def test_a_clients_mistake_counts_for_no_version(bed: EdgeBed) -> None:
    bed.edge.route("toy", Routing(7))
    for status in (200, 400, 422, 403):
        bed.post("toy", BODY, {"want": str(status)})
    bed.post("toy", b"{", {})  # refused before it is given a version
    assert bed.edge.counters("toy") == {7: VersionCounters(1, 0)}
    for status in (500, 503, 0, 404):  # 404: the edge chose what the host has not
        bed.post("toy", BODY, {"want": str(status)})
    assert bed.edge.counters("toy") == {7: VersionCounters(5, 4)}


@needs_haproxy
def test_a_route_is_on_the_disk_before_haproxy_has_it(bed: EdgeBed) -> None:
    link = bed.edge.link
    bed.edge.route("toy", Routing(7, 8, 12.34))
    assert (link.state / ROUTES).read_text() == "toy 7:8:1234\n"
    away = Edge("away", LocalEdge("away", link.state / "none.sock", link.state))
    with pytest.raises(EdgeError, match="away does not answer"):
        away.route("toy", Routing(6))
    assert link.read_state(ROUTES) == "toy 6:0:0\n"
    link.write_state(ROUTES, "damaged\n")
    bed.edge.route("toy", Routing(7))
    assert link.read_state(ROUTES) == "toy 7:0:0\n"
