"""The backends, one per `cluster.kind`."""

from __future__ import annotations

import pytest

from conf import ConfigError
from hpc.jobs.backend import BACKENDS, find_backend
from hpc.jobs.errors import SchedulerUnavailable, UsageError
from hpc.jobs.run.files import read_record
from hpc.jobs.slurm import backend as slurm_backend
from tests.hpc.jobs.slurm.test_jobs import USER
from tests.hpc.jobs.test_queue import NAME, job_file, make_run


def test_an_unknown_kind_is_answered_with_those_that_there_are():
    assert find_backend("slurm") is BACKENDS["slurm"]
    with pytest.raises(ConfigError, match=r"cluster\.kind=slrum: Nearest: slurm"):
        find_backend("slrum")


@pytest.mark.parametrize(("job_id", "more"), [("7", ["7"]), (None, [])])
def test_scancel_names_run_and_user_beside_the_id(monkeypatch, tmp_path, job_id, more):
    # An id that was given out again is another job, perhaps another user's.
    run = make_run(tmp_path, NAME, job_file(job_id=job_id) if job_id else None)
    sent = []
    monkeypatch.setattr(slurm_backend, "query", lambda *words: sent.append(words))
    BACKENDS["slurm"].cancel(read_record(run), timeout_s=1)
    variables = {"SLURM_CONF": "/etc/slurm.conf"}
    assert sent == [(["scancel", f"--name={NAME}", f"--user={USER}", *more], variables)]
    assert read_record(run).cancelled


def test_a_cancel_that_slurm_did_not_take_is_not_recorded(monkeypatch, tmp_path):
    def refuse(*_):
        raise SchedulerUnavailable("scancel did not answer")

    run = make_run(tmp_path, NAME, job_file())
    monkeypatch.setattr(slurm_backend, "query", refuse)
    with pytest.raises(SchedulerUnavailable):
        BACKENDS["slurm"].cancel(read_record(run), timeout_s=1)
    assert not read_record(run).cancelled


def test_root_submits_to_slurm_never(monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: 0)
    with pytest.raises(UsageError, match="root does not train; trainer does"):
        BACKENDS["slurm"].require_ready({}, "trainer")
    BACKENDS["local"].require_ready({}, "trainer")
