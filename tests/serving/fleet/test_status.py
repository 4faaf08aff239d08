"""`fab status`: a rollout at work is none that broke, and each thing has its place."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from rich.console import Console

from conf.site_placement import ModelPlacement
from serving.fleet.cli import status
from serving.fleet.cli.command import Controls
from serving.fleet.cli.host_status import drift
from serving.fleet.cli.status import fleet_status
from serving.fleet.cli.status_view import status_lines, status_tables
from serving.fleet.errors import Unreachable
from serving.fleet.rollout.driver import HostState, HostVerification
from serving.fleet.rollout.engine import RolloutConfig
from serving.fleet.rollout.holder import Holder, this_boot, write_lease
from serving.fleet.rollout.lease import hold
from serving.fleet.routing import Routing, VersionCounters
from serving.triton import model_config
from tests.serving.fleet import journals

CONFIG = model_config.with_versions('name: "toy" backend: "python"', (4, 5))
HOSTS = {"use1-a": "us-east", "usw2-a": "us-west"}


def healthy(host: str, **changes) -> HostState:
    now = datetime.now(UTC).isoformat()
    return replace(
        HostState(
            host, HOSTS[host], (4, 5), CONFIG, ((4, "d" * 64), (5, "d" * 64)),
            verification=HostVerification(now, True),
        ), **changes,
    )  # fmt: skip


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A fleet that is read from `states`, `routing` and `counters` of the returned object."""
    written = journals.WrittenJournal(tmp_path, monkeypatch)
    written.production(4, "r4")
    written.at = 60
    written.deployment()
    site = SimpleNamespace(
        written=written,
        states={host: healthy(host) for host in HOSTS},
        routing={"us-east": Routing(5), "us-west": Routing(5)},
        counters={4: VersionCounters(5008, 0), 5: VersionCounters(4000, 1)},
    )

    class SetDriver:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read_hosts(self, verify=False):
            return site.states

        def read_routing(self):
            return site.routing

        def counters(self):
            if isinstance(site.counters, Exception):
                raise site.counters
            return site.counters

        def edges_of(self, host):
            return (HOSTS[host.name],)

    fleet = SimpleNamespace(hosts=[SimpleNamespace(name=host) for host in HOSTS], placement={})
    site.on = Controls(fleet, tmp_path / "store", written.journal, RolloutConfig(), "", None)
    monkeypatch.setattr(status, "SshDriver", SetDriver)
    return site


def text(found) -> str:
    return "\n".join(status_lines(found))


def test_a_fleet_as_it_should_be_has_ages_traffic_and_routing(site):
    found = fleet_status(site.on)
    assert not found.drifts and not found.running and found.notes == ()
    (model,) = found.models
    assert (model.production, model.rollout, model.traffic_since) == (5, "r5", "r5")
    assert [(one.version, one.requests, one.errors) for one in model.traffic] == [
        (4, 0, 0), (5, 1000, 1),
    ]  # fmt: skip
    assert "toy/5: 1,000 requests, 1 failed (0.1%) since r5" in text(found)
    assert "edge us-east        all to 5" in text(found)
    assert "p99 - (the site has no Prometheus)" in text(found)
    assert all(row.verified_age_s < 60 and row.answers == 5 for row in found.rows)


def test_a_model_is_missed_where_it_has_its_place_and_a_stray_where_it_has_none(site):
    site.on.fleet.placement = {"toy": ModelPlacement(("use1-a",))}
    site.states["usw2-a"] = HostState("usw2-a", "us-west")
    found = fleet_status(site.on)
    assert not found.drifts and [row.host for row in found.rows] == ["use1-a"]
    site.states["usw2-a"] = healthy("usw2-a", serving=(), config=CONFIG)
    (row,) = [row for row in fleet_status(site.on).rows if row.host == "usw2-a"]
    assert "has toy, which has no place there" in row.drift[0] and "fab heal" in row.drift[0]
    site.states["usw2-a"] = HostState("usw2-a", "us-west", problem="it does not answer.")
    assert [row.drift for row in fleet_status(site.on).rows] == [(), ("it does not answer.",)]
    site.states["use1-a"] = HostState("use1-a", "us-east")
    assert "does not serve 5, which its edge gives requests" in fleet_status(site.on).rows[0].drift


def test_a_rollout_at_work_is_shown_with_its_owner_and_is_no_fault(site):
    written = site.written
    written.start("r6", 6, 5, waves=[["use1-a"], ["usw2-a"]])
    written.record(1, "step", "r6", 6, host="use1-a", step="load", detail="5 and 6")
    site.states["use1-a"] = healthy("use1-a", edge="drain", unready=((6, "LOADING"),))
    with hold(written.journal.folder, "deploy toy/6", 30):
        found = fleet_status(site.on)
    assert "did not end" not in text(found) and not found.drifts
    (running,) = found.running
    assert (running.rollout, running.step, running.version) == ("r6", "use1-a load", 6)
    assert "deploy of toy/6 is going on: by " in text(found)
    assert "fab watch --model toy" in text(found)
    assert "~ 6 is LOADING" in text(found)


def test_a_host_that_the_rollout_did_not_touch_still_drifts(site):
    site.written.start("r6", 6, 5, waves=[["use1-a"]])
    site.states["usw2-a"] = healthy("usw2-a", alive=False)
    with hold(site.written.journal.folder, "deploy toy/6", 30):
        assert fleet_status(site.on).drifts


def test_a_rollout_whose_controller_is_gone_has_the_command_that_ends_it(site):
    site.written.start("r6", 6, 5, waves=[["use1-a"]])
    gone = Holder("t", "a@b", "deploy toy/6", this_boot(), 2**22 + 1, "1", time.time(), 7, 120)
    write_lease(site.written.journal.folder / "lease.json", gone)
    found = fleet_status(site.on)
    assert not found.running and found.drifts
    (remark,) = found.remarks
    assert "did not end" in remark and "fab rollback --model toy" in remark


def test_the_lock_of_another_model_is_no_rollout_of_this_one(site):
    site.written.start("r6", 6, 5, waves=[["use1-a"]])
    with hold(site.written.journal.folder, "deploy other/6", 30):
        found = fleet_status(site.on)
    assert not found.running and "did not end" in found.remarks[0]
    assert "deploy other/6" in found.notes[0]


def test_a_controller_elsewhere_that_stands_still_is_shown_so(site, monkeypatch):
    site.written.start("r6", 6, 5, waves=[["use1-a"]])
    away = Holder("t", "a@b", "deploy toy/6", "another boot", 7, "1", time.time(), 7, 120)
    write_lease(site.written.journal.folder / "lease.json", away)
    monkeypatch.setattr(status.HolderWatch, "quiet_s", lambda self: 9.0)
    found = fleet_status(site.on)
    assert not found.drifts and "without a sign of life for 9 s" in text(found)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unready": ((4, "UNLOADING"),)}, "4 is UNLOADING"),
        ({"golden": ((5, "golden example 2 differs"),)}, "5 answers wrong: golden example 2"),
        ({"serving": (4,)}, "does not serve 5, which its edge gives requests"),
        ({"problem": "it does not answer"}, "it does not answer"),
        ({"up": False}, "gets no traffic: the edge's checks say it is down"),
    ],
)
def test_a_fault_of_a_host_is_a_sentence(site, changes, sentence):
    site.states["usw2-a"] = healthy("usw2-a", **changes)
    found = fleet_status(site.on)
    assert found.drifts and f"! {sentence}" in text(found)
    assert found.rows[0].drift == ()


def test_a_version_that_was_unloaded_is_no_fault():
    assert drift(healthy("use1-a", unready=((3, "UNAVAILABLE: unloaded"),)), 5, None) == ()


def test_an_edge_that_gives_another_version_is_a_fault(site):
    site.routing["us-west"] = Routing(4)
    site.routing["us-east"] = "the edge does not answer"
    found = fleet_status(site.on)
    assert "the edge us-west gives toy/4, production is 5" in text(found)
    assert "! toy at the edge us-east: the edge does not answer" in text(found)


def test_a_canary_that_was_left_at_an_edge_is_a_fault(site):
    site.routing["us-west"] = Routing(5, 4, 10.0)
    assert "gives 10% to toy/4, and no rollout is at work" in text(fleet_status(site.on))


def test_counters_that_cannot_be_read_hide_nothing(site):
    site.counters = Unreachable("the edge of us-east is away")
    found = fleet_status(site.on)
    assert not found.drifts and len(found.rows) == 2 and "is away" in found.notes[0]


def test_a_quarantined_host_has_the_reason_and_the_way_back(site):
    site.written.journal.record("quarantined", "q1", host="usw2-a", reason="its fan is loud")
    site.states["usw2-a"] = healthy("usw2-a", edge="maint")
    found = fleet_status(site.on)
    assert found.quarantined == {"usw2-a": "its fan is loud"}
    assert "! quarantined: its fan is loud. Back: fab undrain usw2-a" in text(found)
    assert "it is in maint" not in text(found)


def test_a_host_on_standby_is_no_drift_and_has_the_way_back(site):
    site.written.journal.record("standby", "host-1", host="usw2-a", reason="night")
    site.states["usw2-a"] = healthy("usw2-a", edge="drain", serving=(4,))
    found = fleet_status(site.on)
    assert not found.drifts and found.standby == {"usw2-a": "night"}
    assert "~ on standby: night. Back: fab scale --hosts N --region us-west" in text(found)
    assert "~ does not serve 5" in text(found) and "it is in drain" not in text(found)
    site.written.journal.record("quarantined", "q1", host="usw2-a", reason="its fan is loud")
    assert fleet_status(site.on).drifts, "a person's word is no standby"


def test_the_instances_of_a_model_are_shown_and_a_host_with_others_drifts(site):
    assert "instance" not in text(fleet_status(site.on)), "nobody knows how many"
    site.written.journal.record("scaled", "scale-1", model="toy", version=5, instances=2)
    site.states = {host: healthy(host, instances=2) for host in HOSTS}
    found = fleet_status(site.on)
    assert not found.drifts and "2 instances of toy on a host; p99" in text(found)
    assert [row.instances for row in found.rows] == [2, 2]
    site.states["usw2-a"] = healthy("usw2-a", instances=1)
    found = fleet_status(site.on)
    assert "! has 1 instance of toy, ordered are 2. Mend it: fab heal --model toy" in text(found)
    assert not found.rows[0].drift


def test_the_tables_and_the_json_have_all_of_it(site):
    from dataclasses import asdict

    found = fleet_status(site.on)
    out = io.StringIO()
    Console(file=out, width=200).print(status_tables(found))
    assert "toy/5" in out.getvalue() and "us-east: all to 5" in out.getvalue()
    content = json.loads(json.dumps({**asdict(found), "drifts": found.drifts}))
    assert content["models"][0]["traffic"][1] == {"version": 5, "requests": 1000, "errors": 1}
    assert content["rows"][0]["verified_age_s"] is not None and content["drifts"] is False


def test_a_prometheus_that_hangs_costs_a_second_and_says_so(site):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        site.on = replace(site.on, prometheus_url=url)
        began = time.monotonic()
        found = fleet_status(site.on)
    assert time.monotonic() - began < 3
    assert "p99 - (Prometheus did not answer" in text(found)
