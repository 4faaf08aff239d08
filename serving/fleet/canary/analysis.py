"""The verdict on a canary: a pure function of the evidence and the limits.

A canary passes only when golden questions were put to both versions often enough on every asked
host. It fails at one wrong answer, or where it is worse than its baseline by a test at a stated
level *and* by more than the limits bear. Everything between is inconclusive: wait, then stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from serving.fleet.canary.comparison import (
    TESTS,
    client_errors,
    client_latency,
    latency,
    probe_errors,
)
from serving.fleet.canary.evidence import CanaryEvidence, MemorySample, VersionEvidence
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.canary.verdict import Verdict, VerdictPart, verdict_of

LOOKS = 10
"""Looks at a watch that goes on, at most; each may stop it."""
MIN_MEMORY = 6
"""Fewest readings of one host's memory."""
_MIB = 1 << 20


def judge_canary(evidence: CanaryEvidence, limits: CanaryLimits, interim: bool = False) -> Verdict:
    """The verdict on `evidence`; `interim` for a look at a watch that goes on.

    A canary that is no worse than its baseline is stopped with a chance of at most
    `limits.error_level` over the whole watch: half of it is for the last look, half for LOOKS
    interim ones, and the TESTS tests of a look share alike (Bonferroni). Wrong answers and memory
    take no part in that: they are measured, not compared.
    """
    level = limits.error_level / 2 / TESTS / (LOOKS if interim else 1)
    return verdict_of(_findings(evidence, limits, level))


def needs_more(evidence: CanaryEvidence, limits: CanaryLimits) -> bool:
    """True while there is too little evidence for a pass; its tests are not looked at."""
    found = _findings(evidence, limits, level=0.0)
    return any(one.outcome == "inconclusive" for one in found)


def _findings(evidence: CanaryEvidence, limits: CanaryLimits, level: float) -> list[VerdictPart]:
    return [
        *_golden(evidence),
        *_enough(evidence, limits),
        probe_errors(evidence, limits, level),
        *latency(evidence, limits, level),
        *client_errors(evidence, limits, level),
        *client_latency(evidence, limits, level),
        *_memory(evidence, limits),
        *(VerdictPart("remark", sentence) for sentence in evidence.remarks),
    ]


def _golden(evidence: CanaryEvidence) -> Iterator[VerdictPart]:
    """One wrong answer is enough: a model that is right gives none."""
    for name, version in _versions(evidence):
        wrong = [
            (host, one) for host, found in version.probes.items() for one in found if one.wrong
        ]
        if not wrong:
            continue
        host, first = wrong[0]
        yield VerdictPart(
            "fail" if name == "canary" else "remark",
            f"the {name} answered {len(wrong)} of {len(version.samples)} golden questions wrong, "
            f"first on {host}: {first.fault}",
            {f"{name}_wrong": len(wrong)},
        )


def _enough(evidence: CanaryEvidence, limits: CanaryLimits) -> Iterator[VerdictPart]:
    """The least evidence of a pass."""
    if not evidence.canary.probes:
        yield VerdictPart("inconclusive", "no host was asked a golden question.")
    for name, version in _versions(evidence):
        for host in evidence.canary.probes:
            count = len(version.probes.get(host, ()))
            if count < limits.min_probes:
                yield VerdictPart(
                    "inconclusive",
                    f"{host}: {count} golden questions to the {name} in {evidence.seconds:.0f} s, "
                    f"and {limits.min_probes} are needed. A slow model needs fewer "
                    "(rollout.analysis.min_probes) or more time (rollout.analysis.wait_s).",
                )
    asked = evidence.baseline.samples if evidence.baseline else ()
    answered = sum(not sample.failed for sample in asked)
    if 2 * answered < len(asked):
        yield VerdictPart(
            "inconclusive",
            f"the baseline answered {answered} of {len(asked)} golden questions: it is no measure "
            "for the canary.",
        )


def _memory(evidence: CanaryEvidence, limits: CanaryLimits) -> Iterator[VerdictPart]:
    """Growth on each host, which one step at the start (a warm-up) does not move."""
    read = {host: one for host, one in evidence.memory.items() if len(one) >= MIN_MEMORY}
    unread = [host for host in evidence.canary.probes if host not in read]
    if unread:
        yield VerdictPart(
            "remark", f"the growth of memory was not measured on {', '.join(unread)}."
        )
    if not read:
        return
    growths = {host: _growth_mib(samples) for host, samples in read.items()}
    most = max(growths, key=lambda host: growths[host])
    seconds = read[most][-1].at_s - read[most][0].at_s
    yield VerdictPart(
        "fail" if growths[most] > limits.max_growth_mib else "pass",
        f"{most}: the memory of Triton grew by {growths[most]:.0f} MiB in {seconds:.0f} s, between "
        f"the medians of the first and the last third of {len(read[most])} readings; "
        f"{limits.max_growth_mib:g} MiB are borne.",
        {"max_growth_mib": round(growths[most], 1)},
    )


def _growth_mib(samples: Sequence[MemorySample]) -> float:
    """From the median of the first third to that of the last: no single reading moves it.

    A slope over time would not do: golden questions come in a burst first, and a leak with them.
    """
    ordered = [one.resident_bytes for one in sorted(samples, key=lambda one: one.at_s)]
    third = len(ordered) // 3
    return (median(ordered[-third:]) - median(ordered[:third])) / _MIB


def _versions(evidence: CanaryEvidence) -> list[tuple[str, VersionEvidence]]:
    baseline = [("baseline", evidence.baseline)] if evidence.baseline else []
    return [("canary", evidence.canary), *baseline]
