"""How a tritonserver is started: the argv to the letter, and one real server to believe it."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from conf import compose
from serving.triton import CONTROL_HEADER, TritonNotInstalled, TritonServer, install_stub

WHEEL = "lib/python3.11/site-packages/pytriton/tritonserver"


@pytest.fixture
def env_dir(tmp_path: Path) -> Path:
    """A serving environment as the wheel lays it out, empty files for programs."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for path in ("bin/tritonserver", f"python_backend_stubs/{version}/triton_python_backend_stub"):
        file = tmp_path / WHEEL / path
        file.parent.mkdir(parents=True)
        file.write_text(path)
    (tmp_path / WHEEL / "backends/python").mkdir(parents=True)
    return tmp_path


def server(env_dir: Path, **changes: object) -> TritonServer:
    settings: dict[str, object] = {
        "env_dir": env_dir, "repository": Path("/repo"), "address": "127.0.0.11",
        "http_port": 18000, "grpc_port": 18001, "metrics_port": 18002,
    }  # fmt: skip
    return TritonServer(**{**settings, **changes})  # type: ignore[arg-type]


def test_the_command_line(env_dir: Path) -> None:
    install_stub(env_dir)
    assert server(env_dir, models=("flights",), exit_timeout_s=7).argv() == [
        f"{env_dir}/{WHEEL}/bin/tritonserver",
        "--id=127.0.0.11",
        "--model-repository=/repo",
        f"--backend-directory={env_dir}/{WHEEL}/backends",
        "--model-control-mode=explicit",
        "--load-model=flights",
        "--strict-readiness=false",
        "--exit-on-error=true",
        "--exit-timeout-secs=7",
        "--http-address=127.0.0.11",
        "--http-port=18000",
        "--http-thread-count=4",
        "--http-restricted-api=model-repository,model-config,shared-memory,trace,logging"
        ":lockgate-control= none",
        "--metrics-address=127.0.0.11",
        "--metrics-port=18002",
        "--metrics-config=summary_latencies=true",
        "--grpc-address=127.0.0.11",
        "--grpc-port=18001",
        "--backend-config=python,shm-region-prefix-name=lockgate_127.0.0.11_18000_",
        "--log-format=ISO8601",
    ]


def test_the_environment_is_the_serving_one_and_nothing_else(
    env_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    environment = server(env_dir).environment()
    assert environment["PATH"].split(":")[0] == f"{env_dir}/bin"
    assert "canary" not in environment.values()
    assert "PYTHONPATH" not in environment


def test_a_server_on_a_unix_socket_alone_opens_no_port(env_dir: Path) -> None:
    install_stub(env_dir)
    alone = server(env_dir, http_port=None, metrics_port=None, grpc_address="unix:/run/g.sock")
    argv = alone.argv()
    assert {"--allow-http=false", "--allow-metrics=false", "--grpc-address=unix:/run/g.sock"} <= {
        *argv
    }
    assert not [word for word in argv if word.startswith(("--http", "--metrics"))]
    assert alone.grpc_target == "unix:/run/g.sock:18001"


def test_an_environment_without_triton_says_what_to_run(tmp_path: Path, env_dir: Path) -> None:
    with pytest.raises(TritonNotInstalled, match="run scripts/setup"):
        server(tmp_path / "nowhere").argv()
    with pytest.raises(TritonNotInstalled, match=r"triton_python_backend_stub is missing"):
        server(env_dir).argv()


def test_the_stub_is_put_in_place_once(env_dir: Path) -> None:
    stub = install_stub(env_dir)
    assert stub.parent.name == "python"
    inode = stub.stat().st_ino
    assert install_stub(env_dir).stat().st_ino == inode
    stub.write_text("cut short")
    assert install_stub(env_dir).read_text().startswith("python_backend_stubs/")


MODEL = """
import triton_python_backend_utils as pb
class TritonPythonModel:
    def execute(self, requests):
        xs = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb.InferenceResponse([pb.Tensor("y", x * 2)]) for x in xs]
"""
CONFIG = """name: "twice"
backend: "python"
max_batch_size: 8
input [{name: "x" data_type: TYPE_FP32 dims: [1]}]
output [{name: "y" data_type: TYPE_FP32 dims: [1]}]
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[TritonServer]:
    env_dir = Path(compose("site").site.serving_env)
    version = tmp_path / "twice" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    there = server(
        env_dir, repository=tmp_path, address="127.0.0.99", http_port=28000, grpc_port=28001,
        metrics_port=28002, exit_timeout_s=5,
    )  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            there.argv(), env=there.environment(), stdout=log, stderr=subprocess.STDOUT
        )
        yield there
        process.terminate()
        assert process.wait(timeout=20) == 0, (tmp_path / "log").read_text()[-2000:]


def client(there: TritonServer) -> grpc.InferenceServerClient:
    link = grpc.InferenceServerClient(there.grpc_target)
    deadline = time.monotonic() + 30
    while True:
        try:
            if link.is_server_live():
                return link
        except InferenceServerException:
            pass  # not listening yet; the deadline below has the last word
        assert time.monotonic() < deadline, "Triton does not answer"
        time.sleep(0.1)


@pytest.mark.triton
def test_a_real_server_loads_on_demand_by_grpc_and_refuses_control_by_http(
    running: TritonServer,
) -> None:
    link = client(running)
    assert not link.is_model_ready("twice")
    link.load_model("twice")
    tensor = grpc.InferInput("x", [2, 1], "FP32")
    tensor.set_data_from_numpy(np.array([[1], [21]], dtype=np.float32))
    answer = link.infer("twice", [tensor]).as_numpy("y")
    assert answer.tolist() == [[2.0], [42.0]]
    link.close()
    url = f"http://{running.address}:{running.http_port}/v2/repository/models/twice/unload"
    for word in ("", " none", "  none", "none", "\t none", "\x0b none"):
        asked = urllib.request.Request(url, b"", {CONTROL_HEADER: word}, method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=10)
        assert refused.value.code == 403, word
