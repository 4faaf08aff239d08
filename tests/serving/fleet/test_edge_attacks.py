"""Attacks on a real edge with a real Triton behind it: bounded loads on loopback.

Throughout each, another client goes on: every answer it gets must be 200. Nothing may crash, and no
answer may count as the service's failure, neither in the watch of a rollout nor in the objectives.
"""

from __future__ import annotations

import gzip
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.triton.kserve import HEADER_LENGTH, encode_request
from tests.serving.fleet import malformed_requests
from tests.serving.fleet.bed import MODEL, serving_env
from tests.serving.fleet.edge_bed import BROKEN, SAME, Answer, EdgeBed, running_edge, running_triton

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(
        not shutil.which("haproxy") or serving_env() is None,
        reason="haproxy or the serving environment is missing: scripts/setup",
    ),
]

GOOD = encode_request({"x_FP32": np.array([1, 2], np.float32)}, ["y_FP32"], binary=False)
HEAD = f"POST /v2/models/{SAME}/infer HTTP/1.1\r\nHost: edge\r\n"
ADDRESSES = count(1)
LIMITS = {
    "body_timeout_ms": 1500,
    "header_timeout_ms": 1500,
    "max_connections_per_source": 300,
    "max_in_flight_per_source": 100,
    "max_requests_per_second_per_source": 500,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeBed]:
    folder = tmp_path_factory.mktemp("edge")
    with running_triton(folder) as port, running_edge(folder, port, **LIMITS) as bed:
        yield bed


@pytest.fixture
def edge(running: EdgeBed) -> EdgeBed:
    """Each test is a client of its own address, so that none pays for the one before it."""
    return running.from_source(f"127.0.1.{next(ADDRESSES)}")


@contextmanager
def good_traffic(edge: EdgeBed) -> Iterator[None]:
    """A client of another address, all the while; nothing may count as the service's failure."""
    before = (edge.host().errors, edge.answers("5xx"), edge.service_failures())
    logged = edge.logged()
    client, answers = edge.from_source("127.0.0.2"), list[tuple[int, float]]()
    done = threading.Event()

    def send() -> None:
        while not done.is_set() or len(answers) < 20:
            begun = time.monotonic()
            status = client.post(SAME, GOOD.body, GOOD.headers).status
            answers.append((status, time.monotonic() - begun))
            time.sleep(0.005)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    until(lambda: edge.logged() >= logged + len(answers))
    assert {status for status, _ in answers} == {200}
    assert max(seconds for _, seconds in answers) < 2
    assert (edge.host().errors, edge.answers("5xx"), edge.service_failures()) == before


def test_more_than_200_malformed_requests_are_the_clients_mistakes(edge: EdgeBed) -> None:
    bad = [*malformed_requests.requests(), *malformed_requests.of_death()] * 2
    assert len(bad) > 200
    with good_traffic(edge), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: edge.post(SAME, one.body, one.headers), bad))
        wrong = [
            (one.mistake, answer.status)
            for one, answer in zip(bad, answers, strict=True)
            if answer.status != 400 or not json.loads(answer.body)["error"]
        ]
    assert wrong == []


@pytest.mark.parametrize("request_", malformed_requests.of_death(), ids=lambda one: one.mistake)
def test_a_request_of_death_names_its_input(
    request_: malformed_requests.Malformed, edge: EdgeBed
) -> None:
    with good_traffic(edge):
        answer = edge.post(SAME, request_.body, request_.headers)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["error"].startswith("input 'x_FP32': its shape")


@pytest.mark.parametrize("datatype", ["BYTES", "FP32"])
def test_a_classification_never_reaches_triton(datatype: str, edge: EdgeBed) -> None:
    """Of texts it ended Triton 2.51."""
    value: Any = "a" if datatype == "BYTES" else 1.0
    tensor = {"name": f"x_{datatype}", "datatype": datatype, "shape": [1], "data": [value]}
    wanted = {"name": f"y_{datatype}", "parameters": {"classification": 1}}
    with good_traffic(edge):
        answer = edge.post(SAME, json.dumps({"inputs": [tensor], "outputs": [wanted]}))
    assert (answer.status, b"classification is not served" in answer.body) == (400, True)


def test_integers_out_of_range_are_refused_and_never_wrapped(edge: EdgeBed) -> None:
    tensor = {"name": "x_INT8", "datatype": "INT8", "shape": [3], "data": [1, -128, 128]}
    answer = edge.post(SAME, json.dumps({"inputs": [tensor]}))
    assert answer.status == 400
    assert json.loads(answer.body) == {
        "error": "input 'x_INT8': the value 128 is outside the range of INT8"
    }


def test_a_batch_too_large_and_a_wrong_shape_are_the_clients_mistakes(edge: EdgeBed) -> None:
    with good_traffic(edge):
        for rows, columns in ((9, 1), (1, 2), (0, 1)):
            x = np.zeros((rows, columns), np.float32)
            for binary in (False, True):
                request = encode_request({"x": x}, binary=binary)
                assert edge.post(MODEL, request.body, request.headers).status == 400


def test_a_failure_of_the_service_is_counted_and_a_clients_is_not(edge: EdgeBed) -> None:
    host, failures = edge.host().errors, edge.service_failures()
    zero = encode_request({"x_FP32": np.zeros(1, np.float32)}, binary=True)
    for _ in range(3):
        assert edge.post(BROKEN, GOOD.body, GOOD.headers).status == 500
        assert edge.post(BROKEN, b"{").status == 400
        refusal = edge.post(BROKEN, zero.body, zero.headers)
        assert (refusal.status, b"must be above zero" in refusal.body) == (400, True)
    until(lambda: edge.service_failures() == failures + 3)
    assert edge.host().errors == host + 3


def test_slow_bodies_hold_no_place_at_a_host(edge: EdgeBed) -> None:
    """280 of them made a region answer 503; here they end by themselves, 408 or 429."""
    with good_traffic(edge):
        first = (HEAD + "Content-Length: 4000000\r\n\r\n{").encode()
        lines = held_connections(edge, 280, first, b'"')
    assert set(lines) == {"HTTP/1.1 408", "HTTP/1.1 429"}
    assert lines["HTTP/1.1 408"] == LIMITS["max_in_flight_per_source"]


def test_slow_heads_are_closed(edge: EdgeBed) -> None:
    with good_traffic(edge):
        lines = held_connections(edge, 280, HEAD.encode(), b"X")
    assert lines == {"HTTP/1.1 408": 280}


def test_a_client_address_has_so_many_connections(edge: EdgeBed) -> None:
    with good_traffic(edge):
        lines = held_connections(edge, 400, HEAD.encode(), b"X")
    assert lines["HTTP/1.1 408"] == LIMITS["max_connections_per_source"]
    assert lines[""] == 100


def test_a_flood_is_answered_429_with_the_time_to_wait(edge: EdgeBed) -> None:
    with good_traffic(edge):
        answers: list[bytes] = []
        with edge.connect() as client:
            line = b"GET /v2/health/live HTTP/1.1\r\nHost: edge\r\n"
            client.sendall((line + b"\r\n") * 799 + line + b"Connection: close\r\n\r\n")
            while data := client.recv(1 << 16):
                answers.append(data)
    text = b"".join(answers).decode()
    allowed, refused = text.count("HTTP/1.1 200"), text.count("HTTP/1.1 429")
    assert allowed + refused == 800 and 100 < refused < 400
    assert text.lower().count("retry-after: 1\r\n") == refused


def test_bodies_have_a_largest_size(edge: EdgeBed) -> None:
    with good_traffic(edge):
        assert refused(edge.post(SAME, b"\0" * 200_000_000)) == (413, "a body may have 8388608")
        pieces = (b"\0" * 1_000_000 for _ in range(200))
        # Without a length the edge sees it late: the answer may be lost in the reset.
        assert edge.post(SAME, pieces).status in (413, 0)
        assert refused(edge.post(SAME, b" " * 5_000_000)) == (413, "JSON may have 4194304 b")


def test_heads_have_a_largest_size(edge: EdgeBed) -> None:
    with good_traffic(edge):
        assert edge.post(SAME, GOOD.body, {"X-Long": "y" * 20_000}).status == 431
        long_path = f"/v2/models/{SAME}/infer?{'y' * 20_000}"
        assert edge.send("POST", long_path, GOOD.body).status == 431
        lines = {f"X-{number}": "y" for number in range(300)}
        assert edge.post(SAME, GOOD.body, lines).status == 400
        with edge.connect() as client:
            client.sendall(HEAD.encode() + b"X-Huge: ")
            with suppress(OSError):
                for _ in range(1000):
                    client.sendall(b"y" * 4096)
                client.sendall(b"\r\n\r\n")
                assert client.recv(12) in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")


def test_large_json_is_checked_in_turns_with_small_requests(edge: EdgeBed) -> None:
    size = 1_000_000
    tensor = b'{"name":"x_INT8","datatype":"INT8","shape":[%d],"data":[%s]}'
    body = b'{"inputs":[%s]}' % (tensor % (size + 1, b"1," * size + b"300"))
    with good_traffic(edge), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: edge.post(SAME, body), range(4)))
    assert {refused(answer) for answer in answers} == {(400, "input 'x_INT8': the val")}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v2/models/stats", {}, 403),
        ("GET", "/v2/models/stats?a=b", {}, 403),
        ("POST", "/v2/models/stats/infer", {}, 403),
        ("GET", f"/v2/models/{SAME}/versions/1/stats", {}, 403),
        ("GET", f"/v2/models/{SAME}", {"X-Body": "yes"}, 400),
        ("POST", f"/v2/models/{SAME}/infer", {"Content-Encoding": "gzip"}, 415),
        ("POST", f"/v2/models/{SAME}/infer", {"Content-Encoding": "br"}, 415),
        ("POST", f"/v2/models/{SAME}/infer", {HEADER_LENGTH: "7,9"}, 400),
        ("GET", f"/v2/models/{SAME}", {}, 200),
    ],
)
def test_what_the_edge_refuses_by_its_head(
    method: str, path: str, headers: dict[str, str], status: int, edge: EdgeBed
) -> None:
    body = None if method == "GET" and not headers else GOOD.body
    if headers.get("Content-Encoding") == "gzip":
        body = gzip.compress(GOOD.body)
    with good_traffic(edge):
        assert edge.send(method, path, body, headers).status == status


def test_a_full_queue_answers_at_once_with_the_time_to_wait(tmp_path: Path) -> None:
    host = ThreadingHTTPServer(("127.0.0.1", 0), SlowHost)
    host.daemon_threads = True
    threading.Thread(target=host.serve_forever, args=(0.02,), daemon=True).start()
    settings = {"max_connections_per_host": 2, "max_queue": 3, "retry_after_s": 7}
    with running_edge(tmp_path, host.server_address[1], **settings) as edge:
        begun = time.monotonic()

        def timed(_: int) -> tuple[float, Answer]:
            answer = edge.post(SAME, GOOD.body, GOOD.headers)
            return time.monotonic() - begun, answer

        with ThreadPoolExecutor(12) as pool:
            seen = list(pool.map(timed, range(12)))
        full = [(seconds, one) for seconds, one in seen if one.status == 503]
        assert [one.status for _, one in seen].count(200) == 5 and len(full) == 7
        assert all(refused(one) == (503, "the queue is full") for _, one in full)
        assert {one.headers["retry-after"] for _, one in full} == {"7"}
        assert max(seconds for seconds, _ in full) < 0.5
        until(lambda: edge.service_failures() == 7)  # overload is the service's failure
    host.shutdown()
    host.server_close()


class SlowHost(BaseHTTPRequestHandler):
    """Answers an inference after a second."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(1)
        self._answer()

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def held_connections(edge: EdgeBed, number: int, first: bytes, more: bytes) -> Counter[str]:
    """Open connections, send `first` and then `more` now and then; the first words of each answer,
    nothing for one that was closed. A connection is held until the edge ends it."""
    clients = []
    for _ in range(number):
        with suppress(ConnectionError):
            client = edge.connect()
            clients.append(client)
            client.sendall(first)
    for _ in range(3):
        time.sleep(0.4)
        for client in clients:
            with suppress(OSError):
                client.sendall(more)
    lines = Counter({"": number - len(clients)})
    for client in clients:
        with client:
            try:
                lines[client.recv(12).decode()] += 1
            except ConnectionError:
                lines[""] += 1
    return +lines


def refused(answer: Answer) -> tuple[int, str]:
    """The status, and the first words of the sentence."""
    return answer.status, json.loads(answer.body)["error"][:23]


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
