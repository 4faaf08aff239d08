"""One host's Triton through SSH: sessions by gRPC, health and inference by HTTP.

The gRPC port is not open to the network; a tunnel reaches it.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serving.artifact.golden import GoldenExample, differences
from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.ssh.connection import Shell
from serving.triton.http_client import is_live, model_versions, post_infer
from serving.triton.kserve import encode_request, fits_json, infer_path
from serving.triton.server import TritonError

if TYPE_CHECKING:
    from serving.triton.grpc_client import TritonClient


class GoldenMismatch(FleetError):
    """A host gave another answer than the release; the message says where and by how much."""


@contextmanager
def triton_session(shell: Shell) -> Iterator[TritonClient]:
    """A gRPC client of the host's Triton. Raises Unreachable when it does not answer."""
    from serving.triton.grpc_client import TritonClient

    # A tunnel that cannot reach its end dies with its thread; a channel first, for a sentence.
    shell.channel(shell.host.grpc_port, shell.ssh.connect_timeout_s).close()
    with shell.forwarded(shell.host.grpc_port) as url, TritonClient(url) as client:
        _wait_until_live(shell, client)
        yield client


@contextmanager
def fleet_errors(host: str) -> Iterator[None]:
    """Turn a TritonError of the block into a FleetError that names `host`."""
    try:
        yield
    except TritonError as error:
        raise FleetError(f"{host}: {error}") from error


def triton_is_live(shell: Shell) -> bool:
    """True when the host's Triton takes requests: after a start, when its models are loaded."""
    try:
        with _http(shell, shell.ssh.connect_timeout_s) as connection:
            return is_live(connection)
    except Unreachable:
        return False


def ready_versions(shell: Shell, model: str) -> tuple[int, ...]:
    """The ready versions of `model`; none for a model that is not served. Raises FleetError.

    By HTTP: a read needs no tunnel.
    """
    try:
        with fleet_errors(shell.host.name), _http(shell, shell.ssh.connect_timeout_s) as connection:
            return model_versions(connection, model).ready
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{shell.host.name}: Triton broke off a question: {error!r}") from error


def check_golden(
    shell: Shell,
    client: TritonClient,
    model: str,
    version: int,
    examples: tuple[GoldenExample, ...],
    warm_up: int,
    timeout_s: float,
) -> int:
    """Send the golden examples `warm_up` times, then compare; returns how many were equal.

    Over gRPC and over HTTP (as JSON where JSON can carry the tensors, else as binary data), on the
    pinned version. Readiness is no evidence: a Triton whose Python has the wrong numpy reports
    ready, answers gRPC with wrong tensors and HTTP with 500. Raises GoldenMismatch, FleetError.
    """
    host = shell.host.name
    with fleet_errors(host), _http(shell, timeout_s) as connection:
        if not client.is_ready(model, version, timeout_s):
            raise FleetError(f"{host}: {model}/{version} is not ready.")
        for _ in range(warm_up):
            for example in examples:
                client.infer(model, version, example.inputs, timeout_s)
        for number, example in enumerate(examples):
            where = f"{host}: golden example {number} of {model}/{version}"
            answer = client.infer(model, version, example.inputs, timeout_s)
            _require_equal(f"{where} over gRPC", differences(example, answer))
            binary = not (fits_json(example.inputs) and fits_json(example.outputs))
            request = encode_request(example.inputs, example.outputs, binary=binary)
            outputs = post_infer(connection, infer_path(model, version), request).outputs
            _require_equal(f"{where} over HTTP", differences(example, outputs))
    return len(examples)


def _require_equal(where: str, found: list[str]) -> None:
    if found:
        raise GoldenMismatch(f"{where}: {'; '.join(found)}.")


@contextmanager
def _http(shell: Shell, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
    host = shell.host
    connection = http.client.HTTPConnection(host.address, host.http_port)
    connection.sock = shell.channel(host.http_port, timeout_s)
    try:
        yield connection
    finally:
        connection.close()


def _wait_until_live(shell: Shell, client: TritonClient) -> None:
    deadline = time.monotonic() + shell.ssh.connect_timeout_s
    # The listener of the tunnel may come up a moment after the first call.
    while not client.is_live(shell.ssh.connect_timeout_s):
        if time.monotonic() > deadline:
            where = f"{shell.host.address}:{shell.host.grpc_port}"
            raise Unreachable(f"{shell.host.name}: Triton does not answer gRPC at {where}.")
        time.sleep(0.05)
