"""Settings that a run which goes on may change, and the answer to every other one."""

from __future__ import annotations

import pytest

from conf import ConfigError
from hpc.jobs.errors import UsageError
from hpc.jobs.spec.changes import RefusedChange, changed_settings, differences, may_change

CONFIG = {
    "seed": 1,
    "steps": 100,
    "micro_batch_size": 4,
    "zero_stage": 2,
    "init_from": None,
    "eval_interval": 10,
    "optim": {"_target_": "x", "lr": 0.1, "schedule": {"kind": "cosine"}},
    "model": {"width": 8},
    "task": {"name": "flights", "dataset": "flights", "serve": {"model": "flights", "threads": 1}},
    "cluster": {"kind": "local", "nodes": 1, "timeout_min": 60, "additional_parameters": {}},
    "site": {"mlflow_uri": "http://here"},
}
REFUSED = RefusedChange(["lockgate", "train", "task=flights"], "flights-1@40")


def changed(*overrides: str) -> dict[str, list]:
    made = changed_settings(CONFIG, overrides, lambda name: {"kind": name, "nodes": 2}, REFUSED)
    return differences(CONFIG, made)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps=200", {"steps": [100, 200]}),
        ("eval_interval=0", {"eval_interval": [10, 0]}),
        ("zero_stage=1", {"zero_stage": [2, 1]}),
        ("cluster.timeout_min=5", {"cluster.timeout_min": [60, 5]}),
        ("cluster.exclude=n1,n2", {"cluster.exclude": [None, "n1,n2"]}),
        ("+cluster.additional_parameters.constraint=h200",
         {"cluster.additional_parameters.constraint": [None, "h200"]}),
        ("task.serve.threads=2", {"task.serve.threads": [1, 2]}),
        ("task.serve.max_text_bytes=9", {"task.serve.max_text_bytes": [None, 9]}),
        # The value that it has is no change, of whatever key.
        ("seed=1", {}),
        ("optim.lr=0.1", {}),
        ("steps=100", {}),
    ],
)  # fmt: skip
def test_a_change_that_leaves_the_learning_as_it_is(override: str, expected: dict) -> None:
    assert changed(override) == expected


def test_a_cluster_by_its_name_replaces_all_of_it() -> None:
    assert changed("cluster=slurm") == {
        "cluster.kind": ["local", "slurm"],
        "cluster.nodes": [1, 2],
        "cluster.timeout_min": [60, None],
    }


@pytest.mark.parametrize(
    "override",
    ["seed=2", "optim.lr=0.2", "optim.schedule.kind=wsd", "model.width=9", "micro_batch_size=8",
     "task.dataset=other", "model=other", "optim=muon", "task=lm"],
)  # fmt: skip
def test_what_would_change_the_learning_is_another_run(override: str) -> None:
    with pytest.raises(UsageError, match="changes what is learned") as refusal:
        changed(override)
    command = f"lockgate train task=flights init_from=flights-1@40 {override}"
    assert str(refusal.value).endswith(command)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("task.serve.model=other", "the name under which the model is registered"),
        ("init_from=other", "begins with its parent's checkpoint, flights-1@40"),
        ("site.mlflow_uri=x", "stays on its site"),
    ],
)
def test_other_refusals(override: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        changed(override)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stps=9", "stps: there is no such key. Nearest: steps"),
        ("steps=1,2", "goes on with one value"),
        ("~steps", "goes on with one value"),
        ("+other=1", "only cluster.additional_parameters.NAME can be added"),
        ("steps=a=b c", "does not parse"),
    ],
)
def test_a_mistake_is_answered_with_what_there_is(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace(".", r"\.")):
        changed(override)


def test_the_parents_settings_are_left_as_they_are() -> None:
    changed("cluster.timeout_min=5")
    assert CONFIG["cluster"]["timeout_min"] == 60  # type: ignore[index]
    assert may_change("cluster.nodes") and not may_change("cluster_nodes")
