"""The calls of this rank's operators, into the run's folder; see `hpc.jobs.run.operators`."""

from __future__ import annotations

import logging
from dataclasses import asdict

import kernels
from hpc.jobs.run.files import write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.operators import OperatorCount, OperatorsFile

log = logging.getLogger(__name__)


def write_operators(run: Run, rank: int, step: int) -> None:
    """Replace this rank's file, as of `step`; nothing for a model that calls no operator.

    A folder that cannot be written costs the file, not the training.
    """
    counts = {name: OperatorCount(**asdict(one)) for name, one in kernels.operator_calls().items()}
    if not counts:
        return
    try:
        run.operators.mkdir(exist_ok=True)
        write_run_file(run.operators / f"{rank}.json", OperatorsFile(rank, step, counts))
    except OSError as error:
        log.warning("operators/%d.json was not written: %s. Training goes on.", rank, error)


def served_sentence() -> str:
    """One line for the log: what served the operators that were called so far; empty for none."""
    by_backend: dict[str, list[str]] = {}
    for name, one in kernels.operator_calls().items():
        count = OperatorCount(**asdict(one))
        for backend in count.backends:
            reason = f" ({one.reason})" if backend == "torch" and one.reason else ""
            by_backend.setdefault(backend + reason, []).append(name)
    return "; ".join(f"{backend}: {', '.join(names)}" for backend, names in by_backend.items())
