"""Every tensor type of Triton through a real server: as JSON, as binary data and by gRPC."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conf import repo_root
from serving.artifact.golden import build_example, differences
from serving.artifact.tensors import DTYPES, TensorSpec, numpy_dtype, triton_dtype
from serving.triton import TritonServer
from serving.triton.ephemeral import lay_out_repository
from serving.triton.grpc_client import InferError, ModelClient, TritonClient
from serving.triton.http_client import model_versions, post_infer
from serving.triton.kserve import encode_request, fits_json, infer_path
from serving.triton.model_config import TritonConfig, config_pbtxt
from serving.triton.server import TritonError

SERVING_ENV = Path(os.environ.get("LOCKGATE_SERVING_ENV", repo_root() / ".venv-serve"))

MODEL_PY = """
import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        outputs = [self.same(tensor) for tensor in request.inputs()]
        names = " ".join(sorted(tensor.name() for tensor in request.inputs()))
        outputs.append(pb_utils.Tensor("given", numpy.array([names.encode()], object)))
        return pb_utils.InferenceResponse(outputs)

    def same(self, tensor):
        name = tensor.name().replace("x_", "y_")
        if tensor.name() == "x_BF16":  # numpy knows no BF16, so its bytes are passed on
            return pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())
        return pb_utils.Tensor(name, tensor.as_numpy())
"""

SPECIAL = {
    "BOOL": [True, False],
    "BYTES": ["ü".encode(), b""],
    "FP16": [1.5, 65504.0],
    "BF16": [1.5, 3.0e38],
    "FP32": [1.5, float(np.finfo(np.float32).max)],
    "FP64": [5e-324, -0.1],
}


def values(dtype: str) -> np.ndarray:
    """Two edge values of `dtype`; the smallest and the largest for whole numbers."""
    kind = numpy_dtype(dtype)
    if dtype in SPECIAL:
        return np.array(SPECIAL[dtype], kind)
    limits = np.iinfo(kind)
    return np.array([limits.min, limits.max], kind)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server as a serving host has one, with HTTP, and gRPC on a unix socket."""
    if not SERVING_ENV.exists():
        pytest.skip(f"{SERVING_ENV} is not there: scripts/setup")
    package, work = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("work")
    config = TritonConfig(
        "same",
        inputs=tuple(TensorSpec(f"x_{dtype}", dtype, (-1,), optional=True) for dtype in DTYPES),
        outputs=(
            *(TensorSpec(f"y_{dtype}", dtype, (-1,)) for dtype in DTYPES),
            TensorSpec("given", "BYTES", (1,)),
        ),
    )
    (package / "config.pbtxt").write_text(config_pbtxt(config))
    (package / "version").mkdir()
    (package / "version/model.py").write_text(MODEL_PY)
    lay_out_repository(package, "same", work / "repository")
    server = TritonServer(
        SERVING_ENV, work / "repository", "127.0.0.98", 28010, 28011, 28012, models=("same",),
        exit_timeout_s=2, grpc_address=f"unix:{work}/grpc.sock",
    )  # fmt: skip
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            server.argv(), env=server.environment(), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        with TritonClient(server.grpc_target) as link:
            deadline = time.monotonic() + 60
            while not link.is_ready("same", 1):
                assert time.monotonic() < deadline, (work / "log").read_text()[-2000:]
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def client(server: TritonServer) -> Iterator[ModelClient]:
    with TritonClient(server.grpc_target) as link:
        yield ModelClient(link, "same", 1)


@pytest.fixture
def connection(server: TritonServer) -> Iterator[http.client.HTTPConnection]:
    link = http.client.HTTPConnection(server.address, server.http_port, timeout=20)
    yield link
    link.close()


def through(
    way: str, client: ModelClient, connection: http.client.HTTPConnection, name: str, x: np.ndarray
) -> np.ndarray:
    if way == "gRPC":
        return client.infer({f"x_{name}": x})[f"y_{name}"]
    request = encode_request({f"x_{name}": x}, [f"y_{name}"], binary=way == "binary")
    if way == "JSON":
        json.loads(request.body, parse_constant=lambda word: pytest.fail(f"{word} in the body"))
    return post_infer(connection, infer_path("same", 1), request).outputs[f"y_{name}"]


@pytest.mark.triton
@pytest.mark.parametrize("way", ["JSON", "binary", "gRPC"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_comes_back_as_it_went(
    dtype: str, way: str, client: ModelClient, connection: http.client.HTTPConnection
) -> None:
    x = values(dtype)
    if way == "JSON" and dtype in ("FP16", "BF16"):
        with pytest.raises(ValueError, match="JSON cannot carry x_"):
            encode_request({f"x_{dtype}": x}, binary=False)
        return
    example = build_example({}, {"y": x}, atol=0.0, rtol=0.0)
    assert differences(example, {"y": through(way, client, connection, dtype, x)}) == []
    none = x[:0]
    answer = through(way, client, connection, dtype, none)
    assert (answer.shape, triton_dtype(answer.dtype)) == ((0,), dtype)


@pytest.mark.triton
@pytest.mark.parametrize("way", ["binary", "gRPC"])
@pytest.mark.parametrize(
    ("dtype", "odd"),
    [
        *((dtype, [np.nan, np.inf, -np.inf]) for dtype in ("FP16", "BF16", "FP32", "FP64")),
        ("BYTES", [b"\xff\xd8\x00jpeg", b"\x00"]),
    ],
)
def test_what_json_cannot_carry_goes_as_binary_data_and_by_grpc(
    dtype: str, odd: list, way: str, client: ModelClient, connection: http.client.HTTPConnection
) -> None:
    x = np.array(odd, numpy_dtype(dtype))
    assert not fits_json({"x": x})
    with pytest.raises(ValueError, match="JSON cannot carry x"):
        encode_request({"x": x}, binary=False)
    example = build_example({}, {"y": x}, atol=0.0, rtol=0.0)
    assert differences(example, {"y": through(way, client, connection, dtype, x)}) == []


@pytest.mark.triton
def test_an_optional_input_may_be_left_out_and_null_is_refused(
    client: ModelClient, connection: http.client.HTTPConnection
) -> None:
    """Measured on Triton 2.51; a missing value is a missing input, or NaN as binary data."""
    request = encode_request({"x_FP32": np.float32([1])}, ["given"], binary=False)
    given = post_infer(connection, infer_path("same"), request).outputs["given"]
    assert given.tolist() == [b"x_FP32"]
    assert client.infer({"x_INT8": np.int8([1])})["given"].tolist() == [b"x_INT8"]
    tensor = {"name": "x_FP32", "datatype": "FP32", "shape": [1], "data": [None]}
    connection.request("POST", infer_path("same"), json.dumps({"inputs": [tensor]}))
    reply = connection.getresponse()
    assert (reply.status, b"JSON non-number" in reply.read()) == (500, True)


@pytest.mark.triton
def test_refusals_are_sentences_and_versions_are_those_that_are_ready(
    client: ModelClient, connection: http.client.HTTPConnection, tmp_path: Path
) -> None:
    request = encode_request({"z": np.float32([1])}, binary=False)
    with pytest.raises(TritonError, match=r"/v2/models/same/versions/1/infer answered 400"):
        post_infer(connection, infer_path("same", 1), request)
    with pytest.raises(InferError, match="same did not answer"):
        client.infer({"z": np.float32([1])})
    assert model_versions(connection, "same").ready == (1,)
    assert not model_versions(connection, "other").known
