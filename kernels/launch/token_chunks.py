"""Tokens in chunks: their number, the buffer of their logits, the sums of products with them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

# Logits held at a time. On a GPU as many tokens as make the traffic of the output layer, which a
# chunk reads twice and whose gradient it reads and writes, a third of the time of its products on
# an H100; fewer above 327,680 classes, so that the buffer stays within 1.25 GiB of 16-bit logits.
# On a CPU what stays in the cache.
GPU_TOKENS = 2048
GPU_LOGITS = 5 << 27
CPU_LOGITS = 1 << 20


def size(rows: int, vocabulary: int, device: torch.device) -> int:
    """Tokens per chunk: a power of two, at least 64."""
    on_cpu = device.type == "cpu"
    fitting = (CPU_LOGITS if on_cpu else GPU_LOGITS) // max(vocabulary, 1)
    most = max(64, 1 << max(0, fitting.bit_length() - 1))
    return max(1, min(rows, most if on_cpu else min(most, GPU_TOKENS)))


@dataclass(frozen=True)
class ChunkAccount:
    """Arithmetic of loss and gradients of `rows` tokens, chunk by chunk.

    tokens: of a chunk. buffer_bytes: of its logits. moved_bytes: by the products and the row
    kernel. weight_share: the part of them that is the output layer and its gradient.
    """

    tokens: int
    buffer_bytes: int
    moved_bytes: int
    weight_share: float


def account(rows: int, hidden: int, vocabulary: int, itemsize: int) -> ChunkAccount:
    """The account of a GPU: n chunks move n(2VNe + 8VN) + 5MVe + 3MNe + 16M bytes."""
    tokens = size(rows, vocabulary, torch.device("cuda"))
    weights = triton.cdiv(rows, tokens) * vocabulary * hidden * (2 * itemsize + 8)
    logits = rows * (5 * vocabulary + 3 * hidden) * itemsize + 16 * rows
    padded = triton.cdiv(vocabulary, 64) * 64
    return ChunkAccount(
        tokens, tokens * padded * itemsize, weights + logits, weights / (weights + logits)
    )


def buffer(hidden: Tensor, rows: int, vocabulary: int) -> Tensor:
    """(rows, V) logits inside rows padded to 64 elements, so that each begins on a boundary."""
    padded = triton.cdiv(vocabulary, 64) * 64
    return hidden.new_empty(rows, padded)[:, :vocabulary]


def logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """(slice of tokens, their logits h·Wᵀ + b (C, V)), chunk by chunk of hidden (M, N) through
    weight (V, N) and bias (V,). All chunks share one buffer, so that one's logits may be
    overwritten but not kept."""
    m, vocabulary = hidden.shape[0], weight.shape[0]
    chunk = size(m, vocabulary, hidden.device)
    shared = buffer(hidden, chunk, vocabulary)
    for first in range(0, m, chunk):
        part = slice(first, min(first + chunk, m))
        out = shared[: part.stop - first]
        if bias is None:
            torch.mm(hidden[part], weight.t(), out=out)
        else:
            torch.addmm(bias, hidden[part], weight.t(), out=out)
        yield part, out


def accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += leftᵀ · right in the wide type, whatever the factors are."""
    if left.dtype == total.dtype:
        total.addmm_(left.t(), right)
    elif left.device.type == "cpu":
        total.addmm_(left.t().to(total.dtype), right.to(total.dtype))
    else:
        torch.addmm(total, left.t(), right, out_dtype=total.dtype, out=total)
