"""Small prepared datasets of every kind, and candidates exported from barely trained models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from conf import compose
from hpc.data.command import make_dataset
from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.jobs.spec.config import TrainConfig, train_config
from hpc.tasks.micro_batches import MicroBatches
from serving.artifact.lineage import DatasetRef, Lineage
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
FRACTIONS = {"train": 0.7, "validation": 0.15, "holdout": 0.15}
KINDS = ("flights", "lm", "wine", "diabetes", "digits", "phrases")
"""A binary, a text, a multi-class, a regression, a module and a transformers task."""


@dataclass(frozen=True)
class Exported:
    """A candidate folder, and what it was made of and with."""

    candidate: Path
    model: torch.nn.Module
    config: TrainConfig
    dataset: Published
    lineage: Lineage

    @property
    def version(self) -> Path:
        return self.candidate / "version"

    def export(self, out_dir: Path) -> Path:
        """The same model exported again."""
        return self.config.task.export(self.model, self.dataset.path, self.lineage, out_dir)


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Published:
    source = write_flights_source(tmp_path_factory.mktemp("source") / "flights")
    return prepare(flights_config(source), tmp_path_factory.mktemp("data"), quiet)


@pytest.fixture(scope="session")
def webster(tmp_path_factory: pytest.TempPathFactory) -> Published:
    source = write_webster_source(tmp_path_factory.mktemp("source") / "gcide.dict.dz")
    return prepare(webster_config(source), tmp_path_factory.mktemp("data"), quiet)


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """scikit-learn's wines: 13 numbers, no category, three classes."""
    from sklearn.datasets import load_wine

    frame = load_wine(as_frame=True).frame
    names = [name.partition("/")[0] for name in frame.columns]
    frame.columns = names
    frame["target"] = [f"cultivar {one}" for one in frame["target"]]
    features = [{"name": name, "kind": "number"} for name in names[:-1]]
    return _tabular(frame, "wine", features, "multiclass", tmp_path_factory)


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """scikit-learn's diabetes progression, a regression: nine numbers and the sex, a category."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame["sex"] = [f"s{one:.0f}" for one in frame["sex"]]
    features = [
        {"name": name, "kind": "category" if name == "sex" else "number"}
        for name in frame.columns[:-1]
    ]
    return _tabular(frame, "diabetes", features, "regression", tmp_path_factory)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Published:
    dataset = make_dataset(
        {
            "_target_": "hpc.data.arrays.ArraysDataset",
            "name": "digits",
            "examples": {"_target_": "tests.hpc.tasks.foreign.Digits"},
            "inputs": ["image"],
            "targets": ["digit"],
            "split": {"fractions": FRACTIONS},
        }
    )
    return prepare(dataset, tmp_path_factory.mktemp("data"), quiet)


@pytest.fixture(scope="session")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Texts that say hot or cold."""
    folder = tmp_path_factory.mktemp("source")
    things = ("soup", "tea", "the river", "my hand", "this road", "her answer", "a star", "iron")
    words = {"warm": ("hot", "boiling", "burning"), "cold": ("icy", "frozen", "chilly")}
    rows = [
        f"{thing} {verb} {word} number {count},{label}"
        for label, choices in words.items()
        for word in choices
        for thing in things
        for verb in ("is", "was")
        for count in range(3)
    ]
    (folder / "phrases.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    dataset = make_dataset(
        {
            "_target_": "hpc.data.labelled_text.LabelledTextDataset",
            "name": "phrases",
            "source": {"files": {"rows": "phrases.csv"}, "folder": str(folder)},
            "text": "text",
            "label": "label",
            "max_tokens": 16,
            "vocab_size": 300,
            "split": {"fractions": FRACTIONS},
        }
    )
    return prepare(dataset, tmp_path_factory.mktemp("data"), quiet)


@pytest.fixture(scope="session")
def flights_exported(flights: Published, tmp_path_factory) -> Exported:
    return trained(compose("train", FLIGHTS), flights, tmp_path_factory)


@pytest.fixture(scope="session")
def lm_exported(webster: Published, tmp_path_factory) -> Exported:
    return trained(compose("train", TINY_LM), webster, tmp_path_factory)


@pytest.fixture(scope="session")
def wine_exported(wine: Published, tmp_path_factory) -> Exported:
    return trained(table_config("wine", {}), wine, tmp_path_factory)


@pytest.fixture(scope="session")
def diabetes_exported(diabetes: Published, tmp_path_factory) -> Exported:
    return trained(table_config("diabetes", {}), diabetes, tmp_path_factory)


@pytest.fixture(scope="session")
def digits_exported(digits: Published, tmp_path_factory) -> Exported:
    return trained(digits_config(), digits, tmp_path_factory)


@pytest.fixture(scope="session")
def phrases_exported(phrases: Published, tmp_path_factory) -> Exported:
    return trained(phrases_config(), phrases, tmp_path_factory)


@pytest.fixture(params=KINDS)
def exported(request: pytest.FixtureRequest) -> Exported:
    return request.getfixturevalue(f"{request.param}_exported")


def table_config(name: str, changes: dict[str, Any]) -> DictConfig:
    """A training config of the tabular kind for the dataset `name`."""
    config = own_config(["task=flights", "micro_batch_size=32"], {})
    config.task.update({"name": name, "dataset": name, "serve": {"model": name}, **changes})
    return config


def digits_config(**changes: Any) -> DictConfig:
    """A training config of the module kind; its model is `tests.hpc.tasks.foreign.ConvNet`."""
    task = {
        "_target_": "hpc.tasks.module.ModuleTask",
        "name": "digits",
        "dataset": "digits",
        "criterion": {"_target_": "torch.nn.CrossEntropyLoss"},
        "outputs": ["logits"],
        "metrics": ["accuracy", "f1"],
        "serve": {"model": "digits", "max_batch_size": 128},
    }
    model = {"_target_": "tests.hpc.tasks.foreign.ConvNet", "channels": 8}
    return own_config(
        ["task=flights", "micro_batch_size=32"], {"task": task, "model": model, **changes}
    )


def phrases_config(**changes: Any) -> DictConfig:
    """A training config of the transformers kind."""
    task = {
        "_target_": "hpc.tasks.transformers.TransformersTask",
        "name": "phrases",
        "dataset": "phrases",
        "serve": {"model": "phrases", "max_batch_size": 16},
    }
    config = own_config(["task=flights", "model=bert-tiny", "micro_batch_size=16"], {"task": task})
    small = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 32}
    config.model.config.update(small)
    config.update(changes)
    return config


def own_config(overrides: Sequence[str], parts: dict[str, Any]) -> DictConfig:
    """A composed training config with whole parts replaced, as a project's YAML would do."""
    config = compose("train", overrides)
    OmegaConf.set_struct(config, False)
    for key, value in parts.items():
        config[key] = value
    return config


def trained(config: DictConfig, dataset: Published, tmp_path_factory, steps: int = 40) -> Exported:
    """A model after a few steps, and its candidate."""
    made = train_config(config)
    made.task.check(made.model, dataset.path)
    torch.manual_seed(0)
    model = made.task.build_model(made.model, dataset.path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batches = made.task.batches(
        dataset.path, "train", MicroBatches(made.run.micro_batch_size, 0, 1, 0)
    )
    for _ in range(steps):
        optimizer.zero_grad()
        made.task.loss(model, next(batches)).backward()
        optimizer.step()
    out_dir = tmp_path_factory.mktemp("runs") / f"{made.task.name}-run" / "candidate"
    reference = DatasetRef(dataset.name, dataset.lineage.digest, str(dataset.path))
    lineage = Lineage(out_dir.parent.name, "a" * 64, "b" * 64, reference)
    candidate = made.task.export(model, dataset.path, lineage, out_dir)
    return Exported(candidate, model, made, dataset, lineage)


def _tabular(frame: Any, name: str, features: list, kind: str, tmp_path_factory) -> Published:
    folder = tmp_path_factory.mktemp("source")
    frame.to_csv(folder / f"{name}.csv", index=False)
    dataset = make_dataset(
        {
            "_target_": "hpc.data.tabular.TabularDataset",
            "name": name,
            "source": {"files": {name: f"{name}.csv"}, "folder": str(folder)},
            "features": features,
            "target": {"name": "target", "kind": kind},
            "split": {"fractions": FRACTIONS},
        }
    )
    return prepare(dataset, tmp_path_factory.mktemp("data"), quiet)
