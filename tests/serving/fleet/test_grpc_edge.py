"""gRPC through a real edge and a real door to a real Triton: what passes, what is refused and how,
and the version that the edge's map puts into a message."""

from __future__ import annotations

import csv
import shutil
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import InferResult, service_pb2

from conf.site_placement import Isolation, ModelPlacement
from scripts.loadtest import LoadPlan, LoadRequest, Result, start
from serving.artifact.golden import build_example, differences
from serving.artifact.tensors import DTYPES
from serving.fleet.haproxy.edge import DRAIN, READY
from serving.fleet.haproxy.grpc_edge import BACKEND
from serving.fleet.haproxy.grpc_status import METHODS, SERVICE
from serving.fleet.routing import Routing, VersionCounters
from serving.triton.kserve import encode_request
from tests.boundaries.attempts import Refused, list_by_grpc
from tests.serving.fleet.bed import serving_env
from tests.serving.fleet.edge_bed import (
    BROKEN,
    SAME,
    EdgeBed,
    running_door,
    running_edge,
    running_triton,
)
from tests.serving.fleet.grpc_requests import GOOD, Request, encode, malformed
from tests.serving.fleet.raw_http2 import grpc_call, unfinished_calls
from tests.serving.fleet.test_edge_requests import FLAT, arrays

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(
        not shutil.which("haproxy") or serving_env() is None,
        reason="haproxy or the serving environment is missing: scripts/setup",
    ),
]

TRIES = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
LIMITS = {
    "max_requests_per_second_per_source": 1_000_000,
    "max_in_flight_per_source": 90,
    "max_body_bytes": 1 << 20,
    "max_json_bytes": 1 << 16,
    "body_timeout_ms": 1500,
}
INFER = f"{SERVICE}/ModelInfer"
OK, INVALID = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT
RPCS = sorted(one.name for one in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
              .methods)  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """The code of an answer, its message, its bytes, and the metadata that it began with."""

    code: grpc.StatusCode
    text: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def version(self) -> str:
        """The version that answered."""
        return service_pb2.ModelInferResponse.FromString(self.body).model_version


@dataclass(frozen=True)
class GrpcBed:
    """An edge, and channels to it and straight to the door."""

    edge: EdgeBed
    channel: grpc.Channel
    door: grpc.Channel
    door_port: int
    triton_port: int = 0

    def call(
        self, method: str, body: bytes, *, door: bool = False, gzip: bool = False, **metadata: str
    ) -> Reply:
        channel = self.door if door else self.channel
        rpc = channel.unary_unary(
            f"{SERVICE}/{method}", request_serializer=bytes, response_deserializer=bytes
        )
        pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        compression = grpc.Compression.Gzip if gzip else None
        try:
            answer, call = rpc.with_call(body, timeout=20, metadata=pairs, compression=compression)
        except grpc.RpcError as error:
            return Reply(error.code(), error.details() or "", b"", dict(error.initial_metadata()))
        return Reply(OK, "", answer, dict(call.initial_metadata()))

    def infer(self, body: bytes = GOOD, **metadata: str) -> Reply:
        return self.call("ModelInfer", body, **metadata)

    def failures(self) -> tuple[int, float]:
        """Of the service: what the edge counted for the host, and what the log counted."""
        text = self.edge.edge.query("show stat").removeprefix("# ")
        rows = [row for row in csv.DictReader(text.splitlines()) if row["pxname"] == BACKEND]
        (host,) = [row for row in rows if row["svname"] == "a"]
        counted = sum(int(host[name] or 0) for name in ("hrsp_5xx", "econ", "eresp"))
        return counted, self.edge.service_failures()


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcBed]:
    folder = tmp_path_factory.mktemp("grpc")
    with (
        running_triton(folder) as port,
        running_door(folder) as door_port,
        running_edge(folder, port, door_port, **LIMITS) as edge,
        grpc.insecure_channel(f"127.0.0.1:{edge.grpc_port}") as channel,
        grpc.insecure_channel(f"127.0.0.1:{door_port}") as door,
    ):
        until(lambda: edge.host().up)
        yield GrpcBed(edge, channel, door, door_port, port)


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def routed(bed: GrpcBed) -> Iterator[GrpcBed]:
    """The bed with no route and nothing counted, before and after."""
    bed.edge.edge.query("clear table requests_by_version")
    yield bed
    bed.edge.edge.route(SAME, Routing())


def raw(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def request_of(model: str, *values: float, version: str = "") -> bytes:
    tensor = Request.InferInputTensor(name="x_FP32", datatype="FP32", shape=[len(values)])
    return Request(
        model_name=model, model_version=version, inputs=[tensor],
        raw_input_contents=[raw(*values)],
    ).SerializeToString()  # fmt: skip


TYPED = st.lists(st.sampled_from([one for one in DTYPES if one not in ("FP16", "BF16")]),
                 unique=True, max_size=4)  # fmt: skip
ANY = st.lists(st.sampled_from(DTYPES), unique=True, max_size=4)


@TRIES
@given(data=st.data(), is_raw=st.booleans())
def test_tensors_of_every_datatype_are_answered(
    bed: GrpcBed, data: st.DataObject, is_raw: bool
) -> None:
    """Also those whose shape is empty, those sent value by value, and no tensor at all."""
    names = data.draw(ANY if is_raw else TYPED)
    inputs = {f"x_{one}": data.draw(arrays(one, FLAT)) for one in names}
    request = encode(inputs, raw=is_raw, id=data.draw(st.text(max_size=9)))
    reply = bed.infer(request.SerializeToString())
    assert reply.code is OK, (request, reply)
    answer = InferResult(service_pb2.ModelInferResponse.FromString(reply.body))
    outputs = {name.replace("x_", "y_"): value for name, value in inputs.items()}
    shown = {name: value for name, value in outputs.items() if name != "y_BF16"}
    found = {name: answer.as_numpy(name) for name in shown}
    assert differences(build_example({}, shown, atol=0.0, rtol=0.0), found) == []


@TRIES
@given(data=st.data())
def test_a_damaged_request_is_never_the_services_failure(bed: GrpcBed, data: st.DataObject) -> None:
    inputs = {f"x_{one}": data.draw(arrays(one, FLAT)) for one in data.draw(TYPED)}
    body = encode(inputs, raw=data.draw(st.booleans()), id="é").SerializeToString()
    start = data.draw(st.integers(0, len(body)))
    stop = data.draw(st.integers(start, min(len(body), start + 3)))
    damaged = body[:start] + data.draw(st.binary(max_size=3)) + body[stop:]
    reply = bed.infer(damaged)
    assert reply.code in (OK, INVALID, grpc.StatusCode.NOT_FOUND), (damaged, reply)


def test_each_malformed_request_is_the_clients_mistake(bed: GrpcBed) -> None:
    before = bed.failures()
    assert bed.infer().code is OK
    replies = {mistake: bed.infer(body) for mistake, body in malformed().items()}
    assert len(replies) > 75
    wrong = {name: one for name, one in replies.items() if one.code is not INVALID or not one.text}
    assert wrong == {}
    # Each by the edge itself: the sentence is one of its own.
    assert "its shape holds more than 2147483647 values" in replies["raw, a product of 2^62"].text
    assert bed.infer().code is OK
    assert bed.failures() == before


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 3),
        (b"\0\0\0", 3),
        (b"\0" + struct.pack(">I", len(GOOD)) + GOOD, 0),
        (b"\1" + struct.pack(">I", len(GOOD)) + GOOD, 3),
        (b"\0" + struct.pack(">I", len(GOOD) + 1) + GOOD, 3),
        (b"\0" + struct.pack(">I", len(GOOD) - 1) + GOOD, 3),
        ((b"\0" + struct.pack(">I", len(GOOD)) + GOOD) * 2, 3),
        (b"\0\xff\xff\xff\xff" + GOOD, 3),
    ],
)
def test_a_request_is_the_frame_of_one_message(bed: GrpcBed, body: bytes, code: int) -> None:
    assert grpc_call(bed.edge.grpc_port, INFER, body)[0] == code


@pytest.mark.parametrize(
    ("method", "headers", "code"),
    [
        ("GET", {}, 12),
        ("POST", {"content_type": "application/json"}, 3),
        ("POST", {"grpc_encoding": "gzip"}, 12),
    ],
)
def test_what_is_no_grpc_call_is_refused(
    bed: GrpcBed, method: str, headers: dict[str, str], code: int
) -> None:
    body = b"\0" + struct.pack(">I", len(GOOD)) + GOOD
    assert grpc_call(bed.edge.grpc_port, INFER, body, method, **headers)[0] == code


@pytest.mark.parametrize("door", [False, True], ids=["edge", "door"])
def test_only_the_methods_of_inference_are_served(bed: GrpcBed, door: bool) -> None:
    """Model control, shared memory, trace, statistics and streams end at the door already."""
    before = bed.failures()
    codes = {method: bed.call(method, b"", door=door).code for method in RPCS}
    closed = {name for name, code in codes.items() if code is grpc.StatusCode.UNIMPLEMENTED}
    assert closed == set(RPCS) - set(METHODS)
    assert {"RepositoryModelLoad", "RepositoryModelUnload", "ModelConfig"} <= closed
    port = bed.door_port if door else bed.edge.grpc_port
    empty = b"\0" * 5
    for path in (
        f"{SERVICE}/RepositoryIndex/../ModelInfer", f"{SERVICE}/ModelInfer?x",
        f"/{SERVICE}/ModelInfer", "/inference.grpcinferenceservice/ModelInfer", f"{SERVICE}/",
        "/grpc.health.v1.Health/Check",
    ):  # fmt: skip
        assert grpc_call(port, path, empty)[0] == 12, path
    # Not even a request of HTTP/2: the stream is reset.
    assert grpc_call(port, f"http://edge{SERVICE}/RepositoryIndex", empty)[0] == -1
    assert bed.failures() == before


def test_the_attempt_of_the_boundaries_table_tells_a_refusal(bed: GrpcBed) -> None:
    with pytest.raises(Refused, match="grpc-status 12"):
        list_by_grpc({"door": ["127.0.0.1", bed.door_port]})


def test_what_a_client_needs_to_know_is_served(bed: GrpcBed) -> None:
    for method in ("ServerLive", "ServerReady", "ServerMetadata"):
        assert bed.call(method, b"").code is OK
    assert bed.call("ServerLive", b"\x08\x01").code is INVALID
    ready = service_pb2.ModelReadyRequest(name=SAME, version="2").SerializeToString()
    assert bed.call("ModelReady", ready).code is OK
    assert bed.call("ModelMetadata", ready).code is OK
    assert bed.call("ModelReady", ready + b"\x0a\x04same").code is INVALID


def test_a_message_that_is_too_large_is_refused_in_words(bed: GrpcBed) -> None:
    before = bed.failures()
    most = encode({"x_FP32": np.zeros((1 << 18) - 50, np.float32)}, raw=True)
    assert bed.infer(most.SerializeToString()).code is OK
    for size in (1 << 18, 1 << 21):
        body = encode({"x_FP32": np.zeros(size, np.float32)}, raw=True).SerializeToString()
        reply = bed.infer(body)
        assert (reply.code, reply.text) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED, "a message may have 1048576 bytes",
        )  # fmt: skip
    value_by_value = encode({"x_INT64": np.full(60_000, 7, np.int64)}, raw=False)
    assert bed.infer(value_by_value.SerializeToString()).code is OK
    value_by_value = encode({"x_INT64": np.full(70_000, 7, np.int64)}, raw=False)
    reply = bed.infer(value_by_value.SerializeToString())
    assert reply.code is INVALID and "send it as raw_input_contents" in reply.text
    assert bed.infer(gzip=True).code is grpc.StatusCode.UNIMPLEMENTED
    assert bed.failures() == before


def test_requests_that_never_end_are_those_of_their_client_alone(bed: GrpcBed) -> None:
    before = bed.failures()
    with unfinished_calls(bed.edge.grpc_port, INFER, b"\0" * 2000, 80) as codes:
        for _ in range(20):
            began = time.monotonic()
            assert bed.infer().code is OK
            assert time.monotonic() - began < 1
        with unfinished_calls(bed.edge.grpc_port, INFER, b"\0" * 2000, 20) as more:
            assert more().count(8) >= 10, "more than 90 in flight of one address"
        assert codes() == [4] * 80
    assert bed.failures() == before


def test_a_request_without_a_version_is_given_that_of_the_map(routed: GrpcBed) -> None:
    edge = routed.edge.edge
    assert (routed.infer().version, routed.infer().headers.get("lockgate-version")) == ("2", None)
    for version in (1, 2, 1):
        edge.route(SAME, Routing(version))
        reply = routed.infer()
        assert (reply.version, reply.headers["lockgate-version"]) == (str(version), str(version))
    for empty in (b"", b"\x12\x00"):
        assert routed.infer(GOOD + empty).version == "1"
    own = routed.infer(request_of(SAME, 1.0, version="2"))
    assert (own.version, own.headers.get("lockgate-version")) == ("2", None)
    assert edge.counters(SAME) == {1: VersionCounters(4, 0), 2: VersionCounters(1, 0)}
    large = encode({"x_FP32": np.zeros((1 << 18) - 50, np.float32)}, raw=True)
    assert routed.infer(large.SerializeToString()).version == "1"
    edge.route(SAME, Routing(9))
    ready = service_pb2.ModelReadyRequest(name=SAME).SerializeToString()
    answer = service_pb2.ModelReadyResponse.FromString(routed.call("ModelReady", ready).body)
    assert not answer.ready


def test_a_length_that_a_client_wrote_does_not_cut_the_version_off(routed: GrpcBed) -> None:
    routed.edge.edge.route(SAME, Routing(1))
    body = b"\0" + struct.pack(">I", len(GOOD)) + GOOD
    code, answer = grpc_call(
        routed.edge.grpc_port, INFER, body, content_length=str(len(body))
    )  # fmt: skip
    assert code == 0 and b"lockgate-version\x011" in answer


def test_a_share_and_a_lane_choose_the_canary(routed: GrpcBed) -> None:
    routed.edge.edge.route(SAME, Routing(1, 2, 25))
    versions = Counter(routed.infer().version for _ in range(200))
    assert set(versions) == {"1", "2"} and 20 <= versions["2"] <= 85
    assert {routed.infer(lockgate_lane="canary").version for _ in range(9)} == {"2"}
    assert {routed.infer(lockgate_lane="stable").version for _ in range(9)} == {"1"}


def test_a_failure_of_the_model_is_counted_as_by_http(routed: GrpcBed) -> None:
    edge, (counted, logged) = routed.edge.edge, routed.failures()
    edge.query("clear table requests_by_version")
    edge.route(BROKEN, Routing(1))
    try:
        for value, code in ((1.0, grpc.StatusCode.INTERNAL), (0.0, INVALID), (2.0, None)):
            reply = routed.infer(request_of(BROKEN, value))
            assert reply.code is (code or grpc.StatusCode.INTERNAL)
            assert reply.text
        edge.route(SAME, Routing(9))
        assert routed.infer().code is grpc.StatusCode.NOT_FOUND
        assert edge.counters(BROKEN) == {1: VersionCounters(2, 2)}
        assert edge.counters(SAME) == {9: VersionCounters(1, 1)}
        until(lambda: routed.failures() == (counted + 2, logged + 3))
    finally:
        edge.route(BROKEN, Routing())


def test_a_host_that_is_drained_or_parked_gets_no_request_by_grpc_either(bed: GrpcBed) -> None:
    try:
        for state in ("drain", "maint"):
            bed.edge.edge.set("a", state)
            reply = bed.infer()
            assert (reply.code, reply.text) == (
                grpc.StatusCode.UNAVAILABLE, "no host takes requests now",
            )  # fmt: skip
    finally:
        bed.edge.edge.set("a", "ready")
    assert bed.infer().code is OK


def test_the_load_test_compares_answers_by_grpc_too(routed: GrpcBed) -> None:
    inputs = {"x_FP32": np.float32([1, 2]), "x_BYTES": np.array([b"a", b""], object)}
    outputs = {name.replace("x_", "y_"): value for name, value in inputs.items()}
    wrong = {**outputs, "y_FP32": np.float32([1, 3])}
    expected = {
        version: build_example(inputs, answer, atol=0.0, rtol=0.0)
        for version, answer in (("1", outputs), ("2", wrong))
    }
    example = LoadRequest(encode_request(inputs, binary=True), expected)

    def traffic() -> Result:
        plan = LoadPlan(
            SAME, {"us-east": ("127.0.0.1", routed.edge.grpc_port)}, [example],
            rate=100, duration_s=0.3, concurrency=3, grpc=True,
        )  # fmt: skip
        return start(plan).wait()

    routed.edge.edge.route(SAME, Routing(1))
    good = traffic()
    assert (good.failed, good.versions) == (0, {"1": 30}) and good.checked == 30
    routed.edge.edge.route(SAME, Routing(2))
    assert traffic().failures == {"wrong answer": 30}
    routed.edge.edge.route(SAME, Routing(9))
    lost = traffic()
    assert lost.failures == {"grpc NOT_FOUND": 30}
    assert all(one["request_id"] for one in lost.examples_of_failure)


@pytest.mark.parametrize("isolation", ["shared", "alone"])
def test_a_placed_model_is_answered_by_its_hosts_and_by_no_other(
    bed: GrpcBed, tmp_path: Path, isolation: Isolation
) -> None:
    """`same` is placed on the host that is there, `broken` on the one that is down: its Triton has
    that model too, and must not be asked for it."""
    placement = {SAME: ModelPlacement(("a",)), BROKEN: ModelPlacement(("b",), isolation)}
    with (
        running_edge(tmp_path, bed.triton_port, bed.door_port, placement) as edge,
        grpc.insecure_channel(f"127.0.0.1:{edge.grpc_port}") as channel,
    ):
        until(lambda: edge.host().up and not edge.edge.state("b").up)
        placed = GrpcBed(edge, channel, bed.door, bed.door_port)
        for version in (1, 2):
            edge.edge.route(SAME, Routing(version))
            reply = placed.infer(request_of(SAME, 1.0))
            assert (reply.code, reply.version) == (OK, str(version))
        assert placed.infer(request_of(BROKEN, 1.0)).code is grpc.StatusCode.UNAVAILABLE
        edge.edge.set("a", DRAIN)
        assert placed.infer(request_of(SAME, 1.0)).code is grpc.StatusCode.UNAVAILABLE
        edge.edge.set("a", READY)
        assert placed.infer(request_of(SAME, 1.0)).code is OK
