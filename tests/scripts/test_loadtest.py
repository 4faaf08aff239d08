"""Traffic against a real HTTP server: what is sent, what is counted, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf import repo_root
from scripts.loadtest import LoadPlan, LoadRequest, TrafficError, read_requests, start
from scripts.loadtest.golden_requests import check_answer
from serving.artifact.golden import GoldenError, build_example
from serving.artifact.tensors import numpy_dtype
from serving.triton.kserve import (
    HEADER_LENGTH,
    HttpAnswer,
    decode_answer,
    encode_request,
    fits_json,
)


def golden(value: float, count: int = 8) -> list[dict[str, Any]]:
    """Examples whose right answer is input + value."""
    return [
        {
            "inputs": {"x": {"dtype": "FP32", "shape": [1, 1], "data": [[float(i)]]}},
            "outputs": {"y": {"dtype": "FP32", "shape": [1, 1], "data": [[i + value]]}},
            "atol": 1e-5,
            "rtol": 0.0,
        }
        for i in range(count)
    ]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine falls behind any rate: counts are tested, not speed."""
    monkeypatch.setattr("scripts.loadtest.running.CATCH_UP_S", 60.0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with versions 1 (adds 1) and 2 (adds 2) of `adder`."""
    for version in (1, 2):
        folder = tmp_path / "store" / "adder" / str(version)
        folder.mkdir(parents=True)
        (folder / "golden.json").write_text(json.dumps(golden(float(version))))
        (folder / "manifest.json.sig").write_text("signed")
    return tmp_path / "store"


@dataclass
class Server:
    """A v2 inference server that adds its version to `x`."""

    port: int
    version: str = "1"
    adds: float = 1.0
    misbehave: Callable[[BaseHTTPRequestHandler, int], bool] = lambda handler, number: False
    requests: list[str] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server(port=0)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                state.requests.append(self.path)
                state.connections.add(self.client_address[1])
                number = len(state.requests)
            if state.misbehave(self, number):
                return
            x = json.loads(body)["inputs"][0]["data"][0]
            output = {"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [x + state.adds]}
            reply = {"model_name": "adder", "model_version": state.version, "outputs": [output]}
            send(self, 200, json.dumps(reply).encode())

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("X-Request-Id", "r-1")
    handler.end_headers()
    handler.wfile.write(body)


def plan(server: Server, store: Path, **settings: Any) -> LoadPlan:
    settings = {"rate": 200.0, "duration_s": 0.25, "concurrency": 4, **settings}
    endpoints = {"us-east": ("127.0.0.1", server.port)}
    return LoadPlan("adder", endpoints, read_requests(store, "adder"), **settings)


def test_every_planned_request_is_sent_and_checked(server: Server, store: Path) -> None:
    result = start(plan(server, store)).wait()
    assert (result.planned, result.sent, result.ok, result.failed) == (50, 50, 50, 0)
    assert result.checked == 50 and result.versions == {"1": 50}
    assert set(server.requests) == {"/v2/models/adder/infer"} and len(server.requests) == 50
    assert result.p50_ms is not None and result.p99_ms is not None and result.max_ms is not None
    assert 0 < result.p50_ms <= result.p99_ms <= result.max_ms


def test_connections_are_kept_and_opened(server: Server, store: Path) -> None:
    start(plan(server, store, new_connection_every=10)).wait()
    # 5 of 50 requests open their own connection; four clients keep one each, opened when needed.
    assert 5 < len(server.connections) <= 5 + 4
    server.connections.clear()
    start(plan(server, store, new_connection_every=1)).wait()
    assert len(server.connections) == 50


def test_the_answer_is_judged_by_the_version_that_gave_it(server: Server, store: Path) -> None:
    def second_half_is_version_2(handler: BaseHTTPRequestHandler, number: int) -> bool:
        if number > 25:
            server.version, server.adds = "2", 2.0
        return False

    server.misbehave = second_half_is_version_2
    result = start(plan(server, store, concurrency=1)).wait()
    assert result.failed == 0 and result.checked == 50
    assert result.versions == {"1": 25, "2": 25}


def test_wrong_numbers_are_failures(server: Server, store: Path) -> None:
    server.version = "2"  # but it adds 1, as version 1 does
    result = start(plan(server, store)).wait()
    assert (result.ok, result.wrong, result.failures) == (0, 50, {"wrong answer": 50})
    assert "version 2: y is off by 1" in result.examples_of_failure[0]["detail"]
    assert result.examples_of_failure[0]["request_id"] == "r-1"
    assert result.p50_ms is None


def test_an_unknown_version_is_ok_but_unchecked(server: Server, store: Path) -> None:
    server.version = "7"
    result = start(plan(server, store)).wait()
    assert (result.ok, result.checked, result.versions) == (50, 0, {"7": 50})


def test_each_way_to_fail_has_its_reason(server: Server, store: Path) -> None:
    def misbehave(handler: BaseHTTPRequestHandler, number: int) -> bool:
        if number == 1:
            send(handler, 503, b"no host")
        elif number == 2:
            handler.close_connection = True  # closed without an answer
        elif number == 3:
            send(handler, 200, b"{not json")
        elif number == 4:
            send(handler, 200, b'["model_version"]')
        elif number == 5:
            time.sleep(1.0)
            handler.close_connection = True
        return number <= 5

    server.misbehave = misbehave
    result = start(plan(server, store, concurrency=1, timeout_s=0.5)).wait()
    assert result.failures == {"http 503": 1, "connection lost": 1, "bad reply": 2, "timeout": 1}
    assert result.failed == 5 and result.ok == result.sent - 5 > 0
    assert result.regions == {"us-east": {"sent": result.sent, "failed": 5}}
    assert result.examples_of_failure[0]["detail"] == "no host"


def test_nobody_listens(server: Server, store: Path) -> None:
    dead = {"us-west": ("127.0.0.1", 1), "us-east": ("127.0.0.1", server.port)}
    both = LoadPlan("adder", dead, read_requests(store, "adder"), rate=200, duration_s=0.1)
    result = start(both).wait()
    assert result.failures == {"refused": 10}
    assert result.regions["us-west"] == {"sent": 10, "failed": 10}
    assert result.regions["us-east"] == {"sent": 10, "failed": 0}


def test_stop_ends_long_traffic_and_keeps_what_was_seen(server: Server, store: Path) -> None:
    with start(plan(server, store, duration_s=600.0)) as traffic:
        while traffic.sent() < 10:
            time.sleep(0.01)
        assert traffic.answered_by()["1"] >= 10
    result = traffic.wait()
    assert 10 <= result.sent < result.planned and result.failed == 0


def test_a_server_that_hangs_does_not_make_it_endless(
    server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.loadtest.running.CATCH_UP_S", 0.2)

    def hang(handler: BaseHTTPRequestHandler, number: int) -> bool:
        time.sleep(0.3)
        handler.close_connection = True
        return True

    server.misbehave = hang
    result = start(plan(server, store, concurrency=2, timeout_s=0.2)).wait()
    assert result.failures == {"timeout": result.sent}
    assert 2 <= result.sent < result.planned == 50


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"rate": 0.0}, "rate"),
        ({"rate": 10_000.0}, "rate"),
        ({"duration_s": 0.0}, "requests"),
        ({"rate": 1_000.0, "duration_s": 3_600.0}, "requests"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 10_000}, "concurrency"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_out_of_bounds_is_refused(
    server: Server, store: Path, settings: dict[str, float], word: str
) -> None:
    with pytest.raises(TrafficError, match=word):
        plan(server, store, **settings)


@pytest.mark.parametrize("address", ["10.0.0.7", "192.0.2.1", "edge.example.com", "::2"])
def test_other_machines_are_refused_unless_asked_for(store: Path, address: str) -> None:
    examples = read_requests(store, "adder")
    with pytest.raises(TrafficError, match="--allow-remote"):
        LoadPlan("adder", {"us-east": (address, 80)}, examples)
    remote = LoadPlan("adder", {"us-east": (address, 80)}, examples, allow_remote=True)
    assert remote.requests == 600


def test_golden_examples_of_all_versions_are_put_together(store: Path) -> None:
    examples = read_requests(store, "adder")
    assert len(examples) == 8
    assert sorted(examples[3].expected) == ["1", "2"]
    assert json.loads(examples[3].request.body)["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [3.0]}
    ]
    with pytest.raises(GoldenError, match="the store has adder"):
        read_requests(store, "addr")
    (store / "adder" / "2" / "golden.json").write_text("[{}]")
    with pytest.raises(GoldenError, match=r"2/golden\.json"):
        read_requests(store, "adder")


def example(dtype: str, data: list[Any]) -> LoadRequest:
    tensor = np.array(data, numpy_dtype(dtype)).reshape(-1, 1)
    whole = build_example({"x": tensor}, {"x": tensor}, atol=0.0, rtol=0.01)
    request = encode_request(whole.inputs, binary=not fits_json(whole.inputs))
    return LoadRequest(request, {"1": whole})


def answer(dtype: str, data: list[Any], version: str, name: str = "x") -> HttpAnswer:
    output = {"name": name, "datatype": dtype, "shape": [len(data), 1], "data": data}
    return decode_answer(json.dumps({"model_version": version, "outputs": [output]}).encode(), None)


@pytest.mark.parametrize(
    ("dtype", "want", "have", "right"),
    [
        ("BYTES", ["a b", "ü"], ["a b", "ü"], True),
        ("BYTES", ["a b"], ["a c"], False),
        ("FP32", [None, 1.0], [float("nan"), 1.0], True),
        ("FP32", [None], [0.0], False),
        ("FP64", [100.0], [100.9], True),
        ("FP64", [100.0], [101.1], False),
        ("FP64", [1.0, 2.0], [1.0], False),
        ("INT32", [3], [3], True),
    ],
)
def test_the_verdict_on_an_answer(
    dtype: str, want: list[Any], have: list[Any], right: bool
) -> None:
    asked = example(dtype, want)
    assert check_answer(asked, answer(dtype, have, "1"))[0] is right
    assert check_answer(asked, answer(dtype, have, "2"))[0] is None
    missing = (False, "version 1: x is missing")
    assert check_answer(asked, answer(dtype, have, "1", "y")) == missing


def test_missing_numbers_travel_as_binary_data_and_text_as_json() -> None:
    request = example("FP32", [None, 1.0]).request
    header = int(request.headers[HEADER_LENGTH])
    (tensor,) = json.loads(request.body[:header])["inputs"]
    assert (tensor["shape"], tensor["parameters"]) == ([2, 1], {"binary_data_size": 8})
    assert np.frombuffer(request.body[header:], "<f4").tolist()[1:] == [1.0]
    assert np.isnan(np.frombuffer(request.body[header:], "<f4")[0])
    text = json.loads(example("BYTES", ["ü"]).request.body)
    assert text["inputs"][0]["data"] == ["ü"]


@dataclass(frozen=True)
class Command:
    """`python -m scripts.loadtest` on a site whose us-east edge is the test's server."""

    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        # Run from `folder`: Python looks for packages in the working directory first.
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.loadtest", "--model", "adder", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": "", "LOCKGATE_SITE": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def command(server: Server, store: Path) -> Command:
    shutil.copytree(repo_root() / "conf", store.parent / "conf")
    box = store.parent / "conf/site/box.yaml"
    text = box.read_text()
    assert "http_port: 18080" in text
    box.write_text(text.replace("http_port: 18080", f"http_port: {server.port}"))
    for name in ("scripts", "serving"):
        (store.parent / name).symlink_to(repo_root() / name)
    return Command(store.parent)


def test_the_exit_code_says_whether_anything_failed(command: Command, server: Server) -> None:
    arguments = ("--region", "us-east", "--rate", "100", "--duration", "0.2", "--json")
    code, out, err = command.run(*arguments)
    assert code == 0, err
    assert json.loads(out)["ok"] == 20
    server.version = "2"
    code, out, err = command.run(*arguments)
    assert code == 1 and json.loads(out)["wrong"] == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_its_result(
    command: Command, server: Server, number: signal.Signals
) -> None:
    arguments = ("--region", "us-east", "--rate", "50", "--duration", "600", "--json")
    with command.start(*arguments) as process:
        give_up = time.monotonic() + 60
        while len(server.requests) < 5 and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert 5 <= result["sent"] < result["planned"] and result["failed"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--region", "us-north"), "us-north; choose from us-east, us-west"),
        (("--rate", "5000"), "rate 5000.0: choose above 0"),
        (("--model", "ader"), "the store has adder"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    command: Command, arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = command.run(*arguments)
    assert code == 2 and words in err
    assert "Traceback" not in err and out == ""
