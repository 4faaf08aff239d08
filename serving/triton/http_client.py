"""Triton's HTTP port, read only: inference, and the versions that a server answers for.

Never model control: a load by HTTP stalls inference for as long as it takes (measured: 14 of 16
connections for 4.7 s), by gRPC none.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass

from serving.triton.kserve import HEADER_LENGTH, HttpAnswer, HttpRequest, decode_answer
from serving.triton.server import TritonError

_MAX_METADATA_BYTES = 1 << 20


class TritonBusy(TritonError):
    """503: the queue is full, or the version is being loaded; that is no word on its answers."""


@dataclass(frozen=True)
class ModelVersions:
    """A model on one server: `known` False where it is in no state at all; its ready versions."""

    known: bool
    ready: tuple[int, ...] = ()


def is_live(connection: http.client.HTTPConnection) -> bool:
    """True when the server takes requests: after a start, when its models are loaded."""
    try:
        status, _ = _get(connection, "/v2/health/live")
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def model_versions(connection: http.client.HTTPConnection, model: str) -> ModelVersions:
    """The versions of `model` that are ready: those of its metadata that are ready themselves.

    Raises TritonError when the server answers otherwise than Triton does, OSError or HTTPException
    when it does not answer.
    """
    status, body = _get(connection, f"/v2/models/{model}")
    if status in (400, 404):
        return ModelVersions(False)
    try:
        if status != 200:
            raise ValueError(f"HTTP {status}")
        listed = sorted(int(version) for version in json.loads(body)["versions"])
    except (ValueError, KeyError, TypeError) as error:
        raise TritonError(f"its metadata of {model} cannot be read: {error!r}") from error
    ready = [
        version
        for version in listed
        if _get(connection, f"/v2/models/{model}/versions/{version}/ready")[0] == 200
    ]
    return ModelVersions(True, tuple(ready))


def post_infer(
    connection: http.client.HTTPConnection, path: str, request: HttpRequest
) -> HttpAnswer:
    """One inference. Raises TritonError for a refusal, a lost connection, a malformed answer.

    The refusal of a server that has no room for it now is a TritonBusy.
    """
    try:
        connection.request("POST", path, request.body, request.headers)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            detail = body[:200].decode("utf-8", "replace")
            kind = TritonBusy if reply.status == 503 else TritonError
            raise kind(f"{path} answered {reply.status}: {detail}")
        return decode_answer(body, reply.getheader(HEADER_LENGTH))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TritonError(f"{path} broke off over HTTP: {error!r}") from error


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    reply = connection.getresponse()
    return reply.status, reply.read(_MAX_METADATA_BYTES)
