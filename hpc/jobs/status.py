"""What the job itself says about its run.

Two markers, so that no rank writes over another: rank 0 writes status.json, and the first rank that
fails in an attempt writes failure.json. `read` puts them together.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc.jobs.marker import read_marker, write_marker
from hpc.jobs.rank import Rank
from hpc.jobs.run import Run
from serving.artifact.candidate import CandidateError, read_candidate

RUNNING, FINISHED, FAILED = "running", "finished", "failed"
REQUEUED, STOPPED = "requeued", "stopped"  # saved after a signal; only the first wants to go on
TAIL_BYTES = 65536


def read(run: Run) -> dict[str, Any]:
    """What rank 0 wrote, and over it the failure of the same attempt, or of one not yet begun."""
    written, failure = read_marker(run.status), read_marker(run.failure)
    return written | failure if _attempt(failure) >= _attempt(written) else written


def begin(run: Run, rank: Rank) -> None:
    """A new attempt runs. The first one's start is kept as the run's start."""
    now = _now()
    content = {
        "run": run.name,
        "state": RUNNING,
        "attempt": rank.attempt,
        "job_id": rank.job_id,
        "ranks": rank.world_size,
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "started": read_marker(run.status).get("started", now),
        "attempt_started": now,
        "ended": None,
    }
    write_marker(run.status, content)


def end(run: Run, rank: Rank, state: str) -> None:
    """The attempt is over in `state`, unless a rank failed."""
    write_marker(run.status, read_marker(run.status) | _ended(run, rank, state))


def fail(run: Run, rank: Rank, error: BaseException) -> None:
    """This rank failed, and so did the attempt; the first failure is the one that is kept."""
    if _attempt(read_marker(run.failure)) < rank.attempt:
        content = {**_ended(run, rank, FAILED), "error": describe(error, rank.rank)}
        write_marker(run.failure, content)


def describe(error: BaseException, rank: int) -> dict[str, Any]:
    """A failure for people: its type, its first lines, the rank that saw it."""
    lines = str(error).strip().splitlines()[:5]
    return {"type": type(error).__name__, "message": "\n".join(lines), "rank": rank}


def final_metrics(run: Run) -> dict[str, Any]:
    """The validation metrics of the candidate, or else what was logged last."""
    try:
        metrics: dict[str, Any] = dict(read_candidate(run.folder / "candidate").metrics)
    except CandidateError:
        metrics = {}
    return metrics or last_metrics(run.metrics)


def last_metrics(path: Path) -> dict[str, Any]:
    """The newest value of each metric in metrics.jsonl; empty when nothing was logged."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    newest: dict[str, Any] = {}
    for line in lines:
        try:
            content = json.loads(line)
        except ValueError:
            continue  # a line that is being written, or a torn first one
        if isinstance(content, dict):
            newest |= content
    return newest


def _ended(run: Run, rank: Rank, state: str) -> dict[str, Any]:
    return {
        "run": run.name,
        "state": state,
        "attempt": rank.attempt,
        "job_id": rank.job_id,
        "ended": _now(),
        "metrics": final_metrics(run),
    }


def _attempt(marker: dict[str, Any]) -> int:
    return int(marker.get("attempt", 0))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
