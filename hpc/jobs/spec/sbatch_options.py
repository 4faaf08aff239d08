"""`cluster.additional_parameters`: options of sbatch beyond those that Lockgate sets itself.

Each becomes an `#SBATCH --name=value` line of the batch script, see
https://slurm.schedmd.com/sbatch.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9-]+")
LOGS = "a run's logs are in its folder"
OWN = {
    "account": "set cluster.account",
    "array": "a sweep is lockgate train -m key=a,b",
    "chdir": LOGS,
    "container": "set cluster.container, which the ranks alone work in",
    "cpus-per-task": "set cluster.cpus_per_task",
    "error": LOGS,
    "exclude": "set cluster.exclude",
    "export": "name variables in cluster.pass_environment",
    "export-file": "name variables in cluster.pass_environment",
    "gpus-per-node": "set cluster.gpus_per_node",
    "input": LOGS,
    "job-name": "a run is called by its task, see task.name",
    "mem": "set cluster.mem_gb",
    "no-requeue": "cluster.max_requeues=0 gives a run one attempt",
    "nodes": "set cluster.nodes",
    "ntasks": "set cluster.nodes and cluster.tasks_per_node",
    "ntasks-per-node": "set cluster.tasks_per_node",
    "open-mode": LOGS,
    "output": LOGS,
    "parsable": "lockgate train --json prints the job's id",
    "partition": "set cluster.partition",
    "qos": "set cluster.qos",
    "requeue": "cluster.max_requeues=0 gives a run one attempt",
    "signal": "set cluster.signal_delay_s",
    "test-only": "see lockgate train --dry-run",
    "time": "set cluster.timeout_min",
    "wait": "see lockgate logs RUN -f",
    "wrap": "the script's commands are Lockgate's",
}
"""Options that Lockgate sets, or that would break what it sets, with what to do instead."""
WHOLE_NAMES = ("gpus",)
"""Options whose name is the beginning of one of `OWN`; sbatch takes other beginnings for those."""
MEMORY = "mem-per-"
GPUS = re.compile(r"gpus(-per-task|-per-socket)?|gres|tres-per-\w+")


def sbatch_options(parameters: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Options by sbatch's name for them, those that are off (null or false) left out.

    Raises ValueError for an option that is Lockgate's own, and for a value that is no line of text.
    """
    options: dict[str, str | int | float | bool] = {}
    for key, value in parameters.items():
        name, place = str(key).replace("_", "-"), f"additional_parameters.{key}"
        if not NAME.fullmatch(name):
            raise ValueError(f"{place}: a long option of sbatch without its dashes, as in comment")
        if own := _own(name):
            raise ValueError(f"{place}={_shown(value)}: sbatch --{own} is Lockgate's; {OWN[own]}")
        if name in options:
            raise ValueError(f"{place}: --{name} is given twice")
        if value is None or value is False:
            continue
        if not isinstance(value, str | int | float):
            raise ValueError(f"{place}={_shown(value)}: must be a text, a number, true or false")
        if isinstance(value, str):
            check_line(place, value)
        options[name] = value
    return options


def check_line(place: str, text: str) -> None:
    """Raise ValueError unless `text` is one line that is not empty: the script has it in one."""
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{place}={_shown(text)}: must be one line of text; null leaves it out")


def asks_for_gpus(options: Mapping[str, object]) -> bool:
    """True for options of sbatch that ask for GPUs, as `gres=gpu:2` does."""
    return any(
        GPUS.fullmatch(name) and ("gpu" in str(value) or name.startswith("gpus"))
        for name, value in options.items()
    )


def _own(name: str) -> str | None:
    """The option of `OWN` that sbatch takes `name` for: getopt completes what is unambiguous."""
    if name in OWN or name in WHOLE_NAMES:
        return name if name in OWN else None
    return next((own for own in OWN if len(name) > 2 and own.startswith(name)), None)


def _shown(value: object) -> str:
    """`value` as it is typed; in Python's quotes where it is no plain text."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) and value.isprintable() and value else repr(value)
