"""Candidates that attack: each ends as a refused release whose gates name it, and nothing is hurt.

The release is real: gates, a confined tritonserver, another OS user. What is tried runs in the
candidate's own model.py, when it is loaded or when it is called.
"""

import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving.artifact import store
from serving.release import pipeline
from serving.release.report import ReleaseReport
from serving.triton.ephemeral import EphemeralServer, serve_packages
from serving.triton.grpc_client import InferError, TritonClient
from serving.triton.server import TritonError
from tests.confined import PATIENCE, confinement

from . import tiny

BYSTANDER = "daemon"
"""A user of the machine that is neither the release nor the candidate."""


def attacking(initialize: str = "pass", execute: str = "pass") -> str:
    """A model.py that does the one at load and the other at every call, and answers right."""
    lines = tiny.MODEL.format(slope=1.0, sleep=0.0).splitlines()
    at = lines.index("    def execute(self, requests):")
    head = ["import os, socket, subprocess, threading", *lines[:at]]
    body = [
        "    def initialize(self, arguments):",
        textwrap.indent(textwrap.dedent(initialize), " " * 8),
        lines[at],
        textwrap.indent(textwrap.dedent(execute), " " * 8),
    ]
    return "\n".join([*head, *body, *lines[at + 1 :], ""])


@pytest.fixture
def attack(site: Path, dataset: Path, triton_env: Path, mlflow_db: str) -> Callable[..., str]:
    """Releases a candidate with this model.py; returns what the golden gate says of it."""

    def do(model_py: str, *overrides: str) -> str:
        folder = tiny.write_candidate(site / "runs", dataset)
        (folder / "version/model.py").write_text(model_py)
        slow = ["~gates.latency", "~gates.base_rate", "~gates.logistic_regression"]
        settings = tiny.make_settings(site, "tiny-run", *slow, *overrides)
        before = sorted(path for path in site.rglob("*") if "store" not in path.parts)
        report: ReleaseReport = pipeline.release_candidate(settings, lambda line: None)
        assert (report.outcome, report.exit_code) == ("refused", 4)
        assert store.versions(site / "store", "flights") == []
        assert sorted(path for path in site.rglob("*") if "store" not in path.parts) == before
        (record,) = [one for one in report.gates if one.name == "golden.equal"]
        assert record.verdict != "pass"
        return record.detail

    return do


REACHED = {
    "reads the key": ("open('{site}/keys/release/id_ed25519').read()", "No such file or directory"),
    "signs": (
        "subprocess.run(['ssh-keygen', '-Y', 'sign', '-f', '{site}/keys/release/id_ed25519',"
        " '-n', 'lockgate-release'], input=b'mine', check=True)",
        "CalledProcessError: Command '['ssh-keygen'",
    ),
    "signs as the signer": (
        "subprocess.run(['sudo', '-n', '-u', 'lg-sign', 'id'], check=True)",
        "CalledProcessError: Command '['sudo'",
    ),
    "writes into the store": ("open('{site}/store/flights', 'w')", "No such file or directory"),
    "writes into its package": ("open('/models/flights/1/x', 'w')", "Read-only file system"),
    "writes beside its socket": ("open('/run/gate/x', 'w')", "Permission denied"),
    "replaces its socket": ("os.unlink('/run/gate/grpc.sock:8001')", "Permission denied"),
    "writes into the root": ("open('/x', 'w')", "Read-only file system"),
    "reaches MLflow on loopback": (
        "socket.create_connection(('127.0.0.1', {port}), 5)",
        "Connection refused",
    ),
    "reaches another machine": (
        "socket.create_connection(('192.0.2.1', 80), 5)",
        "Network is unreachable",
    ),
    "mounts": (
        "subprocess.run(['unshare', '--user', '--map-root-user', 'true'], check=True)",
        "CalledProcessError: Command '['unshare'",
    ),
}


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of a server on this machine's loopback, such as MLflow's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.triton
def test_nothing_of_the_site_can_be_reached(
    site: Path, dataset: Path, triton_env: Path, listening: int
) -> None:
    """All of REACHED in one server, each at a call of its own."""
    tried = {name: line.format(site=site, port=listening) for name, (line, _) in REACHED.items()}
    folder = tiny.write_candidate(site / "runs", dataset)
    call = f"""
        names = pb_utils.get_input_tensor_by_name(requests[0], "carrier").as_numpy()
        exec({tried!r}[names.ravel()[0].decode()])
    """
    (folder / "version/model.py").write_text(attacking(execute=call))
    with (
        confinement() as here,
        serve_packages(
            [EphemeralServer("candidate", folder, "flights")], triton_env, here, PATIENCE
        ) as (client,),
    ):
        for name, (_, reason) in REACHED.items():
            carrier = np.array([[name.encode()]], object)
            with pytest.raises(InferError) as refused:
                client.infer({"carrier": carrier, "distance": np.float32([[1]])})
            assert reason in str(refused.value), (name, refused.value)


@pytest.mark.triton
@pytest.mark.parametrize("name", ["reads the key", "signs", "writes into the store"])
def test_a_candidate_that_reaches_for_the_site_is_refused_and_named(
    attack: Callable[..., str], site: Path, name: str
) -> None:
    line, reason = REACHED[name]
    assert reason in attack(attacking(initialize=line.format(site=site)))


MEBIBYTES = "open('/tmp/large', 'wb').write(bytes(200 << 20))"
ENDLESS = "while True:\n    time.sleep(1)"
BROOD = "while True:\n    if os.fork() == 0:\n        time.sleep(3600)"
BOMB = "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
SHARED_OUT = """
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(500 << 20)
        time.sleep(3600)
time.sleep(3600)
"""
ENORMOUS = """
x = np.zeros((12 << 20, 1), np.float32)
one = pb_utils.InferenceResponse([pb_utils.Tensor("late_probability", x)])
return [one for request in requests]
"""


@pytest.mark.triton
@pytest.mark.parametrize(
    ("model_py", "overrides", "reason"),
    [
        (attacking("bytearray(8 << 30)"), (), "MemoryError"),
        (attacking(execute="bytearray(8 << 30)"), (), "MemoryError"),
        (
            attacking(SHARED_OUT),
            ("ephemeral.limits.total_mib=1200",),
            "MiB, beyond ephemeral.limits.total_mib=1200",
        ),
        (attacking(MEBIBYTES), (), "File too large"),
        (attacking(BROOD), ("ephemeral.limits.processes=300",), "Resource temporarily unavailable"),
        (
            attacking(BOMB),
            ("ephemeral.limits.processes=300", "ephemeral.start_timeout_s=5"),
            "the candidate was not loaded within ephemeral.start_timeout_s=5: Triton did not load",
        ),
        (
            attacking(ENDLESS),
            ("ephemeral.start_timeout_s=4",),
            "the candidate was not loaded within ephemeral.start_timeout_s=4: Triton did not load",
        ),
        (
            attacking(execute=ENDLESS),
            ("ephemeral.request_timeout_s=1",),
            "flights did not answer within 1 s",
        ),
        (attacking(execute=ENORMOUS), ("ephemeral.answer_mib=4",), "larger than max"),
        (attacking(execute="os.abort()"), (), "Stub process"),
        (attacking("os.kill(os.getppid(), 9)"), (), "ended with code 137"),
    ],
    ids=[
        "8 GB at load", "8 GB at a call", "memory of many", "a large file", "forks",
        "forks that fork", "sleeps at load", "sleeps at a call", "a large answer", "dies",
        "kills its server",
    ],
)  # fmt: skip
def test_a_candidate_without_bounds_is_refused_and_named(
    attack: Callable[..., str], model_py: str, overrides: tuple[str, ...], reason: str
) -> None:
    started = time.monotonic()
    assert reason in attack(model_py, *overrides)
    assert time.monotonic() - started < 60
    left = psutil.Process().children(recursive=True)
    assert [one for one in left if one.name() in ("bwrap", "tritonserver", "sh")] == []


CONNECT = "import socket, sys\nsocket.socket(socket.AF_UNIX).connect(sys.argv[1])"


@pytest.mark.triton
def test_nobody_else_loads_code_into_the_server_of_a_release(
    site: Path, dataset: Path, triton_env: Path
) -> None:
    """The release's own Triton: no port to reach, a socket that only it and the candidate see."""
    folder = tiny.write_candidate(site / "runs", dataset)
    wanted = [EphemeralServer("candidate", folder, "flights")]
    with confinement() as here, serve_packages(wanted, triton_env, here, PATIENCE) as (client,):
        path = client.client.url.removeprefix("unix:")
        assert stat.S_ISSOCK(Path(path).stat().st_mode)
        for user, expected in ((BYSTANDER, "PermissionError"), ("root", "")):
            done = subprocess.run(
                ["setpriv", f"--reuid={user}", "--clear-groups", "--regid=nogroup"
                 if user == "root" else "--regid=daemon",
                 "/usr/bin/python3", "-c", CONNECT, path],
                capture_output=True, text=True,
            )  # fmt: skip
            assert expected in done.stderr and (done.returncode == 0) == (not expected)
        listed = subprocess.run(
            ["setpriv", f"--reuid={BYSTANDER}", "--regid=daemon", "--clear-groups",
             "ls", str(here.folder)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert "Permission denied" in listed.stderr
        ours = {one.pid for one in psutil.Process().children(recursive=True)}
        assert any("tritonserver" in psutil.Process(pid).name() for pid in ours)
        assert [one for one in psutil.net_connections("inet") if one.pid in ours] == []


@pytest.mark.triton
def test_a_server_does_not_outlive_its_time(site: Path, dataset: Path, triton_env: Path) -> None:
    folder = tiny.write_candidate(site / "runs", dataset)
    wanted = [EphemeralServer("candidate", folder, "flights")]
    with (
        confinement(life_s=6.0) as here,
        serve_packages(wanted, triton_env, here, PATIENCE) as (client,),
        pytest.raises(TritonError, match=r"candidate was ended after ephemeral\.limits\.life_s=6"),
    ):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            client.max_batch()
            time.sleep(0.1)


class GarbageServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers what `tensor` and `raw` are, whatever is sent."""

    def __init__(self, datatype: str, shape: list[int], raw: bytes) -> None:
        self.answer = service_pb2.ModelInferResponse(raw_output_contents=[raw])
        self.answer.outputs.add(name="y", datatype=datatype, shape=shape)

    def ModelInfer(self, request: object, context: object) -> service_pb2.ModelInferResponse:
        return self.answer


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", [1 << 40], b"1234"),
        ("FP32", [-3, 5], b"1234"),
        ("FP32", [1], b"123"),
        ("BYTES", [2], b"\xff\xff\xff\x7f"),
        ("BYTES", [1], b"\x01"),
        ("BF16", [1], b"\x01"),
        ("NO SUCH", [1], b"1234"),
    ],
)
def test_an_answer_that_is_garbage_is_an_error_of_inference(
    tmp_path: Path, datatype: str, shape: list[int], raw: bytes
) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        GarbageServer(datatype, shape, raw), server
    )
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    try:
        with (
            TritonClient(f"unix:{tmp_path}/s", timeout_s=10) as client,
            pytest.raises(InferError, match="m gave an answer that is malformed"),
        ):
            client.infer("m", 1, {"x": np.float32([1])}, 10)
    finally:
        server.stop(0)


def test_this_interpreter_is_not_the_candidates() -> None:
    """The attacks above ran elsewhere: nothing of them is imported here."""
    assert "triton_python_backend_utils" not in sys.modules
