"""The end of `lockgate train --dry-run`: comments on hours, the start, and what is new."""

from __future__ import annotations

from conf.names import printable
from hpc.jobs.forecast import Forecast


def forecast_text(expected: Forecast) -> str:
    """Lines that begin with `#`, as the rest of a dry run can be a script."""
    lines = [f"asks for at most {_hours(expected)}"]
    if expected.expected_start:
        lines.append(f"Slurm expects to start it at {expected.expected_start}")
    if expected.last_run is None:
        lines.append("the first run of this task here")
    elif expected.changes:
        lines.append(f"changed since {expected.last_run}:")
        lines += [
            f"  {one.key}: {_value(one.before)} -> {_value(one.now)}" for one in expected.changes
        ]
    else:
        lines.append(f"nothing is changed since {expected.last_run}")
    return "".join(f"# {printable(line)}\n" for line in lines)


def _hours(expected: Forecast) -> str:
    if expected.gpu_hours:
        return f"{expected.gpu_hours:g} GPU-hours"
    return f"{expected.cpu_hours:g} CPU-hours"


def _value(value: object) -> str:
    return "-" if value is None else " ".join(str(value).split())
