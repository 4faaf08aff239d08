"""The main of every rank: check what was frozen, prepare the process, train, exit with a code.

submitit calls `run` by reference, so it is imported from the run's source snapshot.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

from conf import LockgateError, find_project, repo_root
from conf.modes import share_new_files
from hpc.data.lineage import lineage_digest
from hpc.jobs.errors import SpecChanged
from hpc.jobs.rank import status
from hpc.jobs.rank.contained import require_container
from hpc.jobs.rank.exit_codes import (
    HANG,
    LOST_RANK,
    REFUSED,
    REQUEUE,
    TERMINATED,
    TRAINING_FAILED,
)
from hpc.jobs.rank.rendezvous import Rank, this_rank
from hpc.jobs.rank.signals import StopRequest
from hpc.jobs.rank.watchdog import Watchdog
from hpc.jobs.run.files import UNFIT_NODE, RankFailure
from hpc.jobs.run.folder import Run
from hpc.jobs.run.log_output import configure_logging, redirect_output
from hpc.jobs.run.lost_neighbour import is_lost_neighbour
from hpc.jobs.spec.config import cluster_config, run_config
from hpc.jobs.spec.environment import environment_of, installed_packages
from hpc.jobs.spec.job_spec import JobSpec, read_spec
from hpc.jobs.spec.snapshot import check_snapshot

log = logging.getLogger(__name__)

PACKAGES_CHANGED = (
    "lockgate: packages changed since submit; see environment.txt for what was frozen"
)

STOP_SHARE = 0.8
"""Part of cluster.signal_delay_s after which a rank that could not save ends, to come back."""


def run(spec_path: str, digest: str) -> NoReturn:
    """Run one rank of one attempt and end the process with its code, 0 when training finished."""
    share_new_files()
    here = Run(Path(spec_path).parent)
    rank = this_rank()
    redirect_output(here.logs / f"{rank.attempt}-{rank.rank}.log")
    configure_logging()
    faulthandler.enable()  # a segmentation fault leaves its stack in the log
    _end(here, rank, _attempt(here, rank, digest))


def _end(here: Run, rank: Rank, code: int) -> NoReturn:
    """Leave `code` for the batch script, and end the process with it."""
    if code:
        _leave_exit_code(here.exit_code(rank.attempt), code)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit, nor a return: a thread stuck in a collective with a rank that is gone would keep
    # the node, and gloo's threads, which outlive destroy_process_group() while DeepSpeed or a
    # default argument in torch holds the group, abort the process when one of them frees a tensor
    # while the interpreter ends (pytorch/pytorch#179291).
    os._exit(code)


def _attempt(here: Run, rank: Rank, digest: str) -> int:
    stop = StopRequest()
    signals = stop.install()
    try:
        spec = read_spec(here.spec_path, digest)
        _check(spec, here)
        if rank.rank == 0:
            status.start_attempt(here, rank)
        _set_environment(spec, rank)
        from hpc.nodes.preflight import preflight  # a layer above, as the loop is

        if fault := preflight(here, cluster_config(spec.config), rank):
            return _unfit(here, rank, fault)
        from hpc.train.loop import (
            train,  # torch and DeepSpeed, and the layer above: in the job only
        )

        watch = _watchdog(here, rank, spec, stop)
        watch.start(signals)
        outcome = train(spec, here.folder, stop, watch)
    except LockgateError as error:  # a sentence for people; the stack adds nothing
        log.error("lockgate: %s", error)
        status.fail_attempt(here, rank, error)
        return REFUSED if isinstance(error, SpecChanged) else TRAINING_FAILED
    except BaseException as error:  # noqa: BLE001  a rank never ends without its reason on record
        log.error("%s", traceback.format_exc().rstrip())
        if not is_lost_neighbour(f"{type(error).__name__}: {error}"):
            status.fail_attempt(here, rank, error)
            return TRAINING_FAILED
        if stop() and not stop.requeue:  # the others were told to end too, and did so first
            return TERMINATED
        status.fail_attempt(here, rank, error, state="ending")
        return LOST_RANK
    finally:
        if rank.rank == 0:
            here.target.unlink(missing_ok=True)
    if outcome == "stopped":
        return _stopped(here, rank, stop)
    log.info("lockgate: attempt %d finished", rank.attempt)
    if rank.rank == 0:
        status.end_attempt(here, rank, "finished")
    return 0


def _watchdog(here: Run, rank: Rank, spec: JobSpec, stop: StopRequest) -> Watchdog:
    """The watch over this rank, which ends it in a hang, and where it cannot save in time."""

    def end(kind: str, sentence: str) -> None:
        log.error("lockgate: %s", sentence)
        failure = RankFailure(kind.capitalize(), sentence, rank.rank)
        status.record_failure(here, rank, failure, "ending")
        _end(here, rank, HANG if kind == "hang" else REQUEUE)

    def resumed(step: int) -> None:
        if rank.rank == 0:
            status.resume_attempt(here, step)

    return Watchdog(
        stop=stop,
        limit_s=run_config(spec.config).hang_timeout_s,
        stop_within_s=STOP_SHARE * cluster_config(spec.config).signal_delay_s,
        hang=here.hang(rank.attempt),
        resumed=resumed,
        end=end,
    )


def _stopped(here: Run, rank: Rank, stop: StopRequest) -> int:
    """The exit code of an attempt that saved and stopped, by a signal at this or another rank.

    Only rank 0 ends with a code: srun kills the other ranks at the first one that is not 0.
    """
    asked = stop.signal.name if stop.signal else "another rank"
    log.info("lockgate: attempt %d saved and stopped (%s)", rank.attempt, asked)
    if rank.rank != 0:
        return 0
    if stop() and not stop.requeue:
        status.end_attempt(here, rank, "stopped")
        return TERMINATED
    status.end_attempt(here, rank, "requeued")
    return REQUEUE


def _unfit(here: Run, rank: Rank, fault: str) -> int:
    """The exit code of an attempt whose node is not fit; its end decides what follows."""
    status.record_failure(here, rank, RankFailure(UNFIT_NODE, fault, rank.rank), "ending")
    return REQUEUE


def _leave_exit_code(path: Path, code: int) -> None:
    """Leave the job's exit code for the batch script, unless another rank has.

    srun kills the other ranks when one has failed, and would then report their signal.
    """
    try:
        with path.open("x") as file:
            file.write(f"{code}\n")
    except FileExistsError:
        return


def _check(spec: JobSpec, here: Run) -> None:
    """Raise `SpecChanged` unless code and data are the frozen ones; log a changed environment."""
    snapshot = check_snapshot(here.folder.parent / "snapshots", spec)
    if repo_root().resolve() != snapshot.folder.resolve():
        raise SpecChanged(f"this job runs {repo_root()}, not its snapshot {snapshot.folder}.")
    project = find_project()
    running = project.root if project else None
    if running != (snapshot.project.resolve() if snapshot.project else None):
        raise SpecChanged(
            f"this job uses project {running}, not {snapshot.project} of its snapshot."
        )
    if lineage_digest(spec.dataset.folder) != spec.dataset.digest:
        raise SpecChanged(
            f"dataset {spec.dataset.name} at {spec.dataset.path} is not the one of the spec "
            f"({spec.dataset.digest[:12]}); it was removed or replaced. Submit again."
        )
    if spec.container is not None:  # its packages are the image's, whose digest was checked
        require_container(spec.container)
    elif environment_of(installed_packages()) != spec.environment:
        log.info(PACKAGES_CHANGED)


def _set_environment(spec: JobSpec, rank: Rank) -> None:
    os.environ.update(rank.variables())
    os.environ["TRITON_CACHE_DIR"] = str(_compile_cache(Path(spec.config.cluster.scratch)))


def _compile_cache(scratch: Path) -> Path:
    """A folder on this node that only this user can write: compiled kernels are loaded from it."""
    cache = scratch / f"lockgate-{os.getuid()}" / "triton"
    try:
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cache.parent.stat().st_uid == os.getuid() and not cache.parent.is_symlink():
            cache.parent.chmod(0o700)
            cache.mkdir(exist_ok=True)
            return cache
    except OSError:
        log.info("lockgate: %s cannot be used; this job compiles into a folder of its own", cache)
    return Path(tempfile.mkdtemp(prefix="lockgate-triton-"))
