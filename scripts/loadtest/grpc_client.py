"""One client by gRPC: a channel that is kept or not, one request, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import serialize_byte_tensor

from conf.site_checks import host_port
from scripts.loadtest.client import WRONG, Seen
from scripts.loadtest.golden_requests import LoadRequest, check_answer
from serving.artifact.tensors import triton_dtype
from serving.triton.kserve import HttpAnswer

METHOD = "/inference.GRPCInferenceService/ModelInfer"
# Without it all channels of a process to one address share one connection.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True)
class GrpcConnection:
    """A channel of its own, which makes its connection by itself, also after it was lost."""

    channel: grpc.Channel
    timeout_s: float

    def usable(self) -> bool:
        """True: what was lost is made again."""
        return True

    def close(self) -> None:
        self.channel.close()

    def send(self, region: str, model: str, request: LoadRequest, due: float) -> Seen:
        """As `HttpConnection.send`."""
        seen = Seen(region, reusable=True)
        call = self.channel.unary_unary(
            METHOD,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        inputs = next(iter(request.expected.values())).inputs
        try:
            answer, done = call.with_call(_message(model, inputs), timeout=self.timeout_s)
            right, detail = check_answer(request, _decode(answer))
            failure = WRONG if right is False else ""
            seen = replace(
                seen, request_id=_request_id(done), version=answer.model_version, failure=failure,
                detail=detail, checked=right is not None,
            )  # fmt: skip
        except grpc.RpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            failure = "timeout" if late else f"grpc {error.code().name}"
            seen = replace(
                seen, request_id=_request_id(error), failure=failure, detail=error.details()[:200]
            )
        except ValueError as error:
            seen = replace(seen, failure="bad reply", detail=str(error))
        return replace(seen, latency_s=time.monotonic() - due)


def connect_grpc(address: str, port: int, timeout_s: float) -> GrpcConnection:
    channel = grpc.insecure_channel(host_port(address, port), options=_OPTIONS)
    return GrpcConnection(channel, timeout_s)


def _message(model: str, inputs: Mapping[str, np.ndarray]) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model)
    for name, value in inputs.items():
        dtype = triton_dtype(value.dtype)
        message.inputs.add(name=name, datatype=dtype, shape=value.shape)
        packed = serialize_byte_tensor(value) if dtype == "BYTES" else value
        message.raw_input_contents.append(
            b"".join(packed.ravel().tolist()) if dtype == "BYTES" else packed.tobytes()
        )
    return message


def _decode(answer: service_pb2.ModelInferResponse) -> HttpAnswer:
    result = InferResult(answer)
    outputs = {output.name: result.as_numpy(output.name) for output in answer.outputs}
    return HttpAnswer(answer.model_version, outputs)


def _request_id(call: Any) -> str:
    # A refusal is nothing but trailers.
    given = dict((*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())))
    return str(given.get("x-request-id", ""))
