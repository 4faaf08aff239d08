"""One client by HTTP: a connection that is kept or not, one request, and what came of it."""

from __future__ import annotations

import http.client
import select
import time
from dataclasses import dataclass, replace

from scripts.loadtest.golden_requests import LoadRequest, check_answer
from serving.triton.kserve import HEADER_LENGTH, decode_answer, infer_path

# HAProxy closes a connection that was idle for 10 s; a client that writes at that moment would
# count a failure that is nobody's. Nothing idle this long is used again.
MAX_IDLE_S = 4.0
WRONG = "wrong answer"


@dataclass(frozen=True)
class Seen:
    region: str
    version: str = ""
    failure: str = ""
    """Empty where the request was answered and the answer is not known to be wrong."""
    detail: str = ""
    request_id: str = ""
    checked: bool = False
    reusable: bool = False
    latency_s: float = 0.0
    ended: float = 0.0
    """When it was over, on the monotonic clock."""


@dataclass
class HttpConnection:
    """A connection to an edge, made when the first request is sent."""

    http: http.client.HTTPConnection
    used: float

    def usable(self) -> bool:
        """False when it is old or the other side has closed it meanwhile."""
        sock = self.http.sock
        closed = sock is None or bool(select.select([sock], [], [], 0)[0])
        return not closed and time.monotonic() - self.used <= MAX_IDLE_S

    def close(self) -> None:
        self.http.close()

    def send(self, region: str, model: str, request: LoadRequest, due: float) -> Seen:
        """One request and what came of it; `due` is when it was to be sent, on the monotonic
        clock."""
        seen = Seen(region)
        try:
            sent = request.request
            self.http.request("POST", infer_path(model), sent.body, sent.headers)
            reply = self.http.getresponse()
            seen = replace(seen, request_id=reply.getheader("X-Request-Id") or "")
            body = reply.read()
            seen = replace(seen, reusable=not reply.will_close)
            if reply.status != 200:
                detail = body[:200].decode("utf-8", "replace")
                seen = replace(seen, failure=f"http {reply.status}", detail=detail)
            else:
                answer = decode_answer(body, reply.getheader(HEADER_LENGTH))
                version = answer.model_version
                right, detail = check_answer(request, answer)
                failure = WRONG if right is False else ""
                seen = replace(
                    seen, version=version, failure=failure, detail=detail, checked=right is not None
                )
        except (OSError, http.client.HTTPException, ValueError) as error:
            detail = f"{type(error).__name__}: {error}"
            seen = replace(seen, failure=_reason(error), detail=detail, reusable=False)
        self.used = time.monotonic()
        return replace(seen, latency_s=self.used - due)


def connect_http(address: str, port: int, timeout_s: float) -> HttpConnection:
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    return HttpConnection(connection, time.monotonic())


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError | http.client.HTTPException):
        return "connection lost"
    return "unreachable" if isinstance(error, OSError) else "bad reply"
