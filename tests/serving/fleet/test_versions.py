"""Model configs: the versions in them, and which stay ready beside a new one."""

from __future__ import annotations

import json

import pytest

from serving.fleet.rollout.rollout_plan import served_set
from serving.triton import model_config

CONFIG = 'name: "toy" backend: "python" input { name: "x" data_type: TYPE_FP32 dims: 1 }'


def test_a_config_says_its_versions_and_says_them_in_full():
    text = model_config.with_versions(model_config.with_versions(CONFIG, (1,)), (3, 2))
    assert model_config.versions_in(text) == (2, 3)
    sent = json.loads(model_config.config_json(text))
    assert sent["version_policy"] == {"specific": {"versions": ["2", "3"]}}
    assert sent["backend"] == "python" and sent["input"][0]["data_type"] == "TYPE_FP32"
    with pytest.raises(model_config.ModelConfigError, match="not a Triton model config"):
        model_config.with_versions("nonsense: 1", (1,))


def test_configs_with_other_tensors_cannot_be_loaded_together():
    assert model_config.same_interface(CONFIG, CONFIG + " max_batch_size: 4")
    assert not model_config.same_interface(CONFIG, CONFIG.replace("FP32", "FP64"))


@pytest.mark.parametrize(
    ("target", "before", "keep", "served"),
    [
        (1, (), True, (1,)),
        (2, (1,), True, (1, 2)),
        (3, (1, 2), True, (2, 3)),
        (2, (2, 3), True, (2,)),  # a way back never leaves a higher one to be the default
        (2, (1, 2, 3), True, (1, 2)),
        (2, (1,), False, (2,)),
    ],
)
def test_the_versions_that_are_kept_ready(target, before, keep, served):
    assert served_set(target, before, keep) == served
