"""Bits per byte of a text: the code length that a served language model, or a compressor, needs.

The text is sent in chunks, as score-only requests (max_new_tokens = 0). Inside a chunk the package
slides its own context window; nothing is carried from one chunk to the next, and a chunk's first
token is charged as if every token were equally likely. So each byte is counted once, and cutting
can only make the number too high. A model's code length is its negative log-likelihood: Shannon's
source coding theorem, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x.

    bits per byte = negative log-likelihood in nats / (ln 2 * bytes)
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from serving.release.subject import GateSubject
from serving.triton.grpc_client import Arrays, ModelClient


@dataclass(frozen=True)
class HeldOutText:
    """The file of held-out text in the dataset, and how it is sent."""

    file: str
    chunk_bytes: int
    """Text of one request; the context of a byte never reaches beyond its chunk."""
    instances: int
    """Of the package while it scores, and requests at a time; 0: one per CPU."""

    def __post_init__(self) -> None:
        if self.chunk_bytes < 4:
            raise ValueError(f"chunk_bytes={self.chunk_bytes}: must be at least 4")
        if self.instances < 0:
            raise ValueError(f"instances={self.instances}: must be at least 0")

    @property
    def parallel(self) -> int:
        """Requests at a time."""
        return self.instances or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class CodeLength:
    """The cost of a text in nats, its size, and how many chunks it was cut into."""

    nats: float
    bytes: int
    chunks: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


def held_out_bytes(subject: GateSubject, text: HeldOutText) -> bytes:
    """The held-out text. Raises OSError when the dataset has no such file, DatasetError."""
    return subject.once(("text", text.file), lambda: (subject.dataset() / text.file).read_bytes())


def served_code_length(
    subject: GateSubject, text: HeldOutText, of_production: bool = False
) -> CodeLength:
    """The code length of the held-out text under the served candidate (or production), once.

    Raises ValueError for an answer that is no number of nats, InferError.
    """

    def make() -> CodeLength:
        served = subject.served()
        endpoint = served.production if of_production else served.candidate
        if endpoint is None:
            raise ValueError("no version is in production")
        return code_length(endpoint, held_out_bytes(subject, text), text)

    return subject.once(("code length", text, of_production), make)


def code_length(endpoint: ModelClient, content: bytes, text: HeldOutText) -> CodeLength:
    """The nats that the package behind `endpoint` needs for `content`, sent as `text` describes.

    For this the package gets more instances than it is configured with: what it answers does not
    depend on how many there are, and how long a megabyte takes does.
    """
    pieces = list(chunks(content, text.chunk_bytes))
    shape = (1, 1) if endpoint.max_batch() else (1,)
    requests = (_request(piece, shape) for piece in pieces)
    nats = 0.0
    with endpoint.instances(text.parallel):
        for answer in endpoint.infer_all(requests, text.parallel):
            found = float(answer["nats"].reshape(-1)[0])
            if not (math.isfinite(found) and found >= 0):
                raise ValueError(f"the package scored a chunk with {found} nats")
            nats += found
    return CodeLength(nats, len(content), len(pieces))


def chunks(text: bytes, size: int) -> Iterator[bytes]:
    """Cut UTF-8 `text` into pieces of at most `size` bytes that are UTF-8 themselves.

    After a line end where there is one in the second half of a piece; joined, they are the text.
    """
    at = 0
    while at < len(text):
        stop = min(at + size, len(text))
        if stop < len(text):
            line_end = text.rfind(b"\n", at + size // 2, stop)
            if line_end >= 0:
                stop = line_end + 1
            while stop > at + 1 and text[stop] & 0xC0 == 0x80:  # inside a character
                stop -= 1
        yield text[at:stop]
        at = stop


def _request(text: bytes, shape: tuple[int, ...]) -> Arrays:
    return {
        "text": np.array([text], dtype=object).reshape(shape),
        "max_new_tokens": np.zeros(shape, dtype=np.int32),
    }
