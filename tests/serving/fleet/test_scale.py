"""`fab scale` on a simulated fleet: the number asked for, whoever is killed or unfit on the way."""

from __future__ import annotations

import re
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke import Collection, Program

from conf.errors import INCOMPLETE, REFUSED
from serving.fleet.cli import command, host_commands, scale, scale_tasks
from serving.fleet.cli.command import Controls
from serving.fleet.cli.history import history_lines, rollout_history
from serving.fleet.errors import FleetConfigError, FleetError, FleetRefusal
from serving.fleet.rollout import host_orders
from serving.fleet.rollout.host_orders import HostOrder
from serving.fleet.rollout.instances import ScaledInPart
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import Locked, hold
from serving.fleet.rollout.reserve import choose_hosts
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.triton import model_config
from tests.serving.fleet import simulated as sim

POINTS = 60
"""More than any of these orders has kill points."""


class Site:
    """Version 2 in production on four hosts of us-east and one of us-west."""

    def __init__(self, folder: Path, patched: pytest.MonkeyPatch) -> None:
        self.driver = driver = sim.serving_fleet((), 4, 1)
        self.folder, self.shown = folder, []
        config = RolloutConfig(settle_s=0, unload_timeout_s=0.3)
        self.on = Controls(driver.fleet, folder / "store", Journal(folder), config, "", folder)

        def opened(fleet, model, store, config, fence=0):
            driver.fence = max(driver.fence, fence)
            return nullcontext(driver)

        for module in (command, host_commands, scale):
            patched.setattr(module, "SshDriver", opened)
        for module in (command, scale):
            patched.setattr(
                module, "read_shipment", lambda _, model, version: sim.shipment(version)
            )
        for version in (1, 2):
            assert sim.act(driver, folder, "deploy", version, f"d{version}").kind == "done"
        driver.changes.clear()
        driver.outages.clear()
        driver.unproven.clear()

    def hosts(self, count: int, region: str = "us-east", reason: str = "") -> str:
        return scale.scale_hosts(self.on, region, count, reason, self.progress)

    def instances(self, count: int | None) -> str:
        return scale.scale_instances(self.on, "toy", count, "", self.progress)

    def progress(self, *shown: str) -> None:
        self.shown.append(shown)

    @property
    def taking(self) -> set[str]:
        machines = self.driver.machines
        return {name for name, one in machines.items() if one.edge == "ready" and name != "w0"}

    @property
    def standby(self) -> set[str]:
        return set(self.on.journal.standby())

    @property
    def counts(self) -> set[tuple[int, int]]:
        """Instances in each Triton, and after its restart."""
        return {
            (one.loaded, model_config.instances_in(one.config))
            for one in self.driver.machines.values()
        }

    def order(self, name: str, act, *more: object) -> None:
        with hold(self.folder, "host", 30) as lease:
            self.driver.fence = lease.fence
            host = self.driver.fleet.host(name)
            act(HostOrder(host, [(self.driver, 2)], self.on.journal, lease, self.progress), *more)

    def heal(self) -> object:
        return sim.act(self.driver, self.folder, "heal", 2, "healed")

    def served_well(self) -> None:
        assert self.driver.outages == [] and self.driver.unproven == []


@pytest.fixture
def folder():
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


@pytest.fixture
def site(folder, monkeypatch):
    return Site(folder, monkeypatch)


def test_hosts_go_out_drained_and_come_back_in_the_same_places(site):
    assert site.hosts(2, reason="night") == ("2 hosts take traffic in us-east: e3, e2 on standby.")
    assert site.taking == {"e0", "e1"} and site.on.journal.standby() == {
        "e2": "night",
        "e3": "night",
    }
    assert {site.driver.machines[name].edge for name in ("e2", "e3")} == {"drain"}
    assert site.hosts(3) == "3 hosts take traffic in us-east: e2 came in."
    assert site.taking == {"e0", "e1", "e2"} and site.standby == {"e3"}
    events = [one.event for one in site.on.journal.events() if one.host in ("e2", "e3")]
    assert [one for one in events if one in ("standby", "admitted")] == [
        "standby", "standby", "admitted",
    ]  # fmt: skip
    assert site.driver.machines["w0"].edge == "ready"
    site.served_well()


def test_what_is_as_ordered_is_not_touched(site):
    site.hosts(3)
    lines = len(site.on.journal.events())
    site.driver.changes.clear()
    assert site.hosts(3) == "no change: 3 hosts take traffic in us-east."
    assert site.instances(None) == "no change: every host has 1 instance of toy."
    assert site.driver.changes == [] and len(site.on.journal.events()) == lines


def test_a_plan_names_each_host_and_touches_none(site):
    site.hosts(2)
    site.driver.changes.clear()
    assert scale.plan_hosts(site.on, "us-east", 1) == ["e1: drained, on standby"]
    assert scale.plan_hosts(site.on, "us-east", 3) == [
        "e2: brought to production, proven, into traffic", "where one is not fit: e3",
    ]  # fmt: skip
    assert scale.plan_hosts(site.on, "us-east", 2) == [
        "no change: 2 hosts take traffic in us-east."
    ]
    assert scale.plan_instances(site.on, "toy", 2)[0] == "e0: 1 instance of toy, then 2"
    assert scale.plan_instances(site.on, "toy", 1) == [
        "no change: every host has 1 instance of toy."
    ]
    assert site.driver.changes == []


def test_a_host_on_standby_is_left_alone_and_brought_to_production_on_its_way_in(site):
    site.hosts(3)
    before = site.driver.machines["e3"].as_it_is()
    assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "done"
    assert site.driver.machines["e3"].as_it_is() == before
    assert site.standby == {"e3"} and site.on.journal.quarantined() == {}
    site.hosts(4)
    assert site.taking == {"e0", "e1", "e2", "e3"} and site.standby == set()
    assert site.driver.machines["e3"].answers(3)
    site.served_well()


@pytest.mark.parametrize("action", ["deploy", "heal", "rollback"])
def test_a_rollout_takes_a_host_out_that_a_killed_order_left_in(site, action):
    site.on.journal.record("standby", "host-9", host="e3", reason="night")
    version = {"deploy": 3, "heal": 2, "rollback": 1}[action]
    assert sim.act(site.driver, site.folder, action, version, "next").exit_code == 0
    assert site.driver.machines["e3"].edge == "maint"
    assert site.standby == {"e3"} and site.on.journal.quarantined() == {}


def person(site, name, act) -> None:
    site.order(name, act, "a person's reason")


@pytest.mark.parametrize(
    ("count", "region", "error", "sentence"),
    [
        (0, "us-east", FleetRefusal, "keeps one host in traffic.*fab scale --hosts 1 --region"),
        (
            5,
            "us-east",
            FleetRefusal,
            r"4 hosts in traffic and 0 on standby: 4 at most.*fab add HOST",
        ),
        (2, "us-north", FleetConfigError, "--region=us-north: the fleet has us-east, us-west"),
        (2, "", FleetConfigError, "--region=none"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_what_to_type(site, count, region, error, sentence):
    with pytest.raises(error, match=sentence):
        site.hosts(count, region)
    assert site.driver.changes == []


@pytest.mark.parametrize("act", [host_orders.quarantine, host_orders.drain])
def test_a_host_that_a_person_took_out_is_never_brought_in(site, act):
    person(site, "e3", act)
    with pytest.raises(FleetRefusal, match=r"3 hosts in traffic and 0 on standby.*reason: e3 \("):
        site.hosts(4)
    assert site.hosts(3).startswith("no change"), "and counts as none that takes traffic"
    site.hosts(2)
    person(site, "e2", act)  # a person's word about a host on standby
    with pytest.raises(FleetRefusal, match="2 hosts in traffic and 0 on standby"):
        site.hosts(3)


def test_the_last_host_that_answers_stays_in_traffic(site):
    for name in ("e0", "e1", "e2"):
        site.driver.machines[name].alive = False
    with pytest.raises(FleetRefusal, match="e3 is the last host of us-east"):
        site.hosts(3)
    assert site.driver.machines["e3"].edge == "ready" and site.standby == set()


def test_an_edge_that_does_not_answer_leaves_all_as_it_is(site):
    site.driver.edges["us-east"].reachable = False
    with pytest.raises(FleetError, match="an edge of us-east does not answer"):
        site.hosts(2)
    assert site.driver.changes == [] and site.standby == set()


@pytest.mark.parametrize("fault", ["answers wrong", "unreachable", "Triton is down for good"])
def test_a_host_that_is_not_fit_stays_out_and_the_next_one_comes_in(site, fault):
    site.hosts(2)
    machine = site.driver.machines["e2"]
    if fault == "answers wrong":
        machine.dead = machine.doomed = {2}
    elif fault == "unreachable":
        machine.reachable = False
    else:
        machine.alive, machine.doomed = False, {2}
    with pytest.raises(
        ScaledInPart,
        match=r"3 hosts take traffic in us-east, 3 are ordered.*Not fit, and out of it: e2",
    ) as raised:
        site.hosts(3)
    assert raised.value.exit_code == INCOMPLETE
    assert site.taking == {"e0", "e1", "e3"} and machine.edge != "ready"
    with pytest.raises((ScaledInPart, FleetRefusal)):
        site.hosts(4)
    assert site.taking == {"e0", "e1", "e3"}
    site.served_well()


def test_a_host_whose_edge_never_sees_it_up_does_not_stay_half_in(site, monkeypatch):
    site.hosts(3)
    set_edge = site.driver.set_edge

    def late(host, state):
        set_edge(host, state)
        raise FleetError(f"{host.name} is not up at its edge after 120 s.")

    monkeypatch.setattr(site.driver, "set_edge", late)
    with pytest.raises(ScaledInPart, match="e3: e3 is not up at its edge"):
        site.hosts(4)
    assert site.driver.machines["e3"].edge == "maint" and site.standby == {"e3"}


def test_a_host_that_a_person_takes_out_meanwhile_is_not_brought_in(site, monkeypatch):
    site.hosts(2)
    healed = scale.healed

    def quarantined_meanwhile(on, host, *more):
        if host == "e2":
            person(site, "e2", host_orders.quarantine)
        return healed(on, host, *more)

    monkeypatch.setattr(scale, "healed", quarantined_meanwhile)
    with pytest.raises(ScaledInPart, match="e2 is not on standby any more"):
        site.hosts(3)
    assert site.taking == {"e0", "e1", "e3"} and "e2" in site.on.journal.quarantined()


def test_a_running_rollout_keeps_scale_out_by_the_lock(site):
    with hold(site.folder, "deploy toy/3", 30):
        for act in (lambda: site.hosts(2), lambda: site.instances(2)):
            with pytest.raises(Locked, match="deploy toy/3"):
                act()
    assert site.driver.changes == []


def test_an_open_rollout_is_ended_first(site):
    site.driver.arm(12, kill=True)
    with pytest.raises(sim.Killed):
        sim.act(site.driver, site.folder, "deploy", 3, "killed")
    site.driver.arm(None)
    for act in (lambda: site.hosts(2), lambda: site.instances(2)):
        with pytest.raises(FleetRefusal, match="fab rollback --model toy") as raised:
            act()
        assert raised.value.exit_code == REFUSED
    assert sim.act(site.driver, site.folder, "deploy", 3, "again").kind == "done"
    assert site.hosts(3).endswith("e3 on standby.")


def test_every_host_has_the_instances_and_later_versions_keep_them(site):
    assert site.instances(3) == "3 instances of toy on each of 5 hosts; 5 were changed."
    assert site.counts == {(3, 3)} and site.on.journal.instances("toy") == 3
    assert "drain" not in {one.split()[0] for one in site.driver.changes}
    assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "done"
    assert site.counts == {(3, 3)}
    assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "unchanged"
    assert sim.act(site.driver, site.folder, "rollback", 2, "r2").kind == "done"
    assert site.counts == {(3, 3)}
    assert site.instances(None) == "1 instance of toy on each of 5 hosts; 5 were changed."
    assert site.counts == {(1, 1)} and site.on.journal.instances("toy") is None
    site.served_well()


@pytest.mark.parametrize("loaded", [1, 2])
def test_a_heal_gives_back_the_instances_that_a_host_lost(site, loaded):
    site.instances(2)
    machine = site.driver.machines["e1"]
    machine.scaled, machine.loaded = None, loaded
    machine.config = model_config.with_instances(machine.config, 1)
    assert site.heal().hosts == ("e1",)
    assert site.counts == {(2, 2)}
    assert site.heal().kind == "unchanged"
    site.served_well()


def test_a_host_on_standby_gets_the_instances_when_it_comes_in(site):
    site.hosts(3)
    site.instances(2)
    assert site.driver.machines["e3"].loaded == 1
    site.hosts(4)
    assert site.counts == {(2, 2)}


@pytest.mark.parametrize("count", [0, 65, -1])
def test_a_number_of_instances_out_of_bounds_is_refused(site, count):
    with pytest.raises(FleetConfigError, match="1 to 64, or default"):
        site.instances(count)
    assert site.driver.changes == []


def test_more_instances_than_one_host_takes_are_refused_before_any_has_them(site):
    site.driver.machines["w0"].max_instances = 2
    with pytest.raises(FleetRefusal, match="w0 takes 2 instances of a model at most"):
        site.instances(3)
    assert site.driver.changes == [] and site.on.journal.instances("toy") is None
    assert site.instances(2).startswith("2 instances")


def test_where_a_host_fails_all_go_back_to_the_number_before(site):
    site.instances(2)
    site.driver.arm(8)  # the third host's serve
    with pytest.raises(FleetError, match="serve failed Every host has as many") as raised:
        site.instances(4)
    assert not isinstance(raised.value, ScaledInPart)
    assert site.counts == {(2, 2)} and site.on.journal.instances("toy") == 2
    site.served_well()


def test_a_host_that_cannot_be_reached_is_named_and_healed_later(site):
    site.driver.machines["e1"].reachable = False
    with pytest.raises(ScaledInPart, match=r"not on e1: e1 does not answer.*fab heal --model toy"):
        site.instances(2)
    assert site.driver.machines["e2"].loaded == 2
    site.driver.machines["e1"].reachable = True
    site.heal()
    assert site.counts == {(2, 2)}


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


def test_a_host_that_a_killed_order_left_in_traffic_comes_in_first():
    region = sim.fleet(4, 0).regions[0]
    edges = {"e0": "ready", "e1": "drain", "e2": "ready", "e3": "drain"}
    moves = choose_hosts(region, 2, edges, {"e1", "e2", "e3"}, ())
    assert [host.name for host in moves.reserve[: moves.missing]] == ["e2"] and moves.out == ()


NAMES = st.sets(st.sampled_from(["e0", "e1", "e2", "e3"]))


@given(
    wanted=st.integers(-1, 6),
    edges=st.fixed_dictionaries(
        {f"e{n}": st.sampled_from(["ready", "drain", "maint"]) for n in range(4)}
    ),
    standby=NAMES,
    quarantined=NAMES,
)
def test_the_choice_gives_the_number_and_takes_nobody_else(wanted, edges, standby, quarantined):
    standby = standby - quarantined  # the journal's last word about a host is one
    region = sim.fleet(4, 0).regions[0]
    others = {name for name, edge in edges.items() if edge != "ready" and name not in standby}
    try:
        moves = choose_hosts(region, wanted, edges, standby, quarantined)
    except FleetRefusal:
        most = len(set(edges) - others - quarantined)
        assert wanted < 1 or wanted > most
        return
    out, into = {h.name for h in moves.out}, {h.name for h in moves.reserve[: moves.missing]}
    ready = {name for name, edge in edges.items() if edge == "ready"} - quarantined
    assert len((ready - out) | into) == wanted >= 1
    assert not out & into and into <= standby
    assert not (out | into) & (others | quarantined)


def test_history_has_who_scaled_what_and_why(site):
    site.hosts(3, reason="night")
    site.instances(2)
    lines = history_lines(rollout_history(site.on, None, "2"))
    assert re.search(r"scaled +toy 2 +ordered .*scale-\d+\n +2 instances$", lines[0])
    assert re.search(r"standby +e3 +ordered .*host-\d+\n +night$", lines[1])
    assert [row.action for row in rollout_history(site.on, "toy", "2")] == ["scaled", "deploy"]


def typed(*words: str) -> int:
    """The exit code of `fab scale` with these words, as invoke has it."""
    try:
        Program(namespace=Collection(scale_tasks.scale)).run(["fab", "scale", *words])
    except SystemExit as ended:
        return ended.code
    return 0


def test_the_commands_of_the_guide_do_what_it_says(site, monkeypatch, capsys):
    monkeypatch.setattr(command, "controls", lambda config: site.on)
    night = ("--hosts", "3", "--region", "us-east", "--reason", "night")
    for words in (night, ("--model", "toy", "--instances", "2")):
        assert typed(*words, "--plan") == 0
    assert site.driver.changes == []
    assert typed(*night) == typed("--model", "toy", "--instances", "2") == 0
    assert site.taking == {"e0", "e1", "e2"} and site.driver.machines["e0"].loaded == 2
    assert typed(*night) == typed("--model", "toy", "--instances", "default") == 0
    assert typed("--hosts", "5", "--region", "us-east") == REFUSED
    site.driver.machines["e3"].dead = site.driver.machines["e3"].doomed = {2}
    assert typed("--hosts", "4", "--region", "us-east") == INCOMPLETE
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "e3: drained, on standby"
    assert any(re.fullmatch(r" +\d+\.\d s  e3 +standby +night", line) for line in out)
    assert "no change: 3 hosts take traffic in us-east." in out
    assert "1 instance of toy on each of 4 hosts; 4 were changed." in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "takes one of --instances and --hosts"),
        (["--hosts", "2", "--instances", "2"], "takes one of --instances and --hosts"),
        (["--hosts", "two", "--region", "us-east"], "--hosts with a number, not two"),
        (["--hosts", "-1", "--region", "us-east"], "--hosts with a number, not -1"),
        (["--instances", "1e3", "--model", "toy"], "--instances with a number, not 1e3"),
    ],
)
def test_words_that_are_no_order_are_refused_with_what_to_type(
    words, sentence, monkeypatch, capsys
):
    monkeypatch.setattr(command, "controls", lambda config: None)
    code, said = typed(*words), capsys.readouterr().err
    assert code == 2 and sentence in said and "Type: fab scale --hosts 2" in said
