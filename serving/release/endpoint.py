"""One model version behind gRPC: ask it, many times at once, within bounds."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Arrays = dict[str, np.ndarray]


class AskError(RuntimeError):
    """The server did not answer a request; the message is the server's."""


class Endpoint:
    """A client of `model`/`version` at the gRPC `url`; a context manager that closes its channel.

    Safe to use from several threads.
    """

    def __init__(self, url: str, model: str, version: int, timeout_s: float = 60.0) -> None:
        self.url, self.model, self.version, self.timeout_s = url, model, version, timeout_s
        self._client = grpc.InferenceServerClient(url)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def ready(self) -> bool:
        """Whether this version (not the server) is ready; False while nothing answers."""
        try:
            return bool(
                self._client.is_model_ready(self.model, str(self.version), client_timeout=2.0)
            )
        except InferenceServerException:
            return False

    def server_version(self) -> str:
        """Triton's version, such as "2.51.0"."""
        return self._client.get_server_metadata(client_timeout=self.timeout_s).version

    def metadata(self) -> dict[str, Any]:
        """What the server says the model takes and gives: {inputs, outputs: [{name, datatype,
        shape}]}."""
        found = self._client.get_model_metadata(
            self.model, str(self.version), as_json=True, client_timeout=self.timeout_s
        )
        return {key: found.get(key, []) for key in ("inputs", "outputs")}

    def max_batch(self) -> int:
        """The largest batch the server accepts; 0 when the model takes no batches."""
        config = self._client.get_model_config(
            self.model, str(self.version), client_timeout=self.timeout_s
        )
        return int(config.config.max_batch_size)

    @contextmanager
    def instances(self, count: int) -> Iterator[None]:
        """Serve with `count` instances inside the block, with as many as configured after it."""
        configured = self._client.get_model_config(
            self.model, str(self.version), as_json=True, client_timeout=self.timeout_s
        )["config"]
        groups = [{**group, "count": count} for group in configured.get("instance_group", [])]
        self._load({**configured, "instance_group": groups})
        try:
            yield
        finally:
            self._load(configured)

    def _load(self, config: Mapping[str, Any]) -> None:
        self._client.load_model(
            self.model, config=json.dumps(config), client_timeout=self.timeout_s
        )

    def ask(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """One request; all outputs by name. Raises AskError."""
        try:
            result = self._client.infer(
                self.model,
                [_tensor(name, value) for name, value in inputs.items()],
                model_version=str(self.version),
                client_timeout=self.timeout_s,
            )
        except InferenceServerException as error:
            raise AskError(f"{self.model} did not answer: {error.message()}") from None
        names = [output.name for output in result.get_response().outputs]
        return {name: result.as_numpy(name) for name in names}

    def ask_all(self, requests: Iterable[Arrays], in_flight: int) -> Iterator[Arrays]:
        """The answers to `requests` in their order, `in_flight` at a time. Raises AskError."""
        with ThreadPoolExecutor(in_flight, thread_name_prefix="ask") as pool:
            pending: queue.SimpleQueue = queue.SimpleQueue()
            waiting = 0
            try:
                for request in requests:
                    pending.put(pool.submit(self.ask, request))
                    waiting += 1
                    if waiting >= 2 * in_flight:
                        yield pending.get().result()
                        waiting -= 1
                for _ in range(waiting):
                    yield pending.get().result()
            finally:
                pool.shutdown(cancel_futures=True)


def _tensor(name: str, value: np.ndarray) -> grpc.InferInput:
    tensor = grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
    tensor.set_data_from_numpy(value)
    return tensor
