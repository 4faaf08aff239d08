"""Options that models ask for, against the modules of Hugging Face that run those models."""

import pytest
import torch
from torch import nn
from transformers import GemmaConfig, GPTNeoXConfig, LlamaConfig
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gpt_neox import modeling_gpt_neox as neox
from transformers.models.llama import modeling_llama as llama

import kernels

B, S, HEADS, DIM = 2, 7, 4, 16


def randomised(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def test_gemmas_norm_is_that_of_offset_one():
    norm = randomised(GemmaRMSNorm(DIM, eps=GemmaConfig().rms_norm_eps))
    x = torch.randn(B, S, DIM)
    mine = kernels.rms_norm(x, norm.weight, norm.eps, offset=1.0)
    torch.testing.assert_close(mine, norm(x))


def test_llamas_norm_in_fp32_of_bf16_rows():
    norm = randomised(llama.LlamaRMSNorm(DIM, eps=1e-5))
    x = torch.randn(B, S, DIM).bfloat16()
    mine = kernels.rms_norm(x, norm.weight, 1e-5, dtype=torch.float32)
    torch.testing.assert_close(mine, norm(x.float()))


PACKED = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 0, 1, 2, 3, 4]])
POSITIONS = {
    "documents": PACKED,
    "a cache of 5": torch.arange(5, 5 + S)[None],
    "padding on the left": torch.tensor([[0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]]),
}


@pytest.mark.parametrize("name", list(POSITIONS))
@pytest.mark.parametrize("turns", [DIM, DIM // 4], ids=["whole", "partial"])
def test_rotation_by_positions(name, turns):
    """Llama turns whole heads, GPT-NeoX a quarter of each."""
    positions = POSITIONS[name]
    q, k = torch.randn(B, S, HEADS, DIM), torch.randn(B, S, 2, DIM)
    if turns == DIM:
        sizes = {"hidden_size": HEADS * DIM, "num_attention_heads": HEADS, "head_dim": DIM}
        tables, turn = llama.LlamaRotaryEmbedding(LlamaConfig(**sizes)), llama.apply_rotary_pos_emb
    else:
        config = GPTNeoXConfig(hidden_size=HEADS * DIM, num_attention_heads=HEADS, rotary_pct=0.25)
        tables, turn = neox.GPTNeoXRotaryEmbedding(config), neox.apply_rotary_pos_emb
    cos, sin = tables(q, positions)
    theirs = turn(q.transpose(1, 2), k.transpose(1, 2), cos, sin)
    far = torch.arange(16)[None]
    long_cos, long_sin = (table[0, :, : turns // 2].contiguous() for table in tables(q, far))
    mine = kernels.rope(q, k, long_cos, long_sin, positions=positions)
    for ours, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, other.transpose(1, 2))
