"""`lockgate resume` on the local executor; training is a stand-in, all else is real."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from conf import LockgateError
from hpc.jobs.resume.plan import resume_plan
from hpc.jobs.run.folder import Run
from hpc.train.manifest import FILE, checkpoint_fault, read_manifest, seal_checkpoint

OLDER_THAN = (
    *("compile", "prefetch_batches", "deepspeed", "hang_timeout_s", "keep_best"),
    "cluster.preflight_s",
)

pytestmark = pytest.mark.timeout(120)


def leave_checkpoint(run: Run, step: int, world_size: int = 2) -> Path:
    """A sealed checkpoint, as training leaves it."""
    folder = run.folder / "checkpoints" / f"{step:08d}"
    (folder / "deepspeed").mkdir(parents=True)
    (folder / "deepspeed" / "part.pt").write_bytes(b"state" * step)
    (folder / "model.safetensors").write_bytes(b"weights")
    seal_checkpoint(folder, step, world_size, run.spec.digest)
    return folder


def test_a_run_goes_on_from_one_that_ended(checkout):
    parent = checkout.train()
    assert checkout.wait(parent).returncode == 0
    good = leave_checkpoint(parent, 3)
    damaged = leave_checkpoint(parent, 4)
    (damaged / "deepspeed" / "part.pt").write_bytes(b"other")
    before = {path: path.read_bytes() for path in parent.folder.rglob("*") if path.is_file()}

    # The code of today is another; the run goes on with its own.
    loop = checkout.root / "hpc" / "train" / "loop.py"
    loop.write_text(loop.read_text().replace("as submitted", "as edited"))
    dry = checkout.lockgate("resume", parent.name, "steps=9", "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert len(list(checkout.runs.glob("*/spec.yaml"))) == 1

    done = checkout.lockgate("resume", parent.name, "steps=9", "cluster.timeout_min=5", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["parent"], shown["step"], shown["steps"]) == (parent.name, 3, 9)
    assert shown["changed"] == {"cluster.timeout_min": [60, 5], "steps": [5, 9]}
    assert any(
        "00000004 is passed over: deepspeed/part.pt has 5 bytes" in n for n in shown["notes"]
    )
    assert any("optim.schedule.kind=cosine is drawn over all steps" in n for n in shown["notes"])

    run = Run(Path(shown["folder"]))
    inherited = run.folder / "checkpoints" / good.name
    assert read_manifest(inherited) == read_manifest(good)
    assert (inherited / FILE).stat().st_ino == (good / FILE).stat().st_ino
    first = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()[:3]]
    assert first == [1, 2, 3]  # and then the stand-in's own, which begins anew
    assert checkout.wait(run).returncode == 0
    seen = json.loads((run.folder / "seen-0.json").read_text())
    assert seen["word"] == "as submitted"
    assert run.spec.source == parent.spec.source
    assert run.spec.parent.words == f"{parent.name}@3"
    assert {path: path.read_bytes() for path in before} == before, "the parent stays as it ended"

    listed = {one["run"]: one for one in json.loads(checkout.lockgate("ls", "--json").stdout)}
    assert f"(goes on from {parent.name}@3)" in listed[run.name]["detail"]
    page = checkout.lockgate("show", run.name).stdout
    assert f"goes on from {parent.name}@3" in page
    assert f"repeat it: lockgate resume {parent.name} cluster.timeout_min=5 steps=9" in page

    # With the code as it stands.
    done = checkout.lockgate("resume", parent.name, "steps=9", "--source", "current", "--json")
    assert done.returncode == 0, done.stderr
    current = Run(Path(json.loads(done.stdout)["folder"]))
    assert current.spec.parent.source == "current"
    assert current.spec.source.digest != parent.spec.source.digest
    assert checkout.wait(current).returncode == 0
    assert json.loads((current.folder / "seen-0.json").read_text())["word"] == "as edited"


def test_a_run_of_before_some_keys_goes_on(checkout):
    parent = checkout.train()
    assert checkout.wait(parent).returncode == 0
    spec = parent.spec
    plain = deepcopy(spec.content()["config"])
    for key in OLDER_THAN:
        group, _, name = key.rpartition(".")
        del (plain[group] if group else plain)[name]
    replace(spec, plain=plain).write(parent.spec_path)
    leave_checkpoint(Run(parent.folder), 3)

    # Its own code may refuse a key that it does not have, so none is added.
    done = checkout.lockgate("resume", parent.name, "steps=9", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    (note,) = (one for one in shown["notes"] if "goes on without them" in one)
    assert note == f"older than these keys, it goes on without them: {', '.join(OLDER_THAN)}"
    assert shown["changed"] == {"steps": [5, 9]}
    run = Run(Path(shown["folder"]))
    assert run.spec.content()["config"] == {**plain, "steps": 9}
    assert checkout.wait(run).returncode == 0

    with pytest.raises(LockgateError) as refused:
        resume_plan(Run(parent.folder), ["keep_best=1"], "run", checkpoint_fault)
    assert str(refused.value).endswith(
        "is of code that is older than keep_best and goes on without it. To set it, go on with "
        f"the code as it stands now: lockgate resume {parent.name} keep_best=1 --source current"
    )

    # The code as it stands gets all keys, with what was done before them.
    done = checkout.lockgate(
        "resume", parent.name, "steps=9", "keep_best=1", "--source", "current", "--dry-run",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["changed"] == {"keep_best": [0, 1], "steps": [5, 9]}
    config = shown["spec"]["config"]
    assert (config["prefetch_batches"], config["hang_timeout_s"]) == (0, None)
    assert config["cluster"]["preflight_s"] == 0
    assert any("older than these keys, which get" in one for one in shown["notes"])


def test_what_cannot_go_on_is_refused_with_what_to_type(checkout):
    run = checkout.train("task.behaviour=hang")

    def refusal(*overrides: str) -> str:
        with pytest.raises(LockgateError) as refused:
            resume_plan(run, overrides, "run", checkpoint_fault)
        return str(refused.value)

    done = checkout.lockgate("resume", run.name)
    assert done.returncode == 2, done.stdout
    assert (
        f"running: it goes on by itself. To go on with other settings, end it first: lockgate \
cancel {run.name}"
        in done.stderr
    )
    assert checkout.lockgate("cancel", run.name).returncode == 0
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    assert "has no good checkpoint to go on from. Start it anew: lockgate train" in refusal()
    folder = leave_checkpoint(run, 5)
    assert "its candidate was not made. Make it: lockgate export" in refusal()
    assert "has done 5 steps, and steps=4 leaves nothing to do" in refusal("steps=4")
    assert f"init_from={run.name}@5 seed=7" in refusal("seed=7", "steps=9")
    assert "steps=0: must be at least 1" in refusal("steps=0")
    # Of before layouts were recorded: only as many ranks go on from it.
    assert "was written by 2 ranks and this job would have 1" in refusal(
        "steps=9", "cluster.tasks_per_node=1"
    )
    lineage = run.spec.dataset.folder / "lineage.json"
    text = lineage.read_text()
    lineage.write_text(text.replace(run.spec.dataset.digest, "0" * 64))
    assert "a run goes on with the data that it learned from" in refusal("steps=9")
    lineage.write_text(text)
    snapshot = checkout.runs / "snapshots" / run.spec.source.digest
    loop = snapshot / "hpc/train/loop.py"
    loop.chmod(0o644)
    loop.write_text(loop.read_text() + "\n")
    assert f"lockgate resume {run.name} --source current" in refusal("steps=9")
    (folder / FILE).write_text("{}")
    assert "has no good checkpoint" in refusal("steps=9")
    for path in (run.job, run.cancelled, run.status, run.failure):
        path.unlink(missing_ok=True)
    assert "was never submitted" in refusal()
    assert len(list(checkout.runs.glob("*/spec.yaml"))) == 1
