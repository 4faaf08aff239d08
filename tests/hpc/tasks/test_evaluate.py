"""Metrics: exact, and the same number on both sides of the lock."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hpc.tasks.metrics import (
    BY_NAME,
    binary_metrics,
    multiclass_metrics,
    regression_metrics,
)
from hpc.tasks.text.data import read_tokens
from serving.runtime.text_model import TextModel
from tests.hpc.tasks.conftest import Exported


def test_binary_metrics_of_scores_with_ties() -> None:
    found = binary_metrics(np.array([0.2, 0.5, 0.5, 0.8]), np.array([0, 0, 1, 1]))
    assert found["auc"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    logs = [0.8, 0.5, 0.5, 0.8]
    assert found["log_loss"] == pytest.approx(-np.mean(np.log(logs)))
    assert (found["base_rate"], found["base_log_loss"]) == (0.5, pytest.approx(math.log(2)))
    certain = binary_metrics(np.array([0.0, 1.0]), np.array([1, 0]))
    assert certain["log_loss"] == pytest.approx(-math.log(1e-7))  # wrong and sure of it
    with pytest.raises(ValueError, match="every target of the split is 1"):
        binary_metrics(np.ones(500), np.ones(500))


def test_multiclass_and_regression_metrics() -> None:
    chances = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1]])
    found = multiclass_metrics(chances, np.array([0, 1, 1]))
    assert found["accuracy"] == found["base_accuracy"] == pytest.approx(2 / 3)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.7, 0.6, 0.4])))
    found = regression_metrics(np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0]))
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 3)) and found["mae"] == pytest.approx(1.0)
    assert found["base_rmse"] == pytest.approx(math.sqrt(2 / 3))
    assert BY_NAME["f1"](chances, np.array([0, 1, 1])) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_every_kind_measures_its_package_as_it_measures_the_model(exported: Exported) -> None:
    metrics = json.loads((exported.candidate / "candidate.json").read_text())["metrics"]
    evaluated = exported.config.task.evaluate(exported.model, exported.dataset.path)
    assert evaluated == pytest.approx(metrics, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "metric", "base"),
    [
        ("wine", "accuracy", "base_accuracy"),
        ("phrases", "accuracy", "base_accuracy"),
        ("diabetes", "base_rmse", "rmse"),
    ],
)
def test_a_few_steps_learn_something(
    name: str, metric: str, base: str, request: pytest.FixtureRequest
) -> None:
    candidate = request.getfixturevalue(f"{name}_exported").candidate
    metrics = json.loads((candidate / "candidate.json").read_text())["metrics"]
    assert metrics[metric] > metrics[base]


def test_the_package_scores_text_as_training_does(lm_exported: Exported) -> None:
    """`evaluate` in torch and `nats` through ONNX, over many windows, in bits per byte."""
    metrics = json.loads((lm_exported.candidate / "candidate.json").read_text())["metrics"]
    dataset = lm_exported.dataset.path
    evaluated = lm_exported.config.task.evaluate(lm_exported.model, dataset)
    assert evaluated == pytest.approx(metrics, rel=1e-4)
    served = TextModel.load(lm_exported.version)
    tokens = read_tokens(dataset, "validation")[:1500].tolist()
    text_bytes = len(served.tokenizer.decode(tokens).encode())
    bits = served.nats(tokens) / math.log(2) / text_bytes
    assert metrics["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert metrics["bits_per_byte"] < 4.5  # from about 5.5 before any step


def test_evaluate_puts_the_mode_back(exported: Exported) -> None:
    model = exported.model.train()
    exported.config.task.evaluate(model, exported.dataset.path)
    assert model.training
    model.eval()
    exported.config.task.evaluate(model, exported.dataset.path)
    assert not model.training
