"""The verdict on a canary as a law: what it stops, what it lets pass, and how often it errs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf import compose
from conf.errors import ConfigError
from conf.schema import from_config
from serving.fleet.canary.analysis import LOOKS, judge_canary, needs_more
from serving.fleet.canary.evidence import (
    CanaryEvidence,
    MemorySample,
    ProbeSample,
    PrometheusCounts,
    PrometheusReading,
    VersionEvidence,
)
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.canary.significance import (
    binomial_greater,
    fisher_greater,
    mann_whitney_greater,
)
from serving.fleet.routing import VersionCounters

LIMITS = CanaryLimits(min_probes=20, min_requests=50)
RANK = {"pass": 0, "inconclusive": 1, "fail": 2}
MIB = 1 << 20


def probes(seconds, failed: int = 0, wrong: int = 0) -> tuple[ProbeSample, ...]:
    found = [ProbeSample(float(one)) for one in seconds]
    found += [ProbeSample(1.0, "500.")] * failed + [ProbeSample(0.01, "y is off.", True)] * wrong
    return tuple(found)


def version(samples, requests: tuple[int, int] | None = None) -> VersionEvidence:
    return VersionEvidence({"a": samples}, VersionCounters(*requests) if requests else None)


def evidence(canary, baseline=None, **more) -> CanaryEvidence:
    usual = probes([0.01] * 40)
    return CanaryEvidence(
        version(canary, more.pop("canary_requests", None)),
        version(usual if baseline is None else baseline, more.pop("baseline_requests", None)),
        seconds=10.0, **more,
    )  # fmt: skip


GOOD = probes([0.01, 0.011] * 20)


@pytest.mark.parametrize(
    ("found", "outcome", "sentence"),
    [
        (evidence(GOOD), "pass", "0 of 40 golden questions"),
        (evidence(probes([0.01] * 200, wrong=1)), "fail", "1 of 201 golden questions wrong"),
        (evidence(probes([0.51] * 40)), "fail", "took over 510.0 ms, of the baseline's"),
        (evidence(probes([0.01] * 20 + [0.5] * 20)), "fail", "20 of 40 golden answers"),
        (evidence(probes([0.025] * 40)), "pass", "30.0 ms are borne"),
        (evidence(probes([0.01] * 20, failed=20)), "fail", "failed 20 of 40 golden questions"),
        (evidence(probes([0.01] * 39, failed=1)), "pass", "failed 1 of 40 golden questions"),
        (evidence(probes([0.01] * 19)), "inconclusive", "19 golden questions to the canary"),
        (evidence(()), "inconclusive", "0 golden questions"),
        (evidence(GOOD, probes([0.01] * 19)), "inconclusive", "questions to the baseline"),
        (evidence(GOOD, probes([], failed=40)), "inconclusive", "it is no measure"),
        (evidence(GOOD, canary_requests=(400, 40), baseline_requests=(4000, 4)), "fail",
         "failed 40 of 400 requests of clients, the baseline 4 of 4000"),
        (evidence(GOOD, canary_requests=(400, 0), baseline_requests=(4000, 4)), "pass",
         "failed 0 of 400 requests of clients"),
        (evidence(GOOD, canary_requests=(400, 40), baseline_requests=(0, 0)), "fail",
         "1.00% are borne (binomial"),
        (evidence(GOOD, canary_requests=(3, 0)), "pass", "the canary got 3"),
        (evidence(GOOD, remarks=("host b is away.",)), "pass", "host b is away."),
        (CanaryEvidence(VersionEvidence()), "inconclusive", "no host was asked"),
        (CanaryEvidence(version(GOOD)), "pass", "without a baseline"),
        (CanaryEvidence(version(probes([1] * 20, failed=20))), "fail", "1.00% are borne"),
    ],
)  # fmt: skip
def test_a_verdict_says_why_in_numbers(found, outcome, sentence):
    verdict = judge_canary(found, LIMITS)
    assert verdict.outcome == outcome, verdict
    assert any(sentence in reason for reason in verdict.reasons), verdict.reasons
    assert json.loads(json.dumps(verdict.as_json(), allow_nan=False))["verdict"] == outcome


def test_where_clients_are_wanted_their_absence_is_inconclusive():
    strict = replace(LIMITS, require_traffic=True)
    quiet = evidence(GOOD, canary_requests=(3, 0), baseline_requests=(300, 0))
    assert judge_canary(quiet, strict).outcome == "inconclusive" and needs_more(quiet, strict)
    busy = evidence(GOOD, canary_requests=(50, 0), baseline_requests=(300, 0))
    assert judge_canary(busy, strict).outcome == "pass" and not needs_more(busy, strict)


@pytest.mark.parametrize(
    ("mib", "outcome"),
    [
        (range(100, 300, 20), "fail"),  # 180 MiB in steps
        ([100, *[280] * 9], "pass"),  # once, at the start: a warm-up
        ([100] * 10, "pass"),
        ([300, *range(100, 120)], "pass"),
    ],
)
def test_memory_that_grows_steadily_is_a_leak(mib, outcome):
    samples = tuple(MemorySample(float(n), one * MIB) for n, one in enumerate(mib))
    found = evidence(GOOD, memory={"a": samples})
    assert judge_canary(found, LIMITS).outcome == outcome


def test_memory_that_was_not_read_is_said():
    reasons = judge_canary(evidence(GOOD), LIMITS).reasons
    assert "the growth of memory was not measured on a." in reasons


def reading(slow: int, total: int = 1000, baseline_slow: int = 2) -> PrometheusReading:
    def counts(slow: int) -> PrometheusCounts:
        return PrometheusCounts(total, 0, {0.1: total - slow, 0.2: total - slow, 1.0: total})

    return PrometheusReading(counts(slow), counts(baseline_slow))


@pytest.mark.parametrize(
    ("found", "outcome", "sentence"),
    [
        (reading(100), "fail", "100 of 1000 requests of clients to the canary failed or took over"),
        (reading(3), "pass", "3 of 1000"),
        (reading(10, total=10), "pass", "Prometheus was no judge: it has 10 requests"),
        (PrometheusReading(problem="it did not answer in 2 s"), "pass", "no judge: it did not"),
        (PrometheusReading(), "pass", "no judge: it has no requests of both versions"),
    ],
)
def test_prometheus_may_condemn_and_its_silence_is_said(found, outcome, sentence):
    verdict = judge_canary(evidence(GOOD, prometheus=found), LIMITS)
    assert verdict.outcome == outcome
    assert any(sentence in reason for reason in verdict.reasons), verdict.reasons


NO_BOUND = CanaryLimits(
    min_probes=20, max_latency_ratio=1.0, latency_allowance_ms=0.0, error_level=0.2
)
"""Without what is borne in practice: the tests alone decide."""


def draw(random: np.random.Generator, count: int) -> tuple[ProbeSample, ...]:
    """Long-tailed latencies of a busy host, of which some have no answer."""
    seconds = np.exp(random.normal(-4, 1, count))
    failed = random.random(count) < 0.05
    return tuple(ProbeSample(s, "500." if f else "") for s, f in zip(seconds, failed, strict=True))


def watch(random: np.random.Generator, slower: float = 1.0) -> bool:
    """Whether a canary of the baseline's distribution times `slower` is stopped in a watch."""
    canary, baseline = draw(random, 320), draw(random, 320)
    canary = tuple(replace(one, seconds=one.seconds * slower) for one in canary)
    rates = random.binomial([300, 3000], 0.02)
    for look, count in enumerate((20, 40, 80, 160, 320)):
        found = evidence(
            canary[:count], baseline[:count],
            canary_requests=(300, int(rates[0])), baseline_requests=(3000, int(rates[1])),
        )  # fmt: skip
        if judge_canary(found, NO_BOUND, interim=look < 4).outcome == "fail":
            return True
    return False


def test_a_canary_that_is_its_baselines_equal_is_stopped_no_more_often_than_stated():
    random = np.random.default_rng(7)
    runs = 400
    stopped = sum(watch(random) for _ in range(runs))
    # 0.2 is stated; five standard deviations above it would be chance in 1 of 3 million runs
    assert stopped <= runs * 0.2 + 5 * math.sqrt(runs * 0.2 * 0.8)
    assert stopped < runs * 0.2, "Bonferroni is careful"


def test_a_canary_that_is_twice_as_slow_is_stopped_nearly_always():
    random = np.random.default_rng(8)
    assert sum(watch(random, slower=2.0) for _ in range(50)) >= 48


@st.composite
def drawn_probes(draw_, of=(0.01, 0.02, 0.04, 0.5)) -> tuple[ProbeSample, ...]:
    """A few latencies, each some times, and questions without an answer."""
    found = [one for one in of for _ in range(draw_(st.integers(0, 20)))]
    return probes([0.015] * 6 + found, failed=draw_(st.integers(0, 12)))


SAMPLES = drawn_probes()
COUNTS = st.tuples(st.integers(0, 500), st.integers(0, 500)).map(lambda c: (max(c), min(c)))


@st.composite
def found_evidence(draw_):
    memory = draw_(st.lists(st.integers(0, 400), max_size=12))
    return evidence(
        draw_(SAMPLES), draw_(SAMPLES),
        canary_requests=draw_(COUNTS), baseline_requests=draw_(COUNTS),
        memory={"a": tuple(MemorySample(float(n), m * MIB) for n, m in enumerate(memory))},
    )  # fmt: skip


@st.composite
def worse(draw_, one: CanaryEvidence) -> CanaryEvidence:
    """The same evidence, in one place worse for the canary."""
    how = draw_(st.sampled_from(["slower", "failed", "wrong", "errors", "memory"]))
    samples, requests = list(one.canary.samples), one.canary.requests
    place = draw_(st.integers(0, len(samples) - 1))
    memory = dict(one.memory)
    if how == "slower":
        by = draw_(st.floats(0.0, 5.0))
        samples[place] = replace(samples[place], seconds=samples[place].seconds + by)
    elif how == "failed":
        samples[place] = ProbeSample(0.001, "500.")  # at once: no better for that
    elif how == "wrong":
        samples[place] = replace(samples[place], fault="y is off.", wrong=True)
    elif how == "errors":
        requests = VersionCounters(requests.requests, min(requests.requests, requests.errors + 3))
    elif memory["a"]:
        last = memory["a"][-1]
        memory["a"] = (*memory["a"][:-1], replace(last, resident_bytes=last.resident_bytes * 2))
    return replace(one, canary=VersionEvidence({"a": tuple(samples)}, requests), memory=memory)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), one=found_evidence(), interim=st.booleans())
def test_worse_evidence_never_turns_a_verdict_for_the_canary(data, one, interim):
    changed = data.draw(worse(one))
    before, after = (judge_canary(each, LIMITS, interim) for each in (one, changed))
    assert RANK[after.outcome] >= RANK[before.outcome], (before, after)


@pytest.mark.parametrize("slow", range(0, 41, 2))
def test_a_question_that_fails_at_once_is_no_faster_for_it(slow):
    """Slow answers that become none, one after another, never help: at any number of slow ones."""
    ranks = []
    for failed in range(slow + 1):
        samples = [0.01] * (40 - slow) + [0.5] * (slow - failed)
        at_once = tuple(ProbeSample(0.0001, "500.") for _ in range(failed))
        ranks.append(RANK[judge_canary(evidence(probes(samples) + at_once), LIMITS).outcome])
    assert ranks == sorted(ranks)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), one=found_evidence())
def test_the_order_of_samples_is_no_evidence(data, one):
    canary = data.draw(st.randoms()).sample(one.canary.samples, len(one.canary.samples))
    baseline = data.draw(st.randoms()).sample(one.baseline.samples, len(one.baseline.samples))
    shuffled = replace(
        one,
        canary=replace(one.canary, probes={"a": tuple(canary)}),
        baseline=replace(one.baseline, probes={"a": tuple(baseline)}),
    )
    assert judge_canary(shuffled, LIMITS).outcome == judge_canary(one, LIMITS).outcome
    assert judge_canary(shuffled, LIMITS).numbers == judge_canary(one, LIMITS).numbers


@settings(max_examples=200, deadline=None)
@given(one=found_evidence(), more=st.integers(1, 100))
def test_nothing_passes_with_fewer_questions_than_wanted(one, more):
    wanted = min(len(one.canary.samples), len(one.baseline.samples)) + more
    limits = replace(LIMITS, min_probes=wanted)
    assert judge_canary(one, limits).outcome != "pass"
    assert needs_more(one, limits)


PART = st.integers(1, 120).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))
"""So many of so many."""


@settings(max_examples=300, deadline=None)
@given(PART, PART)
def test_fishers_test_is_the_sum_over_all_tables(part, baseline_part):
    (bad, of), (baseline_bad, baseline_of) = part, baseline_part
    whole, all_bad = of + baseline_of, bad + baseline_bad
    ways = sum(
        math.comb(of, x) * math.comb(baseline_of, all_bad - x)
        for x in range(bad, min(of, all_bad) + 1)
    )
    expected = ways / math.comb(whole, all_bad)
    assert fisher_greater(bad, of, baseline_bad, baseline_of) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(PART, st.floats(0.0001, 0.9999))
def test_the_binomial_test_is_the_sum_over_all_counts(part, rate):
    bad, of = part
    expected = sum(math.comb(of, x) * rate**x * (1 - rate) ** (of - x) for x in range(bad, of + 1))
    assert binomial_greater(bad, of, rate) == pytest.approx(expected, abs=1e-9)


def test_tests_of_millions_of_requests_take_no_time():
    assert fisher_greater(600, 10**6, 400, 10**6) == pytest.approx(1.3505e-10, rel=1e-3)
    assert fisher_greater(400_000, 10**6, 400_000, 10**6) > 0.4


def test_the_rank_test_agrees_with_the_paper_and_is_careful_with_ties():
    # Complete separation of two samples of eight: the exact chance is 1 / C(16, 8) = 0.000078.
    assert mann_whitney_greater(range(8, 16), range(8)) == pytest.approx(0.0005, abs=0.0002)
    assert mann_whitney_greater([1.0] * 50, [1.0] * 50) >= 0.5
    assert mann_whitney_greater([math.inf] * 20, [1.0] * 20) < 1e-6


@pytest.mark.parametrize(
    "changes",
    [{"min_probes": 0}, {"probe_share": 1.5}, {"error_level": 1.0}, {"max_latency_ratio": 0.5},
     {"wait_s": -1.0}, {"hosts": 0}, {"min_probe": 3}],
)  # fmt: skip
def test_limits_that_cannot_be_are_refused_by_their_key(changes):
    with pytest.raises(ConfigError, match=rf"rollout\.analysis\.{next(iter(changes))}"):
        from_config(CanaryLimits, changes, "rollout.analysis")


def test_the_config_has_the_limits_that_the_code_has_without_one():
    assert from_config(CanaryLimits, compose("rollout").rollout.analysis, "r") == CanaryLimits()


def test_the_looks_of_a_watch_double():
    assert 12 * 2 ** (LOOKS - 1) > 5_000, "LOOKS are enough for hours"
