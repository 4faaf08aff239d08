"""`lockgate why RUN`: what a run waits for, or why it ended."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc.jobs.run.folder import Run
    from hpc.jobs.why.explanation import Ending, Explanation, Waiting

DESCRIPTION = """\
Why a run waits: the reason, what blocks it, when it is expected to start, and the smaller request
that has room now. Why it ended: the first cause, with rank and node, and what was lost.
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate why ARGV`."""
    parser = argparse.ArgumentParser(prog="lockgate why", description=DESCRIPTION)
    parser.add_argument("words", nargs="+", metavar="RUN", help="a run's name, its end, or `last`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(list(argv))
    from conf.names import printable
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.run.folder import find_run
    from hpc.jobs.why.by_state import explanation_of
    from hpc.train.manifest import checkpoint_fault

    word, overrides = run_word(options.words, "why")
    run = find_run(runs_folder(overrides), word)
    now = datetime.now(UTC)
    answer = explanation_of(run, checkpoint_fault, now)
    if options.json:
        print(json.dumps(answer.as_dict(), indent=2))
        return 0
    print(f"{answer.run} {answer.state}: {printable(answer.sentence)}")
    rows = [*_rows(answer, now), *_node_rows(run, answer)]
    width = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        print(f"  {label:<{width}}  {printable(text)}")
    return 0


def _rows(answer: Explanation, now: datetime) -> Iterator[tuple[str, str]]:
    """(label, text) of each line under the sentence."""
    if answer.waiting:
        yield from _waiting_rows(answer.waiting, now)
    if answer.ending:
        yield from _ending_rows(answer.ending)
    for end in answer.attempts:
        if end.outcome == "requeued":
            kept = (
                f"the checkpoint of step {end.checkpoint_step}" if end.checkpoint_step else "none"
            )
            yield (
                f"attempt {end.attempt}",
                f"{end.sentence} It came back; newest checkpoint: {kept}",
            )
    for part in answer.unanswered:
        yield "not known", part


def _node_rows(run: Run, answer: Explanation) -> Iterator[tuple[str, str]]:
    """Nodes that ended the newest attempt before training, and one that ends other runs too."""
    from hpc.jobs.run.folder import all_runs
    from hpc.nodes.history import RUNS, failing_nodes, node_runs
    from hpc.nodes.report import read_reports

    reports = read_reports(run)
    newest = max((report.attempt for report in reports), default=0)
    unfit = [report for report in reports if report.attempt == newest and report.faults]
    if answer.waiting or answer.ending:
        for report in unfit:
            yield "checks", f"attempt {newest}: {report.sentence}"
        if unfit and run.excluded_nodes.is_file():
            yield "left out", run.excluded_nodes.read_text().strip()
    if answer.ending and (node := answer.ending.cause.node):
        failing = failing_nodes(node_runs(all_runs(run.folder.parent)[-RUNS:]))
        if node in failing:
            yield "node", failing[node]


def _waiting_rows(waiting: Waiting, now: datetime) -> Iterator[tuple[str, str]]:
    from hpc.cli.ls import age
    from hpc.jobs.why.accounting import DAYS
    from hpc.jobs.why.wait import local_time

    never = "; it does not start as it is" if waiting.reason.never else ""
    detail = f" ({waiting.detail})" if waiting.detail else ""
    yield "reason", f"{waiting.reason.word}{detail}{never}"
    yield "what to do", waiting.reason.advice
    if waiting.since:
        yield "waits for", age(waiting.since, now)
    for blocker in waiting.blocked_by:
        yield "blocked by", blocker
    if waiting.expected_start:
        start = int(datetime.fromisoformat(waiting.expected_start).timestamp())
        on = f" on {waiting.expected_nodes}" if waiting.expected_nodes else ""
        yield "starts", f"{local_time(start)}{on}, as Slurm expects now; other jobs may change that"
    elif not waiting.reason.never:
        yield "starts", "Slurm has no expectation yet (squeue --start)"
    if history := waiting.history:
        whose = "requests of this size" if history.same_size else "jobs of this partition"
        yield (
            "lately",
            f"{history.jobs} {whose} that started in the last {DAYS} days waited "
            f"{_duration(history.median_s)} (median), {_duration(history.longest_s)} at most",
        )
    if waiting.fits_now:
        yield "smaller", "it has room as it is; only the order of the queue holds it"
    elif waiting.smaller:
        yield "smaller", f"submitted with these it has room now: {' '.join(waiting.smaller)}"


def _ending_rows(ending: Ending) -> Iterator[tuple[str, str]]:
    cause, kept = ending.cause, ending.progress
    for error in cause.consequences:
        yield "followed by", error
    yield "what to do", cause.advice
    yield "read from", f"{cause.source}, attempt {ending.attempt}, ended {ending.ended or '?'}"
    if ending.start.step is not None:
        begun = f"after step {ending.start.step}" if ending.start.step else "as a new run"
        yield "began", f"attempt {ending.attempt} began {begun}"
    if kept.checkpoint_step:
        yield (
            "kept",
            f"the checkpoint of step {kept.checkpoint_step}: an attempt goes on from there",
        )
    else:
        yield "kept", "no good checkpoint; an attempt begins anew"
    yield "lost", f"{kept.lost_steps} steps (the last one logged is {kept.last_step})"
    for one in dict.fromkeys((*ending.start.passed_over, *kept.passed_over)):
        yield "passed over", f"the checkpoint of step {one.step}: {one.fault}"


def _duration(seconds: int) -> str:
    """`45s`, `12m`, `3h 05m`: as `lockgate ls` writes an age."""
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m" if minutes else f"{seconds}s"
