"""The project as a whole, without a site: its data is prepared, and it trains and exports."""

from pathlib import Path

import pytest

from conf import compose, enter_project
from conf.schema import plain_values
from hpc.cli.main import main
from serving.release.settings import make_gates

NAME = "example_project"


@pytest.fixture()
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a site in a temporary folder; the project is the one that this file is in."""
    monkeypatch.setenv("LOCKGATE_PROJECT", str(Path(__file__).parents[1]))
    enter_project()
    return [f"site.paths.data={tmp_path}/data", f"site.paths.runs={tmp_path}/runs"]


def test_it_prepares_trains_and_exports(site, tmp_path):
    assert main(["data", "prepare", f"data={NAME}", *site]) == 0
    words = ["train", f"task={NAME}", "cluster=local", "cluster.tasks_per_node=1", "steps=2", *site]
    assert main(words) == 0  # all that --dry-run checks is checked before anything starts
    assert main(["logs", "last", "-f", *site]) == 0
    assert list(tmp_path.glob("runs/*/candidate/golden.json"))


def test_its_gates_are_made(site):
    config = compose("release", [f"gates={NAME}", *site])
    assert make_gates(plain_values(config.gates, "gates"))
