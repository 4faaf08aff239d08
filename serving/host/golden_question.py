"""One golden question to the host's own Triton, by HTTP as clients ask, about one version."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass

from serving.artifact.golden import GoldenError, GoldenExample, differences, read_examples
from serving.host.home import HostHome
from serving.triton.http_client import TritonBusy, post_infer
from serving.triton.kserve import encode_request, infer_path
from serving.triton.server import TritonError


@dataclass(frozen=True)
class GoldenAnswer:
    """The outcome of a question and the seconds that it took; `detail` where it is not `ok`.

    `ok` is None for a Triton that had no room for the question: no word on its answers, and a host
    may not be taken out because it is busy.
    """

    ok: bool | None
    detail: str
    seconds: float


def examples_of(home: HostHome, model: str, version: int) -> tuple[GoldenExample, ...]:
    """The golden examples of the version's verified package; none where it has none."""
    try:
        return read_examples(home.package(model, version))
    except (GoldenError, OSError):
        return ()


def put_question(home: HostHome, model: str, version: int, example: GoldenExample) -> GoldenAnswer:
    """Ask this version for one answer and compare it; a server that does not answer is wrong."""
    address, port = home.http
    connection = http.client.HTTPConnection(address, port, timeout=home.golden_timeout_s)
    request = encode_request(example.inputs, example.outputs, binary=True)
    began = time.monotonic()
    ok: bool | None
    try:
        answer = post_infer(connection, infer_path(model, version), request)
        detail = "; ".join(differences(example, answer.outputs))
        ok = not detail
    except TritonBusy as error:
        ok, detail = None, str(error)
    except TritonError as error:
        ok, detail = False, str(error)
    finally:
        connection.close()
    return GoldenAnswer(ok, detail, round(time.monotonic() - began, 6))
