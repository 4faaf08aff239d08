"""`lockgate show RUN`: one run in full, from what its folder holds."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from conf.names import printable
from hpc.cli.table import print_table
from hpc.jobs.rank import exit_codes

if TYPE_CHECKING:
    from hpc.jobs.run.overview import RunOverview
    from hpc.jobs.spec.job_spec import JobSpec, Source

EXITS = {
    exit_codes.REQUEUE: "to go on later",
    exit_codes.TERMINATED: "saved after SIGTERM",
    exit_codes.TRAINING_FAILED: "failed",
    exit_codes.REFUSED: "refused: not what was frozen",
    exit_codes.TOO_OFTEN: "no progress too often",
}
DESCRIPTION = """\
Show what a run is and what became of it: settings, states over time, metrics, checkpoints, its
candidate, digests, and the command that repeats it. A file that is broken is named, and hides no
other.
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate show ARGV`."""
    parser = argparse.ArgumentParser(prog="lockgate show", description=DESCRIPTION)
    parser.add_argument("words", nargs="+", metavar="RUN", help="a run's name, its end, or `last`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.queue import run_state
    from hpc.jobs.run.folder import find_run
    from hpc.jobs.run.overview import run_overview

    word, overrides = run_word(options.words, "show")
    run = find_run(runs_folder(overrides), word)
    overview = run_overview(run, run_state(run))
    command, reason = _repeat(overview.spec)
    if options.json:
        shown = overview.as_dict() | {"command": command, "no_command": reason}
        print(json.dumps(shown, indent=2))
        return 0
    print_table([*_head(overview), *_settings(overview), *_times(overview)])
    if overview.curve.metrics:
        print()
        _print_metrics(overview)
    if overview.operators:
        print()
        _print_operators(overview)
    print()
    print_table([*_left(overview), *_digests(overview)])
    # Not in a table, which would break the line that is to be copied.
    print("\nrepeat it:", printable(command or f"no command does: {reason}"))
    return 0


def _repeat(spec: JobSpec | None) -> tuple[str | None, str | None]:
    """The command that submits the run's settings again, or the reason why there is none."""
    from conf import ConfigError
    from hpc.jobs.spec.changes import may_change
    from hpc.jobs.spec.command_line import hydra_value, train_words

    if spec is None:
        return None, "its spec cannot be used"
    if spec.parent is not None:
        changes = [
            f"{key}={hydra_value(new)}"
            for key, (_, new) in spec.parent.changed.items()
            if may_change(key)
        ]
        code = ["--source", spec.parent.source] if spec.parent.source != "run" else []
        return shlex.join(["lockgate", "resume", spec.parent.run, *changes, *code]), None
    try:
        return shlex.join(["lockgate", "train", *train_words(spec)]), None
    except ConfigError as error:
        return None, str(error)


Rows = list[tuple[str, str]]


def _head(overview: RunOverview) -> Rows:
    state, problems = overview.state, overview.problems
    shown_below = {*problems, f"({overview.spec.origin})" if overview.spec else ""}
    detail = "; ".join(part for part in state.detail.split("; ") if part not in shown_below)
    return [
        ("run", state.run),
        ("state", f"{state.state}  {detail}".rstrip()),
        ("step", f"{overview.curve.step}/{state.steps or '?'}"),
        *(("BROKEN", problem) for problem in problems),
    ]


def _settings(overview: RunOverview) -> Rows:
    spec, settings = overview.spec, overview.settings
    if spec is None:
        return []

    def of(key: str) -> str:
        return _text(settings.get(key))

    batch = f"{of('micro_batch_size')} x {of('gradient_accumulation_steps')} a rank"
    nodes = f"{of('cluster.nodes')} nodes x {of('cluster.tasks_per_node')} ranks"
    each = f"{of('cluster.gpus_per_node')} GPUs, {of('cluster.mem_gb')} GB a node"
    return [
        *([("origin", spec.origin)] if spec.origin else []),
        ("task", f"{spec.task}  ({of('task._target_')})"),
        ("dataset", f"{spec.dataset.name}@{_text(spec.dataset.digest)[:12]}"),
        ("source", _code(spec.source)),
        *([("project", _code(spec.project))] if spec.project else []),
        ("model", f"{of('model._target_')}  {_keys(settings, 'model.')}".rstrip()),
        ("optimizer", f"{of('optim._target_')}  lr={of('optim.lr')}, batch {batch}"),
        ("resources", f"{of('cluster.kind')}: {nodes}, {of('cluster.cpus_per_task')} CPUs a rank, "
                      f"{each}, {of('cluster.timeout_min')} min an attempt"),
    ]  # fmt: skip


def _times(overview: RunOverview) -> Rows:
    from hpc.jobs.run.timeline import seconds_between

    line, state = overview.timeline, overview.state
    rows = [("submitted", f"{_text(line.submitted)}  job {state.job_id or '?'}")]
    if line.queued_seconds is not None:
        rows.append(("queued", _duration(line.queued_seconds)))
    for one in line.attempts:
        lasted = seconds_between(one.started, one.ended)
        until = _second(one.ended) or ("?" if state.over else "now")
        words = [f"{_second(one.started) or '?'} to {until}"]
        words += [_duration(lasted)] if lasted is not None else []
        if one.exit_code:
            words.append(EXITS.get(one.exit_code, f"exit code {one.exit_code}"))
        rows.append((f"attempt {one.number}", ", ".join(words)))
    rows.append(("requeues", str(line.requeues)))
    steps = list(overview.curve.evaluations)
    if steps:
        rows.append(("evaluated", f"{len(steps)} times, last after step {steps[-1]}"))
    if line.cancelled:
        rows.append(("cancelled", line.cancelled))
    return rows


def _print_metrics(overview: RunOverview) -> None:
    rows = [
        (
            name,
            f"{one.last:.6g}",
            str(one.last_step),
            f"{one.best:.6g} ({'lowest' if one.lower_is_better else 'highest'})",
            str(one.best_step),
        )
        for name, one in overview.curve.metrics.items()
    ]
    print_table(rows, ("metric", "last", "step", "best", "step"))


def _print_operators(overview: RunOverview) -> None:
    rows = [(one.operator, one.backend, one.calls_text, one.reason) for one in overview.operators]
    print_table(rows, ("operator", "backend", "calls", "reason"))


def _left(overview: RunOverview) -> Rows:
    rows = []
    curve, best = overview.curve, overview.best
    if curve.step_seconds is not None:
        rows.append(("step time", f"{curve.step_seconds:.4g} s (median)"))
    kept = ", ".join(
        f"{one.step} (pinned)" if one.step in overview.pinned else str(one.step)
        for one in overview.checkpoints
    )
    rows.append(("checkpoints", f"of steps {kept}" if kept else "none"))
    if store := overview.settings.get("checkpoint_store"):
        copied = ", ".join(map(str, overview.stored))
        rows.append(("in the store", f"{f'of steps {copied}' if copied else 'none'}  ({store})"))
    if best and (name := curve.main_metric):
        value = curve.evaluations[best.step][name]
        rows.append(("best", f"step {best.step}, {name} {value:.6g}: {best.folder}"))
    found = overview.candidate
    where = f"{found.model}, {overview.run.folder / 'candidate'}" if found else "none"
    return [*rows, ("candidate", where)]


def _digests(overview: RunOverview) -> Rows:
    spec = overview.spec
    if spec is None:
        return []
    project = [("project digest", _text(spec.project.digest))] if spec.project else []
    return [
        ("spec digest", spec.digest),
        ("source digest", _text(spec.source.digest)),
        *project,
        ("dataset digest", _text(spec.dataset.digest)),
        ("packages", f"{spec.environment.digest}, Python {spec.environment.python}"),
        *(("edits", path) for path in overview.diffs),
    ]


def _code(source: Source) -> str:
    commit = f"commit {_text(source.commit)[:12]}" if source.commit else source.version or "no git"
    edits = " with edits that were not committed" if source.dirty else ""
    return f"{_text(source.digest)[:12]}  ({commit}{edits})"


def _keys(settings: dict[str, Any], prefix: str) -> str:
    return ", ".join(
        f"{key.removeprefix(prefix)}={_text(value)}"
        for key, value in settings.items()
        if key.startswith(prefix) and not key.endswith("._target_")
    )


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _second(iso: str | None) -> str:
    """The time without the parts of a second that a file's time has; empty for none."""
    return re.sub(r"\.\d+", "", iso or "")


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {whole % 60:02}s" if minutes else f"{whole}s"
