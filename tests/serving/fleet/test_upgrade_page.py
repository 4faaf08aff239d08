"""The page of an upgrade: machines over time, whole in itself, and shown by a browser."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from serving.fleet.cli.command import Controls
from serving.fleet.cli.watch import write_report
from serving.fleet.errors import FleetError
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.fleet.rollout.upgrade_walk import UpgradeStopped
from tests.serving.fleet.test_rollout_page import CHROMIUM, Dom
from tests.serving.fleet.test_upgrade_walk import HOSTS, UpgradeBed


def written(folder: Path, fails: bool, reason: str = "numpy 2.1") -> tuple[Path, Dom]:
    bed = UpgradeBed(folder)
    if fails:
        bed.fail_at, bed.failure = 7, FleetError
    with suppress(UpgradeStopped):
        bed.upgrade("20260101-000000-upgrade", reason)
    on = Controls(None, folder, Journal(folder), RolloutConfig(), "", folder)
    path = Path(write_report(on, "000000-upg", None))
    return path, Dom(path.read_text())


def test_an_upgrade_that_went_well_says_so_for_each_machine(tmp_path):
    path, dom = written(tmp_path, fails=False)
    assert path == tmp_path / "pages/20260101-000000-upgrade.html"
    assert dom.text("h1").startswith("3 of 3 machines upgraded") and "half-way." in dom.text("h1")
    lanes = [attributes["data-name"] for attributes, _ in dom.all("g") if "data-name" in attributes]
    assert lanes == list(HOSTS) and dom.text("p", id="next") == "Nothing is left to do."
    assert "numpy 2.1" in dom.text("dl", id="facts")


def test_one_that_stopped_names_the_machine_the_reason_and_the_way_on(tmp_path):
    _, dom = written(tmp_path, fails=True, reason="<script>alert(1)</script>")
    assert dom.text("h1").startswith("1 of 3 machines upgraded: incomplete")
    assert "it ended here" in dom.text("p", id="reason")
    table = dom.text("table", id="machines")
    assert "h2" in table and "left half-way" in table and "not begun" in table
    assert dom.text("p", id="next") == "Mend what it names and go on: fab upgrade --hosts h2,h3"
    assert not dom.all("script") and "<script>alert(1)" in dom.text("dl", id="facts")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_a_browser_shows_it_without_a_script_or_a_network(tmp_path):
    path, _ = written(tmp_path, fails=True)
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", f"file://{path}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    dom = Dom(done.stdout)
    assert dom.text("title") + "." == dom.text("h1")
    assert len(dom.all("rect", **{"class": "seg"})) == 2
