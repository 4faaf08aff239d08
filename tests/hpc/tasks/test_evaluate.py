"""Metrics: exact, and the same number on both sides of the lock."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from hpc import tasks
from hpc.data.publish import Published
from hpc.tasks.flights.evaluate import auc, log_loss
from hpc.tasks.lm.data import read
from serving.runtime.lm_model import LmModel
from tests.hpc.tasks.conftest import Exported


@pytest.mark.parametrize("decimals", [1, 8])
def test_auc_and_log_loss_are_sklearns(decimals: int) -> None:
    draw = np.random.default_rng(decimals)
    late = draw.integers(0, 2, 500)
    chances = np.clip(late * 0.2 + draw.uniform(0.1, 0.7, 500), 0, 1).round(decimals)  # with ties
    assert auc(chances, late) == pytest.approx(roc_auc_score(late, chances), abs=1e-12)
    inside = np.clip(chances, 0.01, 0.99)
    assert log_loss(inside, late) == pytest.approx(sklearn_log_loss(late, inside), abs=1e-9)
    with pytest.raises(ValueError, match="both late and punctual"):
        auc(chances, np.ones(500))


def test_the_package_scores_text_as_training_does(
    lm_exported: Exported, webster: Published
) -> None:
    """`evaluate` in torch and `nats` through ONNX, over many windows, in bits per byte."""
    metrics = json.loads((lm_exported.candidate / "candidate.json").read_text())["metrics"]
    evaluated = tasks.load("lm").evaluate(lm_exported.model, lm_exported.cfg, webster.path)
    assert evaluated == pytest.approx(metrics, rel=1e-4)
    served = LmModel.load(lm_exported.version)
    tokens = read(webster.path, "validation")[:1500].tolist()
    text_bytes = len(served.tokenizer.decode(tokens).encode())
    bits = served.nats(tokens) / math.log(2) / text_bytes
    assert metrics["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert metrics["bits_per_byte"] < 4.5  # from about 5.5 before any step


def test_evaluate_puts_the_mode_back(flights_exported: Exported, flights: Published) -> None:
    model = flights_exported.model.train()
    metrics = tasks.load("flights").evaluate(model, flights_exported.cfg, flights.path)
    assert model.training
    assert 0 < metrics["auc"] < 1 and 0 < metrics["base_rate"] < 1
