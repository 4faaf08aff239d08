"""One host's Triton, asked and commanded by gRPC through SSH.

Never model control over HTTP: a load by HTTP stalls inference for as long as it takes (measured:
14 of 16 connections for 4.7 s), by gRPC none. The gRPC port is not open to the network.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from serving.fleet import golden, model_config
from serving.fleet.connection import Shell, Unreachable
from serving.fleet.inventory import FleetError

READY = "READY"
_LEAVING = ("LOADING", "UNLOADING")


class TritonError(FleetError):
    """Triton refused, failed or did not come to the asked state; the message says which host."""


@dataclass(frozen=True)
class Triton:
    """A live session with one host's Triton. Use `session`."""

    shell: Shell
    client: Any

    def index(self, model: str) -> dict[int, str]:
        """State of every version of `model` that Triton knows, such as `{3: "READY"}`."""
        answer = self._call("list its models", self.client.get_model_repository_index)
        return {
            int(entry.version): entry.state
            for entry in answer.models
            if entry.name == model and entry.version
        }

    def ready(self, model: str) -> tuple[int, ...]:
        """The versions of `model` that answer requests."""
        return tuple(sorted(v for v, state in self.index(model).items() if state == READY))

    def serve(self, model: str, config: str, versions: tuple[int, ...], timeout_s: float) -> None:
        """Load `model` so that exactly `versions` are ready; unchanged ones keep running.

        `config` is a config.pbtxt; the request carries all of it. Triton answers success also
        when a version is missing, so the index has the last word. Raises TritonError.
        """
        text = model_config.as_json(model_config.with_versions(config, versions))
        self._call(
            f"load {model} {_list(versions)}",
            lambda: self.client.load_model(model, config=text, client_timeout=timeout_s),
        )
        self._wait(model, versions, timeout_s)

    def withdraw(self, model: str, timeout_s: float) -> None:
        """Unload every version of `model` and wait until none is left: the call returns early."""
        if not self.index(model):
            return
        self._call(f"unload {model}", lambda: self.client.unload_model(model))
        self._wait(model, (), timeout_s)

    def prove(
        self,
        model: str,
        version: int,
        examples: tuple[golden.Example, ...],
        warm_up: int,
        timeout_s: float,
    ) -> int:
        """Send the golden examples `warm_up` times, then compare; returns how many were equal.

        Over gRPC and over HTTP, on the pinned version. Raises golden.GoldenMismatch, TritonError.
        """
        host = self.shell.host.name
        if not self._call(
            f"say whether {model}/{version} is ready",
            lambda: self.client.is_model_ready(model, str(version)),
        ):
            raise TritonError(f"{host}: {model}/{version} is not ready.")
        for _ in range(warm_up):
            for example in examples:
                self._infer(model, version, example, timeout_s)
        for number, example in enumerate(examples):
            where = f"{host}: golden example {number} of {model}/{version}"
            golden.check(
                example, self._infer(model, version, example, timeout_s), f"{where} over gRPC"
            )
        for number, answer in enumerate(self._infer_http(model, version, examples, timeout_s)):
            where = f"{host}: golden example {number} of {model}/{version}"
            golden.check(examples[number], answer, f"{where} over HTTP")
        return len(examples)

    def _infer(
        self, model: str, version: int, example: golden.Example, timeout_s: float
    ) -> dict[str, Any]:
        from tritonclient.grpc import InferInput

        inputs = []
        for name, (dtype, values) in example.inputs.items():
            tensor = InferInput(name, list(values.shape), dtype)
            tensor.set_data_from_numpy(values)
            inputs.append(tensor)
        answer = self._call(
            f"answer a golden example of {model}/{version}",
            lambda: self.client.infer(
                model, inputs, model_version=str(version), client_timeout=timeout_s
            ),
        )
        return {name: answer.as_numpy(name) for name in example.outputs if _has(answer, name)}

    def _infer_http(
        self, model: str, version: int, examples: tuple[golden.Example, ...], timeout_s: float
    ) -> Iterator[dict[str, Any]]:
        host = self.shell.host
        path = f"/v2/models/{model}/versions/{version}/infer"
        connection = http.client.HTTPConnection(host.address, host.http_port)
        connection.sock = self.shell.channel(host.http_port, timeout_s)
        try:
            for example in examples:
                try:
                    connection.request("POST", path, golden.http_request(example))
                    answer = connection.getresponse()
                    body = answer.read()
                except (OSError, http.client.HTTPException) as error:
                    raise TritonError(
                        f"{host.name}: {path} broke off over HTTP: {error!r}"
                    ) from error
                if answer.status != 200:
                    said = body[:200].decode("utf-8", "replace")
                    raise TritonError(f"{host.name}: {path} answered {answer.status}: {said}")
                yield golden.http_answer(body)
        finally:
            connection.close()

    def _wait(self, model: str, versions: tuple[int, ...], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            index = self.index(model)
            ready = tuple(sorted(v for v, state in index.items() if state == READY))
            leaving = [v for v, state in index.items() if state in _LEAVING]
            if ready == tuple(sorted(versions)) and not leaving:
                return
            settled = not leaving and not set(ready) - set(versions)
            if settled or time.monotonic() > deadline:
                shown = ", ".join(f"{v} {state}" for v, state in sorted(index.items())) or "nothing"
                raise TritonError(
                    f"{self.shell.host.name}: {model} should serve {_list(versions)}, but Triton "
                    f"has {shown}. Its log on the host says why."
                )
            time.sleep(0.05)

    def _call(self, what: str, call: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return call()
        except InferenceServerException as error:
            reason = " ".join(str(error.message()).split())[:400]
            raise TritonError(f"{self.shell.host.name}: Triton did not {what}: {reason}") from error


@contextmanager
def session(shell: Shell) -> Iterator[Triton]:
    """A gRPC session with the host's Triton. Raises Unreachable when it does not answer."""
    from tritonclient.grpc import InferenceServerClient

    # A tunnel that cannot reach its end dies with its thread; ask first, for a sentence.
    shell.channel(shell.host.grpc_port, shell.ssh.connect_timeout_s).close()
    with shell.forwarded(shell.host.grpc_port) as url:
        client = InferenceServerClient(url)
        try:
            _until_live(shell, client)
            yield Triton(shell, client)
        finally:
            client.close()


def live(shell: Shell) -> bool:
    """True when the host's Triton takes requests: after a start, when its models are loaded."""
    host = shell.host
    try:
        channel = shell.channel(host.http_port, shell.ssh.connect_timeout_s)
    except Unreachable:
        return False
    connection = http.client.HTTPConnection(host.address, host.http_port)
    connection.sock = channel
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _until_live(shell: Shell, client: Any) -> None:
    from tritonclient.utils import InferenceServerException

    deadline = time.monotonic() + shell.ssh.connect_timeout_s
    while True:
        try:
            if client.is_server_live(client_timeout=shell.ssh.connect_timeout_s):
                return
        except InferenceServerException as error:
            # The listener of the tunnel may come up a moment after we ask it.
            if time.monotonic() > deadline:
                where = f"{shell.host.address}:{shell.host.grpc_port}"
                raise Unreachable(
                    f"{shell.host.name}: Triton does not answer gRPC at {where}: {error.message()}"
                ) from error
        time.sleep(0.05)


def _has(answer: Any, name: str) -> bool:
    return answer.get_output(name) is not None


def _list(versions: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(version) for version in versions) + "]"
