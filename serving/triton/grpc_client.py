"""Triton's gRPC: inference and model control.

`TritonClient` calls one server, `ModelClient` one version of one model on it. What answers is not
trusted: every call ends in a bounded time, an answer has a largest size, and one that is malformed
is an InferError.
"""

from __future__ import annotations

import json
import queue
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from serving.artifact.tensors import triton_dtype
from serving.triton.model_config import config_json, with_versions
from serving.triton.server import TritonError

Arrays = dict[str, np.ndarray]
T = TypeVar("T")

READY = "READY"
UNLOADING = "UNLOADING"
_CHANGING = ("LOADING", UNLOADING)
# A version is unloading for a moment after its process has ended, in every good unload too.
_GONE_S = 5.0
_PROBE_TIMEOUT_S = 2.0
_REASON_CHARS = 400
_LATE = "StatusCode.DEADLINE_EXCEEDED"
_OF_A_LOST_SERVER = ("StatusCode.UNAVAILABLE", "StatusCode.UNKNOWN", "StatusCode.CANCELLED")


class InferError(TritonError):
    """The server did not answer a request; the message is the server's."""


class TritonStuck(TritonError):
    """Versions that Triton does not come to an end with; only a start of Triton anew helps.

    `unloading` where they are being unloaded: their process is gone, or does not end.
    """

    def __init__(self, message: str, unloading: bool) -> None:
        super().__init__(message)
        self.unloading = unloading


class TritonClient:
    """A client of the server at the gRPC `url`; a context manager that closes its channel.

    `timeout_s` bounds each call that has no time-out of its own, `max_answer_bytes` each answer.
    `fault` gives a sentence on why the server is gone, empty where it is not: the message of a call
    that lost its server ends with it.
    Safe to use from several threads.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 60.0,
        max_answer_bytes: int = grpc.MAX_GRPC_MESSAGE_SIZE,
        fault: Callable[[], str] = lambda: "",
    ) -> None:
        self.url, self.timeout_s, self._fault = url, timeout_s, fault
        sizes = [
            ("grpc.max_send_message_length", grpc.MAX_GRPC_MESSAGE_SIZE),
            ("grpc.max_receive_message_length", max_answer_bytes),
        ]
        self._client = grpc.InferenceServerClient(url, channel_args=sizes)

    def __enter__(self) -> TritonClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def is_live(self, timeout_s: float = _PROBE_TIMEOUT_S) -> bool:
        """True when the server takes requests; False while nothing answers."""
        try:
            return bool(self._client.is_server_live(client_timeout=timeout_s))
        except InferenceServerException:
            return False

    def is_ready(self, model: str, version: int, timeout_s: float = _PROBE_TIMEOUT_S) -> bool:
        """True when this version (not the server) is ready; False while nothing answers."""
        try:
            return bool(self._client.is_model_ready(model, str(version), client_timeout=timeout_s))
        except InferenceServerException:
            return False

    def server_version(self) -> str:
        """Triton's version, such as "2.51.0". Raises TritonError."""
        return self._call(
            "give its metadata",
            lambda: self._client.get_server_metadata(client_timeout=self.timeout_s),
        ).version

    def metadata(self, model: str, version: int) -> dict[str, Any]:
        """The tensors of a served model: {inputs, outputs: [{name, datatype, shape}]}.

        Raises TritonError.
        """
        found = self._call(
            f"give the metadata of {model}/{version}",
            lambda: self._client.get_model_metadata(
                model, str(version), as_json=True, client_timeout=self.timeout_s
            ),
        )
        return {key: found.get(key, []) for key in ("inputs", "outputs")}

    def config(self, model: str, version: int) -> dict[str, Any]:
        """The served config as JSON with the field names of config.pbtxt. Raises TritonError."""
        return self._call(
            f"give the config of {model}/{version}",
            lambda: self._client.get_model_config(
                model, str(version), as_json=True, client_timeout=self.timeout_s
            ),
        )["config"]

    def states(self) -> dict[str, dict[int, tuple[str, str]]]:
        """The state of every version on the server and its reason, by model.

        Such as `{"toy": {3: ("READY", "")}}`; a state without a word is one that was never loaded.
        Raises TritonError.
        """
        answer = self._call(
            "list its models",
            lambda: self._client.get_model_repository_index(client_timeout=self.timeout_s),
        )
        found: dict[str, dict[int, tuple[str, str]]] = {}
        for entry in answer.models:
            if entry.version:
                found.setdefault(entry.name, {})[int(entry.version)] = (entry.state, entry.reason)
        return found

    def index(self, model: str) -> dict[int, str]:
        """State of every version of `model` on the server, such as `{3: "READY"}`.

        Raises TritonError.
        """
        found = self.states().get(model, {})
        return {version: state for version, (state, _) in found.items()}

    def ready_versions(self, model: str) -> tuple[int, ...]:
        """The versions of `model` that answer requests, by the index. Raises TritonError."""
        return tuple(sorted(v for v, state in self.index(model).items() if state == READY))

    def load(self, model: str, config: str | None = None, timeout_s: float | None = None) -> None:
        """Load `model` with `config`, the JSON of its whole config; None is its config.pbtxt.

        Raises TritonError.
        """
        limit = self.timeout_s if timeout_s is None else timeout_s
        self._call(
            f"load {model}",
            lambda: self._client.load_model(model, config=config, client_timeout=limit),
        )

    def serve_versions(
        self,
        model: str,
        config: str,
        versions: tuple[int, ...],
        timeout_s: float,
        gone: Callable[[int], bool] = lambda version: False,
    ) -> None:
        """Load `model` so that exactly `versions` are ready; unchanged ones keep running.

        `config` is a config.pbtxt; the request carries all of it. Triton answers success also
        when a version is missing, so the index has the last word. What an earlier call began is
        waited for, and a call that fails ends when Triton is at rest again: whoever reads the
        state then reads the truth. `gone` is true for a version whose process has ended. Raises
        TritonError, TritonStuck.
        """
        deadline = time.monotonic() + timeout_s
        self._settle(model, deadline, gone)
        limit = max(0.1, deadline - time.monotonic())
        try:
            self.load(model, config_json(with_versions(config, versions)), limit)
        finally:
            index = self._settle(model, deadline, gone)
        self._require(model, tuple(sorted(versions)), index)

    def unload(
        self,
        model: str,
        timeout_s: float,
        gone: Callable[[int], bool] = lambda version: False,
    ) -> None:
        """Unload every version of `model` and wait until none is left: the call returns early.

        Also where the index has none: it lists what lies in the repository, and a model goes on
        answering when its files are gone. `gone` as in `serve_versions`. Raises TritonError,
        TritonStuck.
        """
        deadline = time.monotonic() + timeout_s
        self._settle(model, deadline, gone)
        self._call(
            f"unload {model}",
            lambda: self._client.unload_model(model, client_timeout=self.timeout_s),
        )
        self._require(model, (), self._settle(model, deadline, gone))
        while self._call(
            f"check {model}",
            lambda: self._client.is_model_ready(model, client_timeout=self.timeout_s),
        ):
            if time.monotonic() > deadline:
                raise TritonError(f"{model} still answers {timeout_s:g} s after it was unloaded.")
            time.sleep(0.05)

    def infer(
        self, model: str, version: int, inputs: Mapping[str, np.ndarray], timeout_s: float
    ) -> Arrays:
        """One request; all outputs by name. Raises InferError."""
        try:
            result = self._client.infer(
                model,
                [_input(name, value) for name, value in inputs.items()],
                model_version=str(version),
                client_timeout=timeout_s,
            )
        except InferenceServerException as error:
            late = f" within {timeout_s:g} s" if error.status() == _LATE else ""
            raise InferError(f"{model} did not answer{late}: {self._reason(error)}") from None
        except ValueError as error:  # another thread closed the channel meanwhile
            raise InferError(f"{model} was not called: {error}") from None
        try:
            names = [output.name for output in result.get_response().outputs]
            return {name: result.as_numpy(name) for name in names}
        except (ValueError, TypeError, IndexError, struct.error, MemoryError) as error:
            raise InferError(f"{model} gave an answer that is malformed: {error!r}") from None

    def _settle(self, model: str, deadline: float, gone: Callable[[int], bool]) -> dict[int, str]:
        """Wait until no version is on its way, and return the index then. Raises TritonStuck."""
        gone_since: float | None = None
        while True:
            index = self.index(model)
            changing = {v: state for v, state in index.items() if state in _CHANGING}
            if not changing:
                return index
            now = time.monotonic()
            ended = all(state == UNLOADING and gone(v) for v, state in changing.items())
            gone_since = (gone_since or now) if ended else None
            if now > deadline or (gone_since and now - gone_since > _GONE_S):
                why = "whose process has ended" if ended else "beyond its time"
                raise TritonStuck(
                    f"Triton is stuck: {_words(model, changing)}, {why}. Only a restart of this "
                    "Triton ends that.",
                    unloading=UNLOADING in changing.values(),
                )
            time.sleep(0.05)

    def _require(self, model: str, versions: tuple[int, ...], index: dict[int, str]) -> None:
        if tuple(sorted(v for v, state in index.items() if state == READY)) != versions:
            wanted = "[" + ", ".join(str(version) for version in versions) + "]"
            raise TritonError(
                f"{model} should serve {wanted}, but Triton has {_words(model, index)}. Its log "
                "on the host has the reason."
            )

    def _call(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except InferenceServerException as error:
            raise TritonError(f"Triton did not {what}: {self._reason(error)}") from error

    def _reason(self, error: InferenceServerException) -> str:
        """The server's own words in one line of printable characters, and why it is gone."""
        line = " ".join(str(error.message()).split())
        words = "".join(one if one.isprintable() else "?" for one in line)
        gone = self._fault() if error.status() in _OF_A_LOST_SERVER else ""
        return ". ".join(part for part in (words[:_REASON_CHARS], gone) if part)


@dataclass(frozen=True)
class ModelClient:
    """One version of one model on the server of `client`."""

    client: TritonClient
    model: str
    version: int

    def is_ready(self) -> bool:
        """True when this version is ready; False while nothing answers."""
        return self.client.is_ready(self.model, self.version)

    def server_version(self) -> str:
        """Triton's version. Raises TritonError."""
        return self.client.server_version()

    def metadata(self) -> dict[str, Any]:
        """See `TritonClient.metadata`."""
        return self.client.metadata(self.model, self.version)

    def max_batch(self) -> int:
        """The largest batch the server accepts; 0 when the model takes no batches."""
        return int(self.client.config(self.model, self.version).get("max_batch_size", 0))

    @contextmanager
    def instances(self, count: int) -> Iterator[None]:
        """Serve with `count` instances inside the block, with as many as configured after it."""
        configured = self.client.config(self.model, self.version)
        groups = [{**group, "count": count} for group in configured.get("instance_group", [])]
        self.client.load(self.model, json.dumps({**configured, "instance_group": groups}))
        try:
            yield
        finally:
            self.client.load(self.model, json.dumps(configured))

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """One request; all outputs by name. Raises InferError."""
        return self.client.infer(self.model, self.version, inputs, self.client.timeout_s)

    def infer_all(self, requests: Iterable[Arrays], in_flight: int) -> Iterator[Arrays]:
        """The answers to `requests` in their order, `in_flight` at a time. Raises InferError."""
        with ThreadPoolExecutor(in_flight, thread_name_prefix="infer") as pool:
            pending: queue.SimpleQueue = queue.SimpleQueue()
            waiting = 0
            try:
                for request in requests:
                    pending.put(pool.submit(self.infer, request))
                    waiting += 1
                    if waiting >= 2 * in_flight:
                        yield pending.get().result()
                        waiting -= 1
                for _ in range(waiting):
                    yield pending.get().result()
            finally:
                pool.shutdown(cancel_futures=True)


def _words(model: str, index: Mapping[int, str]) -> str:
    return ", ".join(f"{model}/{v} {state}" for v, state in sorted(index.items())) or "nothing"


def _input(name: str, value: np.ndarray) -> grpc.InferInput:
    tensor = grpc.InferInput(name, list(value.shape), triton_dtype(value.dtype))
    return tensor.set_data_from_numpy(value)
