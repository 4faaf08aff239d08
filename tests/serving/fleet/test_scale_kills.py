"""A controller killed anywhere in `fab scale`, and the same command typed again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from serving.fleet.rollout.journal import Journal
from tests.serving.fleet import simulated as sim
from tests.serving.fleet.scaled import Site

POINTS = 60
"""More than any of these orders has kill points."""

ORDERS = {
    "in": lambda site: site.hosts(2),
    "out": lambda site: site.hosts(4),
    "instances": lambda site: site.instances(3),
    "default": lambda site: site.instances(None),
}


def prepared(site: Site, what: str) -> None:
    if what == "out":
        site.hosts(2)
        assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "done"
    if what == "default":
        site.instances(3)
    site.driver.arm(None)


@pytest.mark.parametrize(
    "kind", ["journal line", "change", pytest.param("late change", marks=pytest.mark.full)]
)
@pytest.mark.parametrize("what", ORDERS)
def test_a_controller_killed_anywhere_is_continued_by_the_same_command(what, kind, monkeypatch):
    at = 0
    while True:
        at += 1
        assert at < POINTS
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as folder,
            monkeypatch.context() as patched,
        ):
            site = Site(Path(folder), patched)
            prepared(site, what)
            dying = killed_at(site, at, kind, patched)
            try:
                with pytest.raises(sim.Killed):
                    ORDERS[what](site)
            except pytest.fail.Exception:
                assert at > 2, "it had that many points"
                return
            dying.clear()
            site.driver.arm(None)
            ORDERS[what](site)
            site.served_well()
            if what in ("in", "out"):
                wanted = {"e0", "e1"} if what == "in" else {"e0", "e1", "e2", "e3"}
                assert site.taking == wanted
                assert site.standby == {"e2", "e3"} - wanted
                assert site.on.journal.quarantined() == {}
            else:
                count = 3 if what == "instances" else 1
                assert site.counts == {(count, count)}
                assert site.on.journal.instances("toy") == (3 if count == 3 else None)
            assert ORDERS[what](site).startswith("no change")


def killed_at(site: Site, at: int, kind: str, patched) -> list[int]:
    """Have the controller die there; the list that is returned is cleared to let it live."""
    if kind != "journal line":
        site.driver.arm(at, late=kind == "late change", kill=True)
        return []
    record, left = Journal.record, [at]

    def dying(journal, event, rollout, **content):
        if left:
            left[0] -= 1
            if site.driver.killed or left[0] == 0:
                site.driver.killed = True
                raise sim.Killed
        return record(journal, event, rollout, **content)

    patched.setattr(Journal, "record", dying)
    return left
