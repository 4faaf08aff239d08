"""Ids of the tasks of a job array, as Slurm's commands write them: 12_3, and 12_[4-39%4] of many.

A task that is pending has no record of its own: one record stands for all that have not begun. See
https://slurm.schedmd.com/job_array.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LARGEST_ARRAY = 1000
"""Tasks of one array; MaxArraySize is 1001 where a cluster does not set it."""
TASKS = re.compile(
    r"\[?(?P<ranges>[0-9]+(-[0-9]+(:[0-9]+)?)?(,[0-9]+(-[0-9]+(:[0-9]+)?)?)*)(%[0-9]+)?\]?"
)
MOST_TASKS = 4_000_001
"""Bound of Slurm's own MaxArraySize; a longer range is none of Slurm's."""


def task_numbers(text: str) -> list[int]:
    """The numbers of `3`, `4-39%4` or `[1,3-9:2]`; none of a text of another form."""
    match = TASKS.fullmatch(text.strip())
    numbers: list[int] = []
    for part in match["ranges"].split(",") if match else []:
        first, _, last = part.partition("-")
        last, _, step = last.partition(":")
        begin, end = int(first), int(last or first)
        if end - begin >= MOST_TASKS or int(step or 1) == 0:
            return []
        numbers += range(begin, end + 1, int(step or 1))
    return numbers


def job_ids(text: str) -> list[str]:
    """The ids that `12`, `12_3` or `12_[4-39%4]` stands for; none of a text of another form."""
    array, underline, tasks = text.partition("_")
    if not (array.isascii() and array.isdecimal()):
        return []
    return [f"{array}_{number}" for number in task_numbers(tasks)] if underline else [array]


def record_ids(record: Mapping[str, Any]) -> list[str]:
    """The ids of a record of `squeue --json`, whose job_id is the number of the record alone."""
    array, task = _number(record.get("array_job_id")), _number(record.get("array_task_id"))
    tasks = record.get("array_task_string")
    if array and isinstance(tasks, str) and (numbers := task_numbers(tasks)):
        return [f"{array}_{number}" for number in numbers]
    if array and task is not None:
        return [f"{array}_{task}"]
    return [str(record.get("job_id"))]


def _number(value: Any) -> int | None:
    """A number that is set; Slurm 23.02 wraps it as {"set": true, "number": 3}."""
    if isinstance(value, dict):
        value = value.get("number") if value.get("set") else None
    return value if type(value) is int and value >= 0 else None
