"""The decoder: what it must not see, what it must compute, what it can learn."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from conf import ConfigError
from conf.schema import from_config
from hpc.models.transformer import TransformerConfig
from hpc.models.transformer_network import IGNORE, Transformer, attend, causal_mask

CONFIG = TransformerConfig(vocabulary=50, context=16, width=32, layers=2, heads=4, hidden=48)
VARIANTS = {
    "default": CONFIG,
    "untied": replace(CONFIG, tied=False),
    "grouped": replace(CONFIG, kv_heads=2),
    "plain": replace(CONFIG, qk_norm=False, softcap=None),
    "capped": replace(CONFIG, softcap=5.0),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def model(request: pytest.FixtureRequest) -> Transformer:
    torch.manual_seed(0)
    return awake(Transformer(request.param))


def awake(model: Transformer) -> Transformer:
    """Branches start at zero; give every weight something to do."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocabulary, shape)


def test_a_position_does_not_see_the_future(model: Transformer) -> None:
    text = tokens(3, 16)
    changed = text.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % CONFIG.vocabulary
    before, after = model(text), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=0)
    assert (before[:, 9:] != after[:, 9:]).any(-1).all()  # and it does see the past and itself


def test_a_position_sees_all_of_its_past(model: Transformer) -> None:
    text = tokens(2, 16)
    changed = text.clone()
    changed[:, 0] = (changed[:, 0] + 1) % CONFIG.vocabulary
    assert (model(text)[:, -1] != model(changed)[:, -1]).any()


def test_order_matters_though_the_words_are_the_same(model: Transformer) -> None:
    text = torch.tensor([[1, 2, 3, 4, 5]])
    swapped = torch.tensor([[2, 1, 3, 4, 5]])
    assert not torch.allclose(model(text)[:, -1], model(swapped)[:, -1], atol=1e-4)


def test_the_loss_is_the_cross_entropy_of_the_logits(model: Transformer) -> None:
    text, targets = tokens(3, 10), tokens(3, 10)
    targets[0, :4] = IGNORE
    expected = F.cross_entropy(model(text).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    torch.testing.assert_close(model.loss(text, targets), expected)


def test_logits_of_a_capped_model_stay_within_the_cap() -> None:
    model = awake(Transformer(VARIANTS["capped"]))
    with torch.no_grad():
        model.embedding.weight.mul_(100)
    assert model(tokens(1, 8)).abs().max() <= 5.0


def test_tied_and_untied_differ_by_one_matrix() -> None:
    tied, untied = (Transformer(replace(CONFIG, tied=flag)) for flag in (True, False))
    count = [sum(weight.numel() for weight in model.parameters()) for model in (tied, untied)]
    assert count[1] - count[0] == 64 * 32  # 50 tokens, padded to 64 rows
    assert tied.head.weight is tied.embedding.weight


def test_a_new_model_says_nothing_yet() -> None:
    torch.manual_seed(0)
    loss = Transformer(replace(CONFIG, tied=False)).loss(tokens(4, 16), tokens(4, 16))
    assert loss.item() == pytest.approx(math.log(CONFIG.vocabulary), abs=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_written_out_attention_is_torchs_fused_one(kv_heads: int) -> None:
    q, k, v = (torch.randn(2, heads, 7, 8) for heads in (4, kv_heads, kv_heads))
    torch.testing.assert_close(attend(q, k, v, causal_mask(7, q)), attend(q, k, v, None))


def test_it_learns(model: Transformer) -> None:
    text = (torch.arange(17) * 3 % 50).expand(4, 17)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = model.loss(text[:, :-1], text[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "model.width=32 with heads=3"),
        ({"heads": 32}, "RoPE turns pairs"),
        ({"kv_heads": 3}, "model.kv_heads=3: must divide heads=4"),
        ({"layers": 0}, "model.layers=0"),
    ],
)
def test_sizes_that_do_not_fit_are_named(change: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_config(TransformerConfig, {**asdict(CONFIG), **change}, "model")
