"""Tasks are found by name."""

from __future__ import annotations

import inspect

import pytest

from hpc import tasks
from hpc.tasks import Task


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"there is no task 'flight'. Nearest: flights"):
        tasks.load("flight")


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_has_the_functions_of_the_protocol(name: str) -> None:
    task = tasks.load(name)
    for function, wanted in inspect.getmembers(Task, inspect.isfunction):
        if not function.startswith("_"):
            parameters = [one for one in inspect.signature(wanted).parameters if one != "self"]
            found = inspect.signature(getattr(task, function)).parameters
            assert list(found)[: len(parameters)] == parameters
