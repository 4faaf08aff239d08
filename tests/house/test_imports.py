"""Imports: no circle between the rooms of a plane, and configs that cost no heavy library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict

import grimp
import pytest

from conf.plugin import is_own
from tests.house.tree import REPO
from tests.house.yaml_files import config_targets

HEAVY = ("torch", "deepspeed", "mlflow", "transformers")
# The main of a rank runs the training loop, which stands above the jobs that start it.
DOORS = {
    ("hpc.jobs.rank.entry", "hpc.train.loop"),
    ("hpc.jobs.rank.entry", "hpc.nodes.preflight"),
}
PROBE = """
import json, sys
from conf.plugin import find_target
for name in json.loads(sys.argv[1]):
    find_target(name, name)
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


@pytest.mark.parametrize(
    "above",
    ["", "hpc", "hpc.data", "hpc.tasks", "kernels", "serving", "serving.fleet", "serving.observe"],
)
def test_no_two_rooms_import_each_other(above: str) -> None:
    """Also by a detour over a third, and by an import inside a function; but for DOORS."""
    graph = grimp.build_graph("conf", "hpc", "kernels", "serving", cache_dir=None)
    depth = len(above.split(".")) + 1 if above else 1
    imported = defaultdict(set)
    for module in graph.modules:
        room = ".".join(module.split(".")[:depth])
        for other in graph.find_modules_directly_imported_by(module):
            other_room = ".".join(other.split(".")[:depth])
            if (module, other) in DOORS:
                continue
            if room.startswith(above) and other_room.startswith(above) and room != other_room:
                imported[room].add(other_room)
    imported.pop(above, None)  # the package's own __init__ hands over what its rooms define
    assert {
        room: sorted(reached)
        for room in list(imported)
        if room in (reached := _reachable(room, imported))
    } == {}


def test_own_plugins_are_found_without_a_heavy_library() -> None:
    own = sorted({target for _, _, target in config_targets() if is_own(target)})
    assert len(own) > 15
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(own), json.dumps(HEAVY)], cwd=REPO,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def _reachable(start: str, imported: dict[str, set[str]]) -> set[str]:
    """The rooms that `start` imports, directly or over others."""
    reached: set[str] = set()
    waiting = list(imported[start])
    while waiting:
        room = waiting.pop()
        if room not in reached:
            reached.add(room)
            waiting += imported.get(room, ())
    return reached
