"""A run folder with a small text dataset of drawn tokens, as `lockgate train` leaves it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from omegaconf import OmegaConf

from conf import compose
from conf.schema import TARGET
from conf.tree import option_files
from hpc.data.lineage import FILE, DatasetLineage
from hpc.jobs.spec.job_spec import Environment, JobSpec, Source
from hpc.tasks.text import TextTask
from serving.artifact.lineage import DatasetRef

VOCABULARY = 1024
TOKENS = 400_000
SETTINGS = (
    "optim=adamw", "gradient_clipping=1.0", "precision=fp32",
    "model.width=256", "model.layers=4", "model.heads=4", "model.hidden=768", "model.context=256",
    "micro_batch_size=4", "log_interval=10", "eval_interval=0", "checkpoint_interval=0",
    "task.eval_tokens=0", "site.mlflow_uri=http://127.0.0.1:9",
)  # fmt: skip
"""3.4 million weights, 1,024 tokens a step; nobody listens where MLflow would."""


def toy_run(folder: Path, steps: int, *overrides: str) -> Path:
    """A new run folder in `folder`, of `steps` steps."""
    dataset = _dataset(folder / "toytext")
    task = text_task()
    config = compose("train", [f"task={task}", *SETTINGS, f"steps={steps}", *overrides])
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)  # a config is a mapping at its top
    spec = JobSpec(
        task=task,
        plain={str(key): value for key, value in plain.items()},
        source=Source("0" * 64, None, False),
        project=None,
        dataset=DatasetRef("toytext", "0" * 64, str(dataset)),
        environment=Environment("", ""),
    )
    run = folder / "run"
    run.mkdir()
    spec.write(run / "spec.yaml")
    return run


def text_task() -> str:
    """The first task of the repository that learns a text."""
    kind = f"{TextTask.__module__.rpartition('.')[0]}.{TextTask.__name__}"
    found = (
        name
        for name, path in sorted(option_files("task").items())
        if yaml.safe_load(path.read_text())["task"][TARGET] == kind
    )
    return next(found)


def _dataset(folder: Path) -> Path:
    folder.mkdir()
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, TOKENS).astype("<u2")
    sizes = {}
    for name, part in (("train", tokens[: -TOKENS // 4]), ("validation", tokens[-TOKENS // 4 :])):
        part.tofile(folder / f"{name}.bin")
        sizes[name] = {
            "file": f"{name}.bin", "tokens": len(part), "bytes": 3 * len(part), "sha256": "",
        }  # fmt: skip
    transform = {"kind": "text", "vocab_size": VOCABULARY, "end_id": 0}
    (folder / "transform.json").write_text(json.dumps(transform))
    lineage = DatasetLineage("toytext", "0" * 64, {}, {}, "", sizes, {}, "", "")
    (folder / FILE).write_text(json.dumps(lineage.as_dict()))
    return folder
