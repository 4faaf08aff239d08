"""`lockgate resume RUN [key=value ...]`: go on from a run that ended, as a new run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpc.cli.train import digest_fields, plan_fields, plan_text, print_result, sent_fields

if TYPE_CHECKING:
    from hpc.jobs.resume.plan import ResumePlan

DESCRIPTION = """\
Go on from a run that ended, however it ended: a new run begins with its newest good checkpoint and
its curve up to there, and with the same code, data and settings. These may change: steps, the
intervals, keep_checkpoints, cluster.* (time limit, nodes, ...), zero_stage, task.serve.*
What would change what is learned is refused: lockgate train ... init_from=RUN starts anew with its
weights.
"""
EPILOG = """\
examples:
  lockgate resume RUN                              after a crash, a cancel or a time limit
  lockgate resume RUN cluster.timeout_min=600      with more time
  lockgate resume RUN steps=20000                  a finished run, further
  lockgate resume RUN cluster.nodes=1              with fewer ranks, the same global batch
  lockgate resume RUN --source current             with the code as it stands, mended perhaps
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate resume ARGV`; returns the exit code. Raises `ConfigError` and `JobError`."""
    parser = argparse.ArgumentParser(
        prog="lockgate resume",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="+", metavar="RUN", help="a run's name, its end, or `last`")
    parser.add_argument(
        "--source", choices=("run", "current"), default="run",
        help="the code: the run's own (the default), or as it stands now",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.queue import run_state
    from hpc.jobs.resume.plan import resume_plan
    from hpc.jobs.run.folder import find_run
    from hpc.jobs.submit import check_sizes, submit
    from hpc.train.manifest import checkpoint_fault

    word, overrides = run_word(options.words, "resume")
    of_site = [text for text in overrides if text.partition("=")[0].partition(".")[0] == "site"]
    run = find_run(runs_folder(of_site), word)
    changes = [text for text in overrides if text not in of_site]
    if run.spec.config.get("checkpoint_store") and run_state(run).over and not options.dry_run:
        from hpc.train.storage.restore import restore_newest  # imports torch

        restore_newest(run)
    ready = resume_plan(run, changes, options.source, checkpoint_fault)
    check_sizes([ready.submit])
    if options.dry_run:
        lines = "".join(f"#{line}\n" for line in _text(ready).splitlines())
        shown = _fields(ready) | plan_fields(ready.submit)
        print_result(shown, options.json, plan_text(ready.submit) + lines)
        return 0
    sent = submit(ready.submit)
    where = f"job {sent.job_id} on {ready.submit.cluster.kind}"
    text = (
        f"{sent.run.name}\n  submitted as {where}\n{_text(ready)}\n"
        f"  follow it: lockgate logs {sent.run.name} -f"
    )
    print_result(_fields(ready) | sent_fields(ready.submit, sent), options.json, text)
    return 0


def _fields(ready: ResumePlan) -> dict[str, Any]:
    spec, parent = ready.submit.spec, ready.parent
    return {
        "run": ready.submit.run.name,
        "parent": parent.run,
        "step": parent.step,
        "steps": spec.config.steps,
        "changed": parent.changed,
        "notes": list(ready.notes),
        "source": parent.source,
        **digest_fields(spec),
    }


def _text(ready: ResumePlan) -> str:
    spec, parent, cluster = ready.submit.spec, ready.parent, ready.submit.cluster
    code = "the same code" if parent.source == "run" else "the code as it stands"
    lines = [
        f"goes on from {parent.run} after step {parent.step}, to step {spec.config.steps}",
        f"{cluster.nodes} x {cluster.tasks_per_node} ranks, {code} ({spec.source.digest[:12]}), "
        f"data {spec.dataset.name}@{spec.dataset.digest[:12]}",
        *(
            f"changed: {key} {_value(old)} -> {_value(new)}"
            for key, (old, new) in parent.changed.items()
        ),
        *ready.notes,
    ]
    return "\n".join(f"  {line}" for line in lines)


def _value(value: object) -> str:
    return "null" if value is None else str(value)
