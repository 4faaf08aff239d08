"""Activation checkpointing: the same numbers, fewer of them kept; a model without blocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from conf import ConfigError
from hpc.models.recomputation import recompute_blocks
from hpc.models.tabular_mlp import TabularMLPConfig
from hpc.models.transformer import TransformerConfig
from hpc.models.transformer_network import Transformer


def transformer() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    model = Transformer(
        TransformerConfig(vocabulary=50, context=16, width=16, layers=4, heads=2, hidden=24)
    )
    tokens = torch.randint(50, (2, 16))
    return model, lambda made: made(tokens, tokens)


def table() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    config = TabularMLPConfig(embedding=4, hidden=(16, 16), dropout=0.5, unknown=0.1)
    model = config.build([7, 9], numbers=3, outputs=1)
    ids, numbers = torch.randint(7, (8, 2)), torch.rand(8, 3)
    return model, lambda made: made(ids, numbers).square().mean()


def hugging_face() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=16,
    )  # fmt: skip
    tokens = torch.randint(40, (2, 8))
    return BertForSequenceClassification(config), lambda made: made(tokens).logits.square().mean()


def kept(loss: Callable[[nn.Module], Tensor], model: nn.Module) -> tuple[Tensor, list[Tensor], int]:
    """Loss, gradients, and the bytes that forward keeps for backward."""
    weights = {weight.data_ptr() for weight in model.parameters()}
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += 0 if tensor.data_ptr() in weights else tensor.nbytes
        return tensor

    torch.manual_seed(1)  # of dropout
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(model)
    inside = total
    value.backward()
    return value.detach(), [weight.grad for weight in model.parameters()], inside


@pytest.mark.parametrize("make", [transformer, table, hugging_face])
def test_loss_gradients_and_names_are_the_same_and_less_is_kept(make: Callable) -> None:
    plain, loss = make()
    value, gradients, bytes_kept = kept(loss, plain)
    thrifty, loss = make()
    recompute_blocks(thrifty)
    again, same, fewer = kept(loss, thrifty)
    assert torch.equal(value, again)
    assert all(torch.equal(one, other) for one, other in zip(gradients, same, strict=True))
    assert fewer < bytes_kept
    assert list(thrifty.state_dict()) == list(plain.state_dict())


def test_a_model_without_blocks_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"Linear does not declare its blocks.*recomputed_blocks"):
        recompute_blocks(nn.Linear(2, 2))
