"""Serving limits that an export may correct, and the answer to every other key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf import ConfigError, compose
from conf.errors import MISTAKE
from hpc.jobs.candidate import serving_limits
from hpc.train.manifest import seal_checkpoint
from tests.hpc.jobs.spec.test_job_spec import spec_of

SERVE = {"model": "flights", "threads": 1, "max_batch_size": 1024}


def test_limits_are_taken_by_key() -> None:
    spec = spec_of({"task": {"serve": SERVE}})
    assert serving_limits(spec, ["task.serve.max_batch_size=64", "task.serve.threads=2"]) == {
        "task.serve.max_batch_size": 64,
        "task.serve.threads": 2,
    }
    assert serving_limits(spec, []) == {}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("serve.threads=2", "Nearest: task.serve.threads"),
        ("steps=9", "only the limits of its serving may be corrected"),
        ("task.serve.model=other", "the name under which the model is registered"),
        ("task.serve.threads=1,2", "one value"),
    ],
)
def test_other_keys_are_refused_by_name(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"serve|steps") as refused:
        serving_limits(spec_of({"task": {"serve": SERVE}}), [override])
    assert words in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"task.serve.max_batch_size": 0}, "max_batch_size=0: must be at least 1"),
        ({"task.serve.max_batch": 64}, "task.serve.max_batch"),
    ],
)
def test_a_limit_that_is_none_is_refused_before_anything_is_exported(
    tmp_path: Path, limits: dict, words: str
) -> None:
    composed = compose("train", ["task=flights", "steps=1", "cluster=local"])
    spec = spec_of(OmegaConf.to_container(composed, resolve=True))
    spec.write(tmp_path / "spec.yaml")
    checkpoint = tmp_path / "checkpoints" / "00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"none")
    seal_checkpoint(checkpoint, 1, 1, spec.digest)
    command = [sys.executable, "-m", "hpc.train.export_again", str(tmp_path / "spec.yaml")]
    done = subprocess.run(
        [*command, spec.digest, json.dumps(limits)], capture_output=True, text=True, check=False
    )
    assert done.returncode == MISTAKE, done.stderr
    assert words in done.stderr
    assert not (tmp_path / "candidate").exists()
