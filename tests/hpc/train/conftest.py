"""A tiny text dataset, a spec for it, and real training on two ranks with gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from conf import compose
from hpc.data.lineage import FILE, DatasetLineage
from hpc.jobs.spec.job_spec import Environment, JobSpec, Source
from serving.artifact.lineage import DatasetRef

REPO = Path(__file__).resolve().parents[3]
VOCABULARY = 48
TINY = [
    "task=lm",
    "model.width=32",
    "model.layers=2",
    "model.heads=2",
    "model.hidden=64",
    "model.context=16",
    "steps=8",
    "micro_batch_size=2",
    "log_interval=1",
    "eval_interval=4",
    "checkpoint_interval=4",
    "task.eval_tokens=0",
    "site.mlflow_uri=http://127.0.0.1:9",  # nobody listens there
]


@dataclass(frozen=True)
class Ended:
    """How the ranks of one attempt ended: exit codes and what they printed, rank 0 first."""

    codes: list[int]
    log: str


@pytest.fixture(scope="session")
def text_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 tokens with a pattern in them."""
    folder = tmp_path_factory.mktemp("data") / "toytext"
    folder.mkdir()
    draw = np.random.default_rng(0)
    tokens = ((np.arange(4000) * 7 + draw.integers(0, 3, 4000)) % VOCABULARY).astype("<u2")
    splits = {"train": tokens[:3000], "validation": tokens[3000:]}
    for name, part in splits.items():
        part.tofile(folder / f"{name}.bin")
    (folder / "transform.json").write_text(
        json.dumps({"kind": "text", "vocab_size": VOCABULARY, "end_id": 0})
    )
    sizes = {
        name: {"file": f"{name}.bin", "tokens": len(part), "bytes": 3 * len(part), "sha256": ""}
        for name, part in splits.items()
    }
    lineage = DatasetLineage("toytext", "0" * 64, {}, {}, "", sizes, {}, "", "")
    (folder / FILE).write_text(json.dumps(lineage.as_dict()))
    return folder


@pytest.fixture
def new_run(tmp_path: Path, text_dataset: Path) -> Callable[..., Path]:
    """new_run(name, *overrides): a run folder with its spec, as `lockgate train` leaves it."""
    return run_maker(tmp_path, text_dataset)


@pytest.fixture(scope="module")
def new_runs(tmp_path_factory: pytest.TempPathFactory, text_dataset: Path) -> Callable[..., Path]:
    """The same for runs that the tests of a module share."""
    return run_maker(tmp_path_factory.mktemp("runs"), text_dataset)


def run_maker(tmp_path: Path, text_dataset: Path) -> Callable[..., Path]:
    def make(name: str, *overrides: str) -> Path:
        config = OmegaConf.to_container(compose("train", [*TINY, *overrides]), resolve=True)
        spec = JobSpec(
            task="lm",
            plain=config,
            source=Source("0" * 64, None, False),
            project=None,
            dataset=DatasetRef("toytext", "0" * 64, str(text_dataset)),
            environment=Environment("", ""),
        )
        folder = tmp_path / name
        folder.mkdir()
        spec.write(folder / "spec.yaml")
        return folder

    return make


@pytest.fixture
def attempt() -> Callable[..., Ended]:
    """attempt(run, *arguments of rank 0, then of rank 1): one attempt of its ranks, to its end."""

    def start(
        run: Path,
        first: Sequence[str] = (),
        second: Sequence[str] = (),
        ranks: int = 2,
        program: str = "rank.py",
    ) -> Ended:
        words = [[str(run), *arguments] for arguments in (first, second)[:ranks]]
        return run_ranks(program, words)

    return start


@pytest.fixture(scope="module")
def attempt_of() -> Callable[..., Ended]:
    """attempt_of(program, *arguments): both ranks of another program of this folder."""
    return lambda program, *arguments: run_ranks(program, [list(arguments)] * 2)


def run_ranks(program: str, arguments: Sequence[Sequence[str]]) -> Ended:
    """A process for each list of arguments, rank 0 first, to its end."""
    port = _free_port()
    started = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(program)), *words],
            env={
                **os.environ,
                "PYTHONPATH": str(REPO),
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(len(arguments)),
                "LOCAL_WORLD_SIZE": str(len(arguments)),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, words in enumerate(arguments)
    ]
    logs = [rank.communicate(timeout=240)[0] for rank in started]
    return Ended([rank.returncode for rank in started], "".join(logs))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
