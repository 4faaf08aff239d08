"""`python -m hpc.jobs.cause.attempt_end FOLDER ATTEMPT CODE`: the end of one attempt of a run.

The batch script runs it after srun, and the local launcher calls it. It puts the first cause on
record and prints the code that the job is to end with: REQUEUE for a run that comes back.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf import ConfigError
from conf.modes import share_new_files
from hpc.jobs.cause.comeback import Comeback, decide
from hpc.jobs.cause.first_cause import OTHER, Cause, cause_before_stop, first_cause
from hpc.jobs.cause.gather import folder_evidence
from hpc.jobs.errors import SpecChanged
from hpc.jobs.rank import status
from hpc.jobs.rank.exit_codes import TRAINING_FAILED
from hpc.jobs.run.files import (
    AttemptEndFile,
    FailureFile,
    RankFailure,
    StatusFile,
    read_run_file,
    utc_now,
    write_run_file,
)
from hpc.jobs.run.folder import Run
from hpc.jobs.spec.config import cluster_config
from serving.artifact.durable import replace_file


def main(argv: Sequence[str]) -> int:
    """Run the program; 0 with the code on standard output."""
    folder, attempt, code = argv
    share_new_files()
    run = Run(Path(folder).resolve())  # an array's task names the folder that it stands in
    print(end_attempt(run, int(attempt), int(code)).exit_code)
    return 0


def end_attempt(run: Run, attempt: int, code: int) -> AttemptEndFile:
    """Decide what follows `attempt`, whose ranks are gone, and put it into the run's folder.

    `code` is that of srun, or of the local executor.
    """
    newest = status.newest_checkpoint(run)
    before = read_run_file(StatusFile, run.status).value
    if before is None or before.attempt < attempt:  # rank 0 did not come as far as its own report
        stalled = status.stalled_before(before, attempt, newest)
        began = before or StatusFile("running", attempt, run.name)
        before = replace(
            began, state="running", attempt=attempt, ended=None, error=None, began_after=newest,
            stalled=stalled,
        )  # fmt: skip
    stalled = 0 if newest > before.began_after else before.stalled + 1
    cause, code = _cause(run, before, code)
    decision = decide(
        before.state, cause, code, stalled, newest, _max_requeues(run), run.cancelled.exists()
    )
    end = AttemptEndFile(
        attempt=attempt,
        outcome=decision.outcome,
        kind=cause.kind if cause else "",
        sentence=decision.sentence,
        ended=utc_now(),
        exit_code=decision.exit_code,
        began_after=before.began_after,
        checkpoint_step=newest,
        stalled=stalled,
        rank=cause.rank if cause else None,
        node=cause.node if cause else "",
        signal=cause.signal if cause else "",
    )
    _record(run, before, end, cause, decision)
    return end


def _cause(run: Run, before: StatusFile, code: int) -> tuple[Cause | None, int]:
    """The first cause of a bad end, None for an orderly one; and the code of the job's own."""
    evidence = folder_evidence(run, before.attempt)
    code = evidence.exit_code or code or TRAINING_FAILED
    orderly = before.state in ("finished", "stopped", "requeued")
    if before.state == "finished":
        return None, 0
    if orderly and evidence.failure is None and evidence.watch is None:
        return cause_before_stop(evidence), code
    cause = first_cause(evidence)
    if cause.kind == OTHER and cause.source == "the run's folder":  # no rank began
        sentence = f"No rank began; the launcher ended with exit code {code}."
        cause = replace(cause, sentence=sentence, exit_code=code)
    return cause, code


def _record(
    run: Run, before: StatusFile, end: AttemptEndFile, cause: Cause | None, decision: Comeback
) -> None:
    """Write the end into the run's folder: the attempt's file first, then the run's state."""
    write_run_file(run.attempt_end(end.attempt), end)
    replace_file(run.exit_code(end.attempt), f"{end.exit_code}\n")
    if decision.outcome == "finished":
        return
    error = None
    if decision.too_often:
        error = RankFailure("RequeuedTooOften", end.sentence, None)
    elif cause is not None:
        error = RankFailure("AttemptEnded", end.sentence, None)
    failure = read_run_file(FailureFile, run.failure).value
    known = failure is not None and failure.attempt == end.attempt and failure.state == "failed"
    state = decision.outcome
    if error is not None and not (known and state == "failed" and not decision.too_often):
        write_run_file(
            run.failure,
            FailureFile(
                attempt=end.attempt,
                ended=end.ended,
                error=error,
                run=run.name,
                job_id=before.job_id,
                state="requeued" if state == "requeued" else "failed",
                metrics=status.final_metrics(run),
            ),
        )
    write_run_file(
        run.status,
        replace(
            before, run=run.name, state=state, ended=end.ended, stalled=end.stalled, error=error,
            metrics=status.final_metrics(run),
        ),
    )  # fmt: skip


def _max_requeues(run: Run) -> int:
    """`cluster.max_requeues` of the run; 1 for a changed spec, which the next attempt refuses."""
    try:
        return cluster_config(run.spec.config).max_requeues
    except (SpecChanged, ConfigError):
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
