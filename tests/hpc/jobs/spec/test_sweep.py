from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from conf import ConfigError, compose, options
from hpc.jobs.spec.sweep import is_sweep, list_as_text, trials


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


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("cluster.exclude=n1,n2", "n1,n2"),
        ("cluster.exclude=n[1-3],n7", "n[1-3],n7"),
        ("cluster.exclude='n1,n2'", "n1,n2"),
        ("cluster.exclude=n1", "n1"),
        ("+cluster.additional_parameters.nodelist=n1,n2", "n1,n2"),
    ],
)
def test_a_list_of_nodes_is_one_value(typed, value):
    text = list_as_text(typed)
    assert not is_sweep(text)
    config = compose("train", [f"task={options('task')[0]}", text])
    assert OmegaConf.select(config, text.partition("=")[0].lstrip("+")) == value
    assert trials([text, "seed=1,2"]) == [[text, "seed=1"], [text, "seed=2"]]


def test_a_sweep_over_nodes_is_refused():
    with pytest.raises(ConfigError, match="a sweep never runs over nodes"):
        list_as_text("cluster.exclude='n1','n2'")


@pytest.mark.parametrize(
    "text", ["cluster.exclude=null", "cluster.partition=a,b", "seed=1,2", "~x"]
)
def test_other_overrides_stay_as_they_are(text):
    assert list_as_text(text) == text
