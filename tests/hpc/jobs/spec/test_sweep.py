from __future__ import annotations

import pytest

from conf import ConfigError
from hpc.jobs.spec.sweep import is_sweep, trials


def test_every_combination_in_the_order_it_is_written():
    assert trials(["task=flights", "lr=1e-3,3e-4", "seed=range(1,3)"]) == [
        ["task=flights", "lr=0.001", "seed=1"],
        ["task=flights", "lr=0.001", "seed=2"],
        ["task=flights", "lr=0.0003", "seed=1"],
        ["task=flights", "lr=0.0003", "seed=2"],
    ]


def test_a_list_is_one_value():
    assert not is_sweep("hidden=[64,32]")
    assert trials(["hidden=[64,32],[8]"]) == [["hidden=[64,32]"], ["hidden=[8]"]]


def test_no_sweep_is_one_trial():
    assert trials(["task=flights", "+a=1", "~b"]) == [["task=flights", "+a=1", "~b"]]


def test_what_does_not_parse_is_named():
    with pytest.raises(ConfigError, match="'lr' does not parse"):
        trials(["lr"])
