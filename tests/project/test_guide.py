"""docs/extending.md: the pieces that it shows, written into a project and made."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf import compose, enter_project
from conf.plugin import find_target, make_plugin
from conf.schema import plain_values
from serving.release.gates.quality import QualityGate
from serving.release.settings import make_gates

REPO = Path(__file__).parents[2]
BLOCK = re.compile(r"^```\w+\n# (\S+\.(?:py|yaml))\n(.*?)^```", re.MULTILINE | re.DOTALL)
PIECES = {
    name: text
    for name, text in BLOCK.findall((REPO / "docs/extending.md").read_text(encoding="utf-8"))
    if not name.startswith("kernels/")  # files of Lockgate itself, see test_new_operator.py
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A project of the guide's name with all its pieces."""
    root = tmp_path / "mine"
    for name, text in {"lockgate.yaml": "name: mine\n", **PIECES}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LOCKGATE_PROJECT", str(root))
    enter_project()
    yield
    for name in [one for one in sys.modules if one.partition(".")[0] == "mine"]:
        del sys.modules[name]


def test_the_guide_has_a_piece_of_each_kind() -> None:
    assert set(PIECES) == {
        "conf/gates/late.yaml", "conf/optim/sgd.yaml", "mine/metrics.py", "mine/baselines.py",
    }  # fmt: skip


def test_its_gates_are_made_with_its_metric_and_baseline() -> None:
    gates = make_gates(plain_values(compose("release", ["gates=late"]).gates, "gates"))
    assert gates["base_rate.auc"].margin == 0.1
    assert gates["regions.recall"].slices == ("carrier",)
    cost = gates["cost"]
    assert isinstance(cost, QualityGate)
    assert type(cost.baseline) is find_target("mine.baselines.Timetable", "baseline")
    assert cost.metric.title == "cost"


def test_its_optimizer_is_made_of_torchs_class() -> None:
    import torch

    config = compose("train", ["task=flights", "optim=sgd"])
    values = plain_values(config.optim, "optim")
    settings = {key: value for key, value in values.items() if key != "schedule"}
    optimizer = make_plugin(settings, "optim", torch.nn.Linear(2, 2).parameters())
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.defaults["momentum"] == 0.9
