"""How a model is served is config, and config is checked."""

from __future__ import annotations

import pytest

from conf import ConfigError, compose
from hpc.tasks.flights.export import triton_config as flights_config
from hpc.tasks.lm.export import triton_config as lm_config
from hpc.tasks.serve_config import FlightsServe, LmServe, serve_config
from serving.runtime import flights_transform
from serving.triton.model_config import config_pbtxt, parse_config


def test_the_files_in_conf_say_what_the_schemas_say() -> None:
    """Every key is in the tree, so that it can be overridden without a plus."""
    assert serve_config(FlightsServe, compose("train", ["task=flights"])) == FlightsServe()
    assert serve_config(LmServe, compose("train", ["task=lm"])) == LmServe()


def test_overrides_reach_config_pbtxt() -> None:
    cfg = compose("train", ["task=lm", "task.serve.instances=3", "task.serve.max_new_tokens=9"])
    text = config_pbtxt(lm_config(serve_config(LmServe, cfg)))
    assert "count: 3" in text
    assert parse_config(text).parameters["max_new_tokens"].string_value == "9"
    cfg = compose("train", ["task=flights", "task.serve.max_batch_size=32"])
    transform = flights_transform.from_json('{"kind": "flights", "features": []}')
    text = config_pbtxt(flights_config(serve_config(FlightsServe, cfg), transform))
    assert "max_batch_size: 32" in text


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Nearest: task\.serve\.threads"):
        compose("train", ["task=lm", "task.serve.thread=2"])
    cfg = compose("train", ["task=lm", "task.serve.threads=many"])
    with pytest.raises(ConfigError, match=r"task\.serve: Value 'many'.* Known keys: model, inst"):
        serve_config(LmServe, cfg)
