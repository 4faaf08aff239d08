"""A run that goes on from another one ends with the same numbers as one that was never ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.jobs.resume.inherit import inherit
from hpc.jobs.run.checkpoints import kept_checkpoints
from hpc.jobs.run.folder import Run
from hpc.jobs.spec.ancestry import InitialWeights, Parent
from hpc.jobs.spec.job_spec import read_spec
from serving.artifact.digest import file_sha256
from tests.hpc.train.test_resume import LAST, losses

pytestmark = pytest.mark.full  # five attempts of two ranks


def test_a_resumed_run_is_bit_equal_and_one_with_initial_weights_begins_with_them(
    new_run: Callable[..., Path], attempt: Callable, tmp_path: Path
) -> None:
    whole, parent = new_run("whole"), Run(new_run("parent"))
    assert attempt(whole).codes == [0, 0]
    assert attempt(parent.folder, ("stop", "3")).codes == [0, 0]
    (kept,) = kept_checkpoints(parent)

    child = Run(tmp_path / "child")
    child.folder.mkdir()
    link = Parent(
        "parent", parent.spec.digest, 3, file_sha256(kept.folder / "manifest.json"), {}, "run"
    )
    replace(parent.spec, parent=link).write(child.spec_path)
    ended = attempt(child.folder)  # never from nothing: its checkpoint is not there yet
    assert ended.codes == [3, 3], ended.log
    assert "goes on from parent@3, and that checkpoint in its folder is not good" in ended.log

    inherit(kept, parent, child)
    ended = attempt(child.folder)
    assert ended.codes == [0, 0], ended.log
    assert losses(child.folder) == losses(whole)
    assert (child.folder / LAST).read_bytes() == (whole / LAST).read_bytes()
    assert losses(parent.folder) == losses(whole)[:3]

    started = Run(new_run("started", "steps=1", "optim=adamw", "optim.lr=1e-30"))
    spec = read_spec(started.spec_path)
    started.spec_path.unlink()
    weights = whole / LAST
    initial = InitialWeights("whole", 8, str(weights), file_sha256(weights))
    replace(spec, initial=initial).write(started.spec_path)
    ended = attempt(started.folder)
    assert ended.codes == [0, 0], ended.log
    fresh, begun = losses(whole)[0][1], losses(started.folder)[0][1]
    assert begun < fresh - 0.01, "the first batch is the same one, and the model has learned"
