"""Trials that are made without composing are what composing makes."""

from __future__ import annotations

import pytest

from conf import ConfigError, compose
from hpc.jobs.spec import trial_configs
from hpc.jobs.spec.sweep import trials
from hpc.jobs.spec.trial_configs import compose_trials


@pytest.mark.parametrize(
    ("words", "composed"),
    [
        (["seed=1,2"], 1),
        (["optim.lr=1e-3,3e-4", "seed=1,2"], 1),
        (["model.hidden=[64,32],[8]"], 1),
        (["task.serve.model=a,'b'", "gradient_clipping=1,0.5"], 1),
        (["seed=1,${steps}"], 1),
        (["optim=adamw,muon"], 2),  # a group
        (["cluster=box,local", "seed=1,2"], 3),
        (["optim.betas=[0.9,0.95]", "optim.lr=1e-3,1e-4"], 1),
        (["+task.extra=1,2"], 2),
        (["optim.schedule={kind:cosine},{final:0.5}"], 2),  # merged into what is there
        (["optim.schedule.final=0.1,0.2", "optim.schedule={kind:cosine}"], 2),  # in that order
    ],
)
def test_they_are_what_hydra_makes(words, composed, monkeypatch) -> None:
    asked: list[list[str]] = []

    def counted(primary, overrides):
        asked.append(list(overrides))
        return compose(primary, overrides)

    monkeypatch.setattr(trial_configs, "compose", counted)
    combinations = trials(["task=flights", *words])
    assert compose_trials(combinations) == [compose("train", one) for one in combinations]
    assert len(asked) == composed


def test_a_key_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no such key"):
        compose_trials(trials(["task=flights", "sed=1,2"]))
