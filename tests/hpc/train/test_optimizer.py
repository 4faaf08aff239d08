"""Which parameters get which rule, and what the configs of conf/optim become."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from conf import ConfigError, compose
from hpc.jobs.config import run_config
from hpc.models.transformer import Transformer, TransformerConfig
from hpc.train.distributed import World
from hpc.train.engine import deepspeed_config, start
from hpc.train.optimizer import build, is_hidden_matrix, optim_config


def tiny(tied: bool = False) -> Transformer:
    config = TransformerConfig(
        vocabulary=50, context=8, width=16, layers=1, heads=2, hidden=24, tied=tied
    )
    return Transformer(config)


def test_muon_turns_hidden_matrices_and_nothing_else() -> None:
    hidden = {name for name, weight in tiny().named_parameters() if is_hidden_matrix(name, weight)}
    kinds = {name.rsplit(".", 2)[-2] for name in hidden}
    assert kinds == {"query", "key", "value", "output", "gate", "up", "down"}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_group_and_vectors_are_never_decayed(name: str) -> None:
    config = compose("train", ["task=lm", f"optim={name}", "optim.weight_decay=0.1"])
    model = tiny()
    optimizer = build(optim_config(config), model)
    grouped = [weight for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(map(id, grouped)) == sorted(id(weight) for weight in model.parameters())
    for group in optimizer.param_groups:
        assert group["weight_decay"] == (0.0 if group["params"][0].ndim < 2 else 0.1)


def test_muon_with_clipping_is_refused_in_words() -> None:
    config = compose("train", ["task=lm", "gradient_clipping=1.0"])
    with pytest.raises(
        ConfigError, match=r"gradient_clipping=1\.0 with optim=muon.*Set gradient_cli"
    ):
        start(config, tiny(), World(0, 1, torch.device("cpu")))


def test_keys_of_another_optimizer_are_named() -> None:
    config = compose("train", ["task=flights"])
    OmegaConf.set_struct(config, False)
    config.optim.beta = 0.9
    with pytest.raises(ConfigError, match=r"conf/optim/adamw\.yaml.*beta"):
        optim_config(config)


def test_deepspeed_is_told_the_global_batch_and_the_stage() -> None:
    overrides = ["task=lm", "micro_batch_size=4", "gradient_accumulation_steps=3", "zero_stage=1"]
    config = compose("train", overrides)
    told = deepspeed_config(run_config(config), optim_config(config), bf16=True, world_size=2)
    assert told["train_batch_size"] == 24
    assert told["zero_optimization"]["stage"] == 1
    assert told["bf16"] == {"enabled": True}


@pytest.mark.parametrize(("optim", "scatter"), [("muon", False), ("adamw", True)])
def test_zero_3_keeps_gradients_whole_for_muon_alone(optim: str, scatter: bool) -> None:
    config = compose("train", ["task=lm", f"optim={optim}", "zero_stage=3"])
    told = deepspeed_config(run_config(config), optim_config(config), bf16=False, world_size=2)
    assert told["zero_optimization"]["reduce_scatter"] is scatter
    assert told["gradient_clipping"] == 0  # said, since DeepSpeed's own is 1


def test_the_default_is_zero_2() -> None:
    assert all(
        run_config(compose("train", [f"task={task}"])).zero_stage == 2 for task in ("lm", "flights")
    )
