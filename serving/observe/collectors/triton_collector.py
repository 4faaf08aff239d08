"""Served versions of every host, polled from each Triton's read-only HTTP, with a time-out each."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from serving.triton.http_client import model_versions
from serving.triton.server import TritonError

State = Literal["ready", "loading", "absent", "unreachable"]
STATES: tuple[State, ...] = ("ready", "loading", "absent", "unreachable")
_MAX_PARALLEL = 16


@dataclass(frozen=True)
class ServedModel:
    """One model on one host. `version` answers requests that name none; None where none is ready.

    State: ready; loading (on the host, not ready); absent (not on it); unreachable (the
    host did not answer, or not in Triton's way).
    """

    state: State
    version: str | None = None


def poll_fleet(
    hosts: Mapping[str, tuple[str, int]], models: Iterable[str], timeout_s: float
) -> dict[tuple[str, str], ServedModel]:
    """Served versions by (host, model); `hosts` maps a name to address and HTTP port."""
    names = tuple(models)
    if not hosts or not names:
        return {}
    with ThreadPoolExecutor(min(_MAX_PARALLEL, len(hosts))) as pool:
        answers = pool.map(lambda host: poll_host(*hosts[host], names, timeout_s), hosts)
    return {
        (host, model): served
        for host, answer in zip(hosts, answers, strict=True)
        for model, served in answer.items()
    }


def poll_host(
    address: str, port: int, models: Iterable[str], timeout_s: float
) -> dict[str, ServedModel]:
    """Each model's state on one host; never raises for an answer of the host, or for none."""
    found = dict.fromkeys(models, ServedModel("unreachable"))
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        for model in found:
            found[model] = _model_state(connection, model)
    except (OSError, http.client.HTTPException, TritonError):
        pass  # what was not answered stays unreachable, which is what is shown
    finally:
        connection.close()
    return found


def _model_state(connection: http.client.HTTPConnection, model: str) -> ServedModel:
    found = model_versions(connection, model)
    if not found.known:
        return ServedModel("absent")
    return ServedModel("ready", str(max(found.ready))) if found.ready else ServedModel("loading")
