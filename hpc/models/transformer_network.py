"""A decoder-only transformer: RMSNorm before each branch, RoPE, QK-norm, grouped queries, SwiGLU.

Sources: RMSNorm https://arxiv.org/abs/1910.07467, RoPE https://arxiv.org/abs/2104.09864, QK-norm
https://arxiv.org/abs/2010.04245, grouped queries https://arxiv.org/abs/2305.13245, SwiGLU
https://arxiv.org/abs/2002.05202.

Its hot operations come from `kernels`, which runs Triton on a GPU and plain torch elsewhere; with
`kernels.use("torch")` the whole forward pass is plain torch and exports to ONNX.

Each weight is used in the forward of a module that owns it: DeepSpeed's ZeRO-3 gathers a module's
weights around its forward, and anywhere else finds an empty shard.

    model = Transformer(TransformerConfig(vocabulary=4096))
    logits = model(tokens)            # (B, T) int64 -> (B, T, V)
    loss = model(tokens, targets)     # -> scalar, mean nats per target
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from hpc.models.transformer import TransformerConfig

IGNORE = -100  # a target that is not scored
PADDING = 64  # rows of the embedding are a multiple of this: an odd vocabulary is slow everywhere


class RMSNorm(nn.Module):
    """stream, branch (..., width) -> (the norm of their sum, their sum); branch may be None."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, stream: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        if branch is None:
            return kernels.rms_norm(stream, self.weight, self.eps), stream
        return kernels.add_rms_norm(branch, stream, self.weight, self.eps)


class Attention(nn.Module):
    """Causal self-attention with grouped queries: (B, T, width) -> (B, T, width)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, kv_width = config.width, config.groups * config.head_width
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, kv_width, bias=False)
        self.value = nn.Linear(width, kv_width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.query_norm = nn.Parameter(torch.ones(config.head_width)) if config.qk_norm else None
        self.key_norm = nn.Parameter(torch.ones(config.head_width)) if config.qk_norm else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, _ = x.shape
        heads = (batch, length, -1, self.config.head_width)
        q, k, v = self.query(x).view(heads), self.key(x).view(heads), self.value(x).view(heads)
        q, k = kernels.rope(
            q, k, cos, sin, self.query_norm, self.key_norm, eps=self.config.norm_eps
        )
        mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, -1))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Causal attention of q (B, Hq, T, D) to k, v (B, Hk, T, D), Hk a divisor of Hq.

    With an additive `mask` (T, T) the sum is written out, which is also what ONNX gets. On CPUs
    with bf16 instructions that is 2.4 times as fast as torch's fused attention, forward and
    backward, at a few hundred positions. Without a mask, torch's fused causal attention runs.
    """
    if mask is None:
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
        )
    if q.shape[1] != k.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + mask
    return torch.softmax(scores, dim=-1) @ v


class SwiGLU(nn.Module):
    """(B, T, width) -> (B, T, width) through a gated layer of `hidden` units."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(kernels.swiglu(self.gate(x), self.up(x)))


class Block(nn.Module):
    """Attention and SwiGLU, each added to the stream by the norm that follows it.

    stream and branch, both (B, T, width), go in and come out: the next block adds the last branch.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.swiglu_norm = RMSNorm(config.width, config.norm_eps)
        self.swiglu = SwiGLU(config)

    def forward(
        self, stream: Tensor, branch: Tensor | None, cos: Tensor, sin: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        normed, stream = self.attention_norm(stream, branch)
        branch = self.attention(normed, cos, sin, mask)
        normed, stream = self.swiglu_norm(stream, branch)
        return stream, self.swiglu(normed)


class Head(nn.Module):
    """hidden (B, T, width) -> logits (B, T, V) in fp32; with targets (B, T), the mean loss in nats.

    Its weight is the embedding's, or another of that shape; rows past the vocabulary are padding.
    """

    def __init__(self, config: TransformerConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self.weight = (
            embedding.weight if config.tied else nn.Parameter(torch.zeros_like(embedding.weight))
        )

    def forward(self, hidden: Tensor, targets: Tensor | None) -> Tensor:
        weight, cap = self.weight[: self.config.vocabulary], self.config.softcap
        if targets is not None:
            return kernels.linear_cross_entropy(
                hidden, weight, targets, ignore_index=IGNORE, softcap=cap
            )
        logits = F.linear(hidden, weight).float()
        return logits if cap is None else cap * torch.tanh(logits / cap)


class Transformer(nn.Module):
    """tokens (B, T) int64 -> logits (B, T, V); with targets (B, T), the mean loss in nats."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.vocabulary is not None, "TransformerConfig.build sets the vocabulary"
        self.config = config
        rows = -(-config.vocabulary // PADDING) * PADDING
        self.embedding = nn.Embedding(rows, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = Head(config, self.embedding)
        self._initialise()

    def _initialise(self) -> None:
        """Every branch starts at zero, so the first steps train a linear model, then deepen it."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                # Half of the variance-keeping width: Muon's steps, not these, set the scale soon.
                bound = 0.5 * math.sqrt(3 / module.in_features)
                nn.init.uniform_(module.weight, -bound, bound)
            if name.endswith((".output", ".down")):
                nn.init.zeros_(module.weight)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(tokens), targets)

    def hidden_matrices(self) -> Iterator[Tensor]:
        """The matrices between hidden layers, for Muon: all but embedding and output layer."""
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                yield module.weight

    def recomputed_blocks(self) -> Iterator[nn.Module]:
        """The modules whose activations may be computed a second time in backward."""
        yield from self.blocks

    def flops_per_unit(self) -> float:
        """Arithmetic of one token, forward and backward: of the matrices, and causal attention.

        6 for each weight of a matrix that a token is multiplied with, and 6 * layers * context *
        width for a causal attention (https://arxiv.org/abs/2204.02311, appendix B, halved).
        """
        config = self.config
        weights = sum(_size(weight) for weight in self.hidden_matrices()) + _size(self.head.weight)
        return 6.0 * (weights + config.layers * config.context * config.width)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood in nats of targets (B, T); IGNORE marks unscored ones."""
        return self(tokens, targets)

    def hidden(self, tokens: Tensor) -> Tensor:
        """The normalised stream after the last block: (B, T) -> (B, T, width)."""
        stream, branch = self.embedding(tokens), None
        cos, sin = rotations(tokens.shape[1], self.config, stream)
        # A mask is what CPUs and ONNX need; the fused attention of a GPU is causal by a flag.
        mask = None if stream.is_cuda else causal_mask(tokens.shape[1], stream)
        for block in self.blocks:
            stream, branch = block(stream, branch, cos, sin, mask)
        normed, _ = self.norm(stream, branch)
        return normed


def _size(weight: Tensor) -> int:
    return int(getattr(weight, "ds_numel", weight.numel()))  # ZeRO-3 keeps it apart


def rotations(length: int, config: TransformerConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of RoPE's angles, each (length, head width / 2), in the dtype of `like`.

    Angles are fp32: in bf16 two neighbouring positions past 256 would be the same.
    """
    half = torch.arange(0, config.head_width, 2, device=like.device, dtype=torch.float32)
    frequencies = config.rope_base ** (-half / config.head_width)
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = positions[:, None] * frequencies[None, :]
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """(length, length): 0 where a position may look, -inf where it would see the future."""
    positions = torch.arange(length, device=like.device)
    ahead = positions[None, :] > positions[:, None]
    return torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill(
        ahead, float("-inf")
    )
