"""The same small transformer, trained on torch ops and on the interpreted kernels."""

import torch
import torch.nn.functional as F
from torch import nn

import kernels

VOCABULARY, WIDTH, HEADS, TOKENS = 61, 32, 2, 16


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ParameterList(nn.Parameter(torch.ones(WIDTH)) for _ in range(2))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        head = WIDTH // HEADS
        self.qk_norm = nn.ParameterList(nn.Parameter(torch.ones(head)) for _ in range(2))

    def forward(self, x, stream, cos, sin):
        x, stream = kernels.add_rms_norm(x, stream, self.norms[0])
        q, k, v = (p.unflatten(-1, (HEADS, -1)) for p in self.qkv(x).chunk(3, -1))
        q, k = kernels.rope(q, k, cos, sin, *self.qk_norm)
        q, k, v = (p.transpose(1, 2) for p in (q, k, v))
        x = self.out(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        )
        x, stream = kernels.add_rms_norm(x, stream, self.norms[1])
        return self.down(kernels.swiglu(*self.up(x).chunk(2, -1))), stream


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.Parameter(torch.ones(WIDTH))
        self.head = kernels.LinearCrossEntropy(WIDTH, VOCABULARY)

    def forward(self, tokens):
        angles = torch.outer(torch.arange(TOKENS), 0.1 ** torch.arange(WIDTH // HEADS // 2))
        stream = self.embedding(tokens)
        x = torch.zeros_like(stream)
        for block in self.blocks:
            x, stream = block(x, stream, angles.cos(), angles.sin())
        x, _ = kernels.add_rms_norm(x, stream, self.norm)
        return self.head(x, tokens, shift=True, z_loss=1e-4)


def losses(mode, dtype, steps=20):
    """Training losses on sequences that count up from anywhere."""
    kernels.use(mode)
    torch.manual_seed(5)
    model = Transformer().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    curve = []
    for _ in range(steps):
        start = torch.randint(0, VOCABULARY, (2, 1))
        loss = model((start + torch.arange(TOKENS)) % VOCABULARY)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append(loss.item())
    return torch.tensor(curve)


def test_fp32_curves_are_one():
    reference, triton = losses("torch", torch.float32, 12), losses("triton", torch.float32, 12)
    torch.testing.assert_close(triton, reference, rtol=1e-4, atol=1e-4)


def test_bf16_curves_agree_within_bf16_and_learn():
    reference, triton = losses("torch", torch.bfloat16), losses("triton", torch.bfloat16)
    assert reference[-4:].mean() < reference[:4].mean() - 0.5, "it did not learn"
    exact = losses("torch", torch.float32)
    own, other = (triton - exact).abs().mean(), (reference - exact).abs().mean()
    assert (triton - reference).abs().mean() < 2**-6, (own, other)
