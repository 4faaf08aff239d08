"""Small prepared datasets, and candidates exported from barely trained models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from conf import compose
from hpc import tasks
from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.jobs.spec import Environment, JobSpec, Source
from serving.artifact.lineage import DatasetRef
from tests.datasets import (
    flights_config,
    quiet,
    webster_config,
    write_flights_source,
    write_webster_source,
)

TINY_LM = [
    "task=lm",
    "model.context=32",
    "model.width=32",
    "model.layers=2",
    "model.heads=2",
    "model.hidden=64",
    "micro_batch_size=4",
    "task.eval_tokens=1500",
]
FLIGHTS = ["task=flights", "micro_batch_size=64"]


@dataclass(frozen=True)
class Exported:
    """A candidate folder, and the torch model that it was made of."""

    candidate: Path
    model: torch.nn.Module
    cfg: DictConfig
    spec: JobSpec

    @property
    def version(self) -> Path:
        return self.candidate / "version"


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Published:
    source = write_flights_source(tmp_path_factory.mktemp("source") / "flights")
    return prepare(flights_config(source), tmp_path_factory.mktemp("data"), quiet)


@pytest.fixture(scope="session")
def webster(tmp_path_factory: pytest.TempPathFactory) -> Published:
    source = write_webster_source(tmp_path_factory.mktemp("source") / "gcide.dict.dz")
    return prepare(webster_config(source), tmp_path_factory.mktemp("data"), quiet)


@pytest.fixture(scope="session")
def spec_of() -> Callable[[DictConfig, Published], JobSpec]:
    def spec(cfg: DictConfig, dataset: Published) -> JobSpec:
        reference = DatasetRef(dataset.name, dataset.lineage.digest, str(dataset.path))
        source, environment = Source("a" * 64, None, False), Environment("3.11", "b" * 64)
        return JobSpec(str(cfg.task.name), cfg, source, reference, environment)

    return spec


@pytest.fixture(scope="session")
def flights_exported(flights: Published, spec_of, tmp_path_factory) -> Exported:
    return _trained_and_exported("flights", FLIGHTS, flights, spec_of, tmp_path_factory, 40)


@pytest.fixture(scope="session")
def lm_exported(webster: Published, spec_of, tmp_path_factory) -> Exported:
    return _trained_and_exported("lm", TINY_LM, webster, spec_of, tmp_path_factory, 40)


def _trained_and_exported(
    name: str, overrides: list[str], dataset: Published, spec_of, tmp_path_factory, steps: int
) -> Exported:
    cfg = compose("train", overrides)
    task = tasks.load(name)
    torch.manual_seed(0)
    model = task.model(cfg, dataset.path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batches = task.batches(cfg, dataset.path, "train", 0, 1, 0, 0)
    for _ in range(steps):
        optimizer.zero_grad()
        task.loss(model, next(batches)).backward()
        optimizer.step()
    out_dir = tmp_path_factory.mktemp("runs") / f"{name}-run" / "candidate"
    spec = spec_of(cfg, dataset)
    return Exported(task.export(model, cfg, spec, out_dir), model, cfg, spec)
