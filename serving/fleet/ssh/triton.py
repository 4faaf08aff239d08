"""One host's Triton through SSH: health and inference by HTTP.

Its control is not reached from here: that is a unix socket of the host's own, behind the verbs.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

from serving.artifact.golden import GoldenExample, differences
from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.ssh.connection import Shell
from serving.fleet.ssh.one_piece import OnePieceConnection
from serving.triton.http_client import is_live, model_versions, post_infer
from serving.triton.kserve import encode_request, fits_json, infer_path
from serving.triton.server import TritonError


class GoldenMismatch(FleetError):
    """A host gave another answer than the release; the message says where and by how much."""


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
    model: str,
    version: int,
    examples: tuple[GoldenExample, ...],
    warm_up: int,
    timeout_s: float,
) -> int:
    """Send the golden examples `warm_up` times, then compare; returns how many were equal.

    As binary data, and as JSON where JSON can carry the tensors, on the pinned version. Readiness
    is no evidence: a Triton whose Python has the wrong numpy reports ready and answers with 500.
    Raises GoldenMismatch, FleetError.
    """
    host, path = shell.host.name, infer_path(model, version)
    with fleet_errors(host), _http(shell, timeout_s) as connection:
        for _ in range(warm_up):
            for example in examples:
                request = encode_request(example.inputs, example.outputs, binary=True)
                post_infer(connection, path, request)
        for number, example in enumerate(examples):
            where = f"{host}: golden example {number} of {model}/{version}"
            plain = fits_json(example.inputs) and fits_json(example.outputs)
            for binary in (True, False) if plain else (True,):
                request = encode_request(example.inputs, example.outputs, binary=binary)
                outputs = post_infer(connection, path, request).outputs
                form = "as binary data" if binary else "as JSON"
                _require_equal(f"{where} {form}", differences(example, outputs))
    return len(examples)


def _require_equal(where: str, found: list[str]) -> None:
    if found:
        raise GoldenMismatch(f"{where}: {'; '.join(found)}.")


@contextmanager
def _http(shell: Shell, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
    host = shell.host
    channel = shell.channel(host.http_port, timeout_s)
    connection = OnePieceConnection(host.address, host.http_port, channel)
    try:
        yield connection
    finally:
        connection.close()
