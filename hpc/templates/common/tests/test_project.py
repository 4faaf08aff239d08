"""The project as a whole, without a site: its data is prepared, and it trains and exports."""

from pathlib import Path

import pytest

from conf import compose
from hpc.cli.main import main

NAME = "example_project"


@pytest.fixture()
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a site in a temporary folder; the project is the one that this file is in."""
    monkeypatch.setenv("LOCKGATE_PROJECT", str(Path(__file__).parents[1]))
    return [f"site.paths.data={tmp_path}/data", f"site.paths.runs={tmp_path}/runs"]


def test_it_prepares_trains_and_exports(site, tmp_path):
    assert main(["data", "prepare", f"data={NAME}", *site]) == 0
    words = ["train", f"task={NAME}", "cluster=local", "cluster.tasks_per_node=1", "steps=2", *site]
    assert main([*words, "--dry-run"]) == 0
    assert main(words) == 0
    assert main(["logs", "last", "-f", *site]) == 0
    assert list(tmp_path.glob("runs/*/candidate/golden.json"))


def test_its_gates_compose(site):
    assert compose("release", [f"gates={NAME}", *site]).gates
