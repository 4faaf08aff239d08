"""Orders of people carried out by a rollout, and verdicts obeyed by it, in the simulated fleet."""

from __future__ import annotations

import threading
import time

import pytest

from conf.errors import FAILED, INTERRUPTED
from serving.fleet.canary.verdict import Verdict
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.orders import give_order
from serving.fleet.routing import Routing
from tests.serving.fleet import simulated as sim

STEPS = (10, 50, 100)


@pytest.fixture
def driver(tmp_path):
    made = sim.serving_fleet(())
    assert sim.act(made, tmp_path, "deploy", 1, "r1").kind == "done"
    made.routed.clear()
    return made


def deploy(driver, folder, judge, **options):
    return sim.act(driver, folder, "deploy", 2, "r2", judge=judge, steps=STEPS, **options)


def judge_with(at_step, outcomes=("pass", "pass", "pass")):
    """A judge whose verdicts are given; `at_step(number)` is done while it watches."""
    seen = []

    def judge(canary, baseline, hosts, seconds, poll):
        seen.append((canary, baseline))
        at_step(len(seen))
        poll()
        return Verdict(outcomes[len(seen) - 1], (f"watch {len(seen)}",))

    judge.seen = seen
    return judge


def events(folder) -> list[str]:
    return [one.event for one in Journal(folder).events() if one.rollout == "r2"]


def percents(driver) -> list[float]:
    """The shares of version 2 in turn, at the first edge."""
    (first, *_) = driver.edges
    return [
        one.percent if one.canary == 2 else 100.0 if one.version == 2 else 0.0
        for edge, one in driver.routed
        if edge == first
    ]


def settled(driver, version: int) -> None:
    assert {edge.routing for edge in driver.edges.values()} == {Routing(version)}
    assert driver.outages == []


def test_every_step_is_judged_against_the_version_in_production(driver, tmp_path):
    judge = judge_with(lambda _: None)
    assert deploy(driver, tmp_path, judge).kind == "done"
    assert judge.seen == [(2, 1)] * 3
    assert percents(driver)[-3:] == [10, 50, 100]
    verdicts = [one.content for one in Journal(tmp_path).events() if one.event == "analysis"]
    assert [(one["percent"], one["verdict"]) for one in verdicts[-3:]] == [
        (10, "pass"), (50, "pass"), (100, "pass")
    ]  # fmt: skip


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_whatever_does_not_pass_is_undone_at_any_step(driver, tmp_path, outcome, step):
    outcomes = ["pass"] * 3
    outcomes[step - 1] = outcome
    result = deploy(driver, tmp_path, judge_with(lambda _: None, outcomes))
    assert (result.kind, result.exit_code) == ("rolled-back", FAILED)
    assert f"watch {step}" in result.reason
    settled(driver, 1)


def test_an_abort_during_a_watch_undoes_everything(driver, tmp_path):
    def abort(step: int) -> None:
        if step == 2:
            give_order(tmp_path, "r2", "abort", "users complain")

    result = deploy(driver, tmp_path, judge_with(abort))
    assert (result.kind, result.exit_code) == ("rolled-back", INTERRUPTED)
    assert "users complain" in result.reason
    assert "aborted" in events(tmp_path)
    settled(driver, 1)


def test_a_paused_rollout_stays_as_it_is_until_it_is_resumed(driver, tmp_path):
    paused = threading.Event()

    def pause(step: int) -> None:
        if step == 1:
            give_order(tmp_path, "r2", "pause", "lunch")
            paused.set()

    held: list[set[Routing]] = []

    def resume() -> None:
        paused.wait(20)
        time.sleep(1.0)
        held.append({edge.routing for edge in driver.edges.values()})
        give_order(tmp_path, "r2", "resume", "")

    person = threading.Thread(target=resume)
    person.start()
    result = deploy(driver, tmp_path, judge_with(pause))
    person.join()
    assert result.kind == "done"
    assert held == [{Routing(1, 2, 10.0)}], "the edges stood still"
    assert [one for one in events(tmp_path) if one in ("paused", "resumed")] == [
        "paused", "resumed"
    ]  # fmt: skip
    settled(driver, 2)


def test_a_promoted_rollout_skips_the_steps_that_are_left(driver, tmp_path):
    def promote(step: int) -> None:
        if step == 1:
            give_order(tmp_path, "r2", "promote", "it mends the outage")

    judge = judge_with(promote, ("inconclusive", "inconclusive", "inconclusive"))
    assert deploy(driver, tmp_path, judge).kind == "done"
    assert percents(driver)[-2:] == [10, 100], "50 was left out"
    settled(driver, 2)


def test_a_step_that_needs_approval_waits_for_it(driver, tmp_path):
    journal = Journal(tmp_path)
    waiting: list[float] = []

    def approve() -> None:
        deadline = time.monotonic() + 20
        while "awaiting" not in events(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        waiting.append(percents(driver)[-1])
        give_order(tmp_path, "r2", "approve", "looks good")

    person = threading.Thread(target=approve)
    person.start()
    result = deploy(driver, tmp_path, judge_with(lambda _: None), approvals=(50,))
    person.join()
    assert result.kind == "done"
    found = [one.event for one in journal.events() if one.event in ("awaiting", "approved")]
    assert found == ["awaiting", "approved"]
    assert waiting == [10], "not a request more before it"


def test_an_order_to_an_earlier_rollout_is_not_obeyed(driver, tmp_path):
    give_order(tmp_path, "r1", "abort", "too late")
    assert deploy(driver, tmp_path, judge_with(lambda _: None)).kind == "done"
