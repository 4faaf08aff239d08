"""Plug-ins of somebody else: built once in a child process at submit, refused in a sentence."""

from __future__ import annotations

import sys

import pytest
from omegaconf import DictConfig, OmegaConf

from conf import ConfigError
from hpc.data.publish import Published
from hpc.jobs.spec import submit_checks
from hpc.jobs.spec.config import foreign_targets
from hpc.jobs.spec.submit_checks import check_fit, check_settings
from tests.hpc.tasks.conftest import digits_config, phrases_config

FOREIGN = "tests.hpc.tasks.foreign"
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}


def checked(config: DictConfig, dataset: Published) -> None:
    check_fit(config, check_settings(config), dataset.path)


def with_schedule(optim: dict) -> DictConfig:
    config = digits_config()
    config.optim = {**optim, "schedule": OmegaConf.to_container(config.optim.schedule)}
    return config


def test_a_module_a_criterion_and_an_optimizer_of_others_are_accepted(digits: Published) -> None:
    config = with_schedule(SGD)
    assert foreign_targets(config) == ["task.criterion", "model", "optim"]
    checked(config, digits)


def test_a_huggingface_model_is_built_at_submit(phrases: Published) -> None:
    checked(phrases_config(), phrases)
    config = phrases_config()
    config.model.config.hiden_size = 32
    with pytest.raises(ConfigError, match=r"model\.config\.hiden_size: BertConfig has no such key"):
        checked(config, phrases)


def test_bf16_with_batch_norm_is_refused(digits: Published) -> None:
    with pytest.raises(ConfigError, match="precision=bf16: ConvNet normalises by running"):
        checked(digits_config(precision="bf16"), digits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"_target_": f"{FOREIGN}.ConvNett"}}, ("model._target_", "Nearest: ConvNet")),
        (
            {"model": {"_target_": "tets.hpc.tasks.foreign.ConvNet"}},
            ("model._target_", "no package 'tets'"),
        ),
        ({"model": {"_target_": f"{FOREIGN}.ConvNet", "chanels": 3}}, ("Nearest: channels",)),
        (
            {"model": {"_target_": f"{FOREIGN}.ConvNet", "channels": 0}},
            ("0 channels are too few", "foreign.py:"),
        ),
        (
            {"model": {"_target_": f"{FOREIGN}.Raising"}},
            ("model: KeyError: 'weights of last year'", "foreign.py:"),
        ),
        ({"model": {"_target_": f"{FOREIGN}.not_a_module"}}, ("not a torch.nn.Module",)),
        ({"model": {"_target_": f"{FOREIGN}.ConvNet", "classes": 3}}, None),
        ({"optim": {"_target_": "torch.optim.SDG"}}, ("optim._target_", "Nearest: SGD")),
        ({"optim": {**SGD, "betas": [0.9]}}, ("optim.betas", "takes no such key")),
        ({"optim": {"_target_": "torch.nn.Linear"}}, ("optim",)),
        ({"optim": {**SGD, "lr": -1.0}}, ("Invalid learning rate",)),
        ({"criterion": {"_target_": "torch.nn.CrossEntropy"}}, ("Nearest: CrossEntropyLoss",)),
        ({"criterion": {"_target_": "torch.nn.MSELoss"}}, ("task: ",)),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_mistake_is_one_sentence(changes: dict, words: tuple | None, digits: Published) -> None:
    config = with_schedule(changes["optim"]) if "optim" in changes else digits_config()
    if "model" in changes:
        config.model = changes["model"]
    if "criterion" in changes:
        config.task.criterion = changes["criterion"]
    if words is None:
        checked(config, digits)  # out of range targets cannot be seen without numbers
        return
    with pytest.raises(ConfigError) as refused:
        checked(config, digits)
    for word in words:
        assert word in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_what_takes_too_long_is_refused(digits: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_checks, "CHECK_TIMEOUT_S", 3)
    config = digits_config(model={"_target_": f"{FOREIGN}.Sleeping"})
    with pytest.raises(ConfigError, match="building it took more than 3 s"):
        checked(config, digits)


def test_this_process_makes_no_foreign_plugin(digits: Published) -> None:
    sys.modules.pop(FOREIGN, None)
    check_settings(digits_config())
    assert FOREIGN not in sys.modules
