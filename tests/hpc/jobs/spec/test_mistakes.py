"""Likely mistakes in a training config: each is refused at submit, by key, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf import ConfigError, compose
from hpc.jobs.backend import find_backend
from hpc.jobs.spec.config import cluster_config
from hpc.jobs.spec.submit_checks import check_fit, check_settings
from tests.hpc.jobs.standin import publish_toy

REPO = Path(__file__).resolve().parents[4]
FLIGHTS, LM = "task=flights", "task=lm"
MUON = "optim=muon"
OWN = [
    # the optimizer and its schedule
    ([FLIGHTS, "optim.lr=fast"], "optim.lr is 'fast', not of type float"),
    ([FLIGHTS, "optim.lr=0"], "optim.lr=0.0: must be above 0"),
    ([FLIGHTS, "optim.lr=-1e-3"], "optim.lr=-0.001: must be above 0"),
    ([FLIGHTS, "optim.betas=[0.9]"], "optim.betas is [0.9], not a list of 2"),
    ([FLIGHTS, "optim.betas=[0.9,1.5]"], "optim.betas=[0.9, 1.5]: each must be from 0 to below 1"),
    ([FLIGHTS, "optim.weight_decay=-1"], "optim.weight_decay=-1.0: must be 0 or more"),
    ([FLIGHTS, "+optim.momentm=0.9"], "optim.momentm is unknown here"),
    ([FLIGHTS, "optim.schedule.kind=cosin"], "optim.schedule.kind=cosin: choose one of constant"),
    ([FLIGHTS, "optim.schedule.warmup_steps=-5"], "optim.schedule.warmup_steps=-5: must be 0 or"),
    ([FLIGHTS, "optim.schedule.final=2"], "optim.schedule.final=2.0: a share, 0 to 1"),
    ([FLIGHTS, "~optim.schedule"], "optim.schedule is missing"),
    ([FLIGHTS, "~optim.eps"], "optim.eps is missing"),
    ([FLIGHTS, "optim._target_=hpc.optim.optimizers.AdamV"], "Nearest: AdamW"),
    ([FLIGHTS, "optim._target_=hpc.models.tabular_mlp.TabularMLPConfig"], "optim."),
    ([LM, "optim.momentum=1.0"], "optim.momentum=1.0: must be from 0 to below 1"),
    ([LM, "gradient_clipping=1.0"], "gradient_clipping=1.0 with optim=muon"),
    ([FLIGHTS, MUON], "gradient_clipping=1.0 with optim=muon"),
    ([LM, MUON, "gradient_clipping=0.5", "zero_stage=3"], "Set gradient_clipping=0"),
    # the model
    ([FLIGHTS, "model.dropout=1.5"], "model.dropout=1.5: must be from 0 to below 1"),
    ([FLIGHTS, "model.hidden=[]"], "model.hidden=[]: needs at least one layer"),
    ([FLIGHTS, "model.hidden=[64,0]"], "model.hidden=[64, 0]: needs"),
    ([FLIGHTS, "model.hidden=64"], "model.hidden is 64, not a list"),
    ([FLIGHTS, "model.embedding=wide"], "model.embedding is 'wide', not of type int"),
    ([FLIGHTS, "+model.hiden=[3]"], "model.hiden is unknown here. Nearest: hidden"),
    ([FLIGHTS, "model=webster-small"], "Fitting: model=tabular-mlp"),
    ([LM, "model=tabular-mlp", "task.context=8"], "model=webster-medium, model=webster-small"),
    ([LM, "model.width=100", "model.heads=3"], "model.width=100 with heads=3"),
    ([LM, "model.kv_heads=3"], "model.kv_heads=3: must divide heads=4"),
    ([LM, "model.layers=0"], "model.layers=0: must be at least 1"),
    ([LM, "+model.kv_head=2"], "model.kv_head is unknown here. Nearest: kv_heads"),
    ([FLIGHTS, "model._target_=hpc.models.tabular_mpl.TabularMLPConfig"], "tabular_mlp"),
    ([FLIGHTS, "model._target_=hpc.tasks.serve.Serve"], "model."),
    ([FLIGHTS, "~model"], "model: nothing was chosen"),
    ([FLIGHTS, "~steps"], "steps is missing"),
    # the task and how it is served
    ([FLIGHTS, "+task.serve.foo=1"], "task.serve.foo is unknown here"),
    ([FLIGHTS, "task.serve.threads=0"], "task.serve.threads=0: must be at least 1"),
    ([FLIGHTS, "task.serve.max_batch_size=many"], "task.serve.max_batch_size is 'many'"),
    ([FLIGHTS, "task.serve.queue_delay_us=0"], "task.serve.queue_delay_us=0: must be at least 1"),
    ([FLIGHTS, "task.serve.model='a b'"], "task.serve.model='a b'"),
    ([LM, "task.serve.max_new_tokens=-1"], "task.serve.max_new_tokens=-1: must be 0 or more"),
    ([LM, "task.context=0"], "task.context=0: must be at least 1"),
    ([LM, "task.eval_tokens=all"], "task.eval_tokens is 'all', not of type int"),
    ([FLIGHTS, "task._target_=hpc.tasks.tabluar.TabularTask"], "Nearest: tabular"),
    ([FLIGHTS, "task._target_=hpc.tasks.serve.BatchedServe"], "task."),
    ([FLIGHTS, "~task._target_"], "task: nothing was chosen that has a _target_"),
    # the run and the cluster
    ([FLIGHTS, "steps=1.5"], "steps is 1.5, not of type int"),
    ([FLIGHTS, "+stepz=3"], "stepz: there is no such key in train. Nearest: steps"),
    ([FLIGHTS, "precision=fp8"], "precision=fp8: choose one of auto, fp32, bf16"),
    ([FLIGHTS, "gradient_clipping=none"], "gradient_clipping is 'none', not of type float"),
    ([FLIGHTS, "cluster.kind=cloud"], "cluster.kind=cloud: Valid: local, slurm"),
    ([FLIGHTS, "cluster.mem_gb=0"], "cluster.mem_gb=0.0: must be above 0"),
    ([FLIGHTS, "cluster.pass_environment=HOME"], "cluster.pass_environment is 'HOME', not a list"),
]


@pytest.mark.parametrize(("overrides", "words"), OWN, ids=lambda value: str(value)[:60])
def test_a_mistake_is_refused_by_key(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config = compose("train", overrides)
        find_backend(cluster_config(config).kind)
        check_settings(config)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_dataset_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transform.json").write_text(json.dumps({"kind": "text", "vocab_size": 9}))
    config = compose("train", [FLIGHTS])
    with pytest.raises(ConfigError, match="a dataset of kind 'text', and TabularTask takes"):
        check_fit(config, check_settings(config), tmp_path)
    config = compose("train", [LM, "+model.vocabulary=10"])
    with pytest.raises(ConfigError, match=r"model\.vocabulary=10: the dataset's tokenizer has 9"):
        check_fit(config, check_settings(config), tmp_path)


def test_what_fits_is_built_once_for_trials_that_differ_elsewhere(tmp_path, monkeypatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(
        "hpc.jobs.spec.submit_checks._check_in_child", lambda *_: built.append("once")
    )
    passed: set[str] = set()
    for words in (
        ["seed=1"],
        ["seed=2"],
        ["cluster.nodes=1"],
        ["optim.lr=1e-4"],
        ["optim.lr=1e-4"],
    ):
        check_fit(compose("train", [FLIGHTS, *words]), None, tmp_path, passed=passed)
    assert len(built) == 2  # the optimizer was another one
    check_fit(compose("train", [FLIGHTS]), None, tmp_path)
    assert len(built) == 3


COMMAND = """
import sys
from hpc.cli.main import main
code = main(sys.argv[1:])
heavy = {"torch", "deepspeed", "transformers"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


def command(site: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`lockgate WORDS` in a process of its own that must not import torch."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "LOCKGATE_SITE": str(site), **variables}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words], env=environment, cwd=REPO, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lr=fast", "lockgate: optim.lr is 'fast', not of type float"),
        ("model=webster-small", "this model is built of vocabulary, and a flights task gives"),
        ("seed=7", None),
    ],
)
def test_the_command_refuses_with_code_2_and_never_imports_torch(
    override: str, words: str | None, tmp_path: Path
) -> None:
    publish_toy(tmp_path)
    done = command(tmp_path, "train", FLIGHTS, "task.dataset=toy", override, "--dry-run")
    assert done.returncode == (2 if words else 0), done.stderr
    if words:
        assert words in done.stderr and len(done.stderr.splitlines()) == 1
        assert not done.stdout
