"""The language model's gates: bits per byte on the held-out text, through the served package.

A language model is a compressor, and compressors are its honest baseline: `gzip -9` and `xz -9e`
of the very same bytes. The text is sent in chunks, as score-only requests (max_new_tokens = 0).
Inside a chunk the package slides its own context window (`serving.runtime.lm_model`); nothing is
carried from one chunk to the next, and a chunk's first token is charged as if every token were
equally likely. So each byte is counted once, and cutting can only make the number too high.
"""

from __future__ import annotations

import gzip
import lzma
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.artifact.manifest import GateRecord, Manifest
from serving.release.gate import at_most, holds
from serving.triton.grpc_client import ModelClient


@dataclass(frozen=True)
class BaselineGate:
    """`gzip`, `xz`, `production`: the model needs at most `ratio` times their bits per byte."""

    required: bool
    ratio: float


@dataclass(frozen=True)
class HeldOut:
    """The file of held-out text in the dataset, and how it is sent; 0 `instances`: one per CPU."""

    file: str
    chunk_bytes: int
    instances: int

    def __post_init__(self) -> None:
        if self.chunk_bytes < 4 or self.instances < 0:
            raise ValueError("holdout.chunk_bytes must be at least 4, holdout.instances at least 0")

    @property
    def parallel(self) -> int:
        return self.instances or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Bits:
    """What a text costs in nats, and its size."""

    nats: float
    bytes: int
    chunks: int

    @property
    def per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


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


def score(endpoint: ModelClient, text: bytes, held_out: HeldOut) -> Bits:
    """The bits that the served package needs for `text`. Raises ValueError for nonsense.

    For this the package gets more instances than it is configured with: what it answers does not
    depend on how many there are, and how long a megabyte takes does.
    """
    pieces = list(chunks(text, held_out.chunk_bytes))
    shape = (1, 1) if endpoint.max_batch() else (1,)
    requests = (_request(piece, shape) for piece in pieces)
    nats = 0.0
    with endpoint.instances(held_out.parallel):
        for answer in endpoint.infer_all(requests, held_out.parallel):
            found = float(answer["nats"].reshape(-1)[0])
            if not (math.isfinite(found) and found >= 0):
                raise ValueError(f"the package scored a chunk with {found} nats")
            nats += found
    return Bits(nats, len(text), len(pieces))


def baselines(text: bytes) -> dict[str, float]:
    """Bits per byte of `gzip -9` and `xz -9e` of `text`."""
    return {
        "gzip": 8 * len(gzip.compress(text, 9, mtime=0)) / len(text),
        "xz": 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text),
    }


def against(name: str, gate: BaselineGate, model: Bits, baseline: float) -> GateRecord:
    """At most `gate.ratio` times the baseline's bits per byte."""
    needs = f"the model needs {model.per_byte:.4f}, {name} {baseline:.4f}"
    detail = f"bits per byte: {needs}; {model.bytes} bytes in {model.chunks} chunks"
    return at_most(f"bits.vs_{name}", model.per_byte, gate.ratio * baseline, detail)


def lossless(version: Path, text: bytes) -> GateRecord:
    """The tokenizer gives back every byte: one that drops some makes a text cheaper than it is."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(version / "tokenizer.json"))
    wanted = text.decode("utf-8")
    ids = tokenizer.encode(wanted, add_special_tokens=False).ids
    got = tokenizer.decode(ids, skip_special_tokens=False)
    detail = f"{len(text)} bytes to {len(ids)} tokens and back"
    return holds("bits.lossless", got == wanted, detail)


def measured(manifest: Manifest, dataset_digest: str) -> float | None:
    """The bits per byte of a released version on the same text, as its signed manifest says it.

    None when it was judged on another dataset, or not in bits.
    """
    if manifest.lineage.dataset.digest != dataset_digest:
        return None
    return next((one.value for one in manifest.gates if one.name == "bits.vs_gzip"), None)


def _request(text: bytes, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {
        "text": np.array([text], dtype=object).reshape(shape),
        "max_new_tokens": np.zeros(shape, dtype=np.int32),
    }
