"""A small checkout with a task that needs no torch: all of hpc.jobs is real, training is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from serving.artifact.digest import tree_digest

REPO = Path(__file__).resolve().parents[3]

STAND_IN_LOOP = '''
"""Counts steps. What it does beside that is said by config.task.behaviour."""
import json, os, time
from importlib import import_module
from pathlib import Path

WORD = "as submitted"


def train(spec, run_dir: Path, stop, watch) -> str:
    rank = int(os.environ["RANK"])
    seen = {"word": WORD, "greeting": spec.config.task.greeting, "environment": dict(os.environ)}
    if "module" in spec.config.task:
        seen["project_word"] = import_module(spec.config.task.module).WORD
    (run_dir / f"seen-{rank}.json").write_text(json.dumps(seen))
    print(f"rank {rank} begins", flush=True)
    behaviour = spec.config.task.behaviour
    if behaviour == "fail" and rank == int(os.environ["WORLD_SIZE"]) - 1:
        raise FloatingPointError("loss is nan at step 3")
    saved = run_dir / "checkpoints"
    resumed = saved.exists()
    if behaviour == "eat" and rank == int(os.environ["WORLD_SIZE"]) - 1:
        eaten = bytearray(600 << 20)
    first = len(list((run_dir / "log").glob(f"*-{rank}.log"))) == 1
    for step in range(1, spec.config.steps + 1):
        if rank == 0:
            with (run_dir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
        while (behaviour == "wait" and not resumed) or behaviour in ("hang", "eat") or (
            behaviour == "first" and first
        ) or (
            behaviour == "fail"  # the ranks that did not fail wait for the one that did
        ):
            if stop() and behaviour != "fail":
                saved.mkdir(exist_ok=True)
                return "stopped"
            time.sleep(0.02)
    return "finished"
'''

STAND_IN_KIND = '''
"""A task and a model that stand for nothing; the loop above does not use them."""
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class StandIn:
    unit: ClassVar[str] = "rows"
    sizes: ClassVar[tuple[str, ...]] = ()
    name: str
    dataset: str
    behaviour: str
    greeting: str
    api_token: str | None
    module: str = ""

    def check(self, model, dataset) -> None: ...

    build_model = batches = loss = unit_count = evaluate = export = check


@dataclass(frozen=True)
class Nothing:
    declares_hidden_matrices: ClassVar[bool] = False

    def build(self): ...
'''

STAND_IN_TASK = """\
# @package _global_
defaults:
  - override /model: standin
  - override /optim: adamw
task:
  _target_: hpc.tasks.standin.StandIn
  name: standin
  dataset: toy
  # finish, fail, wait (finishes after a stop), hang, eat (memory), first (hangs once)
  behaviour: finish
  greeting: hello
  api_token: null
steps: 5
"""


def make_checkout(root: Path) -> Path:
    """A copy of this checkout whose training loop and task are stand-ins."""
    for part in ("conf", "hpc", "serving"):
        shutil.copytree(REPO / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", root)
    (root / "hpc" / "train" / "loop.py").write_text(STAND_IN_LOOP)
    (root / "hpc" / "tasks" / "standin.py").write_text(STAND_IN_KIND)
    model = "_target_: hpc.tasks.standin.Nothing\n"
    (root / "conf" / "model" / "standin.yaml").write_text(model)
    (root / "conf" / "task").mkdir(exist_ok=True)
    (root / "conf" / "task" / "standin.yaml").write_text(STAND_IN_TASK)
    return root


def publish_toy(site: Path) -> Path:
    """A dataset folder as `lockgate data prepare` leaves it."""
    staged = site / "data" / "toy" / "staged"
    staged.mkdir(parents=True)
    (staged / "train.txt").write_text("one two three")
    (staged / "transform.json").write_text(json.dumps({"kind": "tabular"}))
    digest = tree_digest(staged)
    lineage = {
        "name": "toy", "digest": digest, "source": {}, "schema": {}, "transform_digest": "",
        "splits": {}, "notes": {}, "recipe": "", "created": "",
    }  # fmt: skip
    (staged / "lineage.json").write_text(json.dumps(lineage))
    folder = staged.rename(staged.parent / digest[:12])
    (folder.parent / "current").symlink_to(folder.name)
    return folder
