from __future__ import annotations

import pytest

from conf import ConfigError, compose, options
from hpc.jobs.spec.config import cluster_config, run_config, train_config

TASK = f"task={options('task')[0]}"


def test_every_cluster_in_the_tree_is_valid():
    for cluster in options("cluster"):
        assert cluster_config(compose("train", [TASK, f"cluster={cluster}"])).ranks >= 1


@pytest.mark.parametrize("task", options("task"))
def test_every_task_in_the_tree_is_valid(task):
    assert train_config(compose("train", [f"task={task}"])).run.steps >= 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("cluster.nodes=two", r"cluster\.nodes is 'two', not of type int"),
        ("cluster.nodes=0", r"cluster\.nodes=0: must be at least 1"),
        ("cluster.signal_delay_s=3600", r"cluster\.signal_delay_s=3600: .* less than timeout_min"),
        ("+cluster.colour=red", r"cluster\.colour is unknown here"),
        ("steps=0", "steps=0: must be at least 1"),
        ("steps=many", "steps is 'many', not of type int"),
        ("precision=fp8", "precision=fp8: choose one of auto, fp32, bf16"),
        ("zero_stage=4", "zero_stage=4: choose one of 0, 1, 2, 3"),
        ("kernels=fast", "kernels=fast: choose one of auto, triton, torch"),
    ],
)
def test_a_wrong_value_is_a_sentence_that_names_its_key(override, sentence):
    config = compose("train", [TASK, override])
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        cluster_config(config)
        run_config(config)


def test_the_local_cluster_is_one_machine():
    with pytest.raises(ConfigError, match="ask for ranks instead"):
        cluster_config(compose("train", [TASK, "cluster=local", "cluster.nodes=2"]))


def test_a_missing_task_is_answered_with_the_tasks():
    with pytest.raises(ConfigError, match=f"^task: choose one of {', '.join(options('task'))}"):
        compose("train")
