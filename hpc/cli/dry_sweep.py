"""`lockgate train -m --dry-run`: the first script, then the axes, the sizes and the hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hpc.cli.dry_run import forecast_text
from hpc.cli.train import plan_fields, print_result
from hpc.jobs.backend import find_backend
from hpc.jobs.forecast import Forecast, forecast
from hpc.jobs.sweep.submission import SweepSubmission, array_of, shapes


def show_sweep(
    sweep: SweepSubmission, axes: Sequence[str], as_json: bool, total: int | None = None
) -> int:
    """Print what would be sent; `total` is the number of trials where not all are known yet."""
    shown: list[dict[str, Any]] = []
    sizes: list[tuple[str, Forecast]] = []
    first_script = ""
    for group in shapes(sweep.trials):
        array, cluster = array_of(sweep.name, group), group[0].plan.cluster
        script = group[0].plan.script
        if len(group) > 1:
            digests = [one.plan.spec.digest for one in group]
            script = find_backend(cluster.kind).array_script(cluster, array, digests)
        expected = forecast([one.plan for one in group], script)
        for one in group:
            fields = {**plan_fields(one.plan), **expected.as_dict(), "script": script}
            shown.append({**fields, "sweep": sweep.name, "values": one.values})
        # One batch script is that of all its trials; a command is that of one.
        one_for_all = script.startswith("#!")
        first_script = first_script or (script if one_for_all else group[0].plan.script)
        size = f"{cluster.nodes} x {cluster.tasks_per_node} ranks on {cluster.kind}"
        gpus = cluster.gpus_per_node
        each = f", {gpus} GPU{'s' * (gpus != 1)} a node" if gpus else ""
        sizes.append((f"{len(group)} trial{'s' * (len(group) != 1)} of {size}{each}", expected))
    print_result(shown, as_json, f"{first_script.rstrip()}\n{_text(sweep, axes, sizes, total)}")
    return 0


def _text(
    sweep: SweepSubmission,
    axes: Sequence[str],
    sizes: Sequence[tuple[str, Forecast]],
    total: int | None,
) -> str:
    count = len(sweep.trials)
    lines = [f"sweep {sweep.name}, {total or count} trials (nothing was submitted)"]
    lines += [f"  {axis}" for axis in axes]
    if total is not None:
        lines.append(f"the first {count} of them go out together; a next one when one has ended")
    elif len(sizes) > 1:
        lines.append(f"{len(sizes)} sizes, each one submit; the script is the first one's:")
        lines += [f"  {text}" for text, _ in sizes]
    first = sizes[0][1]
    share = (total or count) / count
    whole = replace(
        first,
        gpu_hours=round(share * sum(one.gpu_hours for _, one in sizes), 3),
        cpu_hours=round(share * sum(one.cpu_hours for _, one in sizes), 3),
    )
    return "".join(f"# {line}\n" for line in lines) + forecast_text(whole)
