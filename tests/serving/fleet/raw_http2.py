"""HTTP/2 by hand: one request whose frames need not be those that a client library would send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


def grpc_call(
    port: int, path: str, body: bytes, method: str = "POST", **headers: str
) -> tuple[int, bytes]:
    """The bytes `body` as a whole request: the code of `grpc-status`, -1 for none, and all bytes of
    the answer. `_` in the name of a header stands for `-`."""
    head = _head(path, method, headers)
    frames = [_frame(SETTINGS, 0, 0), _frame(HEADERS, END_HEADERS, 1, head)]
    pieces = [body[at : at + 16_000] for at in range(0, len(body), 16_000)] or [b""]
    frames += [_frame(DATA, 0, 1, piece) for piece in pieces[:-1]]
    frames.append(_frame(DATA, END_STREAM, 1, pieces[-1]))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        link.sendall(PREFACE + b"".join(frames))
        answer = b""
        while not _ended(answer):
            part = link.recv(65536)
            if not part:
                break
            answer += part
    # HAProxy writes a header that no table holds as a literal, without Huffman's code.
    _, found, rest = answer.partition(b"grpc-status")
    return int(rest[1 : 1 + rest[0]]) if found else -1, answer


@contextmanager
def unfinished_calls(
    port: int, path: str, part: bytes, streams: int
) -> Iterator[Callable[[], list[int]]]:
    """Calls on one connection that send `part` of a body and no more; yields a function that waits
    for an answer to each and returns their codes."""
    head = _head(path, "POST", {})
    frames = [_frame(SETTINGS, 0, 0)]
    for stream in range(1, 2 * streams, 2):
        frames += [_frame(HEADERS, END_HEADERS, stream, head), _frame(DATA, 0, stream, part)]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        link.sendall(PREFACE + b"".join(frames))

        def codes() -> list[int]:
            answer = b""
            while answer.count(b"grpc-status") < streams:
                part = link.recv(65536)
                if not part:
                    break
                answer += part
            return [int(one[1 : 1 + one[0]]) for one in answer.split(b"grpc-status")[1:]]

        yield codes


def _head(path: str, method: str, headers: dict[str, str]) -> bytes:
    fields = {
        ":method": method, ":path": path, ":scheme": "http", ":authority": "edge",
        "content-type": "application/grpc", "te": "trailers",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    return b"".join(_literal(name.encode(), value.encode()) for name, value in fields.items())


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _ended(answer: bytes) -> bool:
    """True when stream 1 was ended by its last frame or a reset, or the connection by GOAWAY."""
    at = 0
    while at + 9 <= len(answer):
        length, (kind, flags) = int.from_bytes(answer[at : at + 3], "big"), answer[at + 3 : at + 5]
        if kind in (3, 7) or (kind in (DATA, HEADERS) and flags & END_STREAM):
            return at + 9 + length <= len(answer)
        at += 9 + length
    return False
