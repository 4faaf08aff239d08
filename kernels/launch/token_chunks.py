"""Tokens in chunks: their number, the buffer of their logits, the sums of products with them."""

from collections.abc import Iterator

import torch
import triton
from torch import Tensor

# Logits held at a time: 128 MiB of bf16 on a GPU, where big chunks read the weight less often;
# what stays in the cache on a CPU.
GPU_LOGITS = 1 << 26
CPU_LOGITS = 1 << 20


def size(rows: int, vocabulary: int, device: torch.device) -> int:
    """Tokens per chunk: a power of two, at least 64."""
    budget = CPU_LOGITS if device.type == "cpu" else GPU_LOGITS
    most = max(64, 1 << max(0, (budget // max(vocabulary, 1)).bit_length() - 1))
    return max(1, min(rows, most))


def buffer(hidden: Tensor, rows: int, vocabulary: int) -> Tensor:
    """(rows, V) logits inside rows padded to 64 elements, so that each begins on a boundary."""
    padded = triton.cdiv(vocabulary, 64) * 64
    return hidden.new_empty(rows, padded)[:, :vocabulary]


def logits(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(slice of tokens, their logits h·Wᵀ (C, V)), chunk by chunk of hidden (M, N) through weight
    (V, N). All chunks share one buffer, so that one's logits may be overwritten but not kept."""
    m, vocabulary = hidden.shape[0], weight.shape[0]
    chunk = size(m, vocabulary, hidden.device)
    shared = buffer(hidden, chunk, vocabulary)
    for first in range(0, m, chunk):
        part = slice(first, min(first + chunk, m))
        torch.mm(hidden[part], weight.t(), out=shared[: part.stop - first])
        yield part, shared[: part.stop - first]


def accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += leftᵀ · right in the wide type, whatever the factors are."""
    if left.dtype == total.dtype:
        total.addmm_(left.t(), right)
    elif left.device.type == "cpu":
        total.addmm_(left.t().to(total.dtype), right.to(total.dtype))
    else:
        torch.addmm(total, left.t(), right, out_dtype=total.dtype, out=total)
