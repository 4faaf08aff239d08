"""Rollouts through drawn fleets: safe whatever fails, at a cost that grows with the hosts."""

from __future__ import annotations

import re

import pytest

from conf.errors import DONE, INCOMPLETE
from serving.fleet.cli.rehearsals import rehearsals
from serving.fleet.errors import FleetConfigError
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.fleet.simulation.rehearsal import rehearse

REST = 16


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """The same draws for 48 and 96 hosts in 12 regions."""
    folder = tmp_path_factory.mktemp("drawn")
    found = {}
    for hosts in (48, 96):
        (folder / str(hosts)).mkdir()
        found[hosts] = rehearse(hosts, 12, 7, RolloutConfig(parallel=12), folder / str(hosts))
    return found


def test_each_draw_ends_in_a_stated_state(sizes):
    for healthy, broken, wrong, skipped, rollback, placed, placed_back in sizes.values():
        assert (healthy.outcome, healthy.exit_code) == ("done", DONE)
        # The number of a change is drawn, and some are borne: a clean-up is tried again later.
        assert broken.outcome in ("rolled-back", "done")
        assert wrong.outcome == "rolled-back"
        assert skipped.outcome == "done"
        assert rollback.exit_code == INCOMPLETE, rollback
        assert (placed.outcome, placed.exit_code) == ("done", DONE)
        assert placed_back.outcome == "done" and placed_back.exit_code == DONE, placed_back


def test_a_placed_model_touches_none_of_the_other_hosts(sizes):
    for drawn in sizes.values():
        assert [one.strayed for one in drawn] == [0] * len(drawn)
        assert drawn[5].changes < drawn[0].changes


def test_no_client_is_without_an_answer_or_gets_an_unchecked_one(sizes):
    for drawn in sizes.values():
        assert [(one.draw, one.outages) for one in drawn if one.outages] == []
        assert [(one.draw, one.unproven) for one in drawn[:4] if one.unproven] == []


def test_twice_the_hosts_cost_at_most_twice_the_driver_calls(sizes):
    for small, large in zip(sizes[48], sizes[96], strict=True):
        if "change" in small.draw:
            continue  # it fails at another place
        # A host that is away costs less than the others, and the larger fleet has as many of them.
        assert large.changes <= 2 * small.changes + REST, (small, large)
        assert large.reads <= 2 * small.reads + REST, (small, large)


@pytest.mark.parametrize("size", ["", "1000", "0x3", "10x12", "ax2", "12x-1"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(FleetConfigError, match=re.escape("as in --simulate 1000x12")):
        rehearsals(None, size, 1)  # type: ignore[arg-type]
