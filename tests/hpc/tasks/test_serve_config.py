"""How a model is served is config, and config is checked."""

from __future__ import annotations

import pytest

from conf import ConfigError, compose
from hpc.jobs.spec.config import train_config
from hpc.tasks.serve import BatchedServe
from hpc.tasks.tabular.export import triton_config as tabular_config
from hpc.tasks.text import TextTask
from hpc.tasks.text.export import triton_config as text_config
from hpc.tasks.text.task import TextServe
from serving.runtime.features import Number
from serving.runtime.tabular_transform import TabularTransform, Target
from serving.triton.model_config import config_pbtxt, parse_config


def test_every_key_is_in_the_tree_so_that_it_can_be_overridden_without_a_plus() -> None:
    """And says what a YAML without the key would get."""
    flights = compose("train", ["task=flights"])
    assert train_config(flights).task.serve == BatchedServe("flights")
    assert set(flights.task.serve) == set(BatchedServe.__dataclass_fields__)
    lm = compose("train", ["task=lm"])
    task = train_config(lm).task
    assert isinstance(task, TextTask) and task.serve == TextServe("lm")
    assert set(lm.task.serve) == set(TextServe.__dataclass_fields__)


def test_overrides_reach_config_pbtxt() -> None:
    config = compose("train", ["task=lm", "task.serve.instances=3", "task.serve.max_new_tokens=9"])
    text = config_pbtxt(text_config(train_config(config).task.serve))
    assert "count: 3" in text
    assert parse_config(text).parameters["max_new_tokens"].string_value == "9"
    config = compose("train", ["task=flights", "task.serve.max_batch_size=32"])
    features = tuple(
        Number(name, "FP32", 0.0, 1.0, 0.0, 1.0, nullable=name == "gust")
        for name in ("gust", "distance")
    )
    transform = TabularTransform(features, Target("late", "binary", "late_probability"))
    parsed = parse_config(config_pbtxt(tabular_config(train_config(config).task, transform)))
    assert parsed.max_batch_size == 32
    assert [(one.name, one.optional) for one in parsed.input] == [
        ("gust", True),  # it may be left out of a request
        ("distance", False),
    ]


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Nearest: task\.serve\.threads"):
        compose("train", ["task=lm", "task.serve.thread=2"])
    config = compose("train", ["task=lm", "task.serve.threads=many"])
    with pytest.raises(ConfigError, match=r"task\.serve\.threads is 'many', not of type int"):
        train_config(config)
    config = compose("train", ["task=lm", "+task.serve.foo=1"])
    with pytest.raises(ConfigError, match=r"task\.serve\.foo is unknown here.*known: model, inst"):
        train_config(config)
