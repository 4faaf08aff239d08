"""gRPC's methods and statuses beside HTTP's: how the edge and a host's door put one for the other.

Between the two a failed answer has the status that the same failure has by HTTP, so that HAProxy
counts, logs and retries it as it does there; a client gets 200 and `grpc-status`, as gRPC wants it.

https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
"""

from __future__ import annotations

SERVICE = "/inference.GRPCInferenceService"
METHODS = ("ModelInfer", "ModelReady", "ModelMetadata", "ServerLive", "ServerReady",
           "ServerMetadata")  # fmt: skip
"""Open to clients: inference and what they need to know for it, never control."""

INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED = 3, 4, 5, 7
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 12, 13, 14

CODES = {
    400: INVALID_ARGUMENT, 403: PERMISSION_DENIED, 404: UNIMPLEMENTED, 405: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED, 413: RESOURCE_EXHAUSTED, 415: INVALID_ARGUMENT, 429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED, 500: INTERNAL, 501: UNIMPLEMENTED, 502: UNAVAILABLE, 503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}  # fmt: skip
"""The code of an answer that HAProxy makes itself, by its HTTP status."""

TRITON_STATUSES = {
    400: "3 9 11", 403: "7 16", 404: "5 12", 429: "8", 500: "2 10 13 15", 502: "14", 504: "4",
}  # fmt: skip
"""HTTP status of an answer of Triton by its codes. UNAVAILABLE is not 503, which the door alone
says, of a Triton that it could not connect to: that one may be tried at another host."""

_OWN_ERRORS = {
    400: "the request is no HTTP/2 request",
    408: "the request did not come whole in time",
    500: "the request could not be handled",
    502: "the host went away before it answered",
    503: "no host takes requests now",
    504: "the host did not answer in time",
}


def is_method() -> str:
    """Rule that names the requests for one of `METHODS`; a query makes another method."""
    return "  acl is_method pathq -m str " + " ".join(f"{SERVICE}/{name}" for name in METHODS)


def grpc_refusal(status: int, sentence: str, condition: str) -> str:
    """A rule that answers `sentence` as gRPC has it, with the code of the HTTP `status`."""
    return (
        f"  http-request return status {status} hdr grpc-status {CODES[status]} "
        f'hdr grpc-message "{sentence}" if {condition}'
    )


def own_errors() -> list[str]:
    """The answers of HAProxy itself where a request cannot be served."""
    return [
        f'  http-error status {status} hdr grpc-status {CODES[status]} hdr grpc-message "{text}"'
        for status, text in _OWN_ERRORS.items()
    ]
