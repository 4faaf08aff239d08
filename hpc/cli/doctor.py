"""`lockgate doctor`: what a training run needs, looked at in a second, and what is missing."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing looked at: fine, or what is wrong in a sentence."""

    name: str
    fine: bool
    detail: str


def main(argv: Sequence[str]) -> int:
    """Run `lockgate doctor ARGV`; 0 when everything is fine, else `UNREACHABLE`."""
    parser = argparse.ArgumentParser(
        prog="lockgate doctor", description="Look at what a training run needs here."
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in site=box")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.add_argument("--nodes", action="store_true", help="check every free node by a job")
    options = parser.parse_intermixed_args(list(argv))
    from conf import compose
    from conf.errors import DONE, UNREACHABLE

    site = compose("site", options.overrides).site
    if options.nodes:
        return _check_nodes(site, options.json)
    findings = site_findings(site)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.fine else 'LOOK'}  {finding.name}: {finding.detail}")
    return DONE if all(finding.fine for finding in findings) else UNREACHABLE


def site_findings(site: Any) -> list[Finding]:
    """Everything that is looked at, in the order in which a run needs it."""
    variables = {"SLURM_CONF": str(site.paths.slurm_conf)}
    return [
        _finding("project", _project),
        _finding("data", lambda: _datasets(Path(site.paths.data))),
        _finding("runs", lambda: _writable(Path(site.paths.runs))),
        _finding("Slurm controller", lambda: _controller(variables)),
        _finding("Slurm nodes", lambda: _nodes(variables)),
        _finding("Slurm accounting", lambda: _accounting(variables)),
        _finding("nodes in runs", lambda: _failing_nodes(Path(site.paths.runs))),
    ]


def _finding(name: str, read: Callable[[], str]) -> Finding:
    from hpc.jobs.errors import JobError

    try:
        return Finding(name, True, read())
    except (JobError, OSError) as error:
        return Finding(name, False, str(error))


def _project() -> str:
    from conf.project import find_project

    project = find_project()
    return f"{project.name} in {project.root}" if project else "none: Lockgate's own tasks"


def _datasets(data: Path) -> str:
    from hpc.jobs.errors import DatasetMissing

    published = sorted(link.parent.name for link in data.glob("*/current"))
    if not published:
        raise DatasetMissing(f"none in {data}. Make one: lockgate data prepare data=NAME")
    return ", ".join(published)


def _writable(runs: Path) -> str:
    from hpc.jobs.errors import UsageError

    if not os.access(runs, os.W_OK):
        raise UsageError(f"{runs} is not there, or not yours to write; runs go there")
    return str(runs)


def _controller(variables: dict[str, str]) -> str:
    from hpc.jobs.slurm.commands import require_controller

    require_controller(variables)
    return "up"


def _nodes(variables: dict[str, str]) -> str:
    from hpc.jobs.slurm.commands import query
    from hpc.jobs.slurm.nodes import SINFO, parse_nodes

    nodes, partitions = parse_nodes(query(SINFO, variables))
    counted = ", ".join(f"{count} {state}" for state, count in nodes.items() if count)
    return f"{counted or 'none'} in {', '.join(sorted(partitions)) or 'no partition'}"


def _failing_nodes(runs: Path) -> str:
    from hpc.jobs.errors import JobError
    from hpc.jobs.run.folder import all_runs
    from hpc.nodes.history import RUNS, failing_nodes, node_runs

    history = node_runs(all_runs(runs)[-RUNS:])
    if failing := failing_nodes(history):
        raise JobError("; ".join(failing.values()))
    nodes = sorted({one.node for one in history})
    return f"none of {', '.join(nodes)} fails again and again" if nodes else "no run checked one"


def _check_nodes(site: Any, as_json: bool) -> int:
    """Print what the checks of every node found; `UNREACHABLE` where one is not fit."""
    from conf.errors import DONE, UNREACHABLE
    from hpc.cli.table import print_table
    from hpc.nodes.survey import survey

    variables = {"SLURM_CONF": str(site.paths.slurm_conf)}
    runs = Path(site.paths.runs)
    reports = survey(str(site.slurm.partition), runs, Path("/tmp"), variables)
    if as_json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
    else:
        columns = list(dict.fromkeys(check.name for one in reports for check in one.checks))
        rows = []
        for report in reports:
            found = {check.name: check.found for check in report.checks}
            verdict = "; ".join(report.faults) or ("fit" if len(found) > 1 else "not checked")
            rows.append([report.node, verdict, *(found.get(name, "-") for name in columns)])
        print_table(rows, ["node", "verdict", *columns])
    return UNREACHABLE if any(report.faults for report in reports) else DONE


def _accounting(variables: dict[str, str]) -> str:
    from hpc.jobs.slurm.commands import query

    query(["sacct", "--noheader", "--starttime=now"], variables)
    return "answers"
