"""Golden questions to one version on one host, one after another over a kept connection."""

from __future__ import annotations

import http.client
import time
from itertools import cycle

from serving.artifact.golden import GoldenExample, differences
from serving.fleet.canary.evidence import ProbeSample
from serving.fleet.ssh.connection import Shell
from serving.fleet.ssh.one_piece import OnePieceConnection
from serving.triton.http_client import post_infer
from serving.triton.kserve import encode_request, infer_path
from serving.triton.server import TritonError


class GoldenProbe:
    """The golden examples of one version in rotation, as binary data, on the pinned version.

    The connection goes through SSH and is opened again after a fault. At least one example.
    """

    def __init__(
        self,
        shell: Shell,
        model: str,
        version: int,
        examples: tuple[GoldenExample, ...],
        timeout_s: float,
    ) -> None:
        self.shell, self.timeout_s = shell, timeout_s
        self.path = infer_path(model, version)
        self._questions = cycle(
            [
                (number, one, encode_request(one.inputs, one.outputs, binary=True))
                for number, one in enumerate(examples)
            ]
        )
        self._connection: http.client.HTTPConnection | None = None

    def sample(self) -> ProbeSample:
        """Put the next question. Raises Unreachable where no connection can be opened."""
        number, example, request = next(self._questions)
        connection = self._opened()
        began = time.monotonic()
        try:
            answer = post_infer(connection, self.path, request)
        except TritonError as error:
            seconds = time.monotonic() - began
            self.close()
            return ProbeSample(seconds, f"{error}.")
        seconds = time.monotonic() - began
        found = differences(example, answer.outputs)
        if found:
            sentence = f"golden example {number} of {self.path}: {'; '.join(found)}."
            return ProbeSample(seconds, sentence, wrong=True)
        return ProbeSample(seconds)

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> http.client.HTTPConnection:
        """An open connection: opening it is no part of a question's time."""
        if self._connection is None:
            host = self.shell.host
            channel = self.shell.channel(host.http_port, self.timeout_s)
            self._connection = OnePieceConnection(host.address, host.http_port, channel)
        return self._connection
