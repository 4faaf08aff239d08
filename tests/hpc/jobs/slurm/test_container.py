"""The lines that start ranks in a container, to the letter, and what is refused before them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from conf import ConfigError
from hpc.jobs.cause import container_check
from hpc.jobs.errors import JobError, SchedulerUnavailable, SpecChanged
from hpc.jobs.rank.contained import require_container
from hpc.jobs.rank.exit_codes import REFUSED
from hpc.jobs.resume.image import resumed_image
from hpc.jobs.run.array import RunArray
from hpc.jobs.run.files import AttemptEndFile, FailureFile, read_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm import container, sbatch
from hpc.jobs.spec.container_image import frozen_image
from hpc.jobs.spec.job_spec import ContainerImage
from tests.hpc.jobs.clusters import slurm_cluster
from tests.hpc.jobs.spec.test_job_spec import spec_of

SHA = "0123456789abcdef" * 4
RUN = Run(Path("/runs/x-20260102-030405-abcdef"))
PLACE = {"container_python": "python3", "container_mounts": ["/site", "/data"]}
SUBMITIT = f"-u -m submitit.core._submit {RUN.submitit}"
ENV = (
    "PYTHONPATH,PYTHONDONTWRITEBYTECODE,PYTHONUNBUFFERED,OMP_NUM_THREADS,LOCKGATE_SITE,"
    "LOCKGATE_PROJECT,SUBMITIT_EXECUTOR,TOKEN"
)


@pytest.mark.parametrize(
    ("runtime", "image", "changes", "line"),
    [
        ("oci", "/images/torch", {}, f"--container=/images/torch python3 {SUBMITIT}"),
        ("oci", "/images/torch", {"container_python": None},
         f"--container=/images/torch PYTHON {SUBMITIT}"),
        ("pyxis", "/images/x.sqsh", {"pass_environment": ["TOKEN"]},
         "--container-image=/images/x.sqsh --no-container-mount-home "
         f"--container-mounts=/site:/site,/data:/data --container-env={ENV} python3 {SUBMITIT}"),
        ("pyxis", f"docker://nvcr.io/nvidia/x@sha256:{SHA}", {"container_mounts": []},
         f"'--container-image=nvcr.io#nvidia/x@sha256:{SHA}' --no-container-mount-home "
         f"--container-env={ENV.removesuffix(',TOKEN')} python3 {SUBMITIT}"),
        ("pyxis", f"docker://library/x@sha256:{SHA}", {"container_mounts": []},
         f"--container-image=library/x@sha256:{SHA} --no-container-mount-home "
         f"--container-env={ENV.removesuffix(',TOKEN')} python3 {SUBMITIT}"),
        ("apptainer", "/images/x.sif", {"gpus_per_node": 2},
         "apptainer exec --no-home --nv --bind /site --bind /data /images/x.sif python3 "
         f"{SUBMITIT}"),
        ("apptainer", f"docker://x/y@sha256:{SHA}", {"container_mounts": []},
         f"apptainer exec --no-home docker://x/y@sha256:{SHA} python3 {SUBMITIT}"),
    ],
)  # fmt: skip
def test_the_line_of_each_runtime(
    runtime: str, image: str, changes: dict[str, Any], line: str
) -> None:
    cluster = slurm_cluster(container=image, container_runtime=runtime, **{**PLACE, **changes})
    text = sbatch.script(cluster, RUN)
    (srun,) = (one for one in text.split("\n") if one.startswith("srun "))
    assert srun.split(" --kill-on-bad-exit=1 ")[1] == line.replace("PYTHON ", f"{sys.executable} ")
    check = f'hpc.jobs.cause.container_check {RUN.folder} "$((${{SLURM_RESTART_COUNT:-0}} + 1))"'
    assert f"{shlex.quote(sys.executable)} -m {check} || exit $?\n" in text
    # The batch script calls scontrol, and stays outside.
    assert "#SBATCH --container" not in text


@pytest.mark.parametrize(
    ("version", "changes", "refused"),
    [
        ("slurm-wlm 22.05.8", {}, True),
        ("slurm 21.08.8-2", {}, True),
        ("slurm 23.02.3", {}, False),
        ("slurm 25.05.1", {}, False),
        ("words", {}, False),
        (None, {}, False),
        ("slurm-wlm 22.05.8", {"nodes": 1}, False),
        ("slurm-wlm 22.05.8", {"container": None}, False),
        ("slurm-wlm 22.05.8", {"container_runtime": "pyxis"}, False),
    ],
)
def test_a_slurm_that_cannot_tell_ranks_apart_is_given_one(
    monkeypatch: pytest.MonkeyPatch, version: str | None, changes: dict[str, Any], refused: bool
) -> None:
    def answer(*_: object) -> str:
        if version is None:
            raise SchedulerUnavailable("sinfo is not on this machine")
        return f"{version}\n"

    monkeypatch.setattr(container, "query", answer)
    cluster = slurm_cluster(**{"nodes": 2, "container": "/images/torch", **changes})
    if refused:
        with pytest.raises(ConfigError, match=f"with 2 ranks: {version} gives all ranks"):
            container.check_version(cluster, {})
    else:
        container.check_version(cluster, {})


def test_a_sweep_checks_the_image_of_each_trial(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("submitit.SlurmExecutor.affinity", classmethod(lambda _: 2))
    runs = [Run(tmp_path / name) for name in ("a", "b")]
    array = RunArray(tmp_path / "array", runs)
    cluster = slurm_cluster(container="/x.sif", container_runtime="apptainer", **PLACE)
    text = sbatch.array_script(cluster, array)
    inside = text.index('cd "$SLURM_ARRAY_TASK_ID"')
    assert inside < text.index("hpc.jobs.cause.container_check . ") < text.index("srun ")
    sent = sbatch.array_executor(cluster, array)
    assert "apptainer exec --no-home --bind /site" in sent._submitit_command_str


def checked_run(tmp_path: Path) -> tuple[Run, Path]:
    """A run in a .sif that is there."""
    run, image = Run(tmp_path / "run"), tmp_path / "x.sif"
    image.write_text("image")
    run.logs.mkdir(parents=True)
    settings = {**vars(slurm_cluster()), "container": str(image), "container_runtime": "apptainer"}
    frozen = frozen_image(slurm_cluster(container=str(image), container_runtime="apptainer"))
    spec_of({"cluster": settings}, container=frozen).write(run.spec_path)
    return run, image


def test_a_requeued_run_refuses_a_changed_image(tmp_path: Path, capsys) -> None:
    run, image = checked_run(tmp_path)
    assert container_check.main([str(run.folder), "1"]) == 0
    assert not run.failure.exists()
    image.write_text("another")
    assert container_check.main([str(run.folder), "2"]) == REFUSED
    assert "was changed" in capsys.readouterr().err
    failure = read_run_file(FailureFile, run.failure).value
    assert failure is not None and failure.state == "failed"
    assert failure.error.line.startswith(f"the container image {image} was changed: its digest is")
    end = read_run_file(AttemptEndFile, run.attempt_end(2)).value
    assert end is not None
    assert (end.outcome, end.kind, end.exit_code) == ("failed", "error", REFUSED)
    assert "submit again to train in the image as it is now" in end.sentence


def test_without_a_container_nothing_is_checked(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    spec_of({"cluster": vars(slurm_cluster())}).write(run.spec_path)
    assert container_check.main([str(run.folder), "1"]) == 0
    run.spec_path.chmod(0o644)
    run.spec_path.write_text("changed")
    assert container_check.main([str(run.folder), "1"]) == 0  # the ranks refuse it


@pytest.mark.parametrize(
    ("named", "changed", "note"),
    [((), False, ""), ((), True, None),
     (("cluster.container=IMAGE",), True, "it goes on in the container image IMAGE"),
     (("cluster.timeout_min=9",), True, None), (("cluster.container_python=python3",), True, None)],
)  # fmt: skip
def test_a_resumed_run_keeps_its_image_unless_it_is_named(
    tmp_path: Path, named: tuple[str, ...], changed: bool, note: str | None
) -> None:
    image = tmp_path / "x.sif"
    image.write_text("image")
    cluster = slurm_cluster(container=str(image), container_runtime="apptainer")
    before = frozen_image(cluster)
    image.write_text("another" if changed else "image")
    overrides = [one.replace("IMAGE", str(image)) for one in named]
    if note is None:
        with pytest.raises(SpecChanged, match=r"name it: lockgate resume r1 cluster\.container=/"):
            resumed_image(before, cluster, overrides, "r1")
    else:
        found, words = resumed_image(before, cluster, overrides, "r1")
        assert found == frozen_image(cluster)
        assert words.startswith(note.replace("IMAGE", str(image)))


def test_a_resumed_run_without_its_container_is_noted() -> None:
    assert resumed_image(None, slurm_cluster(), [], "r1") == (None, "")
    before = ContainerImage("/x.sif", "apptainer", SHA)
    found, note = resumed_image(before, slurm_cluster(), ["cluster.container=null"], "r1")
    assert (found, note) == (
        None,
        "it goes on without a container image, which its parent did not",
    )


@pytest.mark.parametrize(
    ("runtime", "users", "refused"),
    [
        ("oci", "         0          0 4294967295\n", True),
        ("oci", "      1000       1000          1\n", False),
        ("pyxis", "         0          0 4294967295\n", False),
        ("apptainer", "         0          0 4294967295\n", False),
    ],
)
def test_a_rank_outside_of_its_container_ends(
    tmp_path: Path, runtime: str, users: str, refused: bool
) -> None:
    (tmp_path / "uid_map").write_text(users)
    image = ContainerImage("/images/torch", runtime, SHA)
    if refused:
        with pytest.raises(JobError, match="not in its container /images/torch"):
            require_container(image, tmp_path / "uid_map")
    else:
        require_container(image, tmp_path / "uid_map")
