"""Which parameters get which rule, and what the configs of conf/optim become."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from conf import ConfigError, compose
from hpc.jobs.spec.config import TrainConfig, run_config, train_config
from hpc.models.transformer import TransformerConfig
from hpc.models.transformer_network import Transformer
from hpc.optim import optimizers
from hpc.optim.optimizers import all_on_gpu, optimizer_config
from hpc.train.engine import deepspeed_config


def configured(*overrides: str) -> TrainConfig:
    return train_config(compose("train", list(overrides)))


def tiny(tied: bool = False) -> Transformer:
    config = TransformerConfig(
        vocabulary=50, context=8, width=16, layers=1, heads=2, hidden=24, tied=tied
    )
    return Transformer(config)


def test_muon_turns_hidden_matrices_and_nothing_else() -> None:
    model = tiny()
    names = {id(weight): name for name, weight in model.named_parameters()}
    kinds = {names[id(weight)].rsplit(".", 2)[-2] for weight in model.hidden_matrices()}
    assert kinds == {"query", "key", "value", "output", "gate", "up", "down"}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_group_and_vectors_are_never_decayed(name: str) -> None:
    config = configured("task=lm", f"optim={name}", "optim.weight_decay=0.1", "gradient_clipping=0")
    model = tiny()
    optimizer = config.optim.build(model)
    grouped = [weight for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(map(id, grouped)) == sorted(id(weight) for weight in model.parameters())
    for group in optimizer.param_groups:
        assert group["weight_decay"] == (0.0 if group["params"][0].ndim < 2 else 0.1)


def test_muon_with_clipping_is_refused_in_words() -> None:
    with pytest.raises(
        ConfigError, match=r"gradient_clipping=1\.0 with optim=muon.*Set gradient_cli"
    ):
        configured("task=lm", "gradient_clipping=1.0")
    assert configured("task=lm", "gradient_clipping=1.0", "zero_stage=0").run.zero_stage == 0


def test_muon_refuses_a_model_that_declares_no_hidden_matrices() -> None:
    config = configured("task=lm").optim
    with pytest.raises(
        ConfigError, match="Linear does not declare which of its weights are hidden"
    ):
        config.build(nn.Linear(2, 2))


def test_keys_of_another_optimizer_are_named() -> None:
    with pytest.raises(ConfigError, match=r"optim\.beta is unknown here\. Nearest: betas"):
        configured("task=flights", "+optim.beta=0.9")


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        ({"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}, torch.optim.SGD),
        ({"_target_": "torch.optim.Adagrad"}, torch.optim.Adagrad),
    ],
)
def test_any_optimizer_can_be_named(node: dict[str, Any], kind: type) -> None:
    model = tiny()
    optim = optimizer_config(node)
    assert optim.zero_settings(3) == {}
    optimizer = optim.build(model)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert sorted(map(id, group["params"])) == sorted(map(id, model.parameters()))
    assert all(group[key] == value for key, value in node.items() if key != "_target_")


def test_deepspeed_is_told_the_global_batch_and_the_stage() -> None:
    overrides = ["task=lm", "micro_batch_size=4", "gradient_accumulation_steps=3", "zero_stage=1"]
    config = configured(*overrides)
    told = deepspeed_config(config.run, config.optim, bf16=True, world_size=2)
    assert told["train_batch_size"] == 24
    assert told["zero_optimization"]["stage"] == 1
    assert told["bf16"] == {"enabled": True}


@pytest.mark.parametrize(("optim", "scatter"), [("muon", False), ("adamw", True)])
def test_zero_3_keeps_gradients_whole_for_muon_alone(optim: str, scatter: bool) -> None:
    config = configured("task=lm", f"optim={optim}", "zero_stage=3")
    told = deepspeed_config(config.run, config.optim, bf16=False, world_size=2)
    assert told["zero_optimization"]["reduce_scatter"] is scatter
    assert told["gradient_clipping"] == 0  # said, since DeepSpeed's own is 1


def test_the_default_is_zero_2() -> None:
    assert all(
        run_config(compose("train", [f"task={task}"])).zero_stage == 2 for task in ("lm", "flights")
    )


@pytest.mark.parametrize(("places", "fused"), [("gg", True), ("gc", False), ("cc", False)])
def test_the_fused_step_is_for_weights_that_are_all_on_a_gpu(places: str, fused: bool) -> None:
    weights: Any = [SimpleNamespace(is_cuda=place == "g") for place in places]
    assert all_on_gpu(weights) is fused


@pytest.mark.parametrize(("on_gpu", "fused"), [(True, True), (False, None)])
def test_adamw_is_fused_on_a_gpu_and_torchs_default_elsewhere(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, fused: bool | None
) -> None:
    monkeypatch.setattr(optimizers, "all_on_gpu", lambda weights: on_gpu)
    optimizer = configured("task=lm", "optim=adamw").optim.build(tiny())
    assert {group["fused"] for group in optimizer.param_groups} == {fused}
