"""Slurm's recent answers, shared by the processes of one user.

Fifty followers of runs would else each run squeue in every period. Within `recent_answers` the
first of them asks, under a lock, and the others take its answer, or its failure, while it is young.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.regular_file import read_regular_file
from serving.artifact.durable import replace_file

LIMIT_BYTES = 256 << 20
Query = Callable[[Sequence[str], Mapping[str, str]], str]
_MOST_AGE_S: ContextVar[float] = ContextVar("most_age_s", default=0.0)


@contextmanager
def recent_answers(most_age_s: float) -> Iterator[None]:
    """Let `recent_answer` give with what Slurm answered at most `most_age_s` seconds ago."""
    token = _MOST_AGE_S.set(most_age_s)
    try:
        yield
    finally:
        _MOST_AGE_S.reset(token)


def recent_answer(command: Sequence[str], variables: Mapping[str, str], query: Query) -> str:
    """The output of a Slurm command that changes nothing; `query` runs it.

    Outside of `recent_answers`, and where the user has no folder for it, it is run each time.
    Raises `SchedulerUnavailable` where `query` does, or did.
    """
    folder = _own_folder() if _MOST_AGE_S.get() > 0 else None
    if folder is None:
        return query(command, variables)
    conf = variables.get("SLURM_CONF") or os.environ.get("SLURM_CONF", "")
    key = hashlib.sha256(json.dumps([conf, *command]).encode()).hexdigest()[:32]
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = _young_answer(folder / key)
        if answer is None:
            answer = _new_answer(command, variables, query)
            replace_file(folder / key, json.dumps(answer), mode=0o600, durable=False)
    if "error" in answer:
        raise SchedulerUnavailable(answer["error"])
    return answer["output"]


def _new_answer(
    command: Sequence[str], variables: Mapping[str, str], query: Query
) -> dict[str, str]:
    try:
        return {"output": query(command, variables)}
    except SchedulerUnavailable as error:
        return {"error": str(error)}


def _young_answer(path: Path) -> dict[str, str] | None:
    try:
        age_s = time.time() - path.stat().st_mtime
        if not 0 <= age_s <= _MOST_AGE_S.get():
            return None
        content = json.loads(read_regular_file(path, LIMIT_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    well_formed = isinstance(content, dict) and isinstance(
        content.get("output", content.get("error")), str
    )
    return content if well_formed else None


def _own_folder() -> Path | None:
    """A folder that nobody else may enter; None where another user made one of its name first."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(base, f"lockgate-slurm-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if private and stat.S_ISDIR(found.st_mode) else None
