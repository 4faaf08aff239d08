"""The config tree: every target is there, every file makes its plug-in, every key is explained."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest

from conf.plugin import find_target, is_own, make_plugin
from conf.schema import plain_values
from conf.tree import compose, options
from hpc.data.command import make_dataset
from hpc.tasks.task import Task
from serving.release.settings import make_gates
from tests.house.tree import REPO
from tests.house.yaml_files import YamlKey, config_targets, yaml_files, yaml_keys

TASKS = options("task")


def test_every_target_is_there() -> None:
    for file, key, target in config_targets():
        assert callable(find_target(target, f"{file}: {key}"))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_makes_its_plugins(name: str) -> None:
    config = compose("train", [f"task={name}"])
    task = make_plugin(plain_values(config.task, "task"), "task")
    assert isinstance(task, Task)
    assert task.name == name
    assert task.dataset in options("data")
    assert callable(make_plugin(plain_values(config.model, "model"), "model").build)
    assert name in options("gates")


@pytest.mark.parametrize("name", options("data"))
def test_a_dataset_is_made(name: str) -> None:
    dataset = make_dataset(compose("data", [f"data={name}"]).data)
    assert dataset.name == name
    assert all(path.is_file() for path in dataset.code())


@pytest.mark.parametrize("name", options("optim"))
def test_an_optimizer_is_made(name: str) -> None:
    values = plain_values(compose("train", [f"task={TASKS[0]}", f"optim={name}"]).optim, "optim")
    made = make_plugin({key: one for key, one in values.items() if key != "schedule"}, "optim")
    assert callable(made.build) and callable(made.zero_settings)


@pytest.mark.parametrize("name", options("model"))
def test_a_model_is_made(name: str) -> None:
    node = plain_values(compose("train", [f"task={TASKS[0]}", f"model={name}"]).model, "model")
    assert callable(make_plugin(node, "model").build)


@pytest.mark.parametrize("name", options("gates"))
def test_gates_are_made(name: str) -> None:
    assert make_gates(plain_values(compose("release", ["run=r", f"gates={name}"]).gates, "gates"))


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: path.relative_to(REPO).as_posix())
def test_every_file_and_key_is_explained(path: Path) -> None:
    """By a comment beside or above it, or, of a plug-in's key, by the docstring of its field."""
    first = [
        line for line in path.read_text(encoding="utf-8").splitlines() if "@package" not in line
    ]
    assert first[0].startswith("# "), f"{path}: begin with a comment on what the file is for"
    keys = list(yaml_keys(path))
    commented = {key.path for key in keys if key.has_comment}
    assert [
        f"{key.file}:{key.line}: {'.'.join(key.path)}"
        for key in keys
        if key.is_leaf
        and not (key.has_comment or key.path[:-1] in commented or is_explained_elsewhere(key))
    ] == []


def is_explained_elsewhere(key: YamlKey) -> bool:
    """`_target_` and `defaults` are Hydra's; a plug-in's field has its docstring in the class.

    `required` of a gate is explained once for all of them, in conf/gates/package.yaml.
    """
    if key.path[-1] == "_target_" or key.path == ("defaults",):
        return True
    if key.path[-1] == "required" and key.file.startswith("conf/gates/"):
        return True
    return key.path[-1] in documented_fields(key.target)


@cache
def documented_fields(target: str) -> frozenset[str]:
    """Fields of one of Lockgate's own dataclasses that a docstring or a comment explains."""
    cls = find_target(target, "target") if target and is_own(target) else None
    if not (isinstance(cls, type) and is_dataclass(cls)):
        return frozenset()
    found = set()
    for one in (one for one in cls.__mro__ if is_dataclass(one)):
        source = inspect.getsource(one)
        lines = source.splitlines()
        (tree,) = ast.parse(inspect.cleandoc(source)).body
        assert isinstance(tree, ast.ClassDef)
        for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                documented = isinstance(following, ast.Expr) or "  # " in lines[node.lineno - 1]
                found |= {node.target.id} if documented else set()
    assert found <= {one.name for one in fields(cls)}
    return frozenset(found)
