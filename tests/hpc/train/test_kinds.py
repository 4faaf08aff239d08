"""Anybody's module and a Hugging Face model through the real loop: two ranks, DeepSpeed, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from hpc.data.publish import Published
from hpc.jobs.spec.job_spec import Environment, JobSpec, Source
from hpc.train import metrics_log
from serving.artifact import golden
from serving.artifact.candidate import read_candidate
from serving.artifact.lineage import DatasetRef
from serving.runtime.package import open_model
from tests.hpc.tasks.conftest import digits, digits_config, phrases, phrases_config

__all__ = ["digits", "phrases"]  # fixtures
pytestmark = pytest.mark.slow

SMALL = {
    "steps": 12, "micro_batch_size": 16, "log_interval": 1, "eval_interval": 6,
    "checkpoint_interval": 6,
}  # fmt: skip
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}


def new_run(folder: Path, config: DictConfig, dataset: Published) -> Path:
    """A run folder with its spec, as `lockgate train` leaves it."""
    config.update(SMALL)
    config.site.mlflow_uri = "http://127.0.0.1:9"  # nobody listens there
    plain = OmegaConf.to_container(config, resolve=True)
    spec = JobSpec(
        task=config.task.name,
        plain=plain,
        source=Source("0" * 64, None, False),
        project=None,
        dataset=DatasetRef(dataset.name, dataset.lineage.digest, str(dataset.path)),
        environment=Environment("", ""),
    )
    folder.mkdir()
    spec.write(folder / "spec.yaml")
    return folder


def check_finished(run: Path, log: str) -> dict[str, float]:
    """The candidate answers its golden examples; returns its metrics."""
    assert "outcome: finished" in log, log
    losses = [
        line["loss"] for line in metrics_log.read_metrics(run / "metrics.jsonl") if "loss" in line
    ]
    assert len(losses) == 12 and losses[-1] < losses[0]
    model = open_model(run / "candidate" / "version")
    for example in golden.read_examples(run / "candidate"):
        assert golden.differences(example, model(example.inputs)) == []
    return read_candidate(run / "candidate").metrics


@pytest.mark.parametrize(
    ("precision", "zero_stage"),
    [("fp32", 3), ("bf16", 1), pytest.param("auto", 2, marks=pytest.mark.full)],
)
def test_a_convolution_with_torchs_sgd(
    tmp_path: Path, digits: Published, attempt: Callable, precision: str, zero_stage: int
) -> None:
    config = digits_config(precision=precision, zero_stage=zero_stage)
    config.model.norm = precision != "bf16"
    config.optim = {**SGD, "schedule": OmegaConf.to_container(config.optim.schedule)}
    run = new_run(tmp_path / "digits", config, digits)
    ended = attempt(run)
    assert ended.codes == [0, 0], ended.log
    assert check_finished(run, ended.log)["accuracy"] > 0.3
    assert "rows/s" in ended.log


def test_a_hugging_face_classifier(tmp_path: Path, phrases: Published, attempt: Callable) -> None:
    run = new_run(tmp_path / "phrases", phrases_config(), phrases)
    ended = attempt(run)
    assert ended.codes == [0, 0], ended.log
    assert set(check_finished(run, ended.log)) == {"accuracy", "log_loss", "base_accuracy"}
