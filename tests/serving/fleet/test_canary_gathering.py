"""The watch on a canary, over a fleet in memory: how long, how often, when it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from serving.fleet.canary.evidence import ProbeSample
from serving.fleet.canary.gathering import gather, probed_hosts
from serving.fleet.canary.judge import probing_judge
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.errors import Unreachable
from serving.fleet.inventory import Host
from serving.fleet.routing import VersionCounters

A, B = Host("a", "127.0.0.1", "us-east", 1), Host("b", "127.0.0.2", "us-west", 1)
OLD, NEW = 1, 2
LIMITS = CanaryLimits(min_probes=30, probe_share=1.0, wait_s=1.0, min_requests=10)


@dataclass
class Answers:
    """A fleet whose version NEW is `slower_s` slower, wrong after `wrong_after` questions, ..."""

    slower_s: float = 0.0
    wrong_after: int = 10**9
    fails_after: int = 10**9
    leak_bytes: int = 0
    lost: frozenset[str] = frozenset()
    edges_away: bool = False
    memory: bool = True
    asked: list[tuple[str, int]] = field(default_factory=list)

    def count(self, host: Host, version: int) -> int:
        return self.asked.count((host.name, version))

    def probe(self, host: Host, version: int) -> ProbeSample:
        if host.name in self.lost:
            raise Unreachable(f"{host.name} does not answer SSH.")
        self.asked.append((host.name, version))
        seconds = 0.002 + (self.slower_s if version == NEW else 0)
        time.sleep(seconds)
        if version == NEW and self.count(host, NEW) > self.fails_after:
            time.sleep(0.03)  # a dead stub is slow to say so
            return ProbeSample(seconds, "500.")
        if version == NEW and self.count(host, NEW) > self.wrong_after:
            return ProbeSample(seconds, "y is off by 1.", wrong=True)
        return ProbeSample(seconds)

    def counters(self) -> dict[int, VersionCounters]:
        if self.edges_away:
            raise Unreachable("the edge of us-east does not answer.")
        sofar = len(self.asked)
        return {OLD: VersionCounters(1000 + 10 * sofar, 7), NEW: VersionCounters(sofar, 0)}

    def memory_bytes(self, host: Host) -> int | None:
        return (100 << 20) + self.leak_bytes * len(self.asked) if self.memory else None


def judge(fleet: Answers, seconds: float = 0.5, limits: CanaryLimits = LIMITS, **options):
    hosts = options.pop("hosts", (A, B))
    return probing_judge(fleet, limits)(NEW, OLD, hosts, seconds, options.pop("poll", lambda: None))


def test_an_equal_canary_passes_after_the_time_and_no_sooner():
    fleet, began = Answers(), time.monotonic()
    verdict = judge(fleet)
    assert verdict.outcome == "pass", verdict
    assert 0.5 <= time.monotonic() - began < 1.5
    assert min(fleet.count(host, one) for host in (A, B) for one in (OLD, NEW)) >= 30


def test_both_versions_are_asked_in_turn_and_each_is_first_as_often():
    fleet = Answers()
    gather(fleet, (A,), NEW, OLD, 0.3, LIMITS)
    order = [version for _, version in fleet.asked]
    pairs = [tuple(order[n : n + 2]) for n in range(0, len(order) - 1, 2)]
    assert set(pairs) == {(NEW, OLD), (OLD, NEW)}
    assert all(one != following for one, following in pairwise(pairs))


@pytest.mark.parametrize(
    ("fleet", "sentence", "most_asked"),
    [
        (Answers(slower_s=0.05), "half of the canary's golden answers", 40),
        (Answers(wrong_after=20), "golden questions wrong", 45),
        (Answers(fails_after=5), "500.", 60),
    ],
)
def test_a_bad_canary_is_stopped_long_before_the_time(fleet, sentence, most_asked):
    began = time.monotonic()
    verdict = judge(fleet, seconds=30)
    assert verdict.outcome == "fail"
    assert any(sentence in reason for reason in verdict.reasons)
    assert time.monotonic() - began < 5
    assert fleet.count(A, NEW) + fleet.count(B, NEW) <= most_asked


def test_one_that_turns_wrong_after_sixty_questions_is_found_without_any_client():
    limits = CanaryLimits(probe_share=1.0)
    assert limits.min_probes > 60
    verdict = judge(Answers(wrong_after=60), seconds=0.0, limits=limits)
    assert verdict.outcome == "fail"


def test_a_leak_is_found():
    verdict = judge(Answers(leak_bytes=4 << 20))
    assert verdict.outcome == "fail"
    assert any("memory of Triton grew by" in reason for reason in verdict.reasons)


def test_too_little_evidence_is_waited_for_and_then_inconclusive():
    limits = CanaryLimits(min_probes=500, probe_share=1.0, wait_s=1.0)
    began = time.monotonic()
    verdict = judge(Answers(slower_s=0.01), seconds=0.2, limits=limits)
    assert verdict.outcome == "inconclusive"
    assert 1.2 <= time.monotonic() - began < 2.5
    assert any("500 are needed" in reason for reason in verdict.reasons)


def test_the_wait_ends_with_the_evidence():
    limits = CanaryLimits(min_probes=100, probe_share=1.0, wait_s=30.0)
    began = time.monotonic()
    assert judge(Answers(), seconds=0.0, limits=limits).outcome == "pass"
    assert time.monotonic() - began < 5


def test_a_host_that_is_lost_is_named_and_nothing_passes_without_it():
    verdict = judge(Answers(lost=frozenset("b")))
    assert verdict.outcome == "inconclusive"
    assert any("b does not answer SSH" in reason for reason in verdict.reasons)
    began = time.monotonic()
    assert judge(Answers(lost=frozenset("ab")), seconds=30).outcome == "inconclusive"
    assert time.monotonic() - began < 5, "nobody is left to wait for"


def test_a_version_that_passed_a_step_is_asked_less_at_the_next():
    fleet = Answers()
    judge = probing_judge(fleet, replace(LIMITS, later_probes=10))
    for most in (30 + 3, 10 + 3):
        fleet.asked.clear()
        assert judge(NEW, OLD, (A,), 0.0, lambda: None).outcome == "pass"
        assert fleet.count(A, NEW) <= most + 15, "a tick after its least"
        assert fleet.count(A, NEW) >= most - 3


def test_edges_and_memory_that_cannot_be_read_are_said_and_stop_nothing():
    verdict = judge(Answers(edges_away=True, memory=False))
    assert verdict.outcome == "pass"
    said = " ".join(verdict.reasons)
    assert "counters were not read: the edge of us-east" in said
    assert "memory was not measured on a, b" in said


def test_requests_are_counted_from_the_start_of_the_watch():
    found = gather(Answers(asked=[("x", NEW)] * 500), (A,), NEW, OLD, 0.2, LIMITS)
    asked = len(found.canary.samples) + len(found.baseline.samples)
    assert found.canary.requests == VersionCounters(asked, 0)
    assert found.baseline.requests == VersionCounters(10 * asked, 0)


def test_without_a_baseline_the_canary_alone_is_asked():
    fleet = Answers()
    verdict = probing_judge(fleet, LIMITS)(NEW, None, (A,), 0.2, lambda: None)
    assert verdict.outcome == "pass"
    assert {version for _, version in fleet.asked} == {NEW}


def test_who_stops_the_watch_is_heard_at_once():
    class Stopped(Exception):
        pass

    fleet = Answers()

    def poll() -> None:
        if len(fleet.asked) > 10:
            raise Stopped

    began = time.monotonic()
    with pytest.raises(Stopped):
        judge(fleet, seconds=30, poll=poll)
    assert time.monotonic() - began < 2
    asked = len(fleet.asked)
    time.sleep(0.1)
    assert len(fleet.asked) == asked, "nobody asks on behind its back"


def test_the_share_of_a_hosts_time_is_kept():
    limits = CanaryLimits(min_probes=10_000, probe_share=0.1, wait_s=0.0)
    found = gather(Answers(), (A,), NEW, OLD, 1.0, limits)
    busy = sum(one.seconds for one in (*found.canary.samples, *found.baseline.samples))
    assert busy <= 0.15 * found.seconds


def test_after_its_least_questions_a_host_is_asked_no_more_than_a_pair_a_second():
    fleet = Answers()
    gather(fleet, (A,), NEW, OLD, 2.0, LIMITS)
    assert 30 <= fleet.count(A, NEW) <= 30 + 3


def test_hosts_of_every_region_are_asked():
    hosts = [Host(f"e{n}", f"10.0.0.{n}", "us-east", 1) for n in range(5)]
    hosts += [Host("w0", "10.0.1.0", "us-west", 1), Host("c0", "10.0.2.0", "us-central", 1)]
    assert [host.name for host in probed_hosts(hosts, 4)] == ["e0", "w0", "c0", "e1"]
    assert probed_hosts(hosts[:1], 4) == (hosts[0],)
