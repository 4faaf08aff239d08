"""Runs that ended, brought into MLflow as they are: their metrics, and the state that is ours.

A job feeds MLflow while it runs. What it could not send, because MLflow was away or the job was
killed, and a state that only the scheduler has, such as a cancel in the queue, arrive by this.
"""

from __future__ import annotations

from hpc.jobs.errors import JobError
from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import CANCELLED, FAILED, FINISHED, STOPPED
from hpc.train.report import tracking_of

MLFLOW_STATUS = {
    FINISHED: "FINISHED",
    FAILED: "FAILED",
    CANCELLED: "KILLED",
    STOPPED: "KILLED",
}
"""MLflow's word for the state of a run that ended."""


class MlflowAway(JobError):
    """MLflow does not answer, or does not take what it is sent."""


def mirror_ended(run: Run, state: str) -> str:
    """Bring `run`, which ended in `state`, into MLflow; returns MLflow's word for its state.

    Raises `MlflowAway`, and `SpecChanged` for a run without a usable spec.
    """
    tracking = tracking_of(run.spec, run)
    try:
        tracking.mirror(MLFLOW_STATUS[state])
    except Exception as error:  # whatever MLflow's client raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise MlflowAway(
            f"MLflow at {tracking.uri} does not take {run.name}: {reason}. Everything is in "
            f"{run.metrics}; try again later: lockgate mlflow {run.name}"
        ) from error
    return MLFLOW_STATUS[state]
